"""Batches of images, their ground truths, and what an assigner made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from ld_hub.structures.priors import Priors
from ld_hub.structures.rows import Rows

_Self = TypeVar("_Self", bound="_Moves")

BACKGROUND = -1  # Assignment.gt_index of a negative row
IGNORED = -2  # Assignment.gt_index of a row that takes no part


@dataclass(frozen=True, eq=False)
class _Moves:
    """Mixin: move every tensor of a dataclass to another device."""

    def to(self: _Self, device: torch.device | str, non_blocking: bool = False) -> _Self:
        """Return a copy with all tensors on `device`."""
        changes = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, (Tensor, _Moves)):
                changes[entry.name] = value.to(device, non_blocking=non_blocking)
        return replace(self, **changes)

    def pin_memory(self: _Self) -> _Self:
        """Return a copy in page-locked memory (called by `torch.utils.data.DataLoader`)."""
        changes = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, (Tensor, _Moves)):
                changes[entry.name] = value.pin_memory()
        return replace(self, **changes)


@dataclass(frozen=True, eq=False)
class Targets(_Moves):
    """Ground truths of a batch, padded to the largest number of boxes in it.

    Attributes:
        boxes: ``(N, G, 4)`` xyxy px of the padded batch image.
        labels: ``(N, G)`` int64 in 0..C-1.
        valid: ``(N, G)`` bool, False on padding.
        crowd: ``(N, G)`` bool; crowd boxes are never assigned.
        image_sizes: ``(N, 2)`` height, width in px before padding.

    A batch without any box is padded to G = 1, so that reductions over G always exist.
    """

    boxes: Tensor
    labels: Tensor
    valid: Tensor
    crowd: Tensor
    image_sizes: Tensor

    def __post_init__(self) -> None:
        if self.boxes.shape[1] == 0:
            number = self.boxes.shape[0]
            object.__setattr__(self, "boxes", self.boxes.new_zeros(number, 1, 4))
            for name in ("labels", "valid", "crowd"):
                object.__setattr__(self, name, getattr(self, name).new_zeros(number, 1))

    @property
    def usable(self) -> Tensor:
        """``(N, G)`` bool: real boxes that are not crowds."""
        return self.valid & ~self.crowd

    @classmethod
    def pad(
        cls,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        image_sizes: Tensor,
        crowd: Sequence[Tensor] | None = None,
    ) -> Targets:
        """Make a batch from per-image tensors.

        Args:
            boxes: N tensors ``(g_i, 4)`` xyxy px.
            labels: N tensors ``(g_i,)`` int64.
            image_sizes: ``(N, 2)`` height, width.
            crowd: N bool tensors ``(g_i,)``; None means no crowds.
        """
        number, most = len(boxes), max([len(b) for b in boxes], default=0)
        dtype = boxes[0].dtype if number else torch.float32
        out = cls(
            boxes=torch.zeros(number, most, 4, dtype=dtype),
            labels=torch.zeros(number, most, dtype=torch.int64),
            valid=torch.zeros(number, most, dtype=torch.bool),
            crowd=torch.zeros(number, most, dtype=torch.bool),
            image_sizes=image_sizes,
        )
        for i, (box, label) in enumerate(zip(boxes, labels, strict=True)):
            out.boxes[i, : len(box)] = box.reshape(-1, 4)
            out.labels[i, : len(box)] = label
            out.valid[i, : len(box)] = True
            if crowd is not None:
                out.crowd[i, : len(box)] = crowd[i]
        return out


@dataclass(frozen=True, eq=False)
class ScoredTargets(Targets):
    """What a teacher found on images without labels, in the place of ground truths.

    Attributes:
        scores: ``(N, G)`` in [0, 1], how sure the teacher is; the weight of a box in the losses.
        sure: ``(N, G)`` bool; rows that answer for a box which is not sure take no part: they are no background either.
    """

    scores: Tensor
    sure: Tensor

    @classmethod
    def none(cls, image_sizes: Tensor) -> ScoredTargets:
        """No box on any image.

        Args:
            image_sizes: ``(N, 2)`` height, width in px.
        """
        numbers = image_sizes.new_zeros(len(image_sizes), 0, dtype=torch.float32)
        flags = numbers.bool()
        boxes = numbers[..., None].expand(-1, -1, 4)
        return cls(boxes, numbers.long(), flags, flags, image_sizes, numbers, flags)

    def __post_init__(self) -> None:
        if self.boxes.shape[1] == 0:
            for name in ("scores", "sure"):
                object.__setattr__(self, name, getattr(self, name).new_zeros(self.boxes.shape[0], 1))
        super().__post_init__()


@dataclass(frozen=True, eq=False)
class ImageBatch(_Moves):
    """Images as a model takes them, and what is needed to go back to the originals.

    Attributes:
        images: ``(N, 3, H, W)`` float, normalised, zero-padded at the right and bottom.
        image_sizes: ``(N, 2)`` height, width in px of each image before padding.
        scale_factors: ``(N, 2)`` resized / original along x and y.
        original_sizes: ``(N, 2)`` height, width in px of the files.
        targets: Ground truths in px of the resized images, or None at inference.
        image_ids: N ids of the data set (empty at inference).
        contents: What is on each image, mirrored or not, told by the hash of its file; empty where nobody asked.
    """

    images: Tensor
    image_sizes: Tensor
    scale_factors: Tensor
    original_sizes: Tensor
    targets: Targets | None = None
    image_ids: tuple[int, ...] = ()
    contents: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.images.shape[0]


@dataclass(frozen=True, eq=False)
class Assignment:
    """Which ground truth each row answers for.

    Attributes:
        gt_index: ``(N, A)`` int64 into G; -1 background, -2 ignored.
        labels: ``(N, A)`` int64, C for background.
        boxes: ``(N, A, 4)`` xyxy px of the assigned ground truth, 0 elsewhere.
        weights: ``(N, A)`` label weight: 1, or 0 for ignored rows and padding.
        overlaps: ``(N, G, A)`` IoU of anchors and ground truths (0 for padding), kept until the regions are made.
        thresholds: ``(N, G)`` adaptive positive threshold of each ground truth (ATSS), or None.
        valid: ``(N, A)`` bool, rows that lie on the image (`Priors.valid`).
        priors: The grid.
        capacity: A number of rows that the positives of this batch cannot exceed, known from shapes alone.
        positive: ``(N, A)`` bool, rows with a ground truth.
        rows: These rows, found once and shared by all losses and terms of the step.
    """

    gt_index: Tensor
    labels: Tensor
    boxes: Tensor
    weights: Tensor
    overlaps: Tensor | None
    thresholds: Tensor | None
    valid: Tensor
    priors: Priors
    capacity: int | None = None
    positive: Tensor = field(init=False)
    rows: Rows = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "positive", self.gt_index >= 0)
        object.__setattr__(self, "rows", Rows.find(self.positive, self.capacity))

    @classmethod
    def from_owners(
        cls,
        gt_index: Tensor,
        targets: Targets,
        priors: Priors,
        valid: Tensor,
        num_classes: int,
        *,
        overlaps: Tensor | None = None,
        thresholds: Tensor | None = None,
        capacity: int | None = None,
    ) -> Assignment:
        """Look up labels, boxes and weights of the rows.

        Args:
            gt_index: ``(N, A)``, see `gt_index`.
            targets: Ground truths.
            priors: The grid.
            valid: ``(N, A)`` bool, rows on the images; others weigh nothing.
            num_classes: C, the label of background.
            overlaps: See `overlaps`.
            thresholds: See `thresholds`.
            capacity: See `capacity`.
        """
        boxes = targets.boxes.to(priors.centers.dtype)
        positive, owner = gt_index >= 0, gt_index.clamp(min=0)
        return cls(
            gt_index=gt_index,
            labels=torch.where(positive, targets.labels.gather(1, owner), num_classes),
            boxes=boxes.gather(1, owner[..., None].expand(-1, -1, 4)) * positive[..., None],
            weights=(valid & (gt_index != IGNORED)).to(boxes.dtype),
            overlaps=overlaps,
            thresholds=thresholds,
            valid=valid,
            priors=priors,
            capacity=capacity,
        )

    @property
    def row_weights(self) -> Tensor:
        """``(K,)`` weight of each of `rows` in a loss: 1 for ground truths, 0 for filling rows."""
        return self.rows.weight * self.rows.gather(self.weights)

    def scored(self, targets: ScoredTargets) -> Assignment:
        """The same rows, each of the weight that its box's score gives it; those of unsure boxes are left out.

        Args:
            targets: What was assigned.
        """
        owner = self.gt_index.clamp(min=0)
        sure, scores = (values.gather(1, owner) for values in (targets.sure, targets.scores))
        unsure = self.positive & ~sure
        weights = torch.where(self.positive, self.weights * scores, self.weights)
        return replace(
            self,
            gt_index=torch.where(unsure, IGNORED, self.gt_index),
            boxes=self.boxes * ~unsure[..., None],
            weights=weights * ~unsure,
        )

    def centerness(self) -> Tensor:
        """How central each positive row lies in its box (FCOS, arXiv 1904.01355, eq. 3).

        Returns:
            ``(K,)`` in [0, 1]; 0 for a row whose centre is outside its box, and for filling rows.
        """
        boxes, centers = self.rows.gather(self.boxes), self.priors.centers[self.rows.priors]
        across = torch.stack([centers - boxes[:, :2], boxes[:, 2:] - centers]).clamp(min=0)  # (2, K, 2) px
        share = across.amin(dim=0) / across.amax(dim=0).clamp(min=1e-6)
        return share.prod(dim=1).sqrt() * self.rows.weight


@dataclass(frozen=True, eq=False)
class StepCounts(_Moves):
    """Normalisers that cover the whole optimizer step: means over its ranks and micro-batches.

    A loss divided by a mean count, averaged over ranks (DDP) and micro-batches (accumulation), is the sum over the
    whole batch divided by the whole count: it does not depend on how the batch was split.

    Attributes:
        images: ``()`` images.
        samples: ``()`` sum over images of max(positives, 1).
        centerness: ``()`` sum of `Assignment.centerness`.
        positives: ``(L,)`` positives of each level.
    """

    images: Tensor
    samples: Tensor
    centerness: Tensor
    positives: Tensor

    @classmethod
    def local(cls, assignment: Assignment) -> StepCounts:
        """Counts of one micro-batch on one rank."""
        positive = assignment.positive
        dtype = assignment.priors.centers.dtype
        per_image = positive.sum(dim=1)
        per_level = torch.zeros(len(assignment.priors.level_shapes), dtype=dtype, device=positive.device)
        per_level.scatter_add_(0, assignment.priors.levels, positive.sum(dim=0).to(dtype))
        return cls(
            images=torch.full((), float(positive.shape[0]), dtype=dtype, device=positive.device),
            samples=per_image.clamp(min=1).sum().to(dtype),
            centerness=assignment.centerness().sum().to(dtype),
            positives=per_level,
        )

    @classmethod
    def mean(cls, parts: Sequence[StepCounts]) -> StepCounts:
        """Mean over the micro-batches of an accumulated step."""
        return cls(
            images=torch.stack([p.images for p in parts]).mean(),
            samples=torch.stack([p.samples for p in parts]).mean(),
            centerness=torch.stack([p.centerness for p in parts]).mean(),
            positives=torch.stack([p.positives for p in parts]).mean(dim=0),
        )
