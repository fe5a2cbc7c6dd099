"""What a run starts from: data, a detector with fresh, backbone or whole weights, and its teacher."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypedDict

import torch

from ld_hub.data import DetectionSet
from ld_hub.data import load_data as read_split
from ld_hub.data.band_ranges import fit_bands
from ld_hub.data.stream_set import TrainingSet, load_stream
from ld_hub.data.unlabeled import load_unlabeled
from ld_hub.engine.labels import require_order
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import CheckpointError, ConfigError
from ld_hub.hub import CONFIG_NAME
from ld_hub.launch.arguments import ModelArguments, UnlabeledArguments
from ld_hub.launch.data_arguments import DataArguments
from ld_hub.models.checkpoints.convert import load_checkpoint
from ld_hub.models.checkpoints.differences import LoadReport, compare
from ld_hub.models.checkpoints.pretrained import load_matched
from ld_hub.models.class_rows import ClassRows, take_class_rows
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model
from ld_hub.structures import DetectorSpec

Say = Callable[[str], None]


class Structure(TypedDict, total=False):
    """Fields of a family's configuration that the flags may change; None leaves one as it is."""

    backbone: str | None
    in_chans: int | None
    reg_max: int | None
    anchor_scale: float | None
    fpn_channels: int | None
    head_width: int | None
    head_depth: int | None
    frozen_stages: int | None
    norm_eval: bool


def structure_of(arguments: ModelArguments) -> Structure:
    """The structure that the flags ask for."""
    return {
        "backbone": arguments.backbone,
        "in_chans": arguments.in_chans,
        "reg_max": arguments.reg_max,
        "anchor_scale": arguments.anchor_scale,
        "fpn_channels": arguments.fpn_channels,
        "head_width": arguments.head_width,
        "head_depth": arguments.head_depth,
        "frozen_stages": arguments.frozen_stages,
    }


def load_data(arguments: DataArguments, *, outlines: bool = False) -> tuple[TrainingSet, DetectionSet | None]:
    """Read training and evaluation images; the former are a stream where that is asked for.

    Args:
        arguments: Where they are.
        outlines: Keep the outlines of the objects to train on.

    Raises:
        ConfigError: If the arguments do not say where they are; whatever `ld_hub.data.load_data` raises.
    """
    given = arguments
    given.require()
    if given.streaming:
        stream = load_stream(str(given.data), columns=given.columns, buffer=given.shuffle_buffer)
        return stream, load_evaluation(given)
    train = read_split(
        given.data,
        "train",
        images=given.train_images,
        annotations=given.train_annotations,
        on_bad_box=given.on_bad_box,
        **asdict(given.reading),
        outlines=outlines,
    )
    return train, load_evaluation(given)


def load_parts(
    arguments: DataArguments, *, labels: bool, outlines: bool = False
) -> tuple[TrainingSet | None, DetectionSet | None]:
    """As `load_data`, or without labels to train on, only the images to evaluate on."""
    if labels:
        return load_data(arguments, outlines=outlines)
    return None, load_evaluation(arguments)


def load_images(arguments: UnlabeledArguments, *, skip_broken: bool) -> DetectionSet | None:
    """Read the images without labels, if there are any; raises what `load_unlabeled` raises."""
    if arguments.unlabeled is None:
        return None
    return load_unlabeled(arguments.unlabeled, skip_broken=skip_broken)


def require_known(training: TrainingSet | None, evaluation: DetectionSet | None) -> TrainingSet:
    """The data set that says what the classes are.

    Raises:
        ConfigError: If there is none.
    """
    known = evaluation if training is None else training
    if known is None:
        raise ConfigError("Nothing says what the classes are: give images to evaluate on, --data DIR.")
    return known


def load_evaluation(arguments: DataArguments) -> DetectionSet | None:
    """Read the evaluation images; None where the arguments do not name any.

    Raises:
        ConfigError: If they are named by half; whatever `ld_hub.data.load_data` raises.
    """
    given = arguments
    if given.data is None and given.val_annotations is None:
        return None
    return read_split(
        given.data,
        "val",
        images=given.val_images,
        annotations=given.val_annotations,
        on_bad_box=given.on_bad_box,
        **asdict(given.reading),
    )


def seed_weights(config: TrainConfig) -> None:
    """Fresh weights are the same on every rank and in every run of this seed."""
    torch.manual_seed(config.seed)


