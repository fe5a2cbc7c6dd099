"""Videos: each frame once, at its time, annotated and as a line of JSON; few frames in memory; errors in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ld_hub.cli.clips import ClipWanted, detect_on_video
from ld_hub.cli.main import main
from ld_hub.errors import ConfigError, DataError, MissingFileError
from ld_hub.models.factory import create_model
from ld_hub.preprocessing.video import VideoReader, VideoWriter, _upright, is_video
from ld_hub.structures import Detections

pytest.importorskip("av")
FRAMES, RATE = 12, Fraction(8)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Twelve grey frames, each lighter than the one before; 51 x 34 px, of which a column is cut off."""
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, RATE) as writer:
        for k in range(FRAMES):
            writer.write(Image.new("RGB", (51, 34), (20 * k,) * 3))
    return path


def grey(image: Image.Image) -> float:
    return float(np.asarray(image.convert("L")).mean())


def test_frames_come_back_in_order_at_their_times(clip):
    with VideoReader(clip) as video:
        assert (video.rate, video.total) == (RATE, FRAMES)
        frames = list(video)
    assert [frame.number for frame in frames] == list(range(FRAMES))
    assert [frame.seconds for frame in frames] == pytest.approx([k / 8 for k in range(FRAMES)], abs=1e-3)
    assert [grey(frame.image) for frame in frames] == pytest.approx([20 * k for k in range(FRAMES)], abs=3)
    assert frames[0].image.size == (50, 34)


class Seeing:
    """Finds a box on each frame, as wide as the frame is light; counts frames handed over and not answered."""

    def __init__(self) -> None:
        self.waiting = self.most = 0

    def __call__(self, images: Iterator[Image.Image], *, threshold: float, batch_size: int) -> Iterator[Detections]:
        batch: list[Image.Image] = []
        for image in images:
            batch.append(image)
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            if len(batch) == batch_size:
                yield from self._answer(batch)
                batch = []
        yield from self._answer(batch)

    def _answer(self, batch: list[Image.Image]) -> Iterator[Detections]:
        for image in batch:
            self.waiting -= 1
            box = torch.tensor([[0.0, 0.0, 1 + grey(image) / 10, 20.0]])
            one = {"scores": torch.tensor([0.9]), "labels": torch.tensor([0])}
            yield Detections(boxes=box, **one, label_names=("grey",), category_ids=(1,), image=image)


@pytest.mark.parametrize(
    ("every", "most", "expected"), [(1, None, range(12)), (5, None, (0, 5, 10)), (2, 3, (0, 2, 4))]
)
def test_each_frame_has_a_line_and_a_picture(clip, tmp_path, every, most, expected):
    detect = Seeing()
    said = detect_on_video(str(clip), "seen", tmp_path / "out", detect, ClipWanted(every, most, 0.3, 2))
    lines = [json.loads(line) for line in (tmp_path / "out/seen.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(expected)
    assert [line["seconds"] for line in lines] == pytest.approx([k / 8 for k in expected], abs=1e-3)
    widths = [line["detections"][0]["box"]["xmax"] for line in lines]
    assert widths == pytest.approx([1 + 2 * k for k in expected], abs=1)
    with VideoReader(tmp_path / "out/seen.mp4") as video:
        assert video.rate == RATE / every
        shown = [frame.image for frame in video]
    corners = [float(np.asarray(image.convert("L"))[30:, 40:].mean()) for image in shown]  # beside the boxes
    assert corners == pytest.approx([20 * k for k in expected], abs=4)
    assert "seen.mp4" in said and f"{len(lines)} frames" in said
    assert detect.most <= 2


def test_an_interrupt_keeps_what_was_seen(clip, tmp_path):
    def stopped(images: Iterator[Image.Image], **options: Any) -> Iterator[Detections]:
        for k, detections in enumerate(Seeing()(images, **options)):
            if k == 5:
                raise KeyboardInterrupt
            yield detections

    detect_on_video(str(clip), "seen", tmp_path, stopped, ClipWanted(1, None, 0.3, 1))
    assert len((tmp_path / "seen.jsonl").read_text().splitlines()) == 5
    with VideoReader(tmp_path / "seen.mp4") as video:
        assert len(list(video)) == 5


def test_the_command(clip, tmp_path, capsys):
    create_model("gfocal_tiny", num_classes=2, pretrained_backbone=False).save_pretrained(tmp_path / "model")
    words = ["--model", str(tmp_path / "model"), "--out", str(tmp_path / "out"), "--max_frames", "2"]
    assert main(["predict", str(clip), *words]) == 0
    assert "clip.mp4: 2 frames" in capsys.readouterr().out
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["clip.jsonl", "clip.mp4"]


def test_what_cannot_be_read_is_named(tmp_path, monkeypatch):
    broken, sound = tmp_path / "broken.mp4", tmp_path / "none.mp4"
    broken.write_bytes(b"no video at all")
    with pytest.raises(DataError, match=r"broken\.mp4' cannot be opened as a video"):
        VideoReader(broken)
    with pytest.raises(MissingFileError, match="No video"):
        VideoReader(sound)
    monkeypatch.setattr("sys.platform", "nowhere")
    with pytest.raises(ConfigError, match="Camera 0: this build of PyAV opens no cameras"):
        VideoReader("0")
    monkeypatch.setattr("ld_hub.preprocessing.video.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'ld_hub\[video\]'"):
        VideoReader(broken)


def test_a_damaged_video_leaves_nothing_half_written(clip, tmp_path):
    def failing(images: Iterator[Image.Image], **options: Any) -> Iterator[Detections]:
        yield from Seeing()(iter([next(images)]), **options)
        raise DataError("the video is damaged")

    with pytest.raises(DataError, match="is damaged"):
        detect_on_video(str(clip), "seen", tmp_path / "out", failing, ClipWanted(1, None, 0.3, 1))
    assert not list((tmp_path / "out").glob("*"))


def test_pictures_of_telephones_are_upright():
    image = Image.fromarray(np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3))
    for turn in (0, 90, 180, -90):
        frame = SimpleNamespace(to_image=lambda: image, rotation=turn)
        np.testing.assert_array_equal(np.asarray(_upright(frame)), np.rot90(np.asarray(image), turn // 90))


def test_videos_are_known_by_their_names():
    assert all(map(is_video, ("a.MP4", Path("b/c.webm"), "rtsp://camera/1", "0")))
    assert not any(map(is_video, ("a.jpg", "https://a.org/b.png", "12.png", "photos")))
