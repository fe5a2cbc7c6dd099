"""What a command refuses before anything is read or imported: names, places, values, the layout of the data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ld_hub import catalog
from ld_hub.checked import Scalar
from ld_hub.engine.checkpoint import RunDirectory
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import MissingFileError, unknown_name
from ld_hub.launch.arguments import HubArguments, ModelArguments
from ld_hub.launch.data_arguments import DataArguments
from ld_hub.launch.flag_parser import Parsed
from ld_hub.models.names import find, require_backbone, require_weights, split_tag


def require_start(parsed: Parsed) -> TrainConfig:
    """Refuse what a run cannot start from: names, values and places, the quickest to see first; then `require_layout`.

    Args:
        parsed: The flags.

    Returns:
        The settings of the training.

    Raises:
        ConfigError: If flags exclude each other or have values that cannot work, or do not say where the data is.
        MissingFileError: If there is no such directory or file.
        UnknownNameError: If there is no such model or backbone.
    """
    find(split_tag(parsed.name)[0])
    _require_model(parsed.of(ModelArguments))
    parsed.of(DataArguments).require()
    return _require_config(parsed)


def require_layout(parsed: Parsed) -> None:
    """Refuse directories that hold no training images; which images are evaluated on is the reader's to say.

    Args:
        parsed: The flags.

    Raises:
        MissingFileError: If no reader finds any.
        DataError: If objects are to be cut out, and the layout has no outlines.
    """
    from ld_hub.data.layouts import require_outlined, require_split

    data = parsed.of(DataArguments)
    require_split(
        data.data, "train", images=data.train_images, annotations=data.train_annotations, reading=data.reading
    )
    if parsed.of(TrainConfig).augmentation.copy_paste:
        require_outlined(data.data, "train", images=data.train_images, annotations=data.train_annotations)


def require_files(**flags: str | None) -> None:
    """Refuse files that do not exist, by the name of their flag.

    Raises:
        MissingFileError: If one does not.
    """
    for flag, file in flags.items():
        if file is not None and not Path(file).expanduser().exists():
            raise MissingFileError(f"--{flag}: no file '{file}'.")


def require_terms(terms: Mapping[str, Mapping[str, Scalar]]) -> None:
    """Refuse regions that are not there; all else about terms is refused where they are made.

    Args:
        terms: Fields by term.

    Raises:
        UnknownNameError: If there is no such region.
    """
    known = catalog.regions()
    for fields in terms.values():
        region = fields.get("region")
        if region is not None and region not in known:
            raise unknown_name("region", str(region), known)


def _require_model(model: ModelArguments) -> None:
    """Refuse a structure or a start that cannot be."""
    model.require_one_start()
    model.require_sizes()
    require_files(backbone_checkpoint=model.backbone_checkpoint)
    if model.backbone is not None:
        require_backbone(model.backbone)
    if model.checkpoint is not None and not Path(model.checkpoint).expanduser().is_file():
        require_weights(model.checkpoint)


def _require_config(parsed: Parsed) -> TrainConfig:
    """The training settings; the run directory is refused before anything slow happens."""
    parsed.of(HubArguments)  # refuses what could not be published after the training
    given = parsed.values["output_dir"]
    config = parsed.of(TrainConfig, output_dir=str(Path("runs") / parsed.name) if given == "runs/run" else given)
    run = RunDirectory(config.output_dir)
    run.claim(config.resume)
    run.resumes(config.resume)  # refuses a place that holds no checkpoint
    if not config.resume:
        RunDirectory(Path(config.output_dir) / "teacher").require_new()
    return config
