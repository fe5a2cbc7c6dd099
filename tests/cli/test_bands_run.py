"""Training on TIFFs of five bands of 12 bits, and what the model then does with others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ld_hub import train
from ld_hub.cli.main import main
from ld_hub.data import load_data
from ld_hub.data.band_ranges import find_ranges, fit_bands
from ld_hub.errors import DataError
from ld_hub.models.factory import create_model
from ld_hub.preprocessing import create_transform, load_image, resolve_data_config
from tests.engine.runs import SMALL, detector, write_data
from tests.support.tiff import write_tiff

BANDS = 5
FLAGS = "--workers 0 --image_size 64 64 --batch_size 4 --steps 2 --log_every 1 --pretrained_backbone false".split()
SHAPE = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine's images as bands of different ranges."""
    pytest.importorskip("tifffile")
    root = write_data(tmp_path_factory.mktemp("coco") / "data")
    for split in ("train", "val"):
        file = root / "annotations" / f"instances_{split}.json"
        content = json.loads(file.read_text())
        for image in content["images"]:
            picture = np.asarray(load_image(root / split / image["file_name"])).astype(np.uint16)
            bands = np.concatenate([picture * 16, picture[..., :2] + 300], axis=2)
            image["file_name"] = write_tiff(root / split / f"{image['id']}.tif", bands).name
        file.write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("run") / "out"
    words = ["gfocal_tiny", "--data", data, "--output_dir", out, "--in_chans", BANDS, *FLAGS, *SHAPE]
    assert train.main([str(word) for word in words]) == 0
    return out


def test_the_ranges_are_those_of_the_training_images_and_kept(data: Path, run: Path) -> None:
    images = load_data(data)
    pixels = np.concatenate([load_image(path).bands.reshape(-1, BANDS) for path in images.rows["path"]])
    expected = np.percentile(pixels, (1, 99), axis=0).T
    assert find_ranges(images, BANDS) == tuple(map(tuple, expected))
    stored = json.loads((run / "model/config.json").read_text())
    assert stored["data_config"]["band_ranges"] == expected.tolist() and stored["config"]["in_chans"] == BANDS
    assert expected[4, 0] >= 300 and expected[0, 1] > 3000


def test_the_model_takes_such_images_everywhere(data: Path, run: Path, tmp_path: Path) -> None:
    model = create_model(run / "model")
    assert model.config.in_chans == BANDS and not fit_bands(model, load_data(data))  # it knows them
    file = data / "val" / "10.tif"
    tensor = create_transform(**resolve_data_config(model))(str(file))
    assert tensor.shape == (BANDS, 64, 64)
    low, high = np.array(model.data_config.band_ranges).T
    levels = ((load_image(file).bands - low) / (high - low) * 255).clip(0, 255)
    mean, std = (np.array(values) for values in (model.data_config.mean, model.data_config.std))
    assert np.abs(tensor.permute(1, 2, 0).numpy() * std + mean - levels).max() <= 0.51
    model.postprocess_config = replace(model.postprocess_config, score_threshold=0.0)
    found = model.predict(str(file))
    alone = model.postprocess(model(tensor[None]), torch.tensor([[64, 64]]))[0]
    assert len(found) == len(alone) > 0 and torch.allclose(found.scores, alone.scores, atol=1e-5)
    assert main(["eval", str(run / "model"), "--data", str(data), "--workers", "0", "--out", str(tmp_path)]) == 0
    with pytest.raises(Exception, match="trained on 5 bands of more than 8 bits"):
        model.predict(str(next((data / "val").glob("*.png"))))


def test_other_images_in_between_are_named(data: Path, tmp_path: Path) -> None:
    images = load_data(data)
    path = Path(images.rows[3]["path"])
    kept = path.read_bytes()
    write_tiff(path, np.full((64, 64, 4), 900, dtype=np.uint16))
    try:
        with pytest.raises(DataError, match=rf"{path.name} does not have 5 bands of more than 8 bits"):
            find_ranges(images, BANDS)
    finally:
        path.write_bytes(kept)


def test_pictures_have_no_ranges(tmp_path: Path) -> None:
    model = detector()
    assert not fit_bands(model, load_data(write_data(tmp_path / "data")))
    assert model.data_config.band_ranges == ()
