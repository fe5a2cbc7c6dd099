"""Images that are no photographs: more than 8 bits, or other bands than red, green and blue.

Such an image is read as a `BandImage`: a picture to look at, which carries its bands as they are stored. A model that
was trained on such bands knows the range of values of each (`DataConfig.band_ranges`), from which the 0..255 of every
other image are made; from there on nothing differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ld_hub.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

    from ld_hub.preprocessing.data_config import DataConfig

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF
_BITS, _SAMPLES = 258, 277  # tags
_VIEW = (1.0, 99.0)  # percentiles between which a band is shown
_TURNED: Mapping[int, Callable[[NDArray[Any]], NDArray[Any]]] = {  # EXIF orientations
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: np.rot90,
}


class BandImage(Image.Image):
    """A picture of an image's first bands, in 8-bit RGB, with the bands themselves.

    A part of it (`crop`) has its part of the bands; a copy of another size is a picture without them.

    Args:
        bands: ``(h, w, K)``, whole numbers or floats.
        view: RGB picture of the same size; of the first three bands, or the first alone, where None.

    Attributes:
        bands: As given.
        filename: Where it came from, for messages.

    Raises:
        DataError: If that is no image.
    """

    def __init__(self, bands: NDArray[Any], view: Image.Image | None = None) -> None:
        super().__init__()
        if bands.ndim != 3 or bands.dtype.kind not in "iuf" or 0 in bands.shape:
            raise DataError(f"Bands are numbers of shape (h, w, K); got {bands.dtype} of shape {bands.shape}.")
        picture = _view(bands) if view is None else view.convert("RGB")
        if picture.size != (bands.shape[1], bands.shape[0]):
            raise DataError(f"Bands of shape {bands.shape} came with a picture of {picture.width}x{picture.height} px.")
        self.__setstate__([{}, "RGB", picture.size, None, picture.tobytes()])
        self.bands, self.filename = bands, ""

    def crop(self, box: tuple[float, float, float, float] | None = None) -> Image.Image:
        """A part of the image, ``(left, upper, right, lower)`` px in it, with its bands."""
        if box is None:
            return BandImage(self.bands, self)
        left, upper, right, lower = (round(side) for side in box)
        return BandImage(self.bands[upper:lower, left:right], super().crop((left, upper, right, lower)))


def pixels_of(image: Image.Image, config: DataConfig) -> Tensor:
    """An image as ``(K, h, w)`` uint8, with the channels that a model takes: RGB, grey, or its bands.

    Args:
        image: Any Pillow image, or `BandImage`.
        config: Preprocessing of the model.

    Raises:
        ConfigError: If the image does not have these channels.
    """
    import torch  # here: who looks for files needs none

    bands = image.bands if isinstance(image, BandImage) else None
    if config.band_ranges:
        return torch.from_numpy(_stretched(_fitting(image, config), config.band_ranges)).permute(2, 0, 1)
    if bands is not None and bands.dtype == np.uint8 and bands.shape[2] == config.channels:
        return torch.from_numpy(np.array(bands)).permute(2, 0, 1)
    modes = {1: "L", 3: "RGB"}
    if bands is not None and bands.dtype != np.uint8 and bands.shape[2] in (3, 4):
        image = Image.fromarray(wide_to_u8(bands[:, :, :3]))
    having = "images have 1 or 3" if bands is None else f"{_name(image)} has {_channels(image)}"
    if config.channels not in modes or (bands is not None and bands.shape[2] not in (1, 3, 4)):
        raise ConfigError(
            f"The model takes {config.channels} channels and {having}. "
            "`ld_hub.train --in_chans K` trains a detector of K bands, whose ranges it finds on the images; or "
            "normalise yourself and call model(tensor)."
        )
    mode = modes[config.channels]
    pixels: NDArray[np.uint8] = np.array(image if image.mode == mode else image.convert(mode))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], config.channels)).permute(2, 0, 1)


def turned(bands: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Bands ``(h, w, K)`` upright, as an EXIF orientation 2..8 says."""
    return np.ascontiguousarray(_TURNED[orientation](bands))


def wide_to_u8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """16-bit, 32-bit or float grey levels to 8 bit: float up to 1 is a fraction, anything above 255 is 16-bit."""
    values = np.nan_to_num(pixels.astype(np.float64))
    if pixels.dtype.kind == "f" and values.max(initial=0) <= 1:
        values = values * 255
    elif pixels.dtype.itemsize == 2 or values.max(initial=0) > 255:
        values = values / 257
    grey: NDArray[np.uint8] = (values.clip(0, 255) + 0.5).astype(np.uint8)
    return grey


