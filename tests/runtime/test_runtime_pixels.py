"""Images are read and resized as with torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ld_hub.preprocessing import load_image
from ld_hub.preprocessing.geometry import resize as torch_resize
from ld_hub.runtime.exported_files import ExportedError
from ld_hub.runtime.pixels import read_pixels, resize


def test_resize_is_torchs() -> None:
    random = np.random.default_rng(0)
    for number in range(60):
        height, width, new_height, new_width = random.integers(1, 150, 4).tolist()
        pixels = random.integers(0, 256, (height, width, 1 + 2 * (number % 2)), dtype=np.uint8)
        planes = torch.from_numpy(pixels).permute(2, 0, 1)
        expected = torch_resize(planes, (new_height, new_width)).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(resize(pixels, new_height, new_width), expected)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "CMYK", "I;16", "F", "1"])
def test_all_kinds_of_images_are_read_as_ever(mode: str, tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(colours[:, :, 0].astype(np.uint16) * 200)
    elif mode == "F":
        image = Image.fromarray(colours[:, :, 0].astype(np.float32) / 255)
    else:
        image = Image.fromarray(colours).convert(mode)
    file = tmp_path / ("a.tif" if mode in ("CMYK", "F") else "a.png")
    image.save(file)
    expected = np.asarray(load_image(file))
    np.testing.assert_array_equal(read_pixels(file, 3), expected)
    np.testing.assert_array_equal(read_pixels(image, 3), np.asarray(load_image(image)))
    grey = np.asarray(load_image(file).convert("L"))[:, :, None]
    np.testing.assert_array_equal(read_pixels(file, 1), grey)


def test_turned_images_stand_upright(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6) * 10).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    found = read_pixels(tmp_path / "a.png", 3)
    assert found.shape == (6, 4, 3)
    np.testing.assert_array_equal(found, np.asarray(load_image(tmp_path / "a.png")))


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no image")
    with pytest.raises(ExportedError, match=r"a\.jpg' cannot be read"):
        read_pixels(tmp_path / "a.jpg", 3)
    with pytest.raises(ExportedError, match=r"No image file '.*b\.jpg'"):
        read_pixels(tmp_path / "b.jpg", 3)
    with pytest.raises(ExportedError, match=r"uint8.*found float64 of shape \(4, 4, 3\)"):
        read_pixels(np.zeros((4, 4, 3)), 3)
