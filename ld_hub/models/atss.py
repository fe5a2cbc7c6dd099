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
from ld_hub.layers.coders import DeltaCoder, DistributionCoder
from ld_hub.layers.fpn import FPN
from ld_hub.layers.postprocess import PostprocessConfig
from ld_hub.layers.towers import PRIOR_BIAS, Scale, conv_tower, predictor
from ld_hub.losses import box_loss, boxes_in_strides, centerness_loss, focal_loss_sum
from ld_hub.models.detector import STRIDES, DenseDetector, DetectorConfig, LevelShapes
from ld_hub.ops.dist import reduce_counts
from ld_hub.ops.priors import square_anchor_grid
from ld_hub.registry import MODELS, Distilled, ModelEntry
from ld_hub.structures import Assignment, BoxCoder, DenseOutput, HeadMaps, Priors, StepCounts

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


class ATSSHead(nn.Module):
    """Two towers shared by all levels; centerness stands on the box tower; one scale per level on the box outputs.

    Args:
        config: Structure.
        box_channels: Regression channels, of the coder.
    """

    def __init__(self, config: ATSSConfig, box_channels: int) -> None:
        super().__init__()
        width = config.head_width if config.head_depth else config.fpn_channels
        self.cls_tower = conv_tower(config.fpn_channels, width, config.head_depth)
        self.box_tower = conv_tower(config.fpn_channels, width, config.head_depth)
        self.cls = predictor(width, config.num_classes, bias=PRIOR_BIAS)
        self.box = predictor(width, box_channels)
        self.quality = predictor(width, 1)
        self.scales = nn.ModuleList(Scale() for _ in STRIDES)

    def forward(self, pyramid: Sequence[Tensor]) -> HeadMaps:
        """L maps ``(N, F, H, W)`` to class logits, box outputs, centerness logits ``(N, 1, H, W)`` and towers."""
        towers = tuple((self.cls_tower(level), self.box_tower(level)) for level in pyramid)
        return HeadMaps(
            cls=[self.cls(cls_map) for cls_map, _ in towers],
            box=[scale(self.box(box_map)) for scale, (_, box_map) in zip(self.scales, towers, strict=True)],
            quality=[self.quality(box_map) for _, box_map in towers],
            towers=towers,
        )


@dataclass(frozen=True)
class ATSSCriterion:
    """Focal loss + IoU loss weighted by centerness + centerness BCE (ATSS, sec. 4.1; FCOS, eq. 2).

    Attributes:
        coder: Decodes boxes.
        box_loss: Kind of the IoU loss.
        box_weight: Weight of the IoU loss.
        reference: The preset this was made from; also selects that code base's CIoU.
    """

    coder: BoxCoder
    box_loss: Literal["giou", "ciou"] = "giou"
    box_weight: float = 2.0
    reference: str = ""

    @classmethod
    def published(
        cls, coder: BoxCoder, reference: Literal["ld"], *, distilling: bool = False, box_loss: Any = "giou"
    ) -> ATSSCriterion:
        """The computation of LD's plain and distilling heads, which agree with each other and with the default."""
        return cls(coder=coder, box_loss=box_loss, reference=reference)

    def __call__(
        self, output: DenseOutput, assignment: Assignment, counts: StepCounts | None = None
    ) -> dict[str, Tensor]:
        """Losses ``loss_cls``, ``loss_bbox``, ``loss_centerness`` of a batch, scalars.

        Args:
            output: Predictions with centerness logits.
            assignment: Of the same batch.
            counts: Normalisers of the whole optimizer step.
        """
        if output.quality is None:
            raise AssertionError("centerness is missing from the head's output")
        counts = counts or reduce_counts([StepCounts.local(assignment)])
        rows, samples = assignment.rows, counts.samples.clamp(min=1)
        labels = rows.gather(assignment.labels).clamp(max=output.num_classes - 1)
        logits, weights = output.cls_logits.flatten(0, 1), assignment.weights.flatten()
        pred, target = boxes_in_strides(output, assignment)
        centerness = assignment.centerness()
        loss_cls = focal_loss_sum(logits, weights, rows.index, rows.weight, labels)
        loss_box = (centerness * box_loss(pred, target, self.box_loss, reference=self.reference)).sum()
        loss_quality = (rows.weight * centerness_loss(rows.gather(output.quality), centerness)).sum()
        return {
            "loss_cls": loss_cls / samples,
            "loss_bbox": self.box_weight * loss_box / counts.centerness.clamp(min=1e-6),
            "loss_centerness": loss_quality / samples,
        }


class ATSS(DenseDetector):
    """timm backbone, FPN, ATSS head; adaptive selection, focal + GIoU + centerness. See `DenseDetector`."""

    config_class = ATSSConfig
    family = "atss"
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
    architectures: dict[str, dict[str, Any]] = {"atss": {}}
    for backbone in ("r18", "r50", "r101"):
        architectures[f"atss_{backbone}"] = {"backbone": backbone, **resnet}
        architectures[f"atss_{backbone}_bins"] = {"backbone": backbone, "boxes": "bins", **resnet}
    for name, config in architectures.items():
        MODELS.register(name, ModelEntry(name, "atss", ATSS, config))
    for recipe in ("ld", "vlr"):
        name = f"atss_r50_{recipe}_r101"
        entry = Distilled("atss_r50_bins", "atss_r101_bins", recipe)
        MODELS.register(name, ModelEntry(name, "atss", ATSS, architectures["atss_r50_bins"], entry))


_register()