def needs_ranges(image: Image.Image, channels: int) -> bool:
    """Whether a model of so many channels would take this image's bands, but has to be told their ranges."""
    return isinstance(image, BandImage) and image.bands.shape[2] == channels and image.bands.dtype != np.uint8


def is_tiff(stream: IO[bytes]) -> bool:
    """Whether a file begins as TIFF does."""
    stream.seek(0)
    found = stream.read(4) in _TIFF
    stream.seek(0)
    return found


def stored_bands(image: Image.Image, stream: IO[bytes], name: str) -> NDArray[Any] | None:
    """The bands ``(h, w, K)`` of an opened TIFF; None of what Pillow reads as it is: pictures of 8 bits, grey.

    Args:
        image: As Pillow opened it.
        stream: Its file.
        name: What messages call it.

    Raises:
        DataError: As of `read_tiff`.
    """
    tags = getattr(image, "tag_v2", {})
    deep, bands = max(tags.get(_BITS, (1,))) > 8, tags.get(_SAMPLES, 1)
    if bands == 1 or (bands == 3 and not deep) or image.mode == "CMYK":
        return None
    if not deep and len(image.getbands()) == bands:
        return np.asarray(image)
    try:
        return read_tiff(stream, name)
    except ImportError:
        return None  # then it is the picture that Pillow makes of it


def read_tiff(stream: IO[bytes], name: str) -> NDArray[Any]:
    """The first page of a TIFF file, ``(h, w, K)``.

    Args:
        stream: The file.
        name: What messages call it.

    Raises:
        ImportError: Without the package tifffile.
        DataError: If it is damaged, compressed in a way that needs another package, or no image of bands.
    """
    from tifffile import TiffFile

    stream.seek(0)
    try:
        with TiffFile(stream) as file:
            page = file.pages[0]
            pixels, axes = page.asarray(), page.axes
    except Exception as error:  # of many kinds
        raise DataError(f"{name}: this TIFF cannot be read ({' '.join(str(error).split())[:200]}).") from None
    if axes not in ("YX", "YXS", "SYX"):
        raise DataError(f"{name}: a TIFF of the axes {axes}; expected height, width and bands.")
    if axes == "YX":
        return np.asarray(pixels[:, :, None])
    return np.asarray(pixels if axes == "YXS" else pixels.transpose(1, 2, 0))


def _fitting(image: Image.Image, config: DataConfig) -> NDArray[Any]:
    """The bands of an image that has as many as the model takes, and as deep."""
    ranges = config.band_ranges
    expected = f"the model was trained on {len(ranges)} band{'s' if len(ranges) > 1 else ''} of more than 8 bits"
    if not isinstance(image, BandImage):
        raise ConfigError(
            f"{_name(image)} has {_channels(image)}; {expected}. Give the files that it was trained on (16-bit TIFF of "
            "several bands needs pip install 'ld_hub[tiff]'), or ld_hub.preprocessing.BandImage(array)."
        )
    if image.bands.shape[2] != len(ranges) or image.bands.dtype == np.uint8:
        raise ConfigError(f"{_name(image)} has {_channels(image)}; {expected}.")
    return image.bands


def _stretched(bands: NDArray[Any], ranges: Sequence[tuple[float, float]]) -> NDArray[np.uint8]:
    """Bands to 0..255, from the lower to the upper end of their ranges; what is no number becomes 0."""
    low, high = np.array(ranges, dtype=np.float32).T
    values = (np.nan_to_num(bands.astype(np.float32)) - low) * (255 / (high - low))
    levels: NDArray[np.uint8] = (values.clip(0, 255) + 0.5).astype(np.uint8)
    return levels


def _view(bands: NDArray[Any]) -> Image.Image:
    shown: NDArray[Any] = np.nan_to_num(bands[:, :, : 3 if bands.shape[2] >= 3 else 1].astype(np.float32))
    if bands.dtype != np.uint8:
        low, high = np.percentile(shown.reshape(-1, shown.shape[2]), _VIEW, axis=0)
        shown = _stretched(shown, [(a, b if b > a else a + 1) for a, b in zip(low, high, strict=True)])
    picture = np.broadcast_to(shown.astype(np.uint8), (*shown.shape[:2], 3))
    return Image.fromarray(np.ascontiguousarray(picture))


def _channels(image: Image.Image) -> str:
    if isinstance(image, BandImage):
        count, kind = image.bands.shape[2], image.bands.dtype
        return f"{count} band{'s' if count > 1 else ''} ({kind})"
    return f"{len(image.getbands())} of 8 bits ({image.mode})"


def _name(image: Image.Image) -> str:
    return str(getattr(image, "filename", "") or "the image")
