from __future__ import annotations

import json
import struct
import warnings

import pytest
import torch

from ld_hub.errors import CheckpointError, ConfigError, MissingFileError
from ld_hub.hub import load_safetensors, save_safetensors
from ld_hub.models.checkpoints.pretrained import load_pretrained, save_pretrained
from ld_hub.models.checkpoints.saved import read_saved
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model
from ld_hub.models.gfocal import GFocal
from ld_hub.structures import Teaching
from ld_hub.version import __version__

TINY = {"fpn_channels": 16, "head_width": 16, "head_depth": 1}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model whose every parameter and buffer differs from a fresh one, and its directory."""
    model = create_model(
        "gfocal_tiny_vlr_r10t", label_names=["cat", "dog: ünï 🐕"], category_ids=[7, 3], reg_max=5, **TINY
    )
    random = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.05 + 0.05 * torch.rand(tensor.shape, generator=random))
        else:
            tensor.fill_(17)
    model.teaching = Teaching("vlr")
    return model, save_pretrained(model, tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def copy(saved, tmp_path):
    """A fresh copy of the saved directory, and a function that edits its config.json."""
    for file in saved[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())

    def edit(**changes):
        content = json.loads((tmp_path / "config.json").read_text())
        for key, value in changes.items():
            where, _, name = key.rpartition("__")
            (content[where] if where else content)[name] = value
        (tmp_path / "config.json").write_text(json.dumps(content))
        return tmp_path

    return edit


def test_round_trip_is_bit_equal(saved):
    model, place = saved
    loaded = load_pretrained(place)
    assert type(loaded) is type(model) and loaded.name == "gfocal_tiny_vlr_r10t"
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert (loaded.config, loaded.data_config) == (model.config, model.data_config)
    assert loaded.postprocess_config == model.postprocess_config
    assert (loaded.label_names, loaded.category_ids) == (("cat", "dog: ünï 🐕"), (7, 3))
    assert loaded.teaching == Teaching("vlr")
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        box = model.eval()(images).box
        assert bool(box.isfinite().all()) and torch.equal(loaded(images).box, box)


def test_what_is_written(saved):
    _, place = saved
    assert sorted(file.name for file in place.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    content = json.loads((place / "config.json").read_text(encoding="utf-8"))
    assert content["model_type"] == "ld_hub" and content["ld_hub_version"] == __version__
    assert content["architecture"] == "gfocal_tiny_vlr_r10t" and content["family"] == "gfocal"
    assert content["label_names"] == ["cat", "dog: ünï 🐕"] and content["category_ids"] == [7, 3]
    assert content["config"]["reg_max"] == 5 and content["config"]["num_classes"] == 2
    assert content["data_config"]["image_size"] == [800, 1333]
    assert content["postprocess"]["nms_iou"] == 0.6
    data = (place / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    assert header["__metadata__"]["format"] == "pt"


def test_saving_again_keeps_the_recipe_and_other_files(saved, tmp_path):
    _, place = saved
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "README.md").write_text("mine")
    save_pretrained(load_pretrained(place), tmp_path / "m")
    assert (tmp_path / "m" / "README.md").read_text() == "mine"
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "m" / name).read_bytes() == (place / name).read_bytes()


def test_a_diverged_model_is_not_written(tmp_path):
    model = create_model("gfocal_tiny", num_classes=1, **TINY)
    with torch.no_grad():
        model.head.cls.bias[0] = float("nan")
    with pytest.raises(CheckpointError, match=r"head\.cls\.bias"):
        save_pretrained(model, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_labels_may_be_renamed_and_fields_that_keep_the_shapes_changed(saved):
    _, place = saved
    model = load_pretrained(place, label_names=["Katze", "Hund"], config_overrides={"anchor_scale": 2.0})
    assert model.label_names == ("Katze", "Hund") and model.category_ids == (7, 3)
    assert model.config.anchor_scale == 2.0
    with pytest.raises(ConfigError, match="'anchor_scal'"):
        load_pretrained(place, config_overrides={"anchor_scal": 2.0})
    with pytest.raises(CheckpointError, match=r"(?s)wrong shape.*head\.box\.weight: \[24, 16, 3, 3\] in the file"):
        load_pretrained(place, config_overrides={"reg_max": 6})


@pytest.mark.parametrize("mode", ["missing", "unexpected", "shape", "nan", "kind"])
def test_weights_that_do_not_fit(copy, mode):
    place = copy()
    state = load_safetensors(place / "model.safetensors")
    words = {
        "missing": r"missing +1\n    neck\.fpn_convs\.4\.bias",
        "unexpected": r"unexpected +1\n    head\.extra",
        "shape": r"wrong shape +1\n    neck\.fpn_convs\.4\.bias: \[3\] in the file, \[16\] in the model",
        "nan": r"1 tensor\(s\) hold NaN or infinity: neck\.fpn_convs\.4\.bias",
        "kind": r"'neck\.fpn_convs\.4\.bias' has the type torch\.int64",
    }[mode]
    name = "neck.fpn_convs.4.bias"
    if mode == "missing":
        del state[name]
    elif mode == "unexpected":
        state["head.extra"] = torch.ones(1)
    elif mode == "shape":
        state[name] = torch.ones(3)
    elif mode == "kind":
        state[name] = torch.ones(16, dtype=torch.int64)
    else:
        from safetensors.torch import save_file

        state[name] = torch.full((16,), float("nan"))
        save_file(state, place / "model.safetensors")
    if mode != "nan":
        save_safetensors(state, place / "model.safetensors")
    with pytest.raises(CheckpointError, match=words):
        load_pretrained(place)


def test_missing_weights_and_missing_directory(copy, tmp_path):
    place = copy()
    (place / "model.safetensors").unlink()
    with pytest.raises(MissingFileError, match=r"model\.safetensors"):
        load_pretrained(place)
    (place / "config.json").unlink()
    with pytest.raises(MissingFileError, match="save_pretrained"):
        load_pretrained(place)
    for nowhere in (place / "nowhere", str(place / "nowhere"), "runs/student/nowhere"):
        with pytest.raises(MissingFileError, match="No model directory"):
            load_pretrained(nowhere)


def test_a_hub_id_is_downloaded(saved, monkeypatch):
    asked = []

    def fetch(repo_id, revision, **options):
        asked.append((repo_id, revision, options))
        return saved[1]

    monkeypatch.setattr("ld_hub.models.checkpoints.pretrained.download", fetch)
    model = load_pretrained("org/name", revision="v1", cache_dir="c", token="t")
    assert torch.equal(model.head.box.weight, saved[0].head.box.weight)
    assert asked == [("org/name", "v1", {"cache_dir": "c", "token": "t", "weights": True})]


def test_fields_of_a_newer_version_warn_and_are_ignored(copy):
    place = copy(new_thing=1, config__dropout=0.5, postprocess__soft=True)
    with pytest.warns(UserWarning) as caught:
        model = load_pretrained(place)
    text = "\n".join(str(warning.message) for warning in caught)
    assert "'new_thing'" in text and "'dropout'" in text and "'soft'" in text
    assert not hasattr(model.config, "dropout")


def test_an_unknown_name_falls_back_to_its_family(copy):
    model = load_pretrained(copy(architecture="gfocal_of_tomorrow"))
    assert model.name == "gfocal_of_tomorrow" and model.config.reg_max == 5
    with pytest.raises(CheckpointError, match="'yolo_r9' of the family 'yolo'"):
        load_pretrained(copy(architecture="yolo_r9", family="yolo"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": 5}, "'architecture' is 5"),
        ({"label_names": ["a"]}, "1 label_names, 2 category_ids and num_classes 2 must agree"),
        ({"label_names": "ab"}, "expected a list of str"),
        ({"label_names": [1, 2]}, "expected a list of str"),
        ({"category_ids": [1, True]}, "expected a list of int"),
        ({"category_ids": [1, 1]}, "an id twice"),
        ({"config": []}, "'config' is []; expected an object"),
        ({"config__num_classes": 10**9}, "must agree"),
        ({"config__head_depth": 10**6}, "head_depth is 1000000"),
        ({"config__reg_max": [1] * 100}, "config field 'reg_max'"),
        ({"config__backbone": "hf-hub:evil/model"}, "not a plain timm name"),
        ({"config__backbone": "../../evil"}, "not a plain timm name"),
        ({"config__backbone": "no_such_net"}, "Unknown backbone 'no_such_net'"),
        ({"data_config__mean": [float("1e400")]}, "not readable JSON"),
        ({"data_config__mean": "red"}, "DataConfig.mean is 'red'; expected a tuple"),
        ({"data_config__std": [0, 0, 0]}, "must be positive"),
        ({"postprocess__nms_pre": 1e3}, "PostprocessConfig.nms_pre is 1000.0; expected a int"),
        ({"postprocess__nms_iou": True}, "PostprocessConfig.nms_iou is True"),
        ({"recipe": "ld"}, "'recipe' is 'ld'; expected an object"),
    ],
)
def test_hostile_or_broken_configurations(copy, changes, words):
    place = copy(**changes)
    with pytest.raises((CheckpointError, ValueError)) as caught:
        load_pretrained(place)
    assert words in str(caught.value)


def test_a_configuration_larger_than_its_weights_costs_no_memory(copy, monkeypatch):
    """The shapes are compared on the meta device; a terabyte head never gets built."""
    place = copy(config__head_width=8192, config__head_depth=64, config__fpn_channels=8192)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        load_pretrained(place)


def test_reading_the_configuration_alone(saved):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = read_saved(saved[1])
    assert read.entry.name == "gfocal_tiny_vlr_r10t"
    assert read.teaching == Teaching("vlr")


def test_methods_of_the_model(saved, tmp_path):
    model, place = saved
    loaded = DenseDetector.from_pretrained(place, label_names=["x", "y"], anchor_scale=2.0)
    assert type(loaded) is type(model) and not loaded.training
    assert loaded.label_names == ("x", "y") and loaded.config.anchor_scale == 2.0
    again = GFocal.from_pretrained(loaded.save_pretrained(tmp_path / "m"))
    assert torch.equal(again.head.box.weight, model.head.box.weight) and again.teaching == Teaching("vlr")

    class Other(GFocal):
        pass

    with pytest.raises(CheckpointError, match="holds a GFocal, not a Other"):
        Other.from_pretrained(place)
