"""From a model in memory to a repository on the Hub: what is published, and where each file comes from."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ld_hub.errors import CheckpointError, ConfigError, HubError, LdHubError, MissingFileError
from ld_hub.hub import CONFIG_NAME, WEIGHTS_NAME, atomic_write, sha256_of, write_json
from ld_hub.hub.card_file import update_card
from ld_hub.hub.evidence import (
    COMPARISON_NAME,
    EVAL_DIRECTORY,
    EXPORTS_DIRECTORY,
    TRAINING_DIRECTORY,
    Evidence,
    find_evidence,
    read_evidence,
)
from ld_hub.hub.fetch import DISK_FULL
from ld_hub.hub.upload import CARD_NAME, upload
from ld_hub.publishing.cards import model_card
from ld_hub.publishing.exports import Export, read_exports
from ld_hub.publishing.facts import without_home
from ld_hub.runtime.exported_files import SUMS

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

    from ld_hub.preprocessing import ImageSource
    from ld_hub.structures import Detections

    EvalResults: TypeAlias = str | Path | Mapping[str, Any] | Sequence[str | Path | Mapping[str, Any]]

PICTURE_NAME = "detections.jpg"
CURVES_NAME = "curves.png"  # of a run, where it has one
PICTURE_THRESHOLD = 0.3
TRAINING_FILES = ("config.json", "arguments.yaml", "command.txt", "result.json", COMPARISON_NAME)  # of a run
OWNED = (
    f"{EVAL_DIRECTORY}/*.json",
    f"{TRAINING_DIRECTORY}/*",
    f"{EXPORTS_DIRECTORY}/*",
    PICTURE_NAME,
    CURVES_NAME,
)


class Publishable(Protocol):
    """What is asked of a model here, so that `DenseDetector` may call this room and not the other way round."""

    name: str

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write ``config.json``, ``preprocessor_config.json`` and ``model.safetensors``."""

    def predict(self, images: ImageSource, *, threshold: float | None = None) -> Detections | list[Detections]:
        """Detections on an image."""


def push_to_hub(
    model: Publishable,
    repo_id: str,
    *,
    private: bool | None = None,
    create_pr: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
    commit_message: str | None = None,
    license: str | None = None,
    eval_results: EvalResults | None = None,
    run: str | Path | None = None,
    image: ImageSource | None = None,
    curves: bool = True,
    exports: Sequence[str | Path] = (),
) -> CommitInfo:
    """Publish a model on the Hub in one commit: weights, settings, card, evaluations, a picture; all, or nothing.

    Of a card that is there already only the metadata and the generated block are renewed. Evaluations, settings of the
    training, pictures and exports of an earlier publication are replaced or removed; all other files stay.

    Args:
        model: Detector.
        repo_id: ``org/name``; made if it does not exist.
        private: Make a new repository private; None leaves it to the account's settings.
        create_pr: Propose the commit as a pull request.
        revision: Branch; a new one starts at main.
        token: Access token with write access; by default that of `hf auth login` or ``HF_TOKEN``.
        commit_message: First line of the commit's message.
        license: SPDX id of the weights' licence, e.g. ``"apache-2.0"``.
        eval_results: What `ld-hub eval` wrote about these weights (and the teacher's): files, directories or contents.
        run: Directory of the training run; its settings go into the card and into ``training/``, and where
            `eval_results` is None, what lies in its ``model/eval/`` counts as given.
        image: What `predict` takes; a picture of the detections on it is published.
        curves: Publish the run's curves.png, where it has one.
        exports: Directories of exports of this model; they go below ``exports/``, their measurements into the card.

    Returns:
        The commit: as a text its address, with ``.oid`` and ``.pr_url``.

    Raises:
        CheckpointError: If a weight is NaN or infinite, or an export is damaged.
        ConfigError: If an export is of another model.
        HubError: If the Hub refused or could not be reached; says whether anything was published.
        EvaluationError: If an evaluation is none that `ld-hub eval` wrote, or is of other weights.
    """
    run, programs = _require_run(run), read_exports(exports, model)
    with _temporary_folder() as folder:
        return upload(
            repo_id,
            _put_together(model, repo_id, license, eval_results, run, image, curves, programs, folder),
            commit_message=commit_message or f"Publish {model.name}",
            renew_card=update_card,
            owned=OWNED,
            refuse=_refuse_beside_an_export,
            private=private,
            create_pr=create_pr,
            revision=revision,
            token=token,
        )


def _put_together(
    model: Publishable,
    repo_id: str,
    license: str | None,
    eval_results: EvalResults | None,
    run: Path | None,
    image: ImageSource | None,
    curves: bool,
    exports: Mapping[str, Export],
    folder: Path,
) -> dict[str, Path]:
    """Write what is made into a folder; returns all files of the repository by their paths there."""
    _write_model(model, image, folder)
    evaluations = _write_evaluations(eval_results, run, folder)
    _write_training(run, folder, curves)
    card = model_card(
        model,
        repo_id=repo_id,
        license=license,
        evaluations=evaluations,
        run=run,
        folder=folder,
        exports=exports,
    )
    return {**_files_below(folder), **_files_of(exports), CARD_NAME: atomic_write(folder / CARD_NAME, card)}


