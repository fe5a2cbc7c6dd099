"""One forward pass of each detector over each image; everything the report needs is taken from it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ld_hub.analysis import probe
from ld_hub.analysis.watchers import BoxTrace, Crowding, Entropies, ScoreErrors, Seen, Tracing, Watcher
from ld_hub.data import DetectionSet, eval_loader
from ld_hub.data.detection_set import Records
from ld_hub.evaluation import DetectionEvaluator, GroundTruth, read_ground_truth
from ld_hub.models.detector import DenseDetector
from ld_hub.models.inference import evaluating
from ld_hub.structures import ImageBatch, Targets

Progress = Callable[[str, int], Callable[[], None]]


@dataclass(frozen=True, eq=False)
class Subject:
    """A detector under analysis.

    Attributes:
        name: What the report calls it, unlike all others.
        model: The detector, on the device where it is to run.
        source: Where it came from.
    """

    name: str
    model: DenseDetector
    source: str = ""


@dataclass(frozen=True, eq=False)
class Collected:
    """What the pass brought.

    Attributes:
        truth: Ground truth of the images.
        evaluators: Detections, by detector.
        crowding: The same predictions at two NMS thresholds, by detector.
        score_errors: Against the teacher, by student.
        entropies: By detector with bins.
        traces: Edge distributions of single objects.
        left_out: Why a detector is missing somewhere: by ``scores`` and ``edges``, sentences.
    """

    truth: GroundTruth
    evaluators: dict[str, DetectionEvaluator]
    crowding: dict[str, Crowding]
    score_errors: dict[str, ScoreErrors]
    entropies: dict[str, Entropies]
    traces: list[BoxTrace]
    left_out: dict[str, list[str]]


def collect(
    subjects: Sequence[Subject],
    dataset: DetectionSet,
    *,
    teacher: str | None,
    examples: Sequence[int],
    score: float,
    batch_size: int,
    workers: int,
    progress: Progress,
) -> Collected:
    """Run the detectors.

    Detectors that resize images alike see the same batches, each normalised as it wants; others have a pass of their
    own, and their rows are compared with nobody's.

    Args:
        subjects: Detectors of the data set's classes.
        dataset: Images with annotations.
        teacher: Name of one of the subjects, or None.
        examples: Ids of images whose maps, edges and crowded detections are kept.
        score: Detections above it are drawn.
        batch_size: Images per forward pass.
        workers: Processes that load images, of each loader.
        progress: Called with a title and a number of batches; what it returns is called after each.

    Raises:
        EvaluationError: If a detector's classes are not the data's, or it predicts something that cannot be scored.
    """
    truth = read_ground_truth(dataset.annotation_file).only(dataset.records.image_ids.tolist())
    keep = frozenset(examples)
    evaluators = {
        one.name: DetectionEvaluator(
            truth, category_ids=dataset.category_ids, label_names=dataset.label_names, protocol=dataset.protocol
        )
        for one in subjects
    }
    crowding = {one.name: Crowding(one.name, one.model, score, keep) for one in subjects}
    entropies = {one.name: Entropies(one.name) for one in subjects if one.model.coder.reg_max is not None}
    errors, missing = _score_errors(subjects, teacher, keep)
    tracing, untraced = _tracing(subjects, teacher, keep)
    watchers: list[Watcher] = [*crowding.values(), *entropies.values(), *errors.values()]
    watchers += [] if tracing is None else [tracing]
    with contextlib.ExitStack() as stack:
        for one in subjects:
            stack.enter_context(evaluating(one.model))
        for group in _groups(subjects):
            for seen in _pass(group, dataset, batch_size, workers, progress):
                for one in group:
                    output, batch = seen.outputs[one.name], seen.batch
                    found = one.model.postprocess(output, batch.image_sizes, batch.scale_factors)
                    evaluators[one.name].update(batch.image_ids, found)
                for watcher in watchers:
                    watcher.see(seen)
    traces = [] if tracing is None else tracing.traces
    left_out = {"scores": missing, "edges": untraced}
    return Collected(truth, evaluators, crowding, errors, entropies, traces, left_out)


def _score_errors(
    subjects: Sequence[Subject], teacher: str | None, keep: frozenset[int]
) -> tuple[dict[str, ScoreErrors], list[str]]:
    """Score errors of each student that can be compared with the teacher, and why others cannot."""
    by_name = {one.name: one for one in subjects}
    errors: dict[str, ScoreErrors] = {}
    missing = []
    for one in subjects:
        if teacher is None or one.name == teacher:
            continue
        reason = _unlike(one.model, by_name[teacher].model)
        if reason:
            missing.append(f"{one.name} and {teacher} cannot be compared place by place: {reason}.")
        else:
            errors[one.name] = ScoreErrors(one.name, teacher, one.model.spec.strides, keep)
    return errors, missing


def _tracing(
    subjects: Sequence[Subject], teacher: str | None, keep: frozenset[int]
) -> tuple[Tracing | None, list[str]]:
    """Who reads edges from the rows of whom, and why others do not."""
    binned = [one for one in subjects if one.model.coder.reg_max is not None]
    missing = [f"{one.name} predicts edges as plain numbers, without bins." for one in subjects if one not in binned]
    leader = next((one for one in binned if one.name == teacher), binned[0] if binned else None)
    if leader is None:
        return None, missing
    others = []
    for one in binned:
        reason = "" if one is leader else _unlike(one.model, leader.model)
        if reason:
            missing.append(f"{one.name} cannot be read at the places of {leader.name}: {reason}.")
        elif one is not leader:
            others.append(one.name)
    return Tracing(leader.name, leader.model, tuple(others), keep), missing


def _unlike(one: DenseDetector, other: DenseDetector) -> str:
    """Why rows of two detectors do not lie on the same places of an image; the empty string where they do."""
    sizes = [model.data_config.image_size for model in (one, other)]
    if _geometry(one) != _geometry(other):
        shown = " and ".join(f"{short} x {long}" for short, long in sizes)
        return f"they resize images differently (to {shown} px)"
    return probe.why_not_comparable(one.spec, other.spec)


def _geometry(model: DenseDetector) -> tuple[tuple[int, int], int]:
    return model.data_config.image_size, model.data_config.size_divisor


def _groups(subjects: Sequence[Subject]) -> list[list[Subject]]:
    """Detectors that resize and pad images alike."""
    groups: dict[tuple[tuple[int, int], int], list[Subject]] = {}
    for one in subjects:
        groups.setdefault(_geometry(one.model), []).append(one)
    return list(groups.values())


def _pass(
    group: Sequence[Subject], dataset: DetectionSet, batch_size: int, workers: int, progress: Progress
) -> Iterator[Seen]:
    """Each image once, as all detectors of a group see it."""
    configs = list(dict.fromkeys(one.model.data_config for one in group))
    place = {config: index for index, config in enumerate(configs)}
    device = next(group[0].model.parameters()).device
    # Same sizes, same batches: the loaders differ in how they normalise only.
    loaders = [eval_loader(dataset, config, batch_size, workers=workers) for config in configs]
    advance = progress(f"detecting: {', '.join(one.name for one in group)}", len(loaders[0]))
    rows = {image_id: row for row, image_id in enumerate(dataset.records.image_ids.tolist())}
    for batches in zip(*loaders, strict=True):
        moved = [batch.to(device, non_blocking=True) for batch in batches]
        outputs = {one.name: one.model(moved[place[one.model.data_config]].images) for one in group}
        targets, originals = _truth_of(dataset.records, [rows[image_id] for image_id in moved[0].image_ids], moved[0])
        yield Seen(moved[0], outputs, targets, originals)
        advance()


def _truth_of(records: Records, rows: Sequence[int], batch: ImageBatch) -> tuple[Targets, Targets]:
    """The ground truths of a batch, in its px and in those of the files."""
    device = batch.images.device
    boxes: list[Tensor] = []
    labels: list[Tensor] = []
    crowd: list[Tensor] = []
    for row in rows:
        part = slice(int(records.offsets[row]), int(records.offsets[row + 1]))
        boxes.append(torch.from_numpy(records.boxes[part].copy()))
        labels.append(torch.from_numpy(records.labels[part].copy()))
        crowd.append(torch.from_numpy(records.crowd[part].copy()))
    factors = batch.scale_factors.cpu().repeat(1, 2)
    scaled = [box * factor for box, factor in zip(boxes, factors, strict=True)]
    own = Targets.pad(boxes, labels, batch.original_sizes.cpu(), crowd).to(device)
    return Targets.pad(scaled, labels, batch.image_sizes.cpu(), crowd).to(device), own
