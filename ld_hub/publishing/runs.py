"""Publishing what a run has made: `ld-hub push`, and ``--push_to_hub`` at the end of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ld_hub.analysis.curve_plots import MISSING, plot_curves
from ld_hub.analysis.curves import course, panels
from ld_hub.data import load_data
from ld_hub.data.reading import Reading
from ld_hub.engine.checkpoint import RunDirectory
from ld_hub.engine.records import read_records
from ld_hub.errors import CheckpointError, HubError, LdHubError, MissingFileError
from ld_hub.hub import CONFIG_NAME, WEIGHTS_NAME, sha256_of
from ld_hub.hub.card_file import read_yaml
from ld_hub.hub.evidence import EVAL_DIRECTORY, find_evidence
from ld_hub.models.checkpoints.pretrained import load_pretrained
from ld_hub.models.names import saved_directory
from ld_hub.publishing.push import CURVES_NAME, PICTURE_THRESHOLD

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

    from ld_hub.models.detector import DenseDetector

LOOKED_AT = 16  # evaluation images, for one on which something is found
SHOWN = ("loss", "loss_", "distill_", "lr")  # curves of a card; AP enters it from evaluation artefacts alone


def publish_directory(
    directory: Path,
    repo_id: str,
    *,
    evaluations: Sequence[Path] = (),
    image: str | Path | None = None,
    pictures: bool = True,
    say: Callable[[str], None] = print,
    **options: Any,
) -> CommitInfo:
    """Publish the model of a run, or of a model directory.

    Args:
        directory: See `locate`.
        repo_id: ``org/name``.
        evaluations: Artefacts beside those in the model directory's ``eval/``.
        image: A picture of the detections on it is published.
        pictures: Of a run, publish its curves and, without `image`, the detections on one of its evaluation images.
        say: Told which picture is published, or why there is none.
        **options: Of `ld_hub.publishing.push.push_to_hub`.

    Returns:
        The commit.

    Raises:
        MissingFileError: If there is no model.
        CheckpointError: If it cannot be loaded.
        HubError: If it could not be published.
    """
    place, run = locate(directory)
    model = load_pretrained(place)
    if run is not None and pictures:
        draw_curves(run, run / CURVES_NAME, say)
        image = image or example_image(model, run, say)
    found, digest = find_evidence(place), sha256_of(place / WEIGHTS_NAME)
    if not evaluations and all(each.weights.sha256 != digest for each in found.values()):
        say(f"no AP in the card: `ld-hub eval {place} --data DIR --out {place / EVAL_DIRECTORY}` measures it.")
    results = [*found, *evaluations]
    commit: CommitInfo = model.push_to_hub(
        repo_id, eval_results=results, run=run, image=image, curves=pictures, **options
    )
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


def draw_curves(run: Path, picture: Path, say: Callable[[str], None]) -> None:
    """Draw losses and learning rate of a run, where matplotlib is installed and there are any.

    Args:
        run: Directory of the run.
        picture: PNG to be written.
        say: Told why there is none.
    """
    try:
        curves = panels([course(run.name, read_records(RunDirectory(run).metrics_file))], SHOWN)
        drawn = plot_curves(curves, picture)
    except (LdHubError, OSError) as error:
        say(f"no training curves: {error}")
        return
    if not drawn:
        say(f"no training curves: {MISSING if curves else 'the run has logged no losses'}.")


def example_image(model: DenseDetector, run: Path, say: Callable[[str], None]) -> Path | None:
    """The first evaluation image with objects on which a model finds something, for the picture in its card.

    Args:
        model: Detector.
        run: Its run; the arguments.yaml there says where the images are.
        say: Told which image it is, or why there is none.

    Returns:
        Path of the image, or None.
    """
    try:
        images = _evaluation_images(run)
        for path in images:
            if len(model.predict(path, threshold=PICTURE_THRESHOLD)):
                say(f"picture of detections: on '{path}'")
                return path
        reason = f"on {len(images)} images nothing is found with a score above {PICTURE_THRESHOLD:g}"
    except (LdHubError, OSError, TypeError, ValueError) as error:  # of a run whose files were changed by hand, maybe
        reason = str(error).rstrip(".")
    say(f"no picture of detections: {reason}. --image FILE of `ld-hub push` names an image.")
    return None


def _evaluation_images(run: Path) -> list[Path]:
    """The first images with objects that a run was evaluated on.

    Raises:
        MissingFileError: If nothing says where they are, or they are there no more.
        CheckpointError: If arguments.yaml cannot be read; and as `ld_hub.data.load_data`.
    """
    file = run / "arguments.yaml"
    if not file.is_file():
        raise MissingFileError("the run has no arguments.yaml, so nothing says where its images are")
    try:
        values = read_yaml(file.read_text(encoding="utf-8"))
    except LdHubError as error:
        raise CheckpointError(f"'{file}': its lines {error}") from None
    data, annotations = values.get("data"), values.get("val_annotations")
    if data is None and annotations is None:
        raise MissingFileError("the run had no images to evaluate on")
    dataset = load_data(
        data,
        "val",
        images=values.get("val_images"),
        annotations=annotations,
        on_bad_box=values.get("on_bad_box", "drop"),
        **{field.name: values[field.name] for field in fields(Reading) if field.name in values},
    )
    rows = dataset.rows.select(range(min(10 * LOOKED_AT, len(dataset))))
    return [Path(row["path"]) for row in rows if len(row["boxes"])][:LOOKED_AT]


def address(commit: CommitInfo) -> str:
    """Where a commit can be looked at: the pull request, or the repository.

    Args:
        commit: As `push_to_hub` returns it.
    """
    if commit.pr_url:
        return f"pull request: {commit.pr_url}"
    return f"published: {commit.commit_url.partition('/commit/')[0]} (commit {commit.oid[:12]})"


def publish_run(run: Path, repo_id: str, *, say: Callable[[str], None], **options: Any) -> None:
    """Publish a run that has just ended.

    Args:
        run: Its directory.
        repo_id: ``org/name``.
        say: Prints a line.
        **options: Of `publish_directory`.

    Raises:
        HubError: If it could not be published; the model is in the run's directory all the same.
    """
    try:
        say(address(publish_directory(run, repo_id, say=say, **options)))
    except HubError as error:
        later = f"The model is in '{run}': `ld-hub push {run} {repo_id}` publishes it later."
        raise HubError(f"{error} {later}") from error


def is_run(directory: Path) -> bool:
    """Runs keep their settings and their log of metrics side by side."""
    run = RunDirectory(directory)
    return run.config_file.is_file() and run.metrics_file.is_file()
