"""ATSS: one anchor per cell, adaptive selection of positives, centerness (arXiv 1912.02424).

Boxes are anchor deltas, as published, or, to be distilled by LD, distributions over R+1 bins per edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ld_hub.assigners import ATSSAssigner
from ld_hub.checked import Scalar
from ld_hub.layers.coders import DeltaCoder, DistributionCoder
from ld_hub.layers.fpn import FPN
from ld_hub.layers.postprocess import PostprocessConfig
from ld_hub.layers.towers import PRIOR_BIAS, Scale, TowerHead, predictor
from ld_hub.losses import CenternessCriterion
from ld_hub.models.checkpoints.key_maps import head_names, register_key_map
from ld_hub.models.checkpoints.weights import published
from ld_hub.models.detector import DenseDetector
from ld_hub.models.detector_config import STRIDES, DetectorConfig, LevelShapes
from ld_hub.ops.grids import square_anchor_grid
from ld_hub.papers import Paper, register_paper
from ld_hub.registry import MODELS, Distilled, ModelEntry
from ld_hub.structures import BoxCoder, HeadMaps, Priors

PAPER = register_paper(
    Paper(
        "1912.02424",
        "zhang2020atss",
        "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample Selection",
        "Zhang, Shifeng and Chi, Cheng and Yao, Yongqiang and Lei, Zhen and Li, Stan Z.",
        2020,
        "CVPR",
    )
)
POSTPROCESS = {  # as the code bases whose weights have these boxes: OpenMMLab's and LD's
    "delta": PostprocessConfig(prefilter="pair"),
    "bins": PostprocessConfig(),
}


@dataclass(frozen=True)
class ATSSConfig(DetectorConfig):
    """Structure of an ATSS detector.

    Attributes:
        boxes: ``"delta"`` as published, ``"bins"`` for localization distillation.
        reg_max: R with bins; the largest box-edge distance is R strides.
        anchor_scale: Side of the anchors in strides. Smaller ones suit small objects.
        box_loss: Kind of the IoU loss.
    """

    boxes: Literal["delta", "bins"] = "delta"
    reg_max: int = 16
    anchor_scale: float = 8.0
    box_loss: Literal["giou", "ciou"] = "giou"


class ATSSHead(TowerHead):
    """Two towers shared by all levels; centerness stands on the box tower; one scale per level on the box outputs.

    Args:
        config: Structure.
        box_channels: Regression channels, of the coder.
    """

    def __init__(self, config: ATSSConfig, box_channels: int) -> None:
        super().__init__(config.fpn_channels, config.head_width, config.head_depth)
        self.cls = predictor(self.width, config.num_classes, bias=PRIOR_BIAS)
        self.box = predictor(self.width, box_channels)
        self.quality = predictor(self.width, 1)
        self.scales = nn.ModuleList(Scale() for _ in STRIDES)

    def predict(self, tops: Sequence[tuple[Tensor, Tensor]]) -> HeadMaps:
        """Tower maps ``(N, width, H, W)`` to class logits, box outputs and centerness logits ``(N, 1, H, W)``."""
        return HeadMaps(
            cls=[self.cls(cls_map) for cls_map, _ in tops],
            box=[scale(self.box(box_map)) for scale, (_, box_map) in zip(self.scales, tops, strict=True)],
            quality=[self.quality(box_map) for _, box_map in tops],
        )


@dataclass(frozen=True)
class ATSSCriterion(CenternessCriterion):
    """Focal loss + 2 x IoU loss weighted by centerness + centerness BCE (ATSS, sec. 4.1), as published and by default.

    Class and centerness loss are divided by the sum over images of max(positives, 1).
    """

    box_weight: float = 2.0
    divisor: Literal["positives", "samples"] = "samples"


class ATSS(DenseDetector):
    """timm backbone, FPN, ATSS head; adaptive selection, focal + GIoU + centerness. See `DenseDetector`."""

    config_class = ATSSConfig
    family = "atss"
    title = "ATSS"
    paper = PAPER
    config: ATSSConfig

    def __init__(self, config: ATSSConfig, **options: Any) -> None:
        options["postprocess_config"] = options.get("postprocess_config") or POSTPROCESS[config.boxes]
        super().__init__(config, **options)
        coders: dict[str, BoxCoder] = {
            "delta": DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2)),
            "bins": DistributionCoder(config.reg_max),
        }
        self.neck = FPN(self.backbone.channels, config.fpn_channels, len(STRIDES))
        self.coder = coder = coders[config.boxes]
        self.head = ATSSHead(config, coder.channels)
        self.assigner = ATSSAssigner()
        self.criterion = ATSSCriterion(coder, box_loss=config.box_loss)

    def build_priors(self, shapes: LevelShapes, device: torch.device, dtype: torch.dtype) -> Priors:
        """One square anchor per cell."""
        return square_anchor_grid(shapes, STRIDES, scale=self.config.anchor_scale, device=device, dtype=dtype)


def _register() -> None:
    resnet = {"frozen_stages": 1, "norm_eval": True}  # as all published configurations
    architectures: dict[str, dict[str, Scalar]] = {"atss": {}}
    for backbone in ("r18", "r50", "r101"):
        architectures[f"atss_{backbone}"] = {"backbone": backbone, **resnet}
        architectures[f"atss_{backbone}_bins"] = {"backbone": backbone, "boxes": "bins", **resnet}
    for name, config in architectures.items():
        MODELS.register(name, ModelEntry(name, "atss", ATSS, config, pretrained=published(name)))
    for recipe, form in (("ld", "_bins"), ("vlr", "_bins"), ("crosskd", ""), ("crosskd_pkd", "")):  # form of the boxes
        name = f"atss_r50_{recipe}_r101"
        entry = Distilled(f"atss_r50{form}", f"atss_r101{form}", recipe)
        MODELS.register(name, ModelEntry(name, "atss", ATSS, architectures[entry.student], entry, published(name)))


_register()
register_key_map("atss", head_names(cls="atss_cls", box="atss_reg", quality="atss_centerness"))
