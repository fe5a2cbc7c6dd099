"""RetinaNet: nine anchors per cell, fixed overlap thresholds, focal loss (arXiv 1708.02002).

Boxes are anchor deltas, as published, or, to be distilled by LD, distributions over R+1 bins per edge around the
anchor's centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ld_hub.assigners import MaxIoUAssigner
from ld_hub.checked import Scalar
from ld_hub.errors import ConfigError
from ld_hub.layers.coders import DeltaCoder, DistributionCoder
from ld_hub.layers.fpn import FPN
from ld_hub.layers.postprocess import PostprocessConfig
from ld_hub.layers.towers import PRIOR_BIAS, TowerHead, predictor
from ld_hub.losses import WeightedClasses, box_loss, boxes_in_strides, focal_loss_sum
from ld_hub.models.checkpoints.key_maps import head_names, register_key_map
from ld_hub.models.checkpoints.weights import published
from ld_hub.models.detector import DenseDetector
from ld_hub.models.detector_config import STRIDES, DetectorConfig, LevelShapes
from ld_hub.ops.dist import reduce_counts
from ld_hub.ops.grids import multi_anchor_grid
from ld_hub.papers import Paper, register_paper
from ld_hub.registry import MODELS, Distilled, ModelEntry
from ld_hub.structures import Assignment, BoxCoder, DenseOutput, HeadMaps, Priors, StepCounts

PAPER = register_paper(
    Paper(
        "1708.02002",
        "lin2017focal",
        "Focal Loss for Dense Object Detection",
        "Lin, Tsung-Yi and Goyal, Priya and Girshick, Ross and He, Kaiming and Doll{\\'a}r, Piotr",
        2017,
        "ICCV",
    )
)
POSTPROCESS = {  # as the code bases whose weights have these boxes: OpenMMLab's and LD's
    "delta": PostprocessConfig(nms_iou=0.5, prefilter="pair"),
    "bins": PostprocessConfig(),
}


@dataclass(frozen=True)
class RetinaNetConfig(DetectorConfig):
    """Structure of a RetinaNet detector.

    Attributes:
        boxes: ``"delta"`` as published, ``"bins"`` for localization distillation.
        reg_max: R with bins; the largest box-edge distance is R strides.
        anchor_scale: Side of the smallest square anchor in strides; the others are up to 1.6 times as large.
        box_loss: ``"l1"`` on deltas as published, or an IoU loss on decoded boxes, as with bins.
    """

    boxes: Literal["delta", "bins"] = "delta"
    reg_max: int = 16
    anchor_scale: float = 4.0
    box_loss: Literal["giou", "ciou", "l1"] = "giou"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.box_loss == "l1" and self.boxes != "delta":
            raise ConfigError(
                f"box_loss is 'l1', which compares deltas, and boxes is {self.boxes!r}; take box_loss='giou'."
            )


class RetinaNetHead(TowerHead):
    """Two towers without norms, shared by all levels; every cell predicts for each of its anchors.

    Args:
        config: Structure.
        anchors: Anchors per cell.
        box_channels: Regression channels of an anchor, of the coder.
    """

    def __init__(self, config: RetinaNetConfig, anchors: int, box_channels: int) -> None:
        super().__init__(config.fpn_channels, config.head_width, config.head_depth, norm=False, bias=True)
        self.cls = predictor(self.width, anchors * config.num_classes, bias=PRIOR_BIAS)
        self.box = predictor(self.width, anchors * box_channels)

    def predict(self, tops: Sequence[tuple[Tensor, Tensor]]) -> HeadMaps:
        """Tower maps ``(N, width, H, W)`` to class logits ``(N, 9C, H, W)`` and box outputs."""
        return HeadMaps([self.cls(cls_map) for cls_map, _ in tops], [self.box(box_map) for _, box_map in tops])


@dataclass(frozen=True)
class RetinaNetCriterion(WeightedClasses):
    """Focal loss + box loss, both divided by the number of positives (RetinaNet, sec. 4.1).

    Attributes:
        coder: Decodes boxes.
        box_loss: ``"l1"`` on deltas, or the kind of the IoU loss on decoded boxes.
        box_weight: Weight of the box loss; the published one is 1 for ``"l1"`` and 2 for IoU losses.
        reference: The preset this was made from; also selects that code base's CIoU.
    """

    coder: BoxCoder
    box_loss: Literal["giou", "ciou", "l1"] = "giou"
    box_weight: float = 2.0
    reference: str = ""

    @classmethod
    def published(
        cls, coder: BoxCoder, reference: Literal["ld"], *, distilling: bool = False, box_loss: Any = "giou"
    ) -> RetinaNetCriterion:
        """The computation of LD's plain and distilling heads, which agree with each other and with the default."""
        return cls(coder, box_loss, box_weight=1.0 if box_loss == "l1" else 2.0, reference=reference)

    def __call__(
        self, output: DenseOutput, assignment: Assignment, counts: StepCounts | None = None
    ) -> dict[str, Tensor]:
        """Losses ``loss_cls``, ``loss_bbox`` of a batch, scalars.

        Args:
            output: Predictions.
            assignment: Of the same batch.
            counts: Normalisers of the whole optimizer step.
        """
        counts = counts or reduce_counts([StepCounts.local(assignment)])
        rows, samples = assignment.rows, counts.samples.clamp(min=1)
        labels = rows.gather(assignment.labels).clamp(max=output.num_classes - 1)
        logits, weights = output.cls_logits.flatten(0, 1), assignment.weights.flatten()
        factors = self.class_factors(logits)
        loss_cls = focal_loss_sum(logits, weights, rows.index, rows.weight, labels, class_weights=factors)
        loss_box = (assignment.row_weights * self._box_losses(output, assignment)).sum()
        return {"loss_cls": loss_cls / samples, "loss_bbox": self.box_weight * loss_box / samples}

    def _box_losses(self, output: DenseOutput, assignment: Assignment) -> Tensor:
        """``(K,)`` losses of the positive rows."""
        if self.box_loss == "l1" and isinstance(self.coder, DeltaCoder):
            rows = assignment.rows
            target = self.coder.encode_rows(rows.gather(assignment.boxes), output.priors, rows.priors)
            return (rows.gather(output.box) - target).abs().sum(dim=1)
        kind: Any = self.box_loss
        return box_loss(*boxes_in_strides(output, assignment), kind, reference=self.reference)


