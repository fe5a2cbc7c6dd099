from __future__ import annotations

import io
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from ld_hub.errors import DataError, MissingFileError
from ld_hub.preprocessing import load_image

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def encoded(pixels, kind="PNG", **options):
    stream = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned(orientation, pixels=RGB):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(pixels, exif=exif)


def assert_same(image, pixels):
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), pixels)


def test_every_kind_of_source_gives_the_same_image(tmp_path):
    path = tmp_path / "é x.png"
    path.write_bytes(encoded(RGB))
    floats = torch.from_numpy(RGB.transpose(2, 0, 1).copy()).double() / 255
    sources = [
        path, str(path), path.read_bytes(), Image.fromarray(RGB), RGB, torch.from_numpy(RGB.copy()),
        torch.from_numpy(RGB.transpose(2, 0, 1).copy()), RGB.transpose(2, 0, 1), floats, floats.float().numpy(),
    ]  # fmt: skip
    for source in sources:
        assert_same(load_image(source), RGB)


def test_a_url_is_downloaded(tmp_path):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/a.png" else 404)
            self.end_headers()
            self.wfile.write(encoded(RGB) if self.path == "/a.png" else b"no")

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        assert_same(load_image(f"{address}/a.png"), RGB)
        with pytest.raises(DataError, match=rf"{address}/b.png.*404"):
            load_image(f"{address}/b.png")
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_is_applied_as_pillow_does(orientation):
    data = turned(orientation)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    upright = load_image(data)
    assert_same(upright, expected)
    assert_same(load_image(upright), expected)  # not a second time


@pytest.mark.parametrize("orientation", [6, 8])
def test_exif_gives_way_to_the_declared_size(orientation):
    data = turned(orientation)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert_same(load_image(data, size=(6, 9)), expected)  # width x height after turning
    unturned = load_image(data, size=(9, 6))
    assert_same(unturned, RGB)
    assert_same(load_image(unturned), RGB)


def test_exif_is_applied_where_both_sizes_agree():
    square = RGB[:6, :6]
    data = turned(6, square)
    assert_same(load_image(data, size=(6, 6)), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))


def test_a_wrong_declared_size_names_file_and_both_sizes(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(turned(6))
    with pytest.raises(DataError, match=r"a\.png: the file is 9x6 px.*declare 10x6"):
        load_image(path, size=(10, 6))


@pytest.mark.parametrize("modes", ["1", "L", "L LA", "P", "P PA", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_modes_become_rgb(modes):
    source = Image.fromarray(RGB)
    for mode in modes.split():
        source = source.convert(mode)
    assert source.mode != "RGB"
    assert_same(load_image(source), np.asarray(source.convert("RGB")))


def test_transparency_is_dropped():
    alpha = np.random.default_rng(1).integers(0, 256, (6, 9, 1), dtype=np.uint8)
    assert_same(load_image(encoded(np.concatenate([RGB, alpha], axis=2))), RGB)
    assert_same(load_image(np.concatenate([RGB, alpha], axis=2)), RGB)


def test_sixteen_bit_grey_keeps_its_range():
    grey = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    image = load_image(encoded(grey))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_float_images_are_fractions():
    image = load_image(encoded(np.array([[0.0, 0.5, 1.0]], dtype=np.float32), "TIFF"))
    assert np.asarray(image)[0, :, 1].tolist() == [0, 128, 255]


def test_grey_arrays_get_three_channels():
    grey = RGB[:, :, 0]
    expected = np.repeat(grey[:, :, None], 3, axis=2)
    for source in (grey, grey[:, :, None], torch.from_numpy(grey.copy())[None]):
        assert_same(load_image(source), expected)


@pytest.mark.parametrize(
    ("pixels", "word"),
    [
        (RGB.astype(np.int32), "int32"),
        (RGB.astype(np.float32), "0..1"),
        (RGB / 255.0 - 0.5, "normalised"),
        (np.full((4, 4, 3), np.nan), "0..1"),
        (np.zeros((2, 3, 4, 4), np.uint8), "list of images"),
        (np.zeros((7, 8, 2), np.uint8), "1, 3 or 4 channels"),
        (np.zeros((0, 8, 3), np.uint8), "no pixels"),
    ],
)
def test_arrays_that_are_no_images_are_refused(pixels, word):
    for source in (pixels, torch.from_numpy(pixels)):
        with pytest.raises(DataError, match=word):
            load_image(source)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_files_cut_short_are_named(tmp_path, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = encoded(pixels, kind)
    path = tmp_path / f"cut.{kind.lower()}"
    for length in (len(whole) // 2, 200, 20, 1, 0):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=rf"cut\.{kind.lower()}"):
            load_image(path)


def test_missing_files_directories_and_other_things(tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.jpg"):
        load_image(tmp_path / "none.jpg")
    with pytest.raises(FileNotFoundError):
        load_image(str(tmp_path / "none.jpg"))
    with pytest.raises(DataError, match="directory"):
        load_image(tmp_path)
    with pytest.raises(DataError, match="from int"):
        load_image(3)
    text = tmp_path / "a.jpg"
    text.write_text("<html>")
    with pytest.raises(DataError, match=r"a\.jpg: not an image"):
        load_image(text)
