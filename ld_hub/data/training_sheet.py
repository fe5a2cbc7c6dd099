"""What training will see of a data set, as one picture."""

from __future__ import annotations

from itertools import chain, islice
from pathlib import Path

import torch
from PIL import Image

from ld_hub.data.detection_set import DetectionSet
from ld_hub.data.loader import TrainRows
from ld_hub.data.sampler import TrainBatches
from ld_hub.drawing import contact_sheet, draw_detections
from ld_hub.errors import ConfigError, LdHubError
from ld_hub.preprocessing import Augmentation, DataConfig, Sample, train_transform

PICTURE_SIDE = 448  # px of the longer side of each picture on the sheet


def training_sheet(
    dataset: DetectionSet,
    config: DataConfig,
    augmentation: Augmentation,
    *,
    images: int = 12,
    columns: int = 4,
    seed: int = 0,
) -> Image.Image:
    """Draw the first images that a training with this seed sees, as it sees them, with their boxes.

    Args:
        dataset: What is trained on.
        config: Preprocessing of the model.
        augmentation: What is done to the images.
        images: How many; with more than the data set has, some are shown again, as the next epoch sees them.
        columns: Of the sheet.
        seed: Of the training.

    Raises:
        ConfigError: If there are no images, or a number is below 1.
        DataError: If an image is damaged.
    """
    if images < 1:
        raise ConfigError(f"images is {images}; it must be at least 1.")
    rows = TrainRows(dataset.records, train_transform(config, augmentation, seed))
    keys = islice(chain.from_iterable(TrainBatches(dataset.sizes, 1, seed=seed)), images)
    pictures, titles = [], []
    for epoch, index in keys:
        sample = rows[epoch, index, True]
        if not isinstance(sample, Sample):
            raise sample.error
        pictures.append(_picture(sample, dataset))
        again = f", epoch {epoch + 1}" if epoch else ""
        titles.append(f"{Path(dataset.records.paths[index].as_py()).name}{again}")
    return contact_sheet(pictures, titles, columns)


def _picture(sample: Sample, dataset: DetectionSet) -> Image.Image:
    pixels = sample.image.permute(1, 2, 0).numpy()
    whole = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    scale = PICTURE_SIDE / max(whole.size)
    small = whole.resize((max(1, round(whole.width * scale)), max(1, round(whole.height * scale))))
    boxes, labels, crowd = sample.boxes, sample.labels, sample.crowd
    if boxes is None or labels is None:  # pragma: no cover  # a training sample has both
        raise LdHubError("This sample has no boxes.")
    names = [dataset.label_names[label] for label in labels.tolist()]
    crowds = torch.zeros(len(boxes)).bool() if crowd is None else crowd
    texts = [f"{name} (crowd)" if group else name for name, group in zip(names, crowds.tolist(), strict=True)]
    return draw_detections(small, (boxes * scale).tolist(), labels.tolist(), texts=texts, scale=1)
