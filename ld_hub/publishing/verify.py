"""Whether a model's card and evaluation tell the truth: everything is recomputed and compared.

What is compared exactly: hashes of weights, annotations and detections; the numbers of the artefact with those of its
own detections file, scored anew; the AP in the card with that of the artefact. What another machine computes differs in
the last digits of floats, so for the recomputed numbers there are tolerances (`Tolerance`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from ld_hub.data import DetectionSet, load_data
from ld_hub.data.reading import Reading
from ld_hub.engine import identity
from ld_hub.engine.evaluate import evaluate
from ld_hub.engine.records import RunSettings
from ld_hub.errors import ConfigError, LdHubError
from ld_hub.evaluation import DetectionEvaluator, DetectionMetrics
from ld_hub.evaluation.agreement import Tolerance
from ld_hub.evaluation.artefact import Circumstances, artefact
from ld_hub.hub import CONFIG_NAME, WEIGHTS_NAME, sha256_of
from ld_hub.hub.card_file import ap_cells, generated_block
from ld_hub.hub.config_file import parse_json
from ld_hub.hub.evidence import TRAINING_DIRECTORY, Evidence, JudgedModel, find_evidence, read_evidence
from ld_hub.hub.upload import CARD_NAME
from ld_hub.models.checkpoints.pretrained import load_pretrained
from ld_hub.models.detector import DenseDetector
from ld_hub.ops.hardware import hardware
from ld_hub.publishing.evaluations import named, of_this_data, read_parts
from ld_hub.publishing.gains import check_comparison
from ld_hub.publishing.recomputing import (
    cells_of,
    check_artefact,
    hash_differences,
    metadata_differences,
)
from ld_hub.publishing.taught import teacher_differences
from ld_hub.publishing.verdict import Report
from ld_hub.publishing.verify_exports import check_exports, verify_export
from ld_hub.runtime.exported_files import is_exported
from ld_hub.tiling import Tiling


@dataclass(frozen=True)
class DataSource:
    """Where the images and annotations are, as for `load_data`.

    Attributes:
        data: Directory of the data set.
        images: Directory of the images, where `data` does not lead to them.
        annotations: COCO annotations, where `data` does not lead to them.
        reading: How loosely they are read.
    """

    data: str | None = None
    images: str | None = None
    annotations: str | None = None
    reading: Reading = field(default_factory=Reading)

    def require(self) -> None:
        """Refuse a source that says too little.

        Raises:
            ConfigError: If it does not lead to images and annotations.
        """
        if self.data is None and (self.images is None or self.annotations is None):
            raise ConfigError("Say where the data is: --data DIR, or both --images DIR and --annotations FILE.")

    def load(self, split: str) -> DetectionSet:
        """Read one part of it."""
        return load_data(self.data, split, images=self.images, annotations=self.annotations, **asdict(self.reading))


def circumstances(
    model: DenseDetector, *, command: str, batch_size: int, backend: str, tiling: Tiling | None = None
) -> Circumstances:
    """How a model was just evaluated.

    Args:
        model: What was evaluated, where it was.
        command: The command line.
        batch_size: Images per forward pass.
        backend: Scorer.
        tiling: How large images were looked at.
    """
    device = next(model.parameters()).device
    return Circumstances(
        command=command,
        device=f"{device.type} ({hardware(device).partition(';')[0]})",
        precision="TF32" if device.type == "cuda" and torch.backends.cudnn.allow_tf32 else "float32",
        batch_size=batch_size,
        backend=backend,
        tile=0 if tiling is None else tiling.size,
        overlap=0.0 if tiling is None else tiling.overlap,
    )


def describe_evaluation(
    model: DenseDetector,
    metrics: DetectionMetrics,
    *,
    name: str,
    weights: Path,
    dataset: DetectionSet,
    data: str,
    split: str,
    detections: Path,
    how: Circumstances,
) -> Evidence:
    """The artefact of an evaluation that was just made (`ld_hub.hub.evidence` shows it).

    Args:
        model: What was evaluated.
        metrics: What was measured.
        name: What the user calls the model.
        weights: The file that it was loaded from.
        dataset: The images.
        data: What the data set is called.
        split: Its part.
        detections: The detections that were written.
        how: Of `circumstances`.
    """
    judged = JudgedModel(
        name=name,
        architecture=model.name,
        family=model.family,
        config=asdict(model.config),
        recipe=None if model.teaching is None else model.teaching.recipe,
        # the Hub's cache keeps each commit in a directory of its name
        commit=weights.parent.name if weights.parent.parent.name == "snapshots" else "",
    )
    return artefact(
        metrics,
        model=judged,
        weights=weights,
        tensors=identity.weights_digest(model),
        data=data,
        split=split,
        annotations=dataset.annotation_file,
        detections=detections,
        how=how,
    )


def verify(
    directory: str | Path,
    source: DataSource,
    *,
    evaluation: str | Path | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 8,
    workers: int = 2,
    tolerance: Tolerance | None = None,
) -> Report:
    """Check a model directory, or a local copy of a repository, against the data that it was evaluated on.

    Args:
        directory: With model.safetensors, config.json, README.md and ``eval/``; or one that `ld-hub export` wrote.
        source: The data.
        evaluation: One artefact that is to be recomputed: a file, a directory below ``eval/``, or the name of its data
            set. Without it, all in ``eval/`` that were made of the given annotations are (all, if none was).
        device: Where to compute.
        batch_size: Images per forward pass.
        workers: Processes that load images.
        tolerance: For what is recomputed.

    Returns:
        Every comparison. What cannot be read is a difference too.

    Raises:
        ConfigError: If the data is not named, or `evaluation` names no artefact, or several.
    """
    place, report, allowed = Path(directory), Report(), tolerance or Tolerance()
    source.require()
    if is_exported(place):
        return verify_export(place, source, allowed, batch_size)
    try:
        model = load_pretrained(place)
    except LdHubError as error:
        report.add("the model loads", [str(error)])
        return report
    found = _artefacts(place, report)
    chosen = None if evaluation is None else named(place, found, evaluation)
    if chosen is not None and chosen not in found:
        found |= _artefacts(chosen, report)
    digest = sha256_of(place / WEIGHTS_NAME)
    own = {path: content for path, content in found.items() if _is_own(content, model, digest, found)}
    if not own:
        report.add("evaluation", [f"no artefact of this model in '{place / 'eval'}': there is nothing to check AP by"])
    wanted = {path: content for path, content in found.items() if chosen in (None, path)}
    parts = read_parts(source, wanted.values())
    checked, model = of_this_data(wanted, own, parts), model.to(device)
    for path, content in found.items():
        title = path.relative_to(place).as_posix() if path.is_relative_to(place) else str(path)
        if path not in checked:
            report.skipped.append(f"{title}: of {content.data.name}, {content.data.split}")
            continue
        if path in own:
            report.add(f"{title}: weights", hash_differences(WEIGHTS_NAME, content.weights.sha256, digest))
        again = partial(_evaluated, model, content, batch_size, workers) if path in own else None
        check_artefact(report, title, path, content, parts[content.data.split], again, allowed)
    check_exports(report, place, model, source, allowed, batch_size)
    _check_beside(report, place, model, (list(own.values()), list(found.values())))
    return report


def _artefacts(place: Path, report: Report) -> dict[Path, Evidence]:
    """An artefact by its file, or all of a model directory."""
    try:
        return {place: read_evidence(place)} if place.is_file() else find_evidence(place)
    except LdHubError as error:
        report.add("evaluation artefacts can be read", [str(error)])
        return {}


def _is_own(content: Evidence, model: DenseDetector, digest: str, found: Mapping[Path, Evidence]) -> bool:
    """Whether an artefact is about this model: by its weights, or if none is, by what it says about the model."""
    if any(each.weights.sha256 == digest for each in found.values()):
        return content.weights.sha256 == digest
    judged = content.model
    same = judged.architecture == model.name and judged.config == asdict(model.config)
    return same and judged.recipe == (None if model.teaching is None else model.teaching.recipe)


def _evaluated(
    model: DenseDetector, content: Evidence, batch_size: int, workers: int, dataset: DetectionSet
) -> tuple[DetectionMetrics, DetectionEvaluator]:
    """Detect on every image again, as an artefact says that it was done."""
    tiling = Tiling(content.tile, content.overlap) if content.tile else None
    return evaluate(model, dataset, batch_size=batch_size, workers=workers, protocol=content.protocol, tiling=tiling)


def _check_beside(
    report: Report, place: Path, model: DenseDetector, evaluations: tuple[Sequence[Evidence], Sequence[Evidence]]
) -> None:
    """Compare what stands beside the weights: card, comparison with the student alone, settings of the run."""
    block = _check_card(report, place / CARD_NAME, *evaluations)
    check_comparison(place, block, report.add)
    _check_training(report, place / TRAINING_DIRECTORY / CONFIG_NAME, model)


def _check_card(report: Report, file: Path, own: Sequence[Evidence], every: Sequence[Evidence]) -> str:
    """Compare the AP in a card with that of the artefacts; returns what is generated in it."""
    name = f"{CARD_NAME}: AP of the metadata"
    if not file.is_file():
        report.add(name, [f"there is no {CARD_NAME}: `ld-hub card` writes one"])
        return ""
    try:
        text = file.read_text(encoding="utf-8")
        lines, block = metadata_differences(text, own), generated_block(text)
    except (LdHubError, UnicodeDecodeError) as error:
        report.add(name, [str(error)])
        return ""
    report.add(name, lines)
    rows = [line for line in block.splitlines() if line.startswith("|")]
    shown = [each for each in every if each.comparable in {one.comparable for one in own}]
    missing = [" ".join(ap_cells(content)) for content in shown if not any(_shows(row, content) for row in rows)]
    report.add(f"{CARD_NAME}: table of AP", [f"no row of the table has the artefact's {cells}" for cells in missing])
    return block


def _check_training(report: Report, file: Path, model: DenseDetector) -> None:
    """Compare network, classes and teaching with those of the run, where its settings were published."""
    if not file.is_file():
        return
    name = f"{TRAINING_DIRECTORY}/{file.name}: the model is of this run"
    try:
        then = RunSettings.from_dict(parse_json(file, "the settings of a run"), f"'{file}'").identity
    except LdHubError as error:
        report.add(name, [str(error)])
        return
    now = replace(
        then,
        model=model.name,
        model_config=asdict(model.config),
        data_config=model.data_config,
        label_names=model.label_names,
        category_ids=model.category_ids,
        teaching=None if model.teaching is None else model.teaching.wished(),
    )
    if model.teaching is not None:
        said = ". ".join(filter(None, [model.teaching.who(), model.teaching.without_labels()]))
        report.add(f"{CONFIG_NAME}: taught by {said}", teacher_differences(model.teaching, then))
    changed = identity.differences(then.to_dict(), now.to_dict())
    report.add(name, [f"{key}: the run has {old}, the model {new}" for key, (old, new) in changed.items()])


def _shows(row: str, content: Evidence) -> bool:
    """Whether a row of a table has the APs of an artefact, in order; columns without any number are left out."""
    return cells_of(row) == [cell for cell in ap_cells(content) if cell]
