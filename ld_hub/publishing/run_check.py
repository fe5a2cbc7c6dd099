"""Whether the files of a run are what was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ld_hub.engine.checkpoint import RunDirectory
from ld_hub.engine.proof import faults, is_checkpoint, step_of
from ld_hub.engine.records import RunSettings
from ld_hub.errors import LdHubError
from ld_hub.hub import WEIGHTS_NAME, load_safetensors
from ld_hub.hub.manifest import MANIFEST_NAME
from ld_hub.models.checkpoints.saved import read_saved
from ld_hub.publishing.verdict import Report


def verify_run(place: Path) -> Report:
    """Compare every checkpoint with its manifest, the models' weights with their digest, and read all else.

    Args:
        place: Directory of a run.
    """
    run, report = RunDirectory(place), Report()
    report.add("config.json", _refusal(lambda: RunSettings.from_dict(run.settings(), f"'{run.config_file}'")))
    for path in sorted((place / "checkpoints").glob("step_*")):
        report.add(f"checkpoints/{path.name}", _checkpoint_differences(path))
    report.add("metrics.jsonl", _broken_lines(run.metrics_file))
    for directory in (run.model_dir, run.best_dir):
        if directory.is_dir():
            report.add(f"{directory.name}/", _refusal(partial(_read_model, directory)))
    if run.result_file.is_file():
        report.add("result.json", _result_differences(run))
    return report


def _checkpoint_differences(path: Path) -> list[str]:
    """Of one that is there; where it was being removed, that."""
    return list(faults(path)) if is_checkpoint(path) else [f"{MANIFEST_NAME} is missing"]


def _read_model(directory: Path) -> None:
    read_saved(directory)
    load_safetensors(directory / WEIGHTS_NAME)


def _refusal(read: Callable[[], object]) -> list[str]:
    try:
        read()
    except LdHubError as error:
        return [str(error)]
    return []


def _broken_lines(file: Path) -> list[str]:
    """Lines that are no JSON object with a step."""
    if not file.is_file():
        return [f"{file.name} is missing"]
    broken = []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            broken.append(f"line {number} cannot be read")
    return broken


def _result_differences(run: RunDirectory) -> list[str]:
    """What result.json says of a run that is complete, beside its last checkpoint."""
    try:
        steps = int(json.loads(run.result_file.read_text(encoding="utf-8"))["steps"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{run.result_file.name} cannot be read ({error})"]
    last = [step_of(path) for path in run.checkpoints()][-1:]
    return (
        [] if last in ([], [steps]) else [f"{steps} steps are said to be done, and the last checkpoint is of {last[0]}"]
    )
