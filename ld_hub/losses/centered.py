"""The criterion of detectors that predict how central a row lies in its box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ld_hub.losses.box_loss import box_loss, boxes_in_strides
from ld_hub.losses.centerness import centerness_loss
from ld_hub.losses.focal import focal_loss_sum
from ld_hub.losses.weighted_classes import WeightedClasses
from ld_hub.ops.dist import reduce_counts
from ld_hub.structures import Assignment, BoxCoder, DenseOutput, StepCounts


@dataclass(frozen=True)
class CenternessCriterion(WeightedClasses):
    """Focal loss + IoU loss weighted by centerness + centerness BCE (FCOS, eq. 2; ATSS, sec. 4.1).

    Attributes:
        coder: Decodes boxes.
        box_loss: Kind of the IoU loss.
        box_weight: Weight of the IoU loss.
        divisor: What class and centerness loss are divided by: the number of ``"positives"``, or of ``"samples"``, the
            sum over images of max(positives, 1).
        padding: Whether rows beside an image, on the padding of its batch, count as background in the class loss; the
            loss of an image then depends on the batch it came in.
        reference: The preset this was made from; also selects that code base's CIoU.
    """

    coder: BoxCoder
    box_loss: Literal["giou", "ciou"] = "giou"
    box_weight: float = 1.0
    divisor: Literal["positives", "samples"] = "positives"
    padding: bool = False
    reference: str = ""

    @classmethod
    def published(
        cls, coder: BoxCoder, reference: Literal["ld"], *, distilling: bool = False, box_loss: Any = "giou"
    ) -> CenternessCriterion:
        """The computation of LD's plain and distilling heads, which agree with each other."""
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
        number = (counts.samples if self.divisor == "samples" else counts.positives.sum()).clamp(min=1)
        rows = assignment.rows
        labels = rows.gather(assignment.labels).clamp(max=output.num_classes - 1)
        weights = torch.ones_like(assignment.weights) if self.padding else assignment.weights
        logits = output.cls_logits.flatten(0, 1)
        pred, target = boxes_in_strides(output, assignment)
        centerness, weight = assignment.centerness(), assignment.row_weights
        factors = self.class_factors(logits)
        loss_cls = focal_loss_sum(logits, weights.flatten(), rows.index, rows.weight, labels, class_weights=factors)
        loss_box = (weight * centerness * box_loss(pred, target, self.box_loss, reference=self.reference)).sum()
        loss_quality = (weight * centerness_loss(rows.gather(output.quality), centerness)).sum()
        return {
            "loss_cls": loss_cls / number,
            "loss_bbox": self.box_weight * loss_box / counts.centerness.clamp(min=1e-6),
            "loss_centerness": loss_quality / number,
        }
