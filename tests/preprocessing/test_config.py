from __future__ import annotations

import json
import types

import numpy as np
import pytest

from ld_hub.errors import ConfigError
from ld_hub.preprocessing import DataConfig, resolve_data_config

CAFFE = DataConfig((102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0), "bgr", (600, 1000), 64)


def test_a_config_survives_json():
    assert DataConfig.from_dict(json.loads(json.dumps(CAFFE.to_dict()))) == CAFFE


def test_from_timm_scales_to_grey_levels():
    config = DataConfig.from_timm(
        {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "input_size": (3, 224, 224)}
    )
    assert config == DataConfig()  # timm's ImageNet values are the published detectors' values


def test_from_timm_takes_overrides_and_missing_values():
    config = DataConfig.from_timm({"mean": (0.5, 0.5, 0.5), "std": None}, image_size=(128, 160))
    assert config.mean == (127.5, 127.5, 127.5)
    assert config.std == DataConfig().std
    assert config.image_size == (128, 160)


def test_from_timm_for_other_channel_counts_takes_the_mean_of_the_three():
    cfg = {"mean": (0.4, 0.5, 0.6), "std": (0.1, 0.2, 0.3)}
    grey = DataConfig.from_timm(cfg, 1)
    assert (grey.mean, grey.std) == ((127.5,), (51.0,))
    assert DataConfig.from_timm(cfg, 4) == DataConfig((127.5,) * 4, (51.0,) * 4)
    assert DataConfig.from_timm({}, 2).mean == pytest.approx(((123.675 + 116.28 + 103.53) / 3,) * 2)
    assert DataConfig.from_timm({"mean": (0.5,), "std": (0.5,)}, 1) == DataConfig((127.5,), (127.5,))


def test_whole_numbers_of_numpy_become_plain():
    config = DataConfig(image_size=(np.int64(32), np.int32(64)), size_divisor=np.int64(16))
    assert json.loads(json.dumps(config.to_dict()))["image_size"] == [32, 64]
    assert [type(v) for v in (*config.image_size, config.size_divisor)] == [int] * 3


def test_scale_and_shift_is_the_normalisation():
    scale, shift = CAFFE.scale_and_shift
    assert [a * 200 + b for a, b in zip(scale, shift, strict=True)] == pytest.approx([200 - m for m in CAFFE.mean])


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("mean", (1.0, 2.0), "2 channels"),
        ("mean", (float("nan"), 0.0, 0.0), "finite"),
        ("mean", 5.0, "per channel"),
        ("std", (0.0, 1.0, 1.0), "positive"),
        ("std", (), "per channel"),
        ("channel_order", "rbg", "'rgb' or 'bgr'"),
        ("image_size", (1333, 800), "short"),
        ("image_size", (0, 800), "short"),
        ("image_size", (800.0, 1333.0), "short"),
        ("image_size", 640, "short"),
        ("size_divisor", 0, "positive"),
        ("size_divisor", True, "positive"),
    ],
)
def test_values_that_cannot_work_are_refused(field, value, word):
    with pytest.raises(ConfigError, match=word) as caught:
        DataConfig.from_dict({field: value})
    assert field in str(caught.value)


def test_unknown_fields_are_named():
    with pytest.raises(ConfigError, match=r"no field size;.*image_size"):
        DataConfig.from_dict({"size": 3})


def test_resolve_data_config_reads_a_model():
    assert resolve_data_config(types.SimpleNamespace(data_config=CAFFE)) == CAFFE.to_dict()
    with pytest.raises(ConfigError, match="create_model"):
        resolve_data_config(object())
