"""One way in for every kind of image: a file, an address, bytes, an array, a tensor or a Pillow image."""

from __future__ import annotations

import contextlib
import glob
import io
import struct
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from ld_hub.errors import DataError, MissingFileError
from ld_hub.preprocessing.bands import BandImage, is_tiff, read_tiff, stored_bands, turned, wide_to_u8
from ld_hub.preprocessing.suffixes import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import TypeIs

ImageSource: TypeAlias = "str | Path | bytes | io.BytesIO | Image.Image | np.ndarray[Any, Any] | Tensor"

MAX_DOWNLOAD = 128 * 2**20  # bytes; no photograph is larger
_ORIENTATION = 0x0112
_NO_IMAGE = "not an image, or of a kind that Pillow cannot read"
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = (5, 6, 7, 8)
# What Pillow's decoders raise on damaged files, by format.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def load_image(source: ImageSource, *, size: tuple[int, int] | None = None, timeout: float = 30.0) -> Image.Image:
    """Read an image as 8-bit RGB, upright.

    Palettes, transparency (dropped, as OpenCV does), grey, 16-bit and CMYK images are converted. What has more than 8
    bits, or a TIFF of other bands than red, green and blue, is a `BandImage`: it carries the bands as they are stored.

    Args:
        source: Path, ``http(s)://`` address, encoded bytes (also as ``io.BytesIO``), Pillow image, or pixels: uint8
            0..255 or float 0..1, as ``(h, w)``, ``(h, w, K)`` or ``(K, h, w)`` with K = 1, 3 or 4. Arrays are taken as
            ``(h, w, K)`` and tensors as ``(K, h, w)`` where both readings are possible.
        size: Width and height in px that annotations declare. The EXIF orientation is then applied only where the
            turned image has that size: some datasets were annotated on unturned files. None always applies it.
        timeout: Seconds without an answer until a download fails.

    Raises:
        MissingFileError: If a file does not exist.
        DataError: If the image cannot be read, is cut short, or does not have the declared size; the file is named.
    """
    if _is_tensor(source) or isinstance(source, np.ndarray):
        return _from_pixels(source)
    if isinstance(source, Image.Image):
        return _finish(source, getattr(source, "filename", "") or "image", size)
    name, place = _open(source, timeout)
    try:
        with _stream(place) as stream:
            return _read(stream, name, size)
    except _DECODE_ERRORS as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{name}: the image is damaged or cut short ({error}). Fetch it again or leave it out."
        ) from None


def read_size(source: str | Path | bytes) -> tuple[int, int]:
    """Width and height in px of an image as `load_image` returns it, from the file's header.

    Args:
        source: Image file, or its content.

    Raises:
        MissingFileError: If it does not exist.
        DataError: If it is no image.
    """
    name, place = _open(source, 0.0)
    try:
        with _stream(place) as stream:
            try:
                with Image.open(stream) as image:
                    width, height = image.size
                    turned = image.getexif().get(_ORIENTATION, 1) in _SWAPS_SIDES
            except UnidentifiedImageError:
                picture = BandImage(_of_no_picture(stream, name))
                width, height, turned = picture.width, picture.height, False
    except _DECODE_ERRORS as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name}: the image is damaged ({' '.join(str(error).split())}).") from None
    return (height, width) if turned else (width, height)


@contextlib.contextmanager
def _stream(place: Path | io.BytesIO) -> Iterator[IO[bytes]]:
    """A file that can be read more than once."""
    if isinstance(place, io.BytesIO):
        yield place
        return
    with open(place, "rb") as stream:
        yield stream


def _read(stream: IO[bytes], name: str, size: tuple[int, int] | None) -> Image.Image:
    try:
        with Image.open(stream) as image:
            bands = stored_bands(image, stream, name)
            if bands is None:
                return _finish(image, name, size)
            return _with_bands(bands, None, name, _turn(image, name, size))
    except UnidentifiedImageError:
        picture = _with_bands(_of_no_picture(stream, name), None, name, 1)
    _turn(picture, name, size)  # refuses another size
    return picture


def _of_no_picture(stream: IO[bytes], name: str) -> np.ndarray[Any, Any]:
    """The bands of a file that Pillow does not know."""
    if not is_tiff(stream):
        raise DataError(f"{name}: {_NO_IMAGE}.")
    try:
        return read_tiff(stream, name)
    except ImportError:
        raise DataError(
            f"{name}: a TIFF of a kind that Pillow cannot read; pip install 'ld_hub[tiff]' brings a reader for it."
        ) from None


def _open(source: str | Path | bytes | io.BytesIO, timeout: float) -> tuple[str, Path | io.BytesIO]:
    """A name for messages, and what Pillow can open."""
    if isinstance(source, io.BytesIO):
        source = source.getvalue()  # whole, wherever somebody has read to
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>", io.BytesIO(source)
    if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        return source, io.BytesIO(_download(source, timeout))
    if not isinstance(source, (str, Path)):
        raise DataError(
            f"Cannot read an image from {type(source).__name__}; "
            "give a path, URL, bytes, Pillow image, array or tensor."
        )
    path = Path(source).expanduser()
    if path.is_dir():
        raise DataError(f"{path} is a directory, not an image.")
    if not path.exists():
        raise MissingFileError(f"No image file {path}.")
    return str(path), path


