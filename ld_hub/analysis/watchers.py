"""What looks at the predictions of each batch while they are there, and keeps a few numbers of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ld_hub.analysis import probe
from ld_hub.models.detector import DenseDetector
from ld_hub.structures import DenseOutput, Detections, ImageBatch, Targets

Floats = npt.NDArray[np.float64]
NMS_IOUS = (0.6, 0.95)  # LD paper, supplement, Fig. 1 and 2
MOST = 1000  # detections per image then; a usual limit would cut what is to be seen


@dataclass(frozen=True, eq=False)
class Seen:
    """One batch as several detectors see it.

    Attributes:
        batch: Image ids and sizes; its pixels are normalised for one of the detectors.
        outputs: Predictions by the detector's name.
        targets: Ground truths in px of the batch.
        originals: Ground truths in px of the files.
    """

    batch: ImageBatch
    outputs: Mapping[str, DenseOutput]
    targets: Targets
    originals: Targets


class Watcher(Protocol):
    """Looks at one batch after the other."""

    def see(self, seen: Seen) -> None:
        """Take what is wanted from a batch."""
        ...


@dataclass
class Crowding:
    """How one detector's boxes lie before NMS: the same predictions at two NMS thresholds.

    Attributes:
        name: Of the detector.
        model: The detector.
        score: Detections above it count.
        keep: Ids of images whose detections are kept to be drawn.
        detections: By NMS threshold and image id.
        count: Detections over all images, by NMS threshold.
        overlap: Sum of their IoU with the best ground truth of their class, by NMS threshold.
    """

    name: str
    model: DenseDetector
    score: float
    keep: frozenset[int]
    detections: dict[float, dict[int, Detections]] = field(default_factory=lambda: {iou: {} for iou in NMS_IOUS})
    count: dict[float, int] = field(default_factory=lambda: dict.fromkeys(NMS_IOUS, 0))
    overlap: dict[float, float] = field(default_factory=lambda: dict.fromkeys(NMS_IOUS, 0.0))

    def see(self, seen: Seen) -> None:
        """Suppress the batch's boxes at each threshold."""
        if self.name not in seen.outputs:
            return
        for iou in NMS_IOUS:
            settings = replace(
                self.model.postprocess_config, score_threshold=self.score, nms="hard", nms_iou=iou, max_detections=MOST
            )
            found = self.model.postprocess(
                seen.outputs[self.name], seen.batch.image_sizes, seen.batch.scale_factors, config=settings
            )
            kept = [detections.filter(self.score).to("cpu") for detections in found]  # quality lowers scores later on
            for index, (image_id, one) in enumerate(zip(seen.batch.image_ids, kept, strict=True)):
                alone = _of_image(seen.originals, index)
                self.count[iou] += len(one)
                self.overlap[iou] += float(probe.class_overlaps(one.boxes[None], one.labels[None], alone).sum())
                if image_id in self.keep:
                    self.detections[iou][image_id] = one

    def to_dict(self) -> dict[str, Any]:
        """Detections and their mean IoU, by NMS threshold."""
        return {
            f"{iou:g}": {
                "detections": self.count[iou],
                "mean_iou": self.overlap[iou] / self.count[iou] if self.count[iou] else None,
            }
            for iou in NMS_IOUS
        }


@dataclass
class ScoreErrors:
    """Where a student's class scores differ from its teacher's (BCKD, arXiv 2308.14286, Fig. 3).

    Attributes:
        student: Name.
        teacher: Name.
        strides: px per cell of the L levels.
        keep: Ids of images whose own maps are kept.
        maps: By image id, L maps ``(h, w)`` of the cells on the image.
        widths: By image id, px of the batch image without padding.
        sums: ``(L, S, S)`` sum over images, in normalised image coordinates.
        totals: ``(L,)`` sum of the error over all cells on images.
        cells: ``(L,)`` their number.
        images: Number of images.
    """

    student: str
    teacher: str
    strides: tuple[int, ...]
    keep: frozenset[int]
    maps: dict[int, list[Floats]] = field(default_factory=dict)
    widths: dict[int, int] = field(default_factory=dict)
    sums: Floats = field(init=False)
    totals: Floats = field(init=False)
    cells: Floats = field(init=False)
    images: int = 0

    def __post_init__(self) -> None:
        levels = len(self.strides)
        self.sums = np.zeros((levels, probe.MAP_SIDE, probe.MAP_SIDE))
        self.totals, self.cells = np.zeros(levels), np.zeros(levels)

    def see(self, seen: Seen) -> None:
        """Compare the scores of the batch."""
        if self.student not in seen.outputs or self.teacher not in seen.outputs:
            return
        sizes = seen.batch.image_sizes
        levels = probe.score_errors(seen.outputs[self.student], seen.outputs[self.teacher])
        for index, (level, stride) in enumerate(zip(levels, self.strides, strict=True)):
            inside = probe.on_image(level, stride, sizes)
            self.totals[index] += float((level * inside).sum(dtype=torch.float64))
            self.cells[index] += float(inside.sum())
            self.sums[index] += probe.normalised(level, stride, sizes).sum(dim=0, dtype=torch.float64).cpu().numpy()
        for index, image_id in enumerate(seen.batch.image_ids):
            if image_id in self.keep:
                pairs = zip(levels, self.strides, strict=True)
                self.maps[image_id] = [_cut(level[index], stride, sizes[index]) for level, stride in pairs]
                self.widths[image_id] = int(sizes[index, 1])
        self.images += len(seen.batch)

    @property
    def mean_maps(self) -> Floats:
        """``(L, S, S)`` mean over the images."""
        return self.sums / max(1, self.images)

    @property
    def means(self) -> Floats:
        """``(L,)`` mean over all cells on images."""
        return self.totals / np.maximum(1, self.cells)

    def to_dict(self) -> dict[str, Any]:
        """Mean error and mean map of each level."""
        levels = zip(self.strides, self.means.tolist(), self.mean_maps.round(6).tolist(), strict=True)
        return {
            "teacher": self.teacher,
            "images": self.images,
            "levels": [{"stride": stride, "mean": mean, "map": cells} for stride, mean, cells in levels],
        }


