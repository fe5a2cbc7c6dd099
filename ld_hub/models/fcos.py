"""FCOS: one point per cell, no anchors, centerness (arXiv 1904.01355).

Boxes are edge distances, as published, or, to be distilled by LD, distributions over R+1 bins per edge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ld_hub.assigners import FCOSAssigner
from ld_hub.checked import Scalar
from ld_hub.errors import ConfigError
from ld_hub.layers.coders import DistanceCoder, DistributionCoder
from ld_hub.layers.fpn import FPN
from ld_hub.layers.postprocess import PostprocessConfig
from ld_hub.layers.towers import PRIOR_BIAS, Scale, TowerHead, predictor
from ld_hub.losses import CenternessCriterion
from ld_hub.models.checkpoints.key_maps import head_names, register_key_map
from ld_hub.models.checkpoints.weights import published
from ld_hub.models.detector import DenseDetector
from ld_hub.models.detector_config import STRIDES, DetectorConfig, LevelShapes
from ld_hub.ops.grids import point_grid
from ld_hub.papers import Paper, register_paper
from ld_hub.registry import MODELS, Distilled, ModelEntry
from ld_hub.structures import BoxCoder, HeadMaps, Priors

PAPER = register_paper(
    Paper(
        "1904.01355",
        "tian2019fcos",
        "{FCOS}: Fully Convolutional One-Stage Object Detection",
        "Tian, Zhi and Shen, Chunhua and Chen, Hao and He, Tong",
        2019,
        "ICCV",
    )
)
POSTPROCESS = {  # as the configurations whose weights have these boxes: OpenMMLab's and LD's
    "relu": PostprocessConfig(prefilter="pair"),
    "exp": PostprocessConfig(nms_iou=0.5, prefilter="pair"),
    "bins": PostprocessConfig(),
}


@dataclass(frozen=True)
class FCOSConfig(DetectorConfig):
    """Structure of an FCOS detector.

    Attributes:
        boxes: ``"exp"`` px as in the paper, ``"relu"`` strides as in its improved version (OpenMMLab's norm_on_bbox),
            ``"bins"`` for localization distillation.
        reg_max: R with bins; the largest box-edge distance is R strides.
        center_radius: Centre sampling radius in strides; 0 takes whole boxes, as the paper's first version.
        range_scale: Box sizes of a level in strides, see `FCOSAssigner`. Smaller ones suit small objects.
        centerness_on: Tower that centerness stands on: ``"box"`` in the improved version, ``"cls"`` in the first.
        tower_bias: Whether the towers' convolutions have biases beside their norms.
        box_loss: Kind of the IoU loss.
    """

    boxes: Literal["relu", "exp", "bins"] = "relu"
    reg_max: int = 16
    center_radius: float = 1.5
    range_scale: float = 8.0
    centerness_on: Literal["box", "cls"] = "box"
    tower_bias: bool = False
    box_loss: Literal["giou", "ciou"] = "giou"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.center_radius <= 64:
            raise ConfigError(f"center_radius is {self.center_radius!r}; expected a number from 0 to 64.")
        if not 0 < self.range_scale <= 64:
            raise ConfigError(f"range_scale is {self.range_scale!r}; expected a number in (0, 64].")


class FCOSHead(TowerHead):
    """Two towers shared by all levels, centerness on one of them; one scale per level on the box outputs.

    Args:
        config: Structure.
        box_channels: Regression channels, of the coder.
    """

    def __init__(self, config: FCOSConfig, box_channels: int) -> None:
        sizes = (config.fpn_channels, config.head_width, config.head_depth)
        super().__init__(*sizes, after_tap=2, bias=config.tower_bias)
        self.cls = predictor(self.width, config.num_classes, bias=PRIOR_BIAS)
        self.box = predictor(self.width, box_channels)
        self.quality = predictor(self.width, 1)
        self.quality_tower = ("cls", "box").index(config.centerness_on)
        self.scales = nn.ModuleList(Scale() for _ in STRIDES)

    def predict(self, tops: Sequence[tuple[Tensor, Tensor]]) -> HeadMaps:
        """Tower maps ``(N, width, H, W)`` to class logits, box outputs and centerness logits ``(N, 1, H, W)``."""
        return HeadMaps(
            cls=[self.cls(cls_map) for cls_map, _ in tops],
            box=[scale(self.box(box_map)) for scale, (_, box_map) in zip(self.scales, tops, strict=True)],
            quality=[self.quality(maps[self.quality_tower]) for maps in tops],
        )


@dataclass(frozen=True)
class FCOSCriterion(CenternessCriterion):
    """Focal loss + IoU loss weighted by centerness + centerness BCE (FCOS, eq. 2), in the weights of the paper."""

    @classmethod
    def published(
        cls, coder: BoxCoder, reference: Literal["ld"], *, distilling: bool = False, box_loss: Any = "giou"
    ) -> CenternessCriterion:
        """The computation of LD's heads, in which the padding of a batch counts as background."""
        criterion = super().published(coder, reference, distilling=distilling, box_loss=box_loss)
        return replace(criterion, padding=True)


class FCOS(DenseDetector):
    """timm backbone, FPN, FCOS head; points in boxes, focal + GIoU + centerness. See `DenseDetector`."""

    config_class = FCOSConfig
    family = "fcos"
    title = "FCOS"
    paper = PAPER
    train_settings: ClassVar[Mapping[str, Any]] = {  # reference SPEC 7
        "bias_lr_factor": 2.0, "bias_weight_decay": 0.0, "warmup_ratio": 1 / 3,
    }  # fmt: skip
    config: FCOSConfig

    def __init__(self, config: FCOSConfig, **options: Any) -> None:
        options["postprocess_config"] = options.get("postprocess_config") or POSTPROCESS[config.boxes]
        super().__init__(config, **options)
        coders: dict[str, BoxCoder] = {
            "relu": DistanceCoder("relu"),
            "exp": DistanceCoder("exp"),
            "bins": DistributionCoder(config.reg_max),
        }
        self.neck = FPN(self.backbone.channels, config.fpn_channels, len(STRIDES), extra_relu=True)
        self.coder = coder = coders[config.boxes]
        self.head = FCOSHead(config, coder.channels)
        self.assigner = FCOSAssigner(config.center_radius, config.range_scale)
        self.criterion = FCOSCriterion(coder, box_loss=config.box_loss)

    def build_priors(self, shapes: LevelShapes, device: torch.device, dtype: torch.dtype) -> Priors:
        """One point in the middle of each cell."""
        return point_grid(shapes, STRIDES, device=device, dtype=dtype)


def _register() -> None:
    resnet = {"frozen_stages": 1, "norm_eval": True}  # as all published configurations
    architectures: dict[str, dict[str, Scalar]] = {
        "fcos": {},
        "fcos_r50_caffe": {"backbone": "r50_caffe", "tower_bias": True, **resnet},
        "fcos_r101_caffe": {"backbone": "r101_caffe", **resnet},
        **{f"fcos_{b}": {"backbone": b, **resnet} for b in ("r18", "r50", "r101")},
        **{
            f"fcos_{b}_bins": {"backbone": b, "boxes": "bins", **resnet}
            for b in ("r18", "r50", "r101", "r50_caffe", "r101_caffe")
        },
    }
    for name, config in architectures.items():
        MODELS.register(name, ModelEntry(name, "fcos", FCOS, config, pretrained=published(name)))
    for recipe, form in (("ld", "_bins"), ("vlr", "_bins"), ("crosskd", ""), ("crosskd_pkd", "")):  # form of the boxes
        name = f"fcos_r50_{recipe}_r101"
        entry = Distilled(f"fcos_r50_caffe{form}", f"fcos_r101_caffe{form}", recipe)
        MODELS.register(name, ModelEntry(name, "fcos", FCOS, architectures[entry.student], entry, published(name)))


_register()
# Files of early 2020 say fcos_cls, which OpenMMLab has called conv_cls since
register_key_map(
    "fcos", head_names(cls="(?:conv|fcos)_cls", box="(?:conv|fcos)_reg", quality="(?:conv|fcos)_centerness")
)
