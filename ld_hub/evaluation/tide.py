"""TIDE: what a detector's lost AP is lost to (Bolya et al., arXiv 2008.08115)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ld_hub.errors import ConfigError, EvaluationError
from ld_hub.evaluation.matching import (
    MOST,
    Flags,
    Floats,
    Ints,
    Overlaps,
    assign,
    best_pairs,
    precision_at,
)

MAIN = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
SPECIAL = ("FP", "FN")
_LEVELS = np.arange(101) / 100  # of recall; COCO's own are a rounding error away from these at some places


@dataclass(frozen=True)
class TideErrors:
    """AP that each type of error costs, as fractions 0..1.

    Attributes:
        ap50: AP at the IoU `tide_errors` was asked for, 0.5 unless said.
        main: AP gained if all errors of one type were mended, by type (`MAIN`).
        special: AP gained without any false positive ("FP"), without any missed box ("FN").
        counts: Number of errors of each main type.
    """

    ap50: float
    main: Mapping[str, float]
    special: Mapping[str, float]
    counts: Mapping[str, int]


def tide_errors(
    found: Overlaps,
    *,
    iou: float = 0.5,
    background: float = 0.1,
) -> TideErrors:
    """Sort false detections and missed boxes into TIDE's types and mend one type at a time (section 2 of the paper).

    The 100 best detections of each image take part. A false detection is, by the first that fits:

    * Loc: overlaps a box of its class by `background` to `iou`;
    * Cls: overlaps a box of another class by `iou` or more;
    * Dupe: overlaps a box of its class by `iou` or more that a better detection found;
    * Bkg: overlaps no box by more than `background`;
    * Both: any other: wrong class and a poor overlap.

    Miss is a box that was not found and that no Loc or Cls error would find if mended. Mending turns the best Loc or
    Cls error at a missed box into a true detection and drops the others, drops Both, Dupe and Bkg, and takes missed
    boxes out of the count.

    The numbers are those of the authors' package tidecv, with one difference: classes without boxes do not enter the
    mean over classes here, as they do not elsewhere in this library (tidecv counts them with AP 0). They also differ
    a little from COCO's AP50, which takes 100 detections of each class.

    Args:
        found: Boxes and detections, of `ld_hub.evaluation.matching.overlaps`.
        iou: Overlap from which a detection is right.
        background: Overlap up to which a detection is of the background.

    Raises:
        ConfigError: If not 0 < background < iou <= 1.
        EvaluationError: If there is no box to be found.
    """
    if not 0 < background < iou <= 1:
        raise ConfigError(f"background {background} and iou {iou} must be 0 < background < iou <= 1.")
    found = _best_of_each_image(found)
    wanted = found.boxes
    if not wanted.any():
        raise EvaluationError(f"{found.source} has no box to be found, so no error can be told.")
    sorted_out = _sort_out(found, iou, background)
    missed, unfound = (
        np.bincount(found.box_label[boxes], minlength=len(wanted)) for boxes in (sorted_out.missed, sorted_out.unfound)
    )
    given = sorted_out.points
    ap = _mean_ap(given, wanted, wanted)
    mended = {name: _mean_ap(sorted_out.mended(name), wanted, wanted) for name in MAIN[:-1]}
    mended["Miss"] = _mean_ap(given.errors_first(), wanted - missed, wanted)
    no_false = _mean_ap(given.take(given.correct), wanted, wanted)
    return TideErrors(
        ap50=ap,
        main={name: max(mended[name] - ap, 0.0) for name in MAIN},  # below 0 comes from the 101 levels alone
        special={"FP": no_false - ap, "FN": _mean_ap(given.errors_first(), wanted - unfound, wanted) - ap},
        counts=sorted_out.counts,
    )


@dataclass(frozen=True, eq=False)
class _Points:
    """What an AP is made of: label, score and correctness of each detection; equal scores count in this order."""

    label: Ints
    score: Floats
    correct: Flags

    def take(self, chosen: Flags | Ints) -> _Points:
        return _Points(self.label[chosen], self.score[chosen], self.correct[chosen])

    def errors_first(self) -> _Points:
        """Errors before what was right, as tidecv lists them, which matters where scores are equal."""
        return self.take(np.argsort(self.correct, kind="stable"))


@dataclass(frozen=True, eq=False)
class _SortedOut:
    """Every detection with its type.

    Attributes:
        label: ``(D,)``.
        score: ``(D,)``.
        correct: ``(D,)`` whether it found a box.
        excused: ``(D,)`` on an ignored box.
        kind: ``(D,)`` index into `MAIN`, -1 for correct ones.
        repair: ``(D,)`` label with which a Loc or Cls error becomes correct, -1 where it is dropped.
        unfound: Boxes that were not found.
        missed: Those of them that no Loc or Cls error is at.
    """

    label: Ints
    score: Floats
    correct: Flags
    excused: Flags
    kind: Ints
    repair: Ints
    unfound: Ints
    missed: Ints

    @property
    def points(self) -> _Points:
        """All but the excused ones."""
        return _Points(self.label, self.score, self.correct).take(~self.excused)

    @property
    def counts(self) -> dict[str, int]:
        """Number of errors of each main type."""
        return {**{name: int((self.kind == k).sum()) for k, name in enumerate(MAIN[:-1])}, "Miss": len(self.missed)}

    def mended(self, name: str) -> _Points:
        """All errors of one type mended."""
        chosen = self.kind == MAIN.index(name)
        repaired = chosen & (self.repair >= 0)
        label = np.where(repaired, self.repair, self.label)
        order = np.argsort(self.correct, kind="stable")
        keep = (~chosen & ~self.excused) | repaired
        return _Points(label, self.score, self.correct | repaired).take(order[keep[order]])


def _best_of_each_image(found: Overlaps) -> Overlaps:
    """The `MOST` best detections of each image, all classes together."""
    keep = found.rank(by_class=False) < MOST
    number = np.cumsum(keep) - 1
    pairs = found.pairs.take(keep[found.pairs.det])
    return replace(
        found,
        det_image=found.det_image[keep],
        det_label=found.det_label[keep],
        score=found.score[keep],
        det_index=found.det_index[keep],
        pairs=replace(pairs, det=number[pairs.det]),
    )


def _sort_out(found: Overlaps, iou: float, background: float) -> _SortedOut:
    pairs, same, wanted = found.pairs, found.same, found.wanted
    detections, boxes = len(found.score), len(found.box_label)
    taken = assign(pairs.take(same & wanted & (pairs.iou >= iou)), detections, boxes, last_of_equals=False)
    correct, used = taken >= 0, np.zeros(boxes, dtype=bool)
    used[taken[correct]] = True
    excused = np.zeros(detections, dtype=bool)
    excused[pairs.det[same & ~wanted & (pairs.iou > iou)]] = True  # tidecv's ">": crowds have to be overlapped by more
    excused &= ~correct

    own_box, own = best_pairs(pairs.take(same & wanted), detections)
    other_box, other = best_pairs(pairs.take(~same & wanted), detections)
    _, of_used = best_pairs(pairs.take(same & wanted & used[pairs.box]), detections)
    rules = {
        "Loc": (own >= background) & (own <= iou),
        "Cls": other >= iou,
        "Dupe": of_used >= iou,
        "Bkg": np.maximum(own, other) <= background,
    }
    kind = np.select(list(rules.values()), [MAIN.index(name) for name in rules], default=MAIN.index("Both"))
    kind = np.where(correct, -1, kind)

    target = np.select([kind == MAIN.index("Loc"), kind == MAIN.index("Cls")], [own_box, other_box], default=-1)
    target[(target >= 0) & used[target]] = -1
    hopeful = np.flatnonzero(target >= 0)  # rising, and so of falling score within an image: the first is the best
    usable, first = np.unique(target[hopeful], return_index=True)
    repair = np.full(detections, -1, dtype=np.int64)
    repair[hopeful[first]] = found.box_label[usable]
    unfound = np.flatnonzero(~used & ~found.ignored)
    return _SortedOut(
        label=found.det_label,
        score=found.score,
        correct=correct,
        excused=excused,
        kind=kind,
        repair=repair,
        unfound=unfound,
        missed=np.setdiff1d(unfound, usable),
    )


def _mean_ap(points: _Points, boxes: Ints, boxes_before: Ints) -> float:
    """Mean AP over the classes that had boxes; one that mending left without boxes and detections drops out.

    Args:
        points: Detections.
        boxes: ``(C,)`` boxes of each class.
        boxes_before: ``(C,)`` before mending.
    """
    order = np.lexsort((-points.score, points.label))
    ends = np.searchsorted(points.label[order], np.arange(len(boxes) + 1))
    values = []
    for label in np.flatnonzero(boxes_before):
        correct = points.correct[order[ends[label] : ends[label + 1]]]
        if boxes[label]:
            values.append(float(precision_at(_LEVELS, correct, int(boxes[label])).mean()))
        elif len(correct):
            values.append(0.0)
    return sum(values) / len(values) if values else 0.0