def _download(url: str, timeout: float) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "ld_hub"})  # noqa: S310 - scheme checked by the caller
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310
            content: bytes = response.read(MAX_DOWNLOAD + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise DataError(f"Could not download {url}: {error}.") from None
    if len(content) > MAX_DOWNLOAD:
        raise DataError(f"{url} is larger than {MAX_DOWNLOAD // 2**20} MiB; download it yourself and give the path.")
    return content


def _turn(image: Image.Image, name: str, size: tuple[int, int] | None) -> int:
    """The orientation from which an image is to be turned upright, 1 where it stays as it is."""
    found: int = image.getexif().get(_ORIENTATION, 1)
    if size is None:
        return found
    turned = (image.height, image.width) if found in _SWAPS_SIDES else image.size
    if tuple(size) not in (turned, image.size):
        raise DataError(
            f"{name}: the file is {image.width}x{image.height} px, but its annotations declare {size[0]}x{size[1]} "
            "(width x height). Correct the declared size, or put the file back that was annotated."
        )
    return found if tuple(size) == turned else 1


def _finish(image: Image.Image, name: str, size: tuple[int, int] | None) -> Image.Image:
    """Decode, turn upright and convert to RGB."""
    turn = _turn(image, name, size)
    rgb = _to_rgb(image)
    if _is_wide(image):
        return _with_bands(np.asarray(image)[:, :, None], rgb, name, turn)
    if image.getexif().get(_ORIENTATION, 1) == 1:
        return rgb
    upright = rgb.transpose(_TRANSPOSE[turn]) if turn in _TRANSPOSE else rgb.copy()
    upright.info = {}  # else the orientation would be applied again to the image we return
    return upright


def _with_bands(bands: np.ndarray[Any, Any], view: Image.Image | None, name: str, turn: int) -> BandImage:
    if turn in _TRANSPOSE:
        bands, view = turned(bands, turn), None if view is None else view.transpose(_TRANSPOSE[turn])
    picture = BandImage(bands, view)
    picture.filename = name
    return picture


def _is_wide(image: Image.Image) -> bool:
    """Whether it is grey of more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode == "RGB":
        return image
    if _is_wide(image):  # Pillow would clip these at 255
        return Image.fromarray(wide_to_u8(np.asarray(image))).convert("RGB")
    return image.convert("RGB")


def find_images(directory: str | Path, *, recursive: bool = False) -> list[Path]:
    """Image files of a directory, sorted by name; hidden files are left out.

    Args:
        directory: Where to look.
        recursive: Also look in its subdirectories.

    Raises:
        MissingFileError: If there is no such directory, or no image in it.
    """
    folder = Path(directory).expanduser()
    if not folder.is_dir():
        raise MissingFileError(f"No directory '{directory}'.")
    files = _pictures(folder.rglob("*") if recursive else folder.iterdir())
    if not files:
        hint = "" if recursive else " Subdirectories are looked at with --recursive (find_images(recursive=True))."
        kinds = f"files ending in {' '.join(PICTURE_SUFFIXES)} are taken."
        raise MissingFileError(f"No images in '{directory}'; {kinds}{hint}")
    return files


def match_images(pattern: str) -> list[Path]:
    """Image files whose paths match a pattern, sorted; ``**`` stands for any number of directories.

    Raises:
        MissingFileError: If there is none.
    """
    files = _pictures(map(Path, glob.iglob(str(Path(pattern).expanduser()), recursive=True)))
    if not files:
        raise MissingFileError(f"No images match '{pattern}'; files ending in {' '.join(PICTURE_SUFFIXES)} are taken.")
    return files


def is_pattern(source: str) -> bool:
    """Whether a text is a pattern of paths: it has a wildcard, and neither a file nor an address has this name."""
    return glob.has_magic(source) and "://" not in source and not Path(source).expanduser().exists()


def _pictures(paths: Iterable[Path]) -> list[Path]:
    return sorted(f for f in paths if f.suffix.lower() in PICTURE_SUFFIXES and f.name[0] != "." and f.is_file())


def is_directory(source: str | Path) -> bool:
    """Whether an image source names a directory of this machine."""
    try:
        return Path(source).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError):  # too long, unknown "~user", null bytes: no path at all
        return False


def _is_tensor(source: object) -> TypeIs[Tensor]:
    """Without importing torch: there is no tensor where nobody has."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _from_pixels(source: np.ndarray[Any, Any] | Tensor) -> Image.Image:
    channels_first = _is_tensor(source)
    pixels = source.detach().cpu().numpy() if _is_tensor(source) else source
    shape = tuple(pixels.shape)
    if len(shape) == 2:
        pixels = pixels[:, :, None]
    elif len(shape) == 3:
        first, last = shape[0] in (1, 3, 4), shape[2] in (1, 3, 4)
        if first and (channels_first or not last):
            pixels = pixels.transpose(1, 2, 0)
        elif not last:
            raise DataError(f"An image array needs 1, 3 or 4 channels first or last; got shape {shape}.")
    else:
        raise DataError(f"An image array has 2 or 3 dimensions, got shape {shape}; give a batch as a list of images.")
    if 0 in pixels.shape:
        raise DataError(f"An image array of shape {shape} has no pixels.")
    grey = _pixels_to_u8(pixels[:, :, :3])
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(grey, (*grey.shape[:2], 3))))


def _pixels_to_u8(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind != "f":
        raise DataError(f"An image array is uint8 (0..255) or float (0..1), got {pixels.dtype}.")
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):  # also refuses NaN
        raise DataError(
            f"A float image array lies in 0..1, got {low:g}..{high:g}; give raw pixels, not normalised ones."
        )
    return (pixels * 255 + 0.5).astype(np.uint8)
