"""Publishing what a run has made: `ld-hub push`, and ``--push_to_hub`` at the end of training."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ld_hub.engine.arguments import HubArguments
from ld_hub.engine.checkpoint import RunDirectory
from ld_hub.engine.plots import plot_losses
from ld_hub.errors import HubError, MissingFileError
from ld_hub.hub import CONFIG_NAME
from ld_hub.hub.evidence import find_evidence
from ld_hub.models.names import saved_directory
from ld_hub.models.pretrained import load_pretrained
from ld_hub.models.publish import CURVES_NAME

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo


def publish_directory(directory: Path, repo_id: str, *, evaluations: Sequence[Path] = (), **options: Any) -> CommitInfo:
    """Publish the model of a run, or of a model directory.

    Args:
        directory: See `locate`.
        repo_id: ``org/name``.
        evaluations: Artefacts beside those in the model directory's ``eval/``.
        **options: Of `ld_hub.models.publish.push_to_hub`.

    Returns:
        The commit.

    Raises:
        MissingFileError: If there is no model.
        CheckpointError: If it cannot be loaded.
        HubError: If it could not be published.
    """
    place, run = locate(directory)
    model = load_pretrained(place)
    if run is not None:
        draw_curves(run)
    found = [*find_evidence(place), *evaluations]
    commit: CommitInfo = model.push_to_hub(repo_id, eval_results=found, run=run, **options)
    return commit


def locate(directory: Path) -> tuple[Path, Path | None]:
    """The model directory that is meant, and the run it belongs to.

    Args:
        directory: A run with a ``model/`` in it, or a model directory, possibly inside of a run.

    Raises:
        MissingFileError: If it is neither.
    """
    inner = RunDirectory(directory).model_dir
    if is_run(directory) and (inner / CONFIG_NAME).is_file():
        return inner, directory
    saved = saved_directory(directory)
    if saved is None:
        raise MissingFileError(f"No model directory '{directory}'.")
    parent = saved.resolve().parent
    return saved, parent if is_run(parent) else None


def draw_curves(run: Path) -> None:
    """Draw the losses of a run into its directory, where matplotlib is installed and there are any.

    Args:
        run: Directory of the run.
    """
    records = []
    for line in RunDirectory(run).metrics_file.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):  # the last line of a killed run
            records.append(json.loads(line))
    losses = [record for record in records if isinstance(record, dict) and any("loss" in name for name in record)]
    if losses:
        with contextlib.suppress(OSError):  # a run that may only be read is published without
            plot_losses({run.name: losses}, run / CURVES_NAME)


def address(commit: CommitInfo) -> str:
    """Where a commit can be looked at: the pull request, or the repository.

    Args:
        commit: As `push_to_hub` returns it.
    """
    if commit.pr_url:
        return f"pull request: {commit.pr_url}"
    return f"published: {commit.commit_url.partition('/commit/')[0]} (commit {commit.oid[:12]})"


def publish_run(run: Path, flags: HubArguments, say: Callable[[str], None]) -> None:
    """Publish a run that has just ended, if it was asked for.

    Args:
        run: Its directory.
        flags: Of the command.
        say: Prints a line.

    Raises:
        HubError: If it could not be published; the model is in the run's directory all the same.
    """
    if flags.hub_model_id is None:
        return
    try:
        say(address(publish_directory(run, flags.hub_model_id, private=flags.hub_private, license=flags.hub_license)))
    except HubError as error:
        later = f"The model is in '{run}': `ld-hub push {run} {flags.hub_model_id}` publishes it later."
        raise HubError(f"{error} {later}") from error


def is_run(directory: Path) -> bool:
    """Runs keep their settings and their log of metrics side by side."""
    run = RunDirectory(directory)
    return run.config_file.is_file() and run.metrics_file.is_file()
