"""Images on their way into a model: reading, resizing, flipping, normalising, batching."""

from ld_hub.preprocessing.bands import BandImage
from ld_hub.preprocessing.data_config import DataConfig, resolve_data_config
from ld_hub.preprocessing.geometry import padded_shape, resize_shape
from ld_hub.preprocessing.loading import ImageSource, load_image, read_size
from ld_hub.preprocessing.normalize import renormalize
from ld_hub.preprocessing.transforms import Preprocessor, Sample, TrainTransform, collate, create_transform

__all__ = [
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
]
