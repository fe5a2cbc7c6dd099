"""Exports that are published: which files, what was measured of them, and what a card says about both.

A measurement belongs to an export by the digest of its program and settings (`ld_hub.runtime.Exported.digest`); one of
an earlier program in the same directory counts as none.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ld_hub.benchmark.figures import Figures
from ld_hub.engine.identity import weights_digest
from ld_hub.errors import CheckpointError, ConfigError
from ld_hub.hub.card_file import escape, fence, table
from ld_hub.hub.config_file import parse_json
from ld_hub.hub.evidence import BENCHMARK_NAME, EVAL_DIRECTORY, EXPORTS_DIRECTORY, MAX_BYTES, Evidence, find_evidence
from ld_hub.publishing.taught import code
from ld_hub.runtime.exported_files import SUMS, Exported, ExportedError, listed, read_exported

HEAD = ("export", "format", "precision", "size, MB", "AP, x100", "of", "images/s", "on")


@dataclass(frozen=True)
class Export:
    """An exported directory, whole, with what was measured of it.

    Attributes:
        exported: What its config.json says.
        evaluations: Artefacts of it in its ``eval/``, by path.
        speed: Its benchmark.json; None where there is none of it.
    """

    exported: Exported
    evaluations: dict[Path, Evidence]
    speed: Figures | None

    @property
    def name(self) -> str:
        """Directory below `EXPORTS_DIRECTORY`: format, precision, and what is not as usual."""
        exported, words = self.exported, [self.exported.to, self.exported.precision]
        words += ["pixels"] * exported.takes_pixels + ["rows"] * (not exported.chooses)
        return "-".join([*words, *(["x".join(map(str, exported.size))] if exported.size else [])])

    @property
    def megabytes(self) -> float:
        """Size of the program in 10^6 bytes."""
        return sum(file.stat().st_size for file in self.exported.program_files) / 1e6

    def files(self) -> dict[str, Path]:
        """All that is published of it, by path below its directory: what its manifest lists, and measurements."""
        place = self.exported.directory
        found = {name: place / name for name in (*listed(place), SUMS) if (place / name).is_file()}
        for path, evidence in self.evaluations.items():
            for file in (path, path.with_name(evidence.detections_file.file)):
                inside = file.is_relative_to(place)
                name = file.relative_to(place) if inside else Path(EVAL_DIRECTORY, path.parent.name, file.name)
                if file.is_file():
                    found[name.as_posix()] = file
        return found | ({} if self.speed is None else {BENCHMARK_NAME: place / BENCHMARK_NAME})


def read_export(directory: str | Path) -> Export:
    """Read an exported directory, whose every file is compared with the manifest; nothing is executed.

    A measurement of another program is left out, and a warning says so.

    Raises:
        CheckpointError: If it is none, or not what was written.
        EvaluationError: If a file in ``eval/`` claims to be an artefact and is none.
    """
    try:
        exported = read_exported(directory)
    except ExportedError as error:
        raise CheckpointError(str(error)) from error
    place, digest = exported.directory, exported.digest
    evaluations = {}
    for path, evidence in find_evidence(place).items():
        if evidence.weights.tensors == digest:
            evaluations[path] = evidence
        else:
            _warn_other(path, f"ld-hub eval {directory} --data DIR --out {place / EVAL_DIRECTORY}")
    file = place / BENCHMARK_NAME
    speed: Figures | None = None
    if file.is_file():
        if file.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"'{file}' has more than {MAX_BYTES:,} bytes; no benchmark writes such a file.")
        speed = Figures.from_dict(parse_json(file, "what a benchmark writes"), f"'{file}'")
        if speed.program is None or speed.program.digest != digest:
            _warn_other(file, f"ld-hub benchmark {directory} --json {file}")
            speed = None
    return Export(exported, evaluations, speed)


def read_exports(directories: Iterable[str | Path], model: Any) -> dict[str, Export]:
    """Exports of one model by their names.

    Args:
        directories: They.
        model: The detector that they must have been made of.

    Raises:
        CheckpointError: If one is damaged.
        ConfigError: If one is of another model, or two have one name.
    """
    found: dict[str, Export] = {}
    for directory in directories:
        export = read_export(directory)
        fault = differs(export.exported, model)
        if fault:
            raise ConfigError(f"'{directory}' is no export of this '{model.name}': {fault}. Export the model again.")
        if export.name in found:
            earlier = found[export.name].exported.directory
            raise ConfigError(f"'{earlier}' and '{directory}' are both exports of the kind {export.name}: name one.")
        found[export.name] = export
    return found


def differs(exported: Exported, model: Any) -> str:
    """How an export tells that it was not made of a model; empty where it was.

    Args:
        exported: The export.
        model: The detector.
    """
    mine = (model.family, asdict(model.config), model.label_names, model.category_ids)
    if (exported.family, dict(exported.config), exported.label_names, exported.category_ids) != mine:
        return "its structure or its classes are others"
    digits = weights_digest(model)
    if exported.weights != digits:
        return f"its weights are {exported.weights or 'unknown'}, the model's {digits}"
    return ""


def exports_section(exports: Mapping[str, Export], repo_id: str) -> str:
    """Exports in the card of their model; empty without any.

    Args:
        exports: By name, as they lie below `EXPORTS_DIRECTORY`.
        repo_id: ``org/name``.
    """
    if not exports:
        return ""
    first = f"{EXPORTS_DIRECTORY}/{next(iter(exports))}"
    shell = f'hf download {repo_id or "REPOSITORY"} --include "{first}/*" --local-dir .'
    python = f"""\