def build_model(
    name: str, arguments: ModelArguments, dataset: TrainingSet, say: Say, *, resuming: bool = False
) -> DenseDetector:
    """Make a detector of the data's classes with the weights it starts from.

    Args:
        name: Registered name.
        arguments: Structure and weights.
        dataset: Gives number, names and ids of the classes.
        say: Told what the user should know.
        resuming: The run's own checkpoint follows: the backbone's weights are not needed, nor fetched.

    Raises:
        UnknownNameError: If there is no such model.
        CheckpointError: If weights cannot be had or do not fit; names the flags that help.
    """
    structure = structure_of(arguments)
    whole, fetch = arguments.starts_whole, arguments.pretrained_backbone
    arguments.require_one_start()
    if not arguments.has_weights:
        structure |= {"frozen_stages": 0, "norm_eval": False}  # random weights must not stay as they are
        say(f"{name}: the backbone starts from random numbers, so all its stages and batch norms are trained.")
    try:
        model = create_model(
            name,
            label_names=dataset.label_names,
            category_ids=dataset.category_ids,
            pretrained_backbone=fetch and not whole and not resuming,
            backbone_checkpoint=None if resuming else arguments.backbone_checkpoint,
            **structure,
        )
    except CheckpointError as error:
        if not fetch or arguments.backbone_checkpoint is not None:
            raise
        raise CheckpointError(
            f"{error} On the command line: --backbone_checkpoint FILE, or --pretrained_backbone false "
            "(--teacher_backbone_checkpoint, --teacher_pretrained_backbone for a teacher that is trained first)."
        ) from None
    if isinstance(dataset, DetectionSet) and fit_bands(model, dataset):  # streams are of 8 bits
        ranges = ", ".join(f"{low:g}..{high:g}" for low, high in model.data_config.band_ranges)
        say(f"{name}: the bands' percentiles 1 and 99 on the training images are {ranges}.")
    if arguments.checkpoint is not None:
        say(load_start(model, arguments.checkpoint))
    if arguments.finetune_from is not None:
        say(load_start(model, arguments.finetune_from, by_name=True))
    return model


def skeleton(name: str, **options: Any) -> DetectorSpec:
    """The facts about a registered detector, without making its weights; options as of `create_model`."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return create_model(name, **options).spec


def load_start(model: DenseDetector, source: str, *, by_name: bool = False) -> str:
    """Load the weights of a trained detector, whatever its classes.

    Args:
        model: Of the same structure; the classes may differ, then the layer that predicts them stays fresh.
        source: Model directory, checkpoint file, or name with published weights.
        by_name: Keep the rows of classes that are called the same, in whatever order; of a directory or a name.

    Returns:
        What was loaded, for the user.

    Raises:
        CheckpointError: If anything but the class layer does not fit.
        ConfigError: If a saved model has the same classes in another order.
    """
    path = Path(source)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*to be trained")  # which is what is returned
            if path.is_file():
                report = load_checkpoint(model, path, new_classes=True)
            elif by_name:
                return f"{model.name}: starts from '{source}'; {_from_classes(model, source)}."
            else:
                donor = _donor(source)
                require_order(donor.label_names, model.label_names, f"checkpoint '{source}'", "--data")
                report = _from_model(model, donor, source)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}\nGive the flags that it was trained with (--backbone, --reg_max, --fpn_channels, --head_width, "
            "--head_depth)."
        ) from None
    fresh = f"; fresh for {model.config.num_classes} classes: {', '.join(sorted(report.reset))}" if report.reset else ""
    return f"{model.name}: starts from '{source}'{fresh}."


def _donor(source: str) -> DenseDetector:
    """A saved or published model."""
    return create_model(source, pretrained=not (Path(source) / CONFIG_NAME).is_file())


def _from_classes(model: DenseDetector, source: str) -> ClassRows:
    """Take over a model's weights, and of its class predictor the rows of classes of the same name."""
    donor, fresh = _donor(source), model.get_classifier().state_dict()
    fresh = {name: tensor.clone() for name, tensor in fresh.items()}
    _from_model(model, donor, source)
    model.get_classifier().load_state_dict(fresh)
    return take_class_rows(model, donor)


def _from_model(model: DenseDetector, donor: DenseDetector, source: str) -> LoadReport:
    """Take over the weights and the preprocessing of another model."""
    state = donor.state_dict()
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    report = compare(source, found, model.state_dict()).require(model.config.num_classes, new_classes=True)
    load_matched(model, state, report)
    model.data_config = replace(donor.data_config, image_size=model.data_config.image_size)
    return report
