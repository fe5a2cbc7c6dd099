"""The comparisons of `ld-hub verify` that do not care what detects: a model here, or an exported program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ld_hub.data import DetectionSet
from ld_hub.errors import EvaluationError, LdHubError
from ld_hub.evaluation import DetectionEvaluator, DetectionMetrics
from ld_hub.evaluation.agreement import Tolerance, differences, read_detections, score_detections, unmatched
from ld_hub.hub import sha256_of
from ld_hub.hub.card_file import eval_results, read_metadata
from ld_hub.hub.evidence import Evidence
from ld_hub.hub.upload import CARD_NAME
from ld_hub.publishing.evaluations import Given
from ld_hub.publishing.verdict import Report
from ld_hub.structures import ResultRow

EXACT = 1e-6  # of numbers that the same scorer computes of the same detections


def check_artefact(
    report: Report,
    title: str,
    path: Path,
    content: Evidence,
    given: Given,
    evaluated: Callable[[DetectionSet], tuple[DetectionMetrics, DetectionEvaluator]] | None,
    allowed: Tolerance,
) -> None:
    """Compare an artefact with the data, with its detections, and with what is detected now.

    Args:
        report: Gets the comparisons.
        title: Before their names.
        path: The artefact's file.
        content: What it says.
        given: The data.
        evaluated: Detects on all of them and scores that; None for what is not to be recomputed.
        allowed: For what is recomputed.
    """
    dataset = _check_files(report, title, path, content, given)
    if dataset is None:
        return
    rows = _check_recorded(report, title, path, content, dataset)
    if evaluated is not None:
        _recompute(report, title, content, rows, partial(evaluated, dataset), allowed)


def _check_files(report: Report, title: str, path: Path, content: Evidence, given: Given) -> DetectionSet | None:
    """Compare hashes of annotations and detections; returns the data set if it is the one of the artefact."""
    dataset = given.dataset
    if dataset is None:
        report.add(f"{title}: annotations", [given.error])
        return None
    same = hash_differences(dataset.annotation_file, content.data.sha256, given.sha256)
    if not report.add(f"{title}: annotations", same):
        return None
    detections = path.with_name(content.detections_file.file)
    if not detections.is_file():
        report.add(f"{title}: detections file", [f"'{detections.name}' is missing beside the artefact"])
        return dataset
    report.add(
        f"{title}: detections file",
        hash_differences(detections.name, content.detections_file.sha256, sha256_of(detections)),
    )
    return dataset


def hash_differences(name: str, told: str, found: str) -> list[str]:
    """A sentence if a file is another one than an artefact says."""
    return [] if told == found else [f"{name} is another file: sha256 {found[:16]}..., the artefact has {told[:16]}..."]


def _check_recorded(
    report: Report, title: str, path: Path, content: Evidence, dataset: DetectionSet
) -> list[ResultRow] | None:
    """Score the detections file anew; returns its rows, None if there are none to be had."""
    file = path.with_name(content.detections_file.file)
    if not file.is_file():
        return None
    name = f"{title}: its numbers are those of its detections"
    try:
        rows = read_detections(file)
        metrics = score_detections(
            rows, dataset.annotation_file, dataset.category_ids, dataset.label_names, content.protocol
        )
    except LdHubError as error:
        report.add(name, [str(error)])
        return None
    report.add(name, differences(content, metrics, EXACT, EXACT, "the detections give"))
    return rows


def _recompute(
    report: Report,
    title: str,
    content: Evidence,
    rows: Sequence[ResultRow] | None,
    evaluated: Callable[[], tuple[DetectionMetrics, DetectionEvaluator]],
    allowed: Tolerance,
) -> None:
    """Detect on every image again, by what is called, and compare."""
    name = f"{title}: AP recomputed"
    try:
        metrics, evaluator = evaluated()
    except LdHubError as error:
        report.add(name, [str(error)])
        return
    report.add(name, differences(content, metrics, allowed.number, allowed.per_class, "recomputed"))
    if rows is not None:
        report.add(f"{title}: detections recomputed", unmatched(rows, evaluator.results(), allowed))


def metadata_differences(text: str, own: Sequence[Evidence]) -> list[str]:
    """How the model-index of a card differs from artefacts.

    Args:
        text: The card.
        own: Artefacts of what the card is about.

    Raises:
        EvaluationError: If model-index is not what the Hub knows by this name.
        ConfigError: If the metadata cannot be read.
    """
    told = _told(read_metadata(text))
    expected = {
        (result.dataset_name, result.dataset_split, result.metric_type): result.metric_value
        for content in own
        for result in eval_results(content)
    }
    lines = []
    for key in [*expected, *(key for key in told if key not in expected)]:
        if expected.get(key) != told.get(key):
            where = " ".join(map(str, key))
            lines.append(f"{where}: the card has {told.get(key, 'none')}, the artefact {expected.get(key, 'none')}")
    return lines


def cells_of(row: str) -> list[str]:
    """Cells of a row of a card's table behind the first, in order; columns without any number are left out there."""
    return [cell.strip() for cell in row.strip("|").split("|") if cell.strip()][1:]


def _told(metadata: Mapping[str, Any]) -> dict[tuple[Any, Any, Any], Any]:
    """Metrics of a card's model-index by data set, split and type; errors of `metadata_differences`."""
    try:
        return {
            (result["dataset"].get("name"), result["dataset"].get("split"), metric["type"]): metric["value"]
            for entry in metadata.get("model-index") or []
            for result in entry["results"]
            for metric in result["metrics"]
        }
    except (TypeError, KeyError, AttributeError) as error:
        raise EvaluationError(f"{CARD_NAME}: 'model-index' cannot be read ({error}).") from None
