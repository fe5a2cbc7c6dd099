"""Pictures in, detections out: sources, batches, modes."""

from __future__ import annotations

import http.server
import io
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ld_hub.errors import ConfigError, DataError, MissingFileError
from ld_hub.models.gfocal import GFocal, GFocalConfig
from ld_hub.models.inference import READ_AHEAD, iter_predict, predict
from ld_hub.ops.hardware import resolve_device
from ld_hub.preprocessing import DataConfig
from ld_hub.preprocessing.loading import find_images, match_images
from ld_hub.structures import Detections


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = GFocalConfig(
        backbone="test_resnet", num_classes=3, fpn_channels=64, head_width=64, head_depth=1, anchor_scale=4.0
    )
    model = GFocal(config, label_names=("cat", "dog", "bird"), data_config=DataConfig(image_size=(96, 160)))
    torch.nn.init.constant_(model.head.cls.bias, -1.5)  # untrained, it would see nothing
    for weight in (model.head.cls.weight, model.head.box.weight):
        torch.nn.init.normal_(weight, std=0.2)
    return model.eval()


def picture(width, height, seed=0):
    random = np.random.default_rng(seed)
    small = random.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height))


def assert_same(a: Detections, b: Detections, px=0.0):
    assert len(a) == len(b) > 0
    torch.testing.assert_close(a.boxes, b.boxes, atol=px, rtol=0)
    torch.testing.assert_close(a.scores, b.scores, atol=px, rtol=0)
    assert a.names == b.names


def test_every_kind_of_source_gives_the_same(model, tmp_path):
    image = picture(120, 96)
    image.save(tmp_path / "a.png")
    pixels = np.asarray(image)
    expected = predict(model, image)
    assert isinstance(expected, Detections) and expected.label_names == ("cat", "dog", "bird")
    sources = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        (tmp_path / "a.png").read_bytes(),
        io.BytesIO((tmp_path / "a.png").read_bytes()),
        pixels,
        torch.from_numpy(pixels.copy()).permute(2, 0, 1),
    ]
    for source in sources:
        found = predict(model, source)
        assert isinstance(found, Detections)
        assert_same(found, expected)
    for several in (sources, tuple(sources), iter(sources)):
        found = predict(model, several, batch_size=1)
        assert isinstance(found, list) and len(found) == 6
        for one in found:
            assert_same(one, expected)
    for batch in (np.stack([pixels, pixels]), torch.from_numpy(np.stack([pixels] * 2)).permute(0, 3, 1, 2)):
        found = predict(model, batch, batch_size=1)
        assert len(found) == 2
        assert_same(found[1], expected)


def test_patterns_and_subdirectories(model, tmp_path):
    image = picture(120, 96)
    for name in ("b.png", "a.png", "deep/er/c.png", "deep/.d.png", "deep/e[1].png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / name)
    (tmp_path / "deep/note.txt").write_text("no image")

    def names(files):
        return [file.name for file in files]

    assert names(find_images(tmp_path)) == ["a.png", "b.png"]
    assert names(find_images(tmp_path, recursive=True)) == ["a.png", "b.png", "e[1].png", "c.png"]
    assert names(match_images(str(tmp_path / "**/*.png"))) == ["a.png", "b.png", "e[1].png", "c.png"]
    found = predict(model, str(tmp_path / "[ab].png"))
    assert len(found) == 2
    assert_same(found[0], predict(model, image), px=1e-3)
    assert isinstance(predict(model, str(tmp_path / "deep/e[1].png")), Detections)  # a file of that very name
    with pytest.raises(MissingFileError, match=r"x\*\.png"):
        predict(model, str(tmp_path / "x*.png"))
    with pytest.raises(MissingFileError, match="recursive"):
        (tmp_path / "deep/e[1].png").unlink()
        find_images(tmp_path / "deep")


def test_url(model, tmp_path):
    picture(120, 96).save(tmp_path / "a.png")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/a.png"
        assert_same(predict(model, url), predict(model, tmp_path / "a.png"))
        with pytest.raises(DataError, match=r"/b\.png"):
            predict(model, url.replace("a.png", "b.png"))
    finally:
        server.shutdown()
        server.server_close()


def test_directory_is_sorted_and_flat(model, tmp_path):
    for k, name in enumerate(["b.JPG", "a.png", "c.webp", ".hidden.png"]):
        picture(64 + 32 * k, 64, seed=k).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "sub").mkdir()
    picture(64, 64).save(tmp_path / "sub" / "d.png")
    assert [path.name for path in find_images(tmp_path)] == ["a.png", "b.JPG", "c.webp"]
    found = predict(model, str(tmp_path))
    assert [d.image.width for d in found] == [96, 64, 128]
    assert_same(found[1], predict(model, tmp_path / "b.JPG"), px=1e-3)
    with pytest.raises(MissingFileError, match="No images in"):
        (tmp_path / "empty").mkdir()
        predict(model, tmp_path / "empty")


