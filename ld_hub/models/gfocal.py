"""GFocal: Generalized Focal Loss detectors (GFL, arXiv 2006.04388), the family that LD was made for.

Boxes are four distributions over R+1 bins each; the class score is trained to be the IoU of its box. In GFocalV2
(arXiv 2011.12885) the shape of the distributions has a say in that score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ld_hub.assigners import ATSSAssigner
from ld_hub.checked import Scalar
from ld_hub.errors import ConfigError
from ld_hub.layers.coders import DistributionCoder
from ld_hub.layers.fpn import FPN
from ld_hub.layers.towers import PRIOR_BIAS, DistributionQuality, Scale, TowerHead, joint_logits, predictor
from ld_hub.losses import (
    WeightedClasses,
    box_loss,
    boxes_in_strides,
    distribution_focal_loss,
    quality_focal_loss_sum,
)
from ld_hub.models.checkpoints.key_maps import KeyMap, head_names, register_key_map
from ld_hub.models.checkpoints.weights import published
from ld_hub.models.detector import DenseDetector
from ld_hub.models.detector_config import STRIDES, DetectorConfig, LevelShapes
from ld_hub.ops.boxes import overlap
from ld_hub.ops.dist import mean_over_ranks, reduce_counts
from ld_hub.ops.distribution import boxes_to_distances
from ld_hub.ops.grids import square_anchor_grid
from ld_hub.papers import Paper, register_paper
from ld_hub.registry import MODELS, Distilled, ModelEntry
from ld_hub.structures import Assignment, DenseOutput, HeadMaps, Priors, StepCounts

PAPER = register_paper(
    Paper(
        "2006.04388",
        "li2020gfl",
        "Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense Object Detection",
        "Li, Xiang and Wang, Wenhai and Wu, Lijun and Chen, Shuo and Hu, Xiaolin and Li, Jun and Tang, Jinhui and "
        "Yang, Jian",
        2020,
        "NeurIPS",
    )
)
SECOND = register_paper(
    Paper(
        "2011.12885",
        "li2021gflv2",
        "Generalized Focal Loss {V2}: Learning Reliable Localization Quality Estimation for Dense Object Detection",
        "Li, Xiang and Wang, Wenhai and Hu, Xiaolin and Li, Jun and Tang, Jinhui and Yang, Jian",
        2021,
        "CVPR",
    )
)
Reference = Literal["ld", "bckd"]
IMITATION = ("fitnets", "inside_gt", "main_region", "fine_grained", "defeat", "gi")  # rows of LD's Table 6


@dataclass(frozen=True)
class GFocalConfig(DetectorConfig):
    """Structure of a GFocal detector.

    Attributes:
        reg_max: R; the largest box-edge distance is R strides.
        anchor_scale: Side of the anchors in strides. Smaller ones suit small objects.
        box_loss: ``"giou"`` as the paper, ``"ciou"`` as the LD repository's plain GFL and VOC configurations.
        quality: ``"distribution"`` is GFocalV2: scores are multiplied by a quality that the box's distributions tell.
    """

    reg_max: int = 16
    anchor_scale: float = 8.0
    box_loss: Literal["giou", "ciou"] = "giou"
    quality: Literal["none", "distribution"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quality == "distribution" and self.reg_max + 1 < DistributionQuality.TOP:
            raise ConfigError(
                f"reg_max is {self.reg_max}; quality='distribution' looks at {DistributionQuality.TOP} of the "
                f"reg_max + 1 bins, so it is at least {DistributionQuality.TOP - 1}."
            )


class GFocalHead(TowerHead):
    """Two towers shared by all levels; one scale per level on the box logits.

    GFocalV2's score is sigmoid(class logit) * quality. The head hands over the logit of that product, whose sigmoid is
    the published score: so the losses, which the paper writes on scores, and the post-processing stay GFocal's. Class
    distillation then compares these joint logits; the LD repository compares the class logits before the product.

    Args:
        config: Structure.
        box_channels: Regression channels, 4 * (R + 1).
    """

    def __init__(self, config: GFocalConfig, box_channels: int) -> None:
        super().__init__(config.fpn_channels, config.head_width, config.head_depth)
        self.cls = predictor(self.width, config.num_classes, bias=PRIOR_BIAS)
        self.box = predictor(self.width, box_channels)
        self.quality = DistributionQuality() if config.quality == "distribution" else None
        self.scales = nn.ModuleList(Scale() for _ in STRIDES)

    def predict(self, tops: Sequence[tuple[Tensor, Tensor]]) -> HeadMaps:
        """Tower maps ``(N, width, H, W)`` to class logits ``(N, C, H, W)`` and bin logits ``(N, 4(R+1), H, W)``."""
        cls_levels = [self.cls(cls_map) for cls_map, _ in tops]
        box_levels = [scale(self.box(box_map)) for scale, (_, box_map) in zip(self.scales, tops, strict=True)]
        if self.quality is not None:
            cls_levels = [joint_logits(c, self.quality(b)) for c, b in zip(cls_levels, box_levels, strict=True)]
        return HeadMaps(cls_levels, box_levels)


@dataclass(frozen=True)
class GFocalCriterion(WeightedClasses):
    """QFL + IoU loss + DFL (GFL, eq. 8; weights of the published configurations).

    Every positive row is weighted by its best class score w_i, and box losses are divided by their sum W over the
    rows of all ranks. The defaults are sound on any batch; `reference` reproduces a published code base.

    Attributes:
        coder: Decodes boxes.
        box_loss: Kind of the IoU loss.
        box_weight: Weight of the IoU loss.
        dfl_weight: Weight of the DFL.
        score_sum: How W guards against batches without positives: ``"tiny"`` max(W, 1e-6); ``"eps"`` W + 1e-6, as both
            distilling heads; ``"plain"`` W, as LD's GFL head (NaN without positives); ``"floor"`` max(W, 1), as BCKD's
            GFL head (weakens early training).
        score_offset: Added to w_i inside and outside its maximum, 1e-4 in BCKD's distillation head.
        count_eps: Added to every row count that a loss is divided by, float32 epsilon in BCKD.
        reference: The preset this was made from; also selects that code base's CIoU.
    """

    coder: DistributionCoder
    box_loss: Literal["giou", "ciou"] = "giou"
    box_weight: float = 2.0
    dfl_weight: float = 0.25
    score_sum: Literal["tiny", "eps", "plain", "floor"] = "tiny"
    score_offset: float = 0.0
    count_eps: float = 0.0
    reference: str = ""

    @classmethod
    def published(
        cls, coder: DistributionCoder, reference: Reference, *, distilling: bool = False, box_loss: Any = "giou"
    ) -> GFocalCriterion:
        """The exact computation of a code base's plain (GFLHead) or distilling (LDHead) detector."""
        eps = torch.finfo(torch.float32).eps if reference == "bckd" else 0.0
        plain: Literal["plain", "floor"] = "plain" if reference == "ld" else "floor"
        return cls(
            coder=coder,
            box_loss=box_loss,
            score_sum="eps" if distilling else plain,
            score_offset=1e-4 if distilling and reference == "bckd" else 0.0,
            count_eps=eps,
            reference=reference,
        )

    def __call__(
        self, output: DenseOutput, assignment: Assignment, counts: StepCounts | None = None
    ) -> dict[str, Tensor]:
        """Losses ``loss_cls``, ``loss_bbox``, ``loss_dfl`` of a batch, scalars.

        Args:
            output: Predictions with bins.
            assignment: Of the same batch.
            counts: Normalisers of the whole optimizer step.
        """
        rows, weight = assignment.rows, assignment.row_weights
        logits = rows.gather(output.cls_logits)  # (K, C)
        box = rows.gather(output.box)  # (K, 4, R+1)
        labels = rows.gather(assignment.labels).clamp(max=output.num_classes - 1)
        pred, target = boxes_in_strides(output, assignment)

        with torch.no_grad():
            quality = overlap(pred, target, "iou")
            score = (logits.sigmoid().amax(dim=1) if len(logits) else logits.new_zeros(0)) * weight
            if self.score_offset:
                score = score + 2 * self.score_offset * weight
            score_sum = self._guard(self._score_sum(score, weight, counts))
        samples = (counts or reduce_counts([StepCounts.local(assignment)])).samples.clamp(min=1)

        loss_cls = quality_focal_loss_sum(
            output.cls_logits.flatten(0, 1), assignment.weights.flatten(), rows.index, rows.weight, labels, quality,
            class_weights=self.class_factors(output.cls_logits),
        )  # fmt: skip
        loss_box = (score * box_loss(pred, target, self.box_loss, reference=self.reference)).sum()
        stride = output.priors.strides[rows.priors][:, None]
        distances = boxes_to_distances(output.priors.centers[rows.priors] / stride, target)
        distances = distances.clamp(min=0, max=box.shape[-1] - 1 - 0.1)
        loss_dfl = (score[:, None] * distribution_focal_loss(box, distances)).sum()
        if self.score_sum == "plain":  # without positives the published gradient is NaN as well, for every row
            loss_box, loss_dfl = (loss + 0 * output.box.sum() for loss in (loss_box, loss_dfl))
        return {
            "loss_cls": loss_cls / (samples + self.count_eps),
            "loss_bbox": self.box_weight * loss_box / (1 + self.count_eps) / score_sum,
            "loss_dfl": self.dfl_weight * loss_dfl / (4 + self.count_eps) / score_sum,
        }

    def _score_sum(self, score: Tensor, weight: Tensor, counts: StepCounts | None) -> Tensor:
        """W of the optimizer step: the mean score of this micro-step's positives times the step's mean count.

        Scores of other micro-batches are not known yet, their positives are: a micro-batch with few or no positives
        does not weigh more or less for that. The published W is this micro-step's alone.
        """
        totals = mean_over_ranks(torch.stack([score.sum(), weight.sum().to(score.dtype)]))
        total, number = totals.unbind()
        if counts is None or self.reference:
            return total
        return total * (counts.positives.sum() / number.clamp(min=1e-6))

    def _guard(self, score_sum: Tensor) -> Tensor:
        match self.score_sum:
            case "tiny":
                return score_sum.clamp(min=1e-6)
            case "eps":
                return score_sum + 1e-6
            case "floor":
                return score_sum.clamp(min=1)
            case "plain":
                return score_sum


