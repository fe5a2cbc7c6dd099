"""Settings of a training that act on the model before its first step: input size, weights of classes, memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import ConfigError
from ld_hub.losses import WeightedClasses
from ld_hub.models.detector import DenseDetector
from ld_hub.optim.class_weights import read_class_weights


def apply_settings(model: DenseDetector, config: TrainConfig) -> TrainConfig:
    """Let the settings act on a model.

    Args:
        model: With the data's classes and the criterion it is trained by.
        config: Settings.

    Returns:
        The settings with those that the family has published otherwise, and with weights of classes by name.

    Raises:
        ConfigError: If the model cannot do what is asked for, or a class is unknown.
        MissingFileError: If there is no file of weights of classes.
    """
    config = config.for_family(model.family)
    if config.class_weights is not None:
        config = replace(config, class_weights=_weigh_classes(model, config.class_weights))
    if config.grad_checkpointing:
        model.set_grad_checkpointing()
    if config.image_size is not None:
        model.data_config = replace(model.data_config, image_size=config.image_size)
    return config


def describe_classes(config: TrainConfig) -> list[tuple[str, str]]:
    """The line about classes that count more or less than others, for the table at the start of a run."""
    weights = config.class_weights
    if not isinstance(weights, dict):
        return []
    return [("classes", ", ".join(f"{name} x {each:g}" for name, each in weights.items()) + " in the class loss")]


def _weigh_classes(model: DenseDetector, given: str | Mapping[str, float]) -> dict[str, float]:
    weights, criterion = read_class_weights(given, model.label_names), model.criterion
    if not isinstance(criterion, WeightedClasses):
        raise ConfigError(f"class_weights: the criterion of '{model.family}' does not weigh classes.")
    model.criterion = criterion.weighing(weights, model.label_names)
    return weights