SIZES = [(128, 96), (97, 131), (96, 128), (128, 96), (300, 101), (333, 57), (128, 96), (31, 17)]


def test_batch_of_one_is_batch_of_many(model):
    images = [picture(w, h, seed=k) for k, (w, h) in enumerate(SIZES)]
    alone = [predict(model, image) for image in images]
    for batch_size in (2, 3, 16):
        for one, many in zip(alone, predict(model, images, batch_size=batch_size), strict=True):
            assert_same(one, many, px=1e-3)


def test_only_images_of_one_padded_size_share_a_batch(model):
    shapes = []
    hook = model.register_forward_pre_hook(lambda module, args: shapes.append(tuple(args[0].shape)))
    try:
        predict(model, [picture(w, h) for w, h in SIZES], batch_size=16)
    finally:
        hook.remove()
    assert sum(shape[0] for shape in shapes) == len(SIZES)
    assert len({shape[2:] for shape in shapes}) == len(shapes)
    assert max(shape[0] for shape in shapes) > 1


def test_images_are_read_as_they_are_needed(model):
    read = []

    def sources():
        for k in range(20):
            read.append(k)
            yield picture(64, 64, seed=k)

    stream = iter_predict(model, sources(), batch_size=2)
    next(stream)
    assert len(read) <= READ_AHEAD * 2
    assert len(list(stream)) == 19 and len(read) == 20


def test_boxes_are_in_pixels_of_the_original(model):
    small = picture(160, 96)
    large = small.resize((640, 384), Image.Resampling.NEAREST)  # bilinear reduction by 4 gives `small` back exactly
    expected, found = predict(model, small), predict(model, large)
    assert found.image.size == (640, 384)
    torch.testing.assert_close(found.boxes, expected.boxes * 4, atol=1e-3, rtol=0)
    assert found.boxes[:, 2].max() > 320


def test_turned_photographs_are_detected_upright(model, tmp_path):
    image = picture(120, 80)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 270 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    found = predict(model, tmp_path / "turned.png")
    assert found.image.size == (80, 120)
    assert_same(found, predict(model, image.transpose(Image.Transpose.ROTATE_270)))
    found.draw()


def test_threshold(model):
    image = picture(128, 96)
    default = predict(model, image)
    assert default.scores.min() > model.postprocess_config.score_threshold
    middle = float(default.scores.median())
    assert_same(predict(model, image, threshold=middle), default.filter(middle))
    saved = model.postprocess_config
    try:
        model.postprocess_config = replace(saved, score_threshold=0.5)  # a lower threshold than the model's own works
        assert_same(predict(model, image, threshold=saved.score_threshold), default)
    finally:
        model.postprocess_config = saved
    assert len(predict(model, image, threshold=1.0)) == 0
    with pytest.raises(ConfigError, match="threshold"):
        predict(model, image, threshold=30)
    for wrong in ("0.3", True, float("nan")):
        with pytest.raises(ConfigError, match=f"threshold is a score from 0 to 1; found {wrong!r}"):
            predict(model, image, threshold=wrong)
    for wrong in (0, 1.5, "8"):
        with pytest.raises(ConfigError, match="batch_size"):
            predict(model, image, batch_size=wrong)
    assert_same(predict(model, image, threshold=np.float32(middle), batch_size=np.int64(2)), default.filter(middle))


def test_mode_is_restored_and_training_goes_on(model):
    model.train()
    model.backbone.eval()  # as a frozen backbone is
    before = {name: module.training for name, module in model.named_modules()}
    try:
        running = {name: value.clone() for name, value in model.named_buffers()}
        found = predict(model, picture(96, 96))
        assert not found.boxes.requires_grad
        assert {name: module.training for name, module in model.named_modules()} == before
        for name, value in model.named_buffers():
            assert torch.equal(value, running[name])
        with pytest.raises(DataError):
            predict(model, b"no image")
        assert {name: module.training for name, module in model.named_modules()} == before
        output = model(torch.rand(2, 3, 96, 96))  # same size: the priors that predict made are used in training
        (output.decode().sum() + output.cls_logits.sum()).backward()
        assert model.head.box.weight.grad.abs().sum() > 0
    finally:
        model.zero_grad()
        model.eval()


def test_images_can_be_dropped(model):
    found = predict(model, [picture(64, 64)], keep_images=False)
    assert found[0].image is None


def test_unusable_sources_are_named(model, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        predict(model, [picture(64, 64), tmp_path / "broken.jpg"])
    with pytest.raises(MissingFileError, match=r"nowhere\.jpg"):
        predict(model, tmp_path / "nowhere.jpg")
    for wrong, kind in ((None, "NoneType"), ({"a": 1}, "dict"), (3, "int")):
        with pytest.raises(ConfigError, match=f"Cannot detect on a {kind}"):
            predict(model, wrong)
    assert predict(model, []) == []


def test_resolve_device():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in {"cpu", "cuda", "mps"}
    for name in ("gpu", "cuda:99", ""):
        with pytest.raises(ConfigError, match=f"Device '{name}'"):
            resolve_device(name)
