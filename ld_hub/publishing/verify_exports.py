"""Whether exports are what was written, and what their evaluations and the card say of them is true."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path

from ld_hub.errors import LdHubError
from ld_hub.evaluation.agreement import Tolerance
from ld_hub.export.exported_model import ExportedModel
from ld_hub.hub.card_file import BEGIN, generated_block
from ld_hub.hub.evidence import EXPORTS_DIRECTORY, find_evidence
from ld_hub.hub.upload import CARD_NAME
from ld_hub.models.detector import DenseDetector
from ld_hub.publishing.evaluations import Source, read_parts
from ld_hub.publishing.exports import Export, differs, read_export, rows_of
from ld_hub.publishing.recomputing import (
    cells_of,
    check_artefact,
    hash_differences,
    metadata_differences,
)
from ld_hub.publishing.verdict import Report
from ld_hub.runtime.exported_files import SUMS, Exported, ExportedError, read_exported


def verify_export(place: Path, source: Source, allowed: Tolerance, batch_size: int) -> Report:
    """Check an exported directory, and where its README.md is a card, that too; as `ld_hub.publishing.verify.verify`.

    Args:
        place: The directory.
        source: The data.
        allowed: For what is recomputed.
        batch_size: Images in one run of the program.
    """
    report = Report()
    _check_export(report, "", place, source, allowed, batch_size)
    file = place / CARD_NAME
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    export = _whole(place)
    if BEGIN in text and export is not None:
        name = f"{CARD_NAME}: AP of the metadata"
        try:
            report.add(name, metadata_differences(text, [*export.evaluations.values()]))
        except LdHubError as error:
            report.add(name, [str(error)])
        _check_row(report, text, place.name, export)
    return report


def check_exports(
    report: Report, place: Path, model: DenseDetector, source: Source, allowed: Tolerance, batch_size: int
) -> None:
    """Check the exports in a model's directory or repository, and that they were made of this model.

    Args:
        report: Gets the comparisons.
        place: Of the model.
        model: It.
        source: The data; evaluations of other data are skipped.
        allowed: For what is recomputed.
        batch_size: Images in one run of a program.
    """
    card = place / CARD_NAME
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    for directory in sorted(each for each in (place / EXPORTS_DIRECTORY).glob("*") if each.is_dir()):
        name = f"{EXPORTS_DIRECTORY}/{directory.name}"
        exported = _check_export(report, f"{name}: ", directory, source, allowed, batch_size)
        if exported is None:
            continue
        fault = differs(exported, model)
        report.add(f"{name}: it was made of this model", [fault] if fault else [])
        export = _whole(directory)
        if export is not None:
            _check_row(report, text, name, export)


def _check_export(
    report: Report, prefix: str, place: Path, source: Source, allowed: Tolerance, batch_size: int
) -> Exported | None:
    """Files first, then every evaluation of the given data; returns what config.json says, if the files are whole."""
    name = f"{prefix}every file is the one that {SUMS} lists"
    try:
        exported = read_exported(place)
        model, found = ExportedModel(place), find_evidence(place)
    except (LdHubError, ExportedError) as error:
        report.add(name, [str(error)])
        return None
    report.add(name, [])
    parts = read_parts(source, found.values())
    for path, content in found.items():
        title, given = f"{prefix}{path.relative_to(place).as_posix()}", parts[content.data.split]
        told = hash_differences(exported.program, content.weights.tensors, exported.digest)
        report.add(f"{title}: program", told)
        if prefix and given.dataset is not None and given.sha256 != content.data.sha256:
            report.skipped.append(f"{title}: of {content.data.name}, {content.data.split}")
            continue
        again = partial(model.evaluate, batch_size=batch_size, protocol=content.protocol)
        check_artefact(report, title, path, content, given, again, allowed)
    return exported


def _whole(place: Path) -> Export | None:
    """The export with its measurements; None where a file of it is damaged. What is wrong was said already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read_export(place)
        except LdHubError:
            return None


def _check_row(report: Report, card: str, name: str, export: Export) -> None:
    """Compare a card's table with what was measured of an export."""
    title = f"{CARD_NAME}: row of {name}"
    try:
        shown = [cells_of(line) for line in generated_block(card).splitlines() if line.startswith("|")]
    except LdHubError as error:
        report.add(title, [str(error)])
        return
    wanted = [[cell for cell in row[1:] if cell] for row in rows_of(name, export)]
    report.add(title, [f"no row of the table has {' | '.join(row)}" for row in wanted if row not in shown])
