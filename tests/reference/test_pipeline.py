"""Resize, flip, normalise and pad against the official training pipeline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ld_hub.preprocessing import DataConfig, TrainTransform, collate
from tests.support import golden

CASES = [(stem, case) for stem in golden.find("pipeline_*") for case in golden.load(stem)[0]["cases"]]


def test_cases_were_found():
    assert CASES


@pytest.mark.parametrize(("stem", "case"), CASES)
def test_pipeline(stem, case):
    info, arrays = golden.load(stem)
    about = info["cases"][case]
    norm, (long, short) = about["norm"], about["img_scale"]
    config = DataConfig(
        mean=tuple(norm["mean"]),
        std=tuple(norm["std"]),
        channel_order="rgb" if norm["to_rgb"] else "bgr",
        image_size=(short, long),
    )
    transform = TrainTransform(config, flip=float(about["flip"]))
    image = Image.fromarray(np.ascontiguousarray(arrays[f"{case}/img_bgr_u8"][..., ::-1]))
    sample = transform(image, torch.from_numpy(arrays[f"{case}/gt_in"]))

    pixels = sample.image.permute(1, 2, 0).numpy()
    assert list(pixels.shape) == about["img_shape"]
    expected = arrays[f"{case}/resized_u8"][..., ::-1]
    if about["flip"]:
        expected = expected[:, ::-1]
    assert np.abs(pixels.astype(int) - expected).max() <= 1
    assert golden.error(sample.boxes, arrays[f"{case}/gt_out"]) <= 1e-5

    # From here on exactly: the official resized pixels go through the rest of the way.
    batch = collate([replace(sample, image=torch.from_numpy(expected.copy()).permute(2, 0, 1))])
    assert list(batch.images.shape[2:]) == about["pad_shape"][:2]
    out = batch.images[0].permute(1, 2, 0).numpy()
    assert golden.error(out[::3, ::3], arrays[f"{case}/out"]) <= 1e-5
    assert abs(out.sum(dtype=np.float64) - about["out_sum"]) <= 1e-5 * np.abs(out).sum(dtype=np.float64)
    assert golden.error(batch.scale_factors[0].repeat(2), arrays[f"{case}/scale_factor"]) <= 1e-5
    assert golden.error(batch.targets.boxes[0], arrays[f"{case}/gt_out"]) <= 1e-5