from ld_hub.runtime import Detector  # imports no torch

found = Detector("{first}").predict("photo.jpg", threshold=0.3)
"""
    return "\n\n".join(
        [
            "## Exports",
            "Programs of this model, which need no torch; each directory has a README.md and SHA256SUMS.",
            *measured({f"{EXPORTS_DIRECTORY}/{name}": export for name, export in exports.items()}),
            fence(shell, "sh"),
            fence(python, "python"),
        ]
    )


def measured(exports: Mapping[str, Export]) -> list[str]:
    """A table of what was measured of exports, and a sentence about what was not; Markdown.

    Args:
        exports: By what stands in the first column.
    """
    rows = [row for name, export in exports.items() for row in rows_of(name, export)]
    no_ap = [code(name) for name, export in exports.items() if not export.evaluations]
    no_speed = [code(name) for name, export in exports.items() if export.speed is None]
    missing = [
        f"{what} of {', '.join(names)} (`{command}`)"
        for what, names, command in (
            ("AP", no_ap, "ld-hub eval DIR --data DATA --out DIR/eval"),
            ("speed", no_speed, f"ld-hub benchmark DIR --json DIR/{BENCHMARK_NAME}"),
        )
        if names
    ]
    return [table(HEAD, rows), *([f"Not measured: {'; '.join(missing)}."] if missing else [])]


def rows_of(name: str, export: Export) -> list[list[str]]:
    """Rows of the table: one, or one for each evaluation; cells are Markdown.

    Args:
        name: What stands in the first column.
        export: The export.
    """
    exported = export.exported
    start = [code(name), escape(exported.to), escape(exported.precision), f"{export.megabytes:.1f}"]
    speed = _speed(export.speed)
    aps = [_ap(evidence) for evidence in export.evaluations.values()] or [["", ""]]
    return [[*start, *ap, *(speed if k == 0 else ["", ""])] for k, ap in enumerate(aps)]


def _ap(evidence: Evidence) -> list[str]:
    ap, data = evidence.stats["AP"], evidence.data
    where = f"{escape(data.name)}, {escape(data.split)} ({evidence.images} images, {escape(evidence.protocol)})"
    return ["" if ap is None else f"{100 * ap:.1f}", where]


def _speed(figures: Figures | None) -> Sequence[str]:
    if figures is None or figures.inference is None or figures.workload is None:
        return ["", ""]
    work = figures.workload
    where = f"{figures.hardware}; {work.batch_size} images of {work.width}x{work.height}"
    return [f"{figures.inference.images_per_second:.1f}", escape(where)]


def _warn_other(file: Path, command: str) -> None:
    warnings.warn(f"'{file}' is of another program than the one beside it, and left out: `{command}`.", stacklevel=4)
