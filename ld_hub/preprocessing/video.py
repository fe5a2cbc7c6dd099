"""Frames of videos, streams and cameras, one after the other, and videos made of pictures (PyAV, extra ``video``)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image

from ld_hub.errors import ConfigError, DataError, MissingFileError
from ld_hub.preprocessing.suffixes import VIDEO_SUFFIXES

_STREAMS = ("rtsp://", "rtmp://", "udp://", "tcp://", "srt://")
_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
_ENCODERS = ("libx264", "mpeg4")  # the first that is there
_USUAL_RATE = Fraction(25)  # frames per second where a source does not say
_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video.

    Attributes:
        number: From 0, of all that were decoded.
        seconds: Since the beginning.
        image: RGB, upright.
    """

    number: int
    seconds: float
    image: Image.Image


def is_video(source: str | Path) -> bool:
    """Whether a name is a video's: by its ending, a stream's address, or the number of a camera."""
    text = str(source).lower()
    return text.endswith(VIDEO_SUFFIXES) or text.startswith(_STREAMS) or text.isdecimal()


def require_video(source: str | Path) -> None:
    """Refuse a video that is not there, or cannot be read for want of PyAV; opens nothing.

    Raises:
        ConfigError: If PyAV is missing.
        MissingFileError: If there is no such file.
    """
    if find_spec("av") is None:
        raise ConfigError(f"Reading '{source}' takes PyAV, which is not installed: pip install 'ld_hub[video]'.")
    text = str(source)
    if not (text.isdecimal() or "://" in text) and not Path(text).expanduser().is_file():
        raise MissingFileError(f"No video '{source}'.")


class VideoReader:
    """The frames of a video, decoded as they are asked for.

    Attributes:
        rate: Frames per second.
        total: Number of frames as the file says; None where it does not, and for streams and cameras.

    Args:
        source: A file, ``http(s)://`` or ``rtsp://`` address, or the number of a camera.

    Raises:
        ConfigError: If PyAV is missing, or cannot open cameras here.
        MissingFileError: If there is no such file.
        DataError: If it cannot be opened, or has no pictures.
    """

    def __init__(self, source: str | Path) -> None:
        require_video(source)
        self.source = str(source)
        self._file = _open(self.source)
        if not self._file.streams.video:
            self._file.close()
            raise DataError(f"'{source}' has no pictures: it holds no video stream.")
        self._stream = self._file.streams.video[0]
        self._stream.thread_type = "AUTO"
        self.rate = Fraction(self._stream.average_rate or _USUAL_RATE)
        self.total: int | None = self._stream.frames or None

    def __iter__(self) -> Iterator[Frame]:
        from av.error import FFmpegError

        first: float | None = None
        try:
            for number, frame in enumerate(self._file.decode(self._stream)):
                seconds = float(number / self.rate) if frame.time is None else float(frame.time)
                first = seconds if first is None else first
                yield Frame(number, seconds - first, _upright(frame))
        except FFmpegError as error:
            raise DataError(f"'{self.source}': the video is damaged ({error.strerror}).") from None

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class VideoWriter:
    """Writes pictures of one size as a video; closing it completes the file.

    Args:
        path: The file, whose ending says the container.
        rate: Pictures per second.
    """

    def __init__(self, path: str | Path, rate: Fraction) -> None:
        import av

        self._file: Any = av.open(str(path), "w")
        name = next(each for each in _ENCODERS if each in av.codecs_available)
        self._stream = self._file.add_stream(name, rate=rate)
        self._stream.pix_fmt = "yuv420p"
        self._empty = True

    def write(self, image: Image.Image) -> None:
        """Add a picture; a last row or column that the format cannot hold (odd sizes) is cut off."""
        import av

        if self._empty:
            self._stream.width, self._stream.height = (max(2, side // 2 * 2) for side in image.size)
            self._empty = False
        picture = image.crop((0, 0, self._stream.width, self._stream.height))
        self._file.mux(self._stream.encode(av.VideoFrame.from_image(picture)))

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._empty:
            self._file.mux(self._stream.encode(None))
        self._file.close()


def _open(source: str) -> Any:
    import av
    from av.error import FFmpegError

    form, place, options = None, source if "://" in source else str(Path(source).expanduser()), {}
    if source.isdecimal():
        form, pattern = _CAMERAS.get(sys.platform, ("", "{}"))
        place = pattern.format(source)
        if form not in av.formats_available:
            raise ConfigError(
                f"Camera {source}: this build of PyAV opens no cameras ('{form}' is not in it). Give a file or an "
                "rtsp:// address."
            )
    if source.startswith("rtsp://"):
        options = {"rtsp_transport": "tcp"}
    try:
        return av.open(place, format=form, options=options, timeout=10.0)
    except (FFmpegError, OSError) as error:
        raise DataError(f"'{source}' cannot be opened as a video ({error.strerror or error}).") from None


def _upright(frame: Any) -> Image.Image:
    """A decoded frame as RGB, turned as the file asks (telephones store pictures as the sensor has them)."""
    image: Image.Image = frame.to_image()
    turn = _TURNS.get(round(getattr(frame, "rotation", 0) or 0) % 360)
    return image if turn is None else image.transpose(turn)
