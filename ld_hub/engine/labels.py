"""Whether a detector is one for this data: its classes, and weights to start from."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from ld_hub.data import DetectionSet
from ld_hub.data.stream_set import TrainingSet
from ld_hub.errors import ConfigError, DataError
from ld_hub.models.backbones import LOADED
from ld_hub.models.detector import DenseDetector
from ld_hub.models.label_names import default_labels


def fit_labels(model: DenseDetector, dataset: TrainingSet) -> None:
    """Write the data set's label names and category ids into the model.

    Raises:
        ConfigError: If the number of classes differs, or they are the model's own in another order.
    """
    wanted, found = len(dataset.label_names), model.config.num_classes
    if wanted != found:
        raise ConfigError(
            f"Model '{model.name}' has {found} classes, '{dataset.source}' has {wanted} "
            f"({_some(dataset.label_names)}): make it with create_model(..., num_classes={wanted})."
        )
    unnamed = model.backbone.initialized_from != LOADED and model.label_names == default_labels(found)[0]
    if not unnamed:
        require_order(model.label_names, dataset.label_names, f"model '{model.name}'", dataset.source)
    model.set_labels(dataset.label_names, dataset.category_ids)


def require_same_classes(train: TrainingSet, evaluation: DetectionSet) -> None:
    """Refuse to evaluate on other classes than those that are trained.

    Raises:
        DataError: If they differ; names both.
    """
    if train.label_names != evaluation.label_names:
        raise DataError(
            f"'{evaluation.source}' has the classes {', '.join(evaluation.label_names)}, "
            f"'{train.source}' has {', '.join(train.label_names)}: they must agree."
        )


def require_order(names: Sequence[str], wanted: Sequence[str], owner: str, file: str) -> None:
    """Refuse the same classes in another order, whose outputs would be taken for those of one another.

    Args:
        names: Of the logits.
        wanted: Of the data.
        owner: Whose logits, for the message.
        file: Whose classes, for the message.

    Raises:
        ConfigError: If they are the same in another order; names both.
    """
    if tuple(names) == tuple(wanted) or sorted(names) != sorted(wanted):
        return
    first = next(index for index, pair in enumerate(zip(names, wanted, strict=True)) if pair[0] != pair[1])
    raise ConfigError(
        f"The {owner} has the classes of '{file}' in another order: {_some(names, first)} there, "
        f"{_some(wanted, first)} in the data. To keep what it knows, list the data's categories in the model's order; "
        "to start anew, make a model with create_model(..., label_names=dataset.label_names)."
    )


def warn_of_random_frozen_stages(model: DenseDetector) -> None:
    """Warn of a backbone whose frozen stages hold random numbers, which training would never change."""
    backbone = model.backbone
    frozen = any(not parameter.requires_grad for parameter in backbone.parameters())
    if frozen and backbone.initialized_from is None:
        warnings.warn(
            f"Model '{model.name}' has a backbone with random weights, and {model.config.frozen_stages} of its stages "
            "are frozen: they stay random, and the detector stays bad. Make it with create_model(..., "
            "pretrained_backbone=True) or backbone_checkpoint=FILE, or train everything: frozen_stages=0, "
            "norm_eval=False.",
            stacklevel=3,
        )


def _some(names: Sequence[str], start: int = 0) -> str:
    """A few names, from `start` on."""
    before, after = "..., " if start else "", ", ..." if len(names) > start + 8 else ""
    return before + ", ".join(names[start : start + 8]) + after