class GFocal(DenseDetector):
    """timm backbone, FPN, GFocal head; ATSS, QFL + GIoU + DFL. See `DenseDetector` for arguments."""

    config_class = GFocalConfig
    family = "gfocal"
    title = "GFocal"
    paper = PAPER
    config: GFocalConfig

    def __init__(self, config: GFocalConfig, **options: Any) -> None:
        super().__init__(config, **options)
        self.neck = FPN(self.backbone.channels, config.fpn_channels, len(STRIDES))
        self.coder = coder = DistributionCoder(config.reg_max)
        self.head = GFocalHead(config, coder.channels)
        self.assigner = ATSSAssigner()
        self.criterion = GFocalCriterion(coder, box_loss=config.box_loss)

    @property
    def papers(self) -> tuple[Paper, ...]:
        """GFocalV2's too, where scores are multiplied by its quality."""
        return (PAPER,) if self.config.quality == "none" else (PAPER, SECOND)

    def build_priors(self, shapes: LevelShapes, device: torch.device, dtype: torch.dtype) -> Priors:
        """One square anchor per cell."""
        return square_anchor_grid(shapes, STRIDES, scale=self.config.anchor_scale, device=device, dtype=dtype)


def _register() -> None:
    resnet = {"frozen_stages": 1, "norm_eval": True}  # as all published configurations with ResNets and ResNeXts
    small = {"fpn_channels": 64, "head_width": 64, "anchor_scale": 4.0}  # half-scale anchors: small images
    second: dict[str, Scalar] = {"quality": "distribution"}
    deep = ("r50", "r101", "r101_dcn", "x101_32x4d", "x101_32x4d_dcn")
    architectures: dict[str, dict[str, Scalar]] = {
        "gfocal": {},
        "gfocalv2": second,
        **{f"gfocal_{b}": {"backbone": b, **resnet} for b in ("r18", "r34", *deep)},
        **{f"gfocalv2_{b}": {"backbone": b, **resnet, **second} for b in deep},
        **{f"gfocal_{b}": {"backbone": b} for b in ("mobilenetv2", "mobilenetv2_leaky", "swin_t")},
        "gfocal_r10t": {"backbone": "r10t", "head_depth": 2, **small},
        "gfocal_tiny": {"backbone": "test_resnet", "head_depth": 2, **small},
    }
    for name, config in architectures.items():
        MODELS.register(name, ModelEntry(name, "gfocal", GFocal, config, pretrained=published(name)))
    distilled = [("gfocal", s, r, "r101") for s in ("r18", "r34", "r50") for r in ("ld", "vlr", "bckd")]
    distilled += [("gfocal", "mobilenetv2_leaky", "bckd", "r101"), ("gfocal", "r50", "bckd", "swin_t")]
    distilled += [("gfocal", "r50", r, "r101") for r in ("crosskd", "crosskd_pkd", "vlr_fine_grained", "vlr_gi")]
    distilled += [("gfocal", "r50", r, "r101") for r in IMITATION]
    distilled += [("gfocal", "r18", "ld", t) for t in ("r34", "r50")]
    distilled += [("gfocal", s, "ld", "r101_dcn") for s in ("r18", "r34", "r101")]
    distilled += [("gfocal", b, "ld", b) for b in ("r18", "r50", "x101_32x4d", "x101_32x4d_dcn")]  # self-distillation
    distilled += [("gfocalv2", "r50", "vlr", "r101"), ("gfocalv2", "r101", "vlr", "r101_dcn")]
    distilled += [("gfocal", "tiny", r, "r10t") for r in ("ld", "vlr", "auto")]
    for family, student, recipe, teacher in distilled:
        name = f"{family}_{student}_{recipe}_{teacher}"
        entry = Distilled(f"{family}_{student}", f"{family}_{teacher}", recipe)
        config = architectures[entry.student]
        MODELS.register(name, ModelEntry(name, "gfocal", GFocal, config, entry, published(name)))


_register()
register_key_map(
    "gfocal",
    head_names(cls="gfl_cls", box="gfl_reg")
    + KeyMap(
        (
            (r"bbox_head\.reg_conf\.0\.(weight|bias)", r"head.quality.hidden.\1"),  # of GFocalV2
            (r"bbox_head\.reg_conf\.2\.(weight|bias)", r"head.quality.out.\1"),
        )
    ),
)
