"""Images on their way into a model: reading, resizing, augmenting, normalising, batching.

Names are imported from their files at first use: most bring torch, and who asks for settings wants none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ld_hub.lazy import lazy_names

if TYPE_CHECKING:
    from ld_hub.preprocessing.augmentation import Augmentation
    from ld_hub.preprocessing.augmenting import AugmentedTransform, train_transform
    from ld_hub.preprocessing.bands import BandImage
    from ld_hub.preprocessing.data_config import DataConfig, resolve_data_config
    from ld_hub.preprocessing.geometry import padded_shape, resize_shape
    from ld_hub.preprocessing.loading import ImageSource, load_image, read_size
    from ld_hub.preprocessing.normalize import renormalize
    from ld_hub.preprocessing.transforms import Preprocessor, Sample, TrainTransform, collate, create_transform

_FILE_OF = {
    "Augmentation": "augmentation",
    "AugmentedTransform": "augmenting",
    "BandImage": "bands",
    "DataConfig": "data_config",
    "ImageSource": "loading",
    "Preprocessor": "transforms",
    "Sample": "transforms",
    "TrainTransform": "transforms",
    "collate": "transforms",
    "create_transform": "transforms",
    "load_image": "loading",
    "padded_shape": "geometry",
    "read_size": "loading",
    "renormalize": "normalize",
    "resize_shape": "geometry",
    "resolve_data_config": "data_config",
    "train_transform": "augmenting",
}

__all__ = [
    "Augmentation",
    "AugmentedTransform",
    "BandImage",
    "DataConfig",
    "ImageSource",
    "Preprocessor",
    "Sample",
    "TrainTransform",
    "collate",
    "create_transform",
    "load_image",
    "padded_shape",
    "read_size",
    "renormalize",
    "resize_shape",
    "resolve_data_config",
    "train_transform",
]

__getattr__ = lazy_names(__name__, _FILE_OF)