def push_to_hf_hub(
    model: Publishable,
    repo_id: str,
    commit_message: str = "Add model",
    token: str | bool | None = None,
    revision: str | None = None,
    private: bool | None = None,
    create_pr: bool = False,
    **options: Any,
) -> CommitInfo:
    """`push_to_hub` under timm's name and with timm's order of arguments.

    Args:
        model: A detector with its weights.
        repo_id: ``org/name``; made if it does not exist.
        commit_message: First line of the commit's message.
        token: Access token with write access; by default the stored one.
        revision: Branch.
        private: Make a new repository private.
        create_pr: Propose the commit as a pull request.
        **options: ``license``, ``eval_results``, ``run``, ``image``, ``curves`` and ``exports`` of `push_to_hub`.

    Returns:
        The commit.
    """
    return push_to_hub(
        model,
        repo_id,
        commit_message=commit_message,
        token=token,
        revision=revision,
        private=private,
        create_pr=create_pr,
        **options,
    )


def draw_picture(model: Publishable, image: ImageSource, folder: Path) -> None:
    """Draw what a model finds on an image, for its card; without detections a warning says so.

    Args:
        model: Detector.
        image: What `predict` takes; a single one.
        folder: Directory that gets `PICTURE_NAME`.

    Raises:
        ConfigError: If there are several images.
    """
    found = model.predict(image, threshold=PICTURE_THRESHOLD)
    if isinstance(found, list):
        raise ConfigError(f"image: expected one image, got {len(found)}.")
    if len(found.scores):
        folder.mkdir(parents=True, exist_ok=True)
        found.save(folder / PICTURE_NAME)
    else:
        warnings.warn(
            f"The model finds nothing with a score above {PICTURE_THRESHOLD} on the image, so there is no picture.",
            stacklevel=4,
        )


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder to be made; what the system says about writing there becomes a `HubError`."""
    place = Path(tempfile.gettempdir())
    try:
        with tempfile.TemporaryDirectory(prefix="ld_hub_", ignore_cleanup_errors=True) as temporary:
            yield Path(temporary) / "repository"
    except LdHubError:
        raise
    except OSError as error:
        reason = "the disk is full" if error.errno in DISK_FULL else error.strerror or str(error)
        raise HubError(
            f"Nothing was published: files are put together below '{place}' first, which cannot be written ({reason}). "
            "Make room there, or name another place: TMPDIR=DIR."
        ) from error


def _write_model(model: Publishable, image: ImageSource | None, folder: Path) -> None:
    """Weights, settings and, with an image, a picture."""
    try:
        model.save_pretrained(folder)
    except CheckpointError as error:  # its message names a temporary file
        reason = str(error).partition(" was not written: ")[2] or str(error)
        raise CheckpointError(f"'{model.name}' was not published, and nothing was sent: {reason}") from None
    if image is not None:
        draw_picture(model, image, folder)


def _require_run(run: str | Path | None) -> Path | None:
    if run is None:
        return None
    path = Path(run)
    if not (path / CONFIG_NAME).is_file():
        raise MissingFileError(f"'{run}' is not the directory of a training run: it holds no '{CONFIG_NAME}'.")
    return path


def _write_evaluations(results: EvalResults | None, run: Path | None, folder: Path) -> list[Evidence]:
    """Put artefacts and their detections into ``eval/``: the model's own there, others into directories of it."""
    given: list[Any] = []
    if isinstance(results, (str, Path, Mapping)):
        given.append(results)
    elif results is not None:
        given += results
    elif run is not None:
        given += find_evidence(run / "model")
    digest = sha256_of(folder / WEIGHTS_NAME)
    published: list[Evidence] = []
    for source, evidence in sorted(map(_read, given), key=lambda each: each[1].weights.sha256 != digest):
        if evidence in published:
            continue
        place = folder / EVAL_DIRECTORY / (_slug(len(published), evidence) if published else "")
        place.mkdir(parents=True, exist_ok=True)
        if isinstance(source, Path):
            shutil.copyfile(source, place / "metrics.json")
            detections = source.with_name(evidence.detections_file.file)
            if detections.is_file():
                shutil.copyfile(detections, place / detections.name)
        else:
            write_json(place / "metrics.json", source)
        published.append(evidence)
    return published


def _read(given: str | Path | Mapping[str, Any]) -> tuple[Path | Mapping[str, Any], Evidence]:
    """The file of an artefact or, where it comes from none, its content as it was given; and what it says."""
    if isinstance(given, Mapping):
        return given, Evidence.from_dict(given)
    file = Path(given) / "metrics.json" if Path(given).is_dir() else Path(given)
    return file, read_evidence(file)


def _slug(number: int, evidence: Evidence) -> str:
    words = f"{number + 1}_{evidence.model.architecture}_{evidence.data.split}"
    return re.sub(r"[^\w.-]+", "_", words)[:80]


def _write_training(run: Path | None, folder: Path, curves: bool) -> None:
    """The run's settings, with the home directory of who trained it written as ``~``."""
    if run is None:
        return
    if curves and (run / CURVES_NAME).is_file():
        shutil.copyfile(run / CURVES_NAME, folder / CURVES_NAME)
    for name in TRAINING_FILES:
        if (run / name).is_file():
            text = (run / name).read_text(encoding="utf-8", errors="replace")
            atomic_write(folder / TRAINING_DIRECTORY / name, without_home(text))


def _files_of(exports: Mapping[str, Export]) -> dict[str, Path]:
    """Files of exports by their paths in the repository of the model."""
    every = {f"{EXPORTS_DIRECTORY}/{name}": export.files() for name, export in exports.items()}
    return {f"{place}/{path}": file for place, files in every.items() for path, file in files.items()}


def _refuse_beside_an_export(present: Sequence[str]) -> str:
    if SUMS not in present or WEIGHTS_NAME in present:
        return ""
    return f"holds an export ({SUMS}), whose config.json a model would replace. Name another repository."


def _files_below(folder: Path) -> dict[str, Path]:
    """Every file by its path in the repository."""
    return {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