class RetinaNet(DenseDetector):
    """timm backbone, FPN with P6 from C5, RetinaNet head; MaxIoU, focal + box loss. See `DenseDetector`."""

    config_class = RetinaNetConfig
    family = "retinanet"
    title = "RetinaNet"
    paper = PAPER
    anchors_per_cell = 9
    config: RetinaNetConfig

    def __init__(self, config: RetinaNetConfig, **options: Any) -> None:
        options["postprocess_config"] = options.get("postprocess_config") or POSTPROCESS[config.boxes]
        super().__init__(config, **options)
        coders: dict[str, BoxCoder] = {"delta": DeltaCoder(), "bins": DistributionCoder(config.reg_max)}
        self.neck = FPN(self.backbone.channels, config.fpn_channels, len(STRIDES), extra_from="input")
        self.coder = coder = coders[config.boxes]
        self.head = RetinaNetHead(config, self.anchors_per_cell, coder.channels)
        self.assigner = MaxIoUAssigner()
        self.criterion = RetinaNetCriterion(coder, config.box_loss, 1.0 if config.box_loss == "l1" else 2.0)

    def build_priors(self, shapes: LevelShapes, device: torch.device, dtype: torch.dtype) -> Priors:
        """Three sizes in three shapes per cell."""
        return multi_anchor_grid(shapes, STRIDES, scale=self.config.anchor_scale, device=device, dtype=dtype)


def _register() -> None:
    resnet = {"frozen_stages": 1, "norm_eval": True}  # as all published configurations
    architectures: dict[str, dict[str, Scalar]] = {"retinanet": {"box_loss": "l1"}}
    for backbone in ("r18", "r50", "r101"):
        architectures[f"retinanet_{backbone}"] = {"backbone": backbone, "box_loss": "l1", **resnet}
        architectures[f"retinanet_{backbone}_bins"] = {"backbone": backbone, "boxes": "bins", **resnet}
    for name, config in architectures.items():
        MODELS.register(name, ModelEntry(name, "retinanet", RetinaNet, config, pretrained=published(name)))
    for recipe, form in (("ld", "_bins"), ("vlr", "_bins"), ("crosskd", ""), ("crosskd_pkd", "")):  # form of the boxes
        name = f"retinanet_r50_{recipe}_r101"
        entry = Distilled(f"retinanet_r50{form}", f"retinanet_r101{form}", recipe)
        MODELS.register(
            name, ModelEntry(name, "retinanet", RetinaNet, architectures[entry.student], entry, published(name))
        )


_register()
# LD's RetinaNet has the names of ATSS
register_key_map("retinanet", head_names(cls="(?:retina|atss)_cls", box="(?:retina|atss)_reg"))
