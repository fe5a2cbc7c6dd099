"""What the data sets of a training must be for one another, and for its settings."""

from __future__ import annotations

from ld_hub.data import DetectionSet
from ld_hub.data.stream_set import TrainingSet, require_files, require_outlines
from ld_hub.data.unlabeled import refuse_leaks
from ld_hub.engine.labels import require_same_classes
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import ConfigError, DataError


def require_sets(
    config: TrainConfig,
    train: TrainingSet | None,
    evaluation: DetectionSet | None,
    unlabeled: DetectionSet | None,
) -> None:
    """Refuse data sets that do not go together.

    Args:
        config: Settings of the training.
        train: Images with labels to train on.
        evaluation: Images to evaluate on.
        unlabeled: Images without labels to train on.

    Raises:
        ConfigError: If a setting needs what is not there.
        DataError: If there is nothing to train on, classes differ, or images without labels are evaluated on.
    """
    if train is None and unlabeled is None:
        raise DataError("There is nothing to train on: neither images with labels nor images without.")
    if train is not None and evaluation is not None:
        require_same_classes(train, evaluation)
    if unlabeled is not None:
        require_files(train, "unlabeled_dataset (--unlabeled), whose threshold is found on labelled images,")
    if unlabeled is not None and evaluation is not None:
        refuse_leaks(unlabeled, evaluation)
    if config.augmentation.copy_paste:
        require_outlines(train)
    if config.patience is not None and evaluation is None:
        raise ConfigError("patience counts evaluations, and there are no images to evaluate on: leave it out.")