@dataclass
class Entropies:
    """Edge entropy against overlap of what one detector is most sure of, before NMS.

    Attributes:
        name: Of the detector, which has bins.
        parts: One entry per batch.
    """

    name: str
    parts: list[probe.Candidates] = field(default_factory=list)

    def see(self, seen: Seen) -> None:
        """Take the candidates of the batch."""
        if self.name in seen.outputs:
            found = probe.candidates(seen.outputs[self.name], seen.targets)
            self.parts.append(probe.Candidates(found.entropy.cpu(), found.iou.cpu(), found.score.cpu()))

    def pairs(self) -> tuple[Floats, Floats]:
        """``(K,)`` entropies in nats and ``(K,)`` IoUs."""
        entropy, iou = (
            torch.cat([torch.zeros(0), *(getattr(part, key) for part in self.parts)]) for key in ("entropy", "iou")
        )
        return entropy.double().numpy(), iou.double().numpy()


@dataclass(frozen=True, eq=False)
class BoxTrace:
    """The edges of one ground truth as detectors see them from one row.

    Attributes:
        image_id: Its image.
        label: Its class.
        box: ``(4,)`` xyxy px of the file.
        stride: px per bin, in px of the batch image.
        distance: ``(4,)`` true distances from the row's centre in stride units.
        edges: By detector; boxes in px of the file.
    """

    image_id: int
    label: int
    box: Tensor
    stride: float
    distance: Tensor
    edges: Mapping[str, probe.EdgeTrace]


@dataclass
class Tracing:
    """Reads the edge distributions of the objects on some images.

    Attributes:
        leader: Name of the detector that chooses the row: of its positives, the one whose box fits best.
        model: That detector.
        others: Names of detectors with bins whose rows are the leader's.
        keep: Ids of the images.
        most: Objects per image.
        traces: What was read.
    """

    leader: str
    model: DenseDetector
    others: tuple[str, ...]
    keep: frozenset[int]
    most: int = 6
    traces: list[BoxTrace] = field(default_factory=list)

    def see(self, seen: Seen) -> None:
        """Follow the objects of the batch's images that are to be kept."""
        wanted = [i for i, image_id in enumerate(seen.batch.image_ids) if image_id in self.keep]
        if not wanted or self.leader not in seen.outputs:
            return
        assignment = self.model.assign(seen.outputs[self.leader].priors, seen.targets)
        for image in wanted:
            usable = seen.targets.usable[image].nonzero().squeeze(1).tolist()
            for index in usable[: self.most]:
                self._follow(seen, image, index, assignment.gt_index[image] == index)

    def _follow(self, seen: Seen, image: int, index: int, positive: Tensor) -> None:
        truth, label = seen.targets.boxes[image, index], int(seen.targets.labels[image, index])
        leader = seen.outputs[self.leader]
        row = probe.best_positive(leader, image, positive, truth)
        if row is None:
            return
        factor = seen.batch.scale_factors[image].repeat(2).cpu()
        edges = {}
        for name in (self.leader, *self.others):
            edge = probe.trace_edges(seen.outputs[name], image, row, truth, label)
            edges[name] = replace(edge, box=edge.box / factor)
        self.traces.append(
            BoxTrace(
                image_id=int(seen.batch.image_ids[image]),
                label=label,
                box=seen.originals.boxes[image, index].cpu(),
                stride=float(leader.priors.strides[row]),
                distance=probe.true_distances(leader.priors, row, truth).cpu(),
                edges=edges,
            )
        )


def _of_image(targets: Targets, index: int) -> Targets:
    """One image of a batch, on the CPU."""
    part = slice(index, index + 1)
    values = {name: getattr(targets, name)[part].cpu() for name in ("boxes", "labels", "valid", "crowd", "image_sizes")}
    return Targets(**values)


def _cut(level: Tensor, stride: int, size: Tensor) -> Floats:
    """The cells of one level ``(h, w)`` that lie on an image of this height and width."""
    high, wide = (-(-int(side) // stride) for side in size.tolist())
    cut: Floats = level[:high, :wide].double().cpu().numpy()
    return cut
