"""Bands of more than 8 bits, and other than red, green and blue, on their way into a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ld_hub.errors import ConfigError, DataError
from ld_hub.preprocessing import (
    BandImage,
    DataConfig,
    Preprocessor,
    create_transform,
    load_image,
    read_size,
    renormalize,
)
from tests.support.tiff import write_tiff


def ramp(count: int, kind: str = "uint16", height: int = 20, width: int = 30) -> np.ndarray:
    """Band k has the values 100 (k + 1) + row."""
    rows = np.arange(height)[:, None, None] + np.zeros((1, width, 1), int)
    return (rows + 100 * (1 + np.arange(count))).astype(kind)


def config(*ranges: tuple[float, float]) -> DataConfig:
    count = len(ranges)
    return DataConfig((0.0,) * count, (1.0,) * count, image_size=(20, 30), size_divisor=1, band_ranges=ranges)


@pytest.mark.parametrize("kind", ["uint16", "float32", "int16", "uint8"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("count", [2, 4, 5])
def test_all_bands_are_read_as_they_are_stored(kind: str, planar: bool, count: int, tmp_path: Path) -> None:
    pytest.importorskip("tifffile")
    bands = ramp(count, kind) if kind != "uint8" else (ramp(count) % 251).astype("uint8")
    file = write_tiff(tmp_path / "a.tif", bands, planar=planar)
    image = load_image(file, size=(30, 20))
    assert isinstance(image, BandImage) and image.mode == "RGB" and image.size == (30, 20) == read_size(file)
    assert image.bands.dtype == np.dtype(kind) and np.array_equal(image.bands, bands)
    with pytest.raises(DataError, match="the file is 30x20 px, but its annotations declare 31x20"):
        load_image(file, size=(31, 20))


def test_16_bit_grey_needs_no_package(tmp_path: Path) -> None:
    bands = ramp(1)
    for file in (write_tiff(tmp_path / "a.tif", bands), tmp_path / "a.png"):
        if file.suffix == ".png":
            Image.fromarray(bands[..., 0]).save(file)
        image = load_image(file)
        assert isinstance(image, BandImage) and np.array_equal(image.bands, bands)
        sample = Preprocessor(config((105, 115)))(image)
        expected = ((bands[..., 0].astype(float) - 105) * 25.5).clip(0, 255) + 0.5
        assert np.array_equal(sample.image[0].numpy(), expected.astype(int))
        plain = DataConfig((0.0,), (1.0,), image_size=(20, 30))  # without ranges, 65535 is white
        assert np.array_equal(Preprocessor(plain)(image).image[0].numpy(), (bands[..., 0] / 257 + 0.5).astype(int))


def test_pictures_of_8_bits_stay_pictures(tmp_path: Path) -> None:
    for count in (1, 3):
        image = load_image(write_tiff(tmp_path / f"{count}.tif", (ramp(count) % 251).astype("uint8")))
        assert not isinstance(image, BandImage) and image.mode == "RGB"


def test_bands_are_stretched_over_their_ranges() -> None:
    bands = ramp(5).astype("float32")
    bands[3, 4, 2] = np.nan
    ranges = ((100, 119), (0, 1000), (300, 310), (-50, 500), (505, 506))
    tensor = create_transform(**config(*ranges).to_dict())
    sample = Preprocessor(config(*ranges))(BandImage(bands))
    for k, (low, high) in enumerate(ranges):
        expected = ((np.nan_to_num(bands[..., k]) - low) / (high - low) * 255).clip(0, 255)
        assert np.abs(sample.image[k].numpy() - expected).max() <= 0.5001
    assert sample.image[2, 3, 4] == 0
    assert tensor is not None and DataConfig.from_dict(config(*ranges).to_dict()) == config(*ranges)
    assert "band_ranges" not in DataConfig().to_dict()


def test_the_transform_by_hand_gives_what_a_batch_gets(tmp_path: Path) -> None:
    file = write_tiff(tmp_path / "a.tif", ramp(1))
    tensor = create_transform(**config((100, 119)).to_dict())(str(file))
    assert torch.equal(tensor, Preprocessor(config((100, 119)))(load_image(file)).image.float())


def test_bands_of_8_bits_are_taken_as_they_are() -> None:
    bands = (ramp(4) % 251).astype("uint8")
    plain = DataConfig((0.0,) * 4, (1.0,) * 4, image_size=(20, 30))
    assert np.array_equal(Preprocessor(plain)(BandImage(bands)).image.permute(1, 2, 0).numpy(), bands)


def test_colours_of_16_bits_without_ranges_are_white_at_65535(tmp_path: Path) -> None:
    pytest.importorskip("tifffile")
    bands = ramp(3) * 200
    sample = Preprocessor(DataConfig(image_size=(20, 30)))(load_image(write_tiff(tmp_path / "a.tif", bands)))
    assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), (bands / 257 + 0.5).astype(int))


def test_an_image_is_turned_with_its_bands(tmp_path: Path) -> None:
    bands = ramp(1) + np.arange(30, dtype="uint16")[None, :, None] * 500
    picture, exif = Image.fromarray(bands[..., 0]), Image.Exif()
    for orientation in range(2, 9):
        exif[0x0112] = orientation
        picture.save(tmp_path / "a.png", exif=exif)
        image = load_image(tmp_path / "a.png")
        turned = load_image(_eight_bit(tmp_path / "b.png", bands, exif))
        expected = np.asarray(turned)[..., 0]
        assert isinstance(image, BandImage) and image.size == turned.size
        assert np.array_equal((image.bands[..., 0] // 500 + image.bands[..., 0] % 500 - 100).astype("uint8"), expected)


def _eight_bit(file: Path, bands: np.ndarray, exif: Image.Exif) -> Path:
    grey = (bands[..., 0] // 500 + bands[..., 0] % 500 - 100).astype("uint8")
    Image.fromarray(grey).save(file, exif=exif)
    return file


def test_images_of_other_bands_are_refused(tmp_path: Path) -> None:
    five = BandImage(ramp(5))
    three, ranged = DataConfig(), config((0, 1), (0, 1))
    with pytest.raises(ConfigError, match=r"takes 3 channels and the image has 5 bands \(uint16\).*--in_chans K"):
        Preprocessor(three)(five)
    with pytest.raises(ConfigError, match=r"has 5 bands \(uint16\); the model was trained on 2 bands of more than 8"):
        Preprocessor(ranged)(five)
    with pytest.raises(ConfigError, match=r"has 3 of 8 bits \(RGB\); the model was trained on 2 bands.*ld_hub\[tiff\]"):
        Preprocessor(ranged)(five.resize((5, 5)))
    with pytest.raises(ConfigError, match=r"the image has 2 bands \(uint8\)"):
        Preprocessor(ranged)(BandImage(ramp(2).astype("uint8")))
    file = write_tiff(tmp_path / "grey.tif", ramp(1))
    with pytest.raises(ConfigError, match=r"grey.tif has 1 band \(uint16\)"):
        Preprocessor(ranged)(load_image(file))
    with pytest.raises(DataError, match=r"shape \(h, w, K\); got uint16 of shape \(20, 30\)"):
        BandImage(ramp(1)[..., 0])


def test_a_file_that_no_reader_knows_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_tiff(tmp_path / "a.tif", ramp(5))
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    for read in (load_image, read_size):
        with pytest.raises(
            DataError, match=r"a.tif: a TIFF of a kind that Pillow cannot read; pip install 'ld_hub\[tiff\]'"
        ):
            read(file)


@pytest.mark.parametrize("length", [30, 400])
def test_a_damaged_file_is_named(length: int, tmp_path: Path) -> None:
    pytest.importorskip("tifffile")
    file = write_tiff(tmp_path / "a.tif", ramp(5))
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(DataError, match=r"a\.tif"):
        load_image(file)


def test_ranges_are_checked() -> None:
    for wrong in ([(0, 1)], [(0, 1), (1, 1)], [(0, 1), (2, 1)], [(0, 1), (0, 1, 2)]):
        with pytest.raises(ConfigError, match="one pair \\(low, high\\) for each of the 2 channels"):
            DataConfig((0.0, 0.0), (1.0, 1.0), band_ranges=wrong)


def test_two_models_of_one_batch_have_the_same_ranges() -> None:
    images, sizes = torch.zeros(1, 2, 4, 4), torch.tensor([[4, 4]])
    one, other = config((0, 1), (0, 1)), config((0, 1), (0, 2))
    assert renormalize(images, sizes, one, one) is images
    assert renormalize(images, sizes, one, DataConfig((0.0, 0.0), (1.0, 1.0))) is images  # an encoder of pictures
    with pytest.raises(ConfigError, match="train both on the same data"):
        renormalize(images, sizes, one, other)
