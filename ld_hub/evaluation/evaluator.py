"""Average precision of detections that are given batch by batch, on any number of ranks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ld_hub.errors import ConfigError, EvaluationError
from ld_hub.evaluation.backends import choose_backend, score
from ld_hub.evaluation.found import Found
from ld_hub.evaluation.ground_truth import GroundTruth, read_ground_truth
from ld_hub.evaluation.lvis_protocol import frequency_groups, lvis_curves, require_federated, summarize_lvis
from ld_hub.evaluation.metrics import (
    MOST_COUNTED,
    MOST_OF_IMAGE,
    DetectionMetrics,
    mean_found,
    summarize,
    summarize_voc,
)
from ld_hub.evaluation.voc_protocol import voc_average_precision
from ld_hub.hub.evidence import PROTOCOLS
from ld_hub.hub.files import atomic_write
from ld_hub.ops.corners import sticking_out
from ld_hub.structures import Detections, ResultRow


@dataclass(frozen=True, eq=False)
class _Scored:
    """Detections of one image as they will be scored."""

    boxes: npt.NDArray[np.float64]  # (K, 4) x, y, width, height in px
    scores: npt.NDArray[np.float64]  # (K,)
    labels: npt.NDArray[np.int64]  # (K,) in 0..C-1


class DetectionEvaluator:
    """Collects detections and scores them against annotations in COCO's format, by the rules of COCO, VOC or LVIS.

    It refuses what would be scored wrongly without a word: NaN, unknown images and classes, an image given twice, a
    forgotten image, corners in place of sizes. Its COCO numbers are pycocotools' (checked in the tests, bit for bit);
    `ld_hub.evaluation.voc_protocol` and `lvis_protocol` have the rules of VOC and LVIS. The numbers are the same
    whatever the order of the images, the batch size or the number of ranks the detections came in.

    Args:
        annotations: COCO instances file, its content, or a ground truth read before.
        category_ids: C category ids of the annotations, one per label of the model.
        label_names: C class names, in the same order.
        protocol: ``"coco"``; ``"voc07"`` (11-point AP) or ``"voc12"`` (area under the curve);
            ``"lvis"``, which needs the fields of LVIS' files.
        backend: What scores by COCO's rules: ``"pycocotools"``, ``"hotcoco"`` (extra ``fast-eval``: the same numbers,
            much faster), or ``"auto"``: hotcoco where it is installed.

    Raises:
        EvaluationError: If a category id is unknown to the annotations, belongs to another class name there, or is
            given twice, if the annotations have boxes of a category that is not given, or if the protocol is LVIS' and
            they lack its fields.
        DataError: If the annotations are not usable; MissingFileError if they do not exist.
        ConfigError: If the protocol or the backend is unknown, or the backend is not installed.
    """

    def __init__(
        self,
        annotations: str | Path | Mapping[str, Any] | GroundTruth,
        *,
        category_ids: Sequence[int],
        label_names: Sequence[str],
        protocol: str = "coco",
        backend: str = "auto",
    ) -> None:
        if protocol not in PROTOCOLS:
            raise ConfigError(f"Unknown evaluation protocol '{protocol}'; choose one of {', '.join(PROTOCOLS)}.")
        backend = choose_backend(backend)
        self.protocol, self.backend = protocol, backend if protocol == "coco" else "ld_hub"
        self.truth = annotations if isinstance(annotations, GroundTruth) else read_ground_truth(annotations)
        self.category_ids, self.label_names = tuple(category_ids), tuple(label_names)
        self._scored: dict[int, _Scored] = {}
        self._check_classes()
        if protocol == "lvis":
            require_federated(self.truth)

    def __len__(self) -> int:
        """Number of images given so far."""
        return len(self._scored)

    def update(self, image_ids: Iterable[int], detections: Sequence[Detections]) -> None:
        """Add the detections of some images. Either all of them are added or, on an error, none.

        Args:
            image_ids: Id of each image in the annotations.
            detections: Of each image, in px of the original image; ``label_names`` must be the evaluator's.

        Raises:
            EvaluationError: Naming the image, for an unknown id, an image that was given before, a box or score that is
                not finite, a box whose sides are swapped, or a label that is no class.
        """
        ids = [int(image_id) for image_id in image_ids]
        if len(ids) != len(detections):
            raise EvaluationError(f"{len(ids)} image ids came with detections of {len(detections)} images.")
        added: dict[int, _Scored] = {}
        for image_id, found in zip(ids, detections, strict=True):
            self._check_image(image_id, added)
            added[image_id] = self._checked(image_id, found)
        self._scored.update(added)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """What was given so far, as plain arrays to send to another rank or to store; see `merge`."""
        ids = sorted(self._scored)
        parts = [self._scored[image_id] for image_id in ids]
        return {
            "image_ids": np.array(ids, dtype=np.int64),
            "counts": np.array([len(part.scores) for part in parts], dtype=np.int64),
            "boxes": np.concatenate([np.zeros((0, 4)), *(part.boxes for part in parts)]),
            "scores": np.concatenate([np.zeros(0), *(part.scores for part in parts)]),
            "labels": np.concatenate([np.zeros(0, dtype=np.int64), *(part.labels for part in parts)]),
        }

    def merge(self, states: Iterable[dict[str, npt.NDArray[Any]]]) -> None:
        """Replace the content by the union of the states of all ranks, this rank's own among them.

        Args:
            states: As `state` gave them on each rank.

        Raises:
            EvaluationError: If two states hold the same image, one holds an unknown image, or the content of this
                evaluator is in none of them.
        """
        merged: dict[int, _Scored] = {}
        for state in states:
            ends = np.cumsum(state["counts"])
            for image_id, start, end in zip(state["image_ids"].tolist(), ends - state["counts"], ends, strict=True):
                if image_id not in self.truth.image_ids or image_id in merged:
                    why = "was scored by two ranks" if image_id in merged else f"is not in {self.truth.source}"
                    raise EvaluationError(f"Image id {image_id} {why}; each image is to be scored exactly once.")
                rows = slice(int(start), int(end))
                merged[image_id] = _Scored(state["boxes"][rows], state["scores"][rows], state["labels"][rows])
        lost = self._scored.keys() - merged.keys()
        if lost:
            raise EvaluationError(
                f"merge() got no state with this rank's own {len(lost)} images (for example {min(lost)}); "
                "pass the states of all ranks, this one's included."
            )
        self._scored = merged

    def compute(self, *, allow_partial: bool = False) -> DetectionMetrics:
        """Score everything given so far.

        Args:
            allow_partial: Score a subset of the annotated images, as if the others did not exist.

        Returns:
            The metrics. Without any detection they are 0.0; without ground truth they are None.

        Raises:
            EvaluationError: If images are missing and `allow_partial` is False, if there are no images at all, or if
                the boxes are corners where x, y, width, height are expected.
        """
        ids = sorted(self._scored)
        missing = sorted(self.truth.image_ids - self._scored.keys())
        if missing and not allow_partial:
            raise EvaluationError(
                f"{len(missing)} of the {len(self.truth.image_ids)} images of {self.truth.source} were not scored "
                f"(image ids {_some(missing)}); evaluate them too, or pass allow_partial=True to score the rest alone."
            )
        if not ids:
            raise EvaluationError(f"No image was scored against {self.truth.source}; call update() first.")
        truth, found = self.truth.only(ids), self.found()
        _refuse_corners(found, truth)
        stats, ap = self._score(truth, found)
        boxes = truth.boxes_per_category(skip_ignored=self.protocol != "coco")
        return DetectionMetrics(
            stats=stats,
            per_class=dict(zip(self.label_names, ap, strict=True)),
            boxes={name: boxes[c] for name, c in zip(self.label_names, self.category_ids, strict=True)},
            images=len(ids),
            detections=len(found),
            not_counted=self._beyond(found),
            protocol=self.protocol,
        )

    def _score(self, truth: GroundTruth, found: Found) -> tuple[dict[str, float | None], list[float | None]]:
        """The numbers of the protocol, and AP of each class."""
        if self.protocol == "coco":
            return self._score_coco(truth, found)
        if self.protocol == "lvis":
            curves = lvis_curves(truth, found, self.category_ids)
            stats = summarize_lvis(curves, frequency_groups(truth, self.category_ids))
            return stats, [mean_found(column) for column in curves.ap[..., 0].T]
        by_iou = voc_average_precision(truth, found, self.category_ids, self.protocol)
        return summarize_voc(by_iou), [mean_found(column) for column in by_iou.T]

    def _beyond(self, found: Found) -> int:
        """Detections that the protocol leaves out because there are too many."""
        if self.protocol == "coco":
            return found.beyond(MOST_COUNTED)
        return len(found) - len(found.best(MOST_OF_IMAGE)) if self.protocol == "lvis" else 0

    def _score_coco(self, truth: GroundTruth, found: Found) -> tuple[dict[str, float | None], list[float | None]]:
        """The 12 numbers, and AP of each class."""
        categories = sorted(self.category_ids)
        curves = score(self.backend, truth, found, categories)
        ap = [mean_found(curves.precision[:, :, categories.index(c), 0, 2]) for c in self.category_ids]
        return summarize(curves.precision, curves.recall), ap

    def found(self) -> Found:
        """Return everything given so far as arrays, by image id."""
        state = self.state()
        categories = np.array(self.category_ids, dtype=np.int64)[state["labels"]]
        return Found(np.repeat(state["image_ids"], state["counts"]), categories, state["boxes"], state["scores"])

    def results(self) -> list[ResultRow]:
        """Return everything given so far as rows of a COCO results file, by image id."""
        return self.found().rows()

    def save_detections(self, path: str | Path) -> Path:
        """Write `results` as JSON, in full precision, replacing an existing file in one step."""
        return atomic_write(path, json.dumps(self.results(), allow_nan=False))

    def _check_classes(self) -> None:
        names, ids, known = self.label_names, self.category_ids, self.truth.category_names
        source = self.truth.source
        if len(names) != len(ids):
            raise EvaluationError(f"{len(names)} label names came with {len(ids)} category ids; one each is needed.")
        for kind, values in (("category id", ids), ("label name", names)):
            twice = [value for value in dict.fromkeys(values) if values.count(value) > 1]
            if twice:
                raise EvaluationError(f"The {kind} {twice[0]!r} is given twice; classes must be distinct.")
        ids_by_name = {name: number for number, name in known.items()}
        for name, number in zip(names, ids, strict=True):
            if number not in known:
                raise EvaluationError(
                    f"Label '{name}' has category id {number}, which {source} does not know; "
                    f"its categories are {_some([f'{k} {v}' for k, v in known.items()])}."
                )
            if ids_by_name.get(name, number) != number and known[number] != name:
                raise EvaluationError(
                    f"Label '{name}' has category id {number}, but in {source} {number} is '{known[number]}' and "
                    f"'{name}' is {ids_by_name[name]}; take the category ids from that file."
                )
        unseen = self.truth.boxes_per_category().keys() - set(ids)
        if unseen:
            raise EvaluationError(
                f"{source} has boxes of {_some([known[c] for c in sorted(unseen)])}, which the labels "
                f"{_some(list(names))} lack; leaving them out would raise AP. Give all categories."
            )

    def _check_image(self, image_id: int, added: dict[int, _Scored]) -> None:
        if image_id not in self.truth.image_ids:
            raise EvaluationError(
                f"Image id {image_id} is not among the {len(self.truth.image_ids)} images of {self.truth.source} "
                f"({_some(sorted(self.truth.image_ids))})."
            )
        if image_id in self._scored or image_id in added:
            raise EvaluationError(
                f"Image id {image_id} is given a second time; each image is to be scored exactly once "
                "(a sampler that fills up its last batch by repeating images does this)."
            )

    def _checked(self, image_id: int, found: Detections) -> _Scored:
        """Detections of one image on the CPU, in float64, after all checks."""
        if found.label_names != self.label_names:
            raise EvaluationError(
                f"Image id {image_id}: the detections are of classes {_some(found.label_names)}, "
                f"the evaluator's are {_some(self.label_names)}; names and order must agree."
            )
        boxes = found.boxes.detach().to("cpu", torch.float64).numpy()
        scores = found.scores.detach().to("cpu", torch.float64).numpy()
        labels = found.labels.detach().to("cpu", torch.int64).numpy()
        checks = (
            (np.isfinite(boxes).all(axis=1), "a box that is not finite", "did the model diverge?"),
            (np.isfinite(scores), "a score that is not finite", "did the model diverge?"),
            ((labels >= 0) & (labels < len(self.label_names)), "a label that is no class", "labels are 0..C-1"),
            ((boxes[:, 2:] >= boxes[:, :2]).all(axis=1), "a box with x2 < x1 or y2 < y1", "boxes are x1, y1, x2, y2"),
        )
        for passed, what, hint in checks:
            if not passed.all():
                k = int(np.flatnonzero(~passed)[0])
                raise EvaluationError(
                    f"Image id {image_id} has {what}: detection {k} is label {labels[k]}{self._name(int(labels[k]))}, "
                    f"score {scores[k]:.6g}, box {boxes[k].tolist()} ({hint})."
                )
        boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        return _Scored(boxes, np.array(scores), np.array(labels))

    def _name(self, label: int) -> str:
        return f" '{self.label_names[label]}'" if 0 <= label < len(self.label_names) else ""


def _refuse_corners(found: Found, truth: GroundTruth) -> None:
    sizes = truth.sizes_of(found.image_ids)
    out = sticking_out(found.boxes, sizes)
    if len(out):
        k = int(out[0])
        width, height = sizes[k].tolist()
        raise EvaluationError(
            f"{len(out)} of {len(found)} detections reach out of their image when read as x, y, width, height, but lie "
            f"in it when read as corners x1, y1, x2, y2 (for example image id {found.image_ids[k]}, "
            f"{width:g}x{height:g} px: {found.boxes[k].tolist()}). Rows of a COCO results file have width and height, "
            "`Detections` have corners."
        )


def _some(values: Sequence[Any]) -> str:
    """The first few values of a list, for a message."""
    shown = ", ".join(str(value) for value in values[:5])
    return f"{shown}, … ({len(values)} in all)" if len(values) > 5 else shown or "none"
