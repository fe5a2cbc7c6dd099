"""What a run starts from: data, a detector with fresh, backbone or whole weights, and its teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ld_hub.data import DetectionSet, load_coco
from ld_hub.engine.arguments import DataArguments, ModelArguments
from ld_hub.engine.labels import require_order
from ld_hub.errors import CheckpointError, ConfigError
from ld_hub.hub import CONFIG_NAME
from ld_hub.models.backbones import LOADED
from ld_hub.models.convert import load_checkpoint
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model
from ld_hub.models.labels import COCO_LABELS

Say = Callable[[str], None]
SCRATCH = {"frozen_stages": 0, "norm_eval": False}  # random weights must not stay as they are


def load_data(arguments: DataArguments) -> tuple[DetectionSet, DetectionSet | None]:
    """Read training and evaluation images.

    Raises:
        ConfigError: If the arguments do not say where they are; whatever `load_coco` raises.
    """
    given = arguments
    if given.data is None and (given.train_images is None or given.train_annotations is None):
        raise ConfigError("Say where the data is: --data DIR, or both --train_images DIR and --train_annotations FILE.")
    bad = given.on_bad_box
    train = load_coco(
        given.data, "train", images=given.train_images, annotations=given.train_annotations, on_bad_box=bad
    )
    if given.data is None and given.val_annotations is None:
        return train, None
    if given.data is None and given.val_images is None:
        raise ConfigError("--val_annotations needs --val_images DIR beside it.")
    return train, load_coco(
        given.data, "val", images=given.val_images, annotations=given.val_annotations, on_bad_box=bad
    )


def build_model(
    name: str, arguments: ModelArguments, dataset: DetectionSet, say: Say, *, resuming: bool = False
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
    structure = ("backbone", "reg_max", "anchor_scale", "fpn_channels", "head_width", "head_depth")
    options: dict[str, Any] = {key: getattr(arguments, key) for key in structure}
    whole, fetch = arguments.checkpoint is not None, arguments.pretrained_backbone
    if whole and arguments.backbone_checkpoint is not None:
        raise ConfigError("--checkpoint and --backbone_checkpoint exclude each other: a checkpoint has a backbone.")
    if not whole and not fetch and arguments.backbone_checkpoint is None:
        options |= SCRATCH
        say(f"{name}: the backbone starts from random numbers, so all its stages and batch norms are trained.")
    try:
        model = create_model(
            name,
            label_names=dataset.label_names,
            category_ids=dataset.category_ids,
            pretrained_backbone=fetch and not whole and not resuming,
            backbone_checkpoint=None if resuming else arguments.backbone_checkpoint,
            **options,
        )
    except CheckpointError as error:
        if not fetch or arguments.backbone_checkpoint is not None:
            raise
        raise CheckpointError(
            f"{error} On the command line: --backbone_checkpoint FILE, or --pretrained_backbone false "
            "(--teacher_backbone_checkpoint, --teacher_pretrained_backbone for a teacher that is trained first)."
        ) from None
    if arguments.checkpoint is not None:
        say(load_start(model, arguments.checkpoint))
    return model


def load_start(model: DenseDetector, source: str) -> str:
    """Load the weights of a trained detector, whatever its classes.

    Args:
        model: Of the same structure; the classes may differ, then the layer that predicts them stays fresh.
        source: Model directory, checkpoint file, or name with published weights.

    Returns:
        What was loaded, for the user.

    Raises:
        CheckpointError: If anything but the class layer does not fit.
        ConfigError: If a saved model has the same classes in another order.
    """
    path = Path(source)
    if path.is_file():
        donor = _from_file(model, path)
    else:
        donor = create_model(source, pretrained=not (path / CONFIG_NAME).is_file())
        require_order(donor.label_names, model.label_names, f"checkpoint '{source}'", "--data")
        model.data_config = replace(donor.data_config, image_size=model.data_config.image_size)
    fresh = copy_weights(donor.state_dict(), model, donor.config.num_classes, source)
    kept = f"; fresh for {model.config.num_classes} classes: {', '.join(fresh)}" if fresh else ""
    return f"{model.name}: starts from '{source}'{kept}."


def copy_weights(state: Mapping[str, Tensor], model: DenseDetector, classes: int, source: str) -> list[str]:
    """Copy all tensors that fit; only those with a row per class may differ.

    Args:
        state: Weights of a detector of `classes` classes.
        model: Where they go.
        classes: C of `state`.
        source: Named in errors.

    Returns:
        Names of the tensors that stay as they are.

    Raises:
        CheckpointError: If a name is missing or left over, or another tensor has another shape.
    """
    own = model.state_dict()
    fresh: list[str] = []
    wrong = sorted(own.keys() ^ state.keys())
    for name in own.keys() & state.keys():
        mine, theirs = own[name].shape, state[name].shape
        if mine == theirs:
            continue
        per_class = mine[1:] == theirs[1:] and mine[0] * classes == theirs[0] * model.config.num_classes
        (fresh if per_class else wrong).append(name)
    if wrong:
        raise CheckpointError(
            f"'{source}' does not fit '{model.name}': {len(wrong)} tensors are missing, left over or of another shape "
            f"({', '.join(sorted(wrong)[:3])} ...). Give the flags that it was trained with (--backbone, --reg_max, "
            "--fpn_channels, --head_width, --head_depth)."
        )
    with torch.no_grad():
        for name, tensor in own.items():
            if name not in fresh:
                tensor.copy_(state[name])
    model.backbone.initialized_from = LOADED
    return sorted(fresh)


def _from_file(model: DenseDetector, path: Path) -> DenseDetector:
    """A detector like `model` with the weights of a file, which may be of the model's classes or of COCO's."""
    donors = [
        type(model)(replace(model.config, num_classes=classes), name=model.name)
        for classes in (model.config.num_classes, len(COCO_LABELS))
    ]
    try:
        load_checkpoint(donors[0], path)
        return donors[0]
    except CheckpointError as error:
        try:
            load_checkpoint(donors[1], path)
        except CheckpointError:
            raise error from None
    return donors[1]
