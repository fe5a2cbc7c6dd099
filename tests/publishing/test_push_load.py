"""Published models come back by name, in a new process too; what is not a whole model of ours is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load, save

from ld_hub.cli.main import main
from ld_hub.errors import CheckpointError, ConfigError, HubError
from ld_hub.hub.card_file import BEGIN
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model
from tests.hub_server import READER, STRANGER
from tests.support.hub_client import connected, environment

hub = pytest.fixture(connected)
REPO = "org/small"
TINY = {"fpn_channels": 16, "head_width": 16, "head_depth": 1}


def small(seed=0):
    torch.manual_seed(seed)
    return create_model("gfocal_tiny", label_names=["cat", "dog: ünï 🐕"], category_ids=[7, 3], **TINY).eval()


def same(one, other):
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


@pytest.fixture
def published(hub):
    """A published model, and a function that puts other files beside or in place of its own."""
    model = small()
    model.push_to_hub(REPO)
    return model, lambda **files: hub.commit(REPO, {name.replace("__", "."): data for name, data in files.items()})


def load_it(**options):
    return create_model(f"hf-hub:{REPO}", pretrained=True, **options)


_CHILD = """
import sys, warnings
warnings.simplefilter("error")
import torch, ld_hub
from ld_hub.models.detector import DenseDetector
name, old, out = sys.argv[1:]
now, first = ld_hub.create_model(f"hf-hub:{name}", pretrained=True), DenseDetector.from_pretrained(name, revision=old)
pinned = ld_hub.create_model(f"hf-hub:{name}@{old}", pretrained=True)
assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), pinned.state_dict().values()))
assert not now.training and now.label_names == ("cat", "dog: ünï 🐕") and now.category_ids == (7, 3)
torch.save([now.state_dict(), first.state_dict()], out)
"""


def test_the_whole_story(hub, tmp_path, capsys):
    """Push, info, load in a new process, push again, pin the revision, load without a network."""
    first, second = small(1), small(2)
    pinned = first.push_to_hub(REPO).oid
    assert main(["info", f"hf-hub:{REPO}"]) == 0
    assert "classes        2 (cat, dog: ünï 🐕)" in capsys.readouterr().out
    card = hub.files(REPO)["README.md"].decode()
    hub.commit(REPO, {"README.md": card.replace(BEGIN, f"My own words.\n\n{BEGIN}").encode()})
    second.push_to_hub(REPO)
    assert "My own words." in hub.files(REPO)["README.md"].decode()
    for offline in ("0", "1"):
        out = tmp_path / f"states{offline}.pt"
        words = [sys.executable, "-c", _CHILD, REPO, pinned, str(out)]
        more = {"HF_HUB_OFFLINE": offline, "PYTHONIOENCODING": "utf-8"}
        requests = len(hub.seen)
        done = subprocess.run(
            words, env=environment(hub, tmp_path / "home", **more), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        states = torch.load(out, weights_only=True)
        for state, model in zip(states, (second, first), strict=True):
            assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
        assert (len(hub.seen) == requests) == (offline == "1")


def test_other_classes_and_private_repositories(hub, monkeypatch):
    model = small()
    model.push_to_hub(REPO, private=True)
    with pytest.warns(UserWarning, match=r"reset head\.cls\.weight, head\.cls\.bias \(2 -> 5 classes; to be trained\)"):
        tuned = DenseDetector.from_pretrained(REPO, num_classes=5, token=READER)
    assert tuned.num_classes == 5
    kept = {name: tensor for name, tensor in tuned.state_dict().items() if not name.startswith("head.cls.")}
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in kept.items())
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "elsewhere")
    with pytest.raises(HubError, match="or it is private"):
        load_it()


def test_a_token_reaches_the_download_and_nothing_else(hub, tmp_path, monkeypatch, caplog, capfd):
    commit = small().push_to_hub(REPO, private=True).oid
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    caplog.set_level("DEBUG")
    for wrong, cache in ((None, "a"), (STRANGER, "b")):
        with pytest.raises(HubError, match="or it is private") as caught:
            load_it(token=wrong, cache_dir=tmp_path / cache)
        assert STRANGER not in f"{caught.value!r}{caught.value.__cause__!r}"
    hub.seen.clear()
    model = load_it(token=READER, cache_dir=tmp_path / "c")
    assert same(model, small())
    assert (model.origin, small().origin) == (f"{REPO}@{commit}", None)
    assert {headers.get("authorization") for _, path, headers in hub.seen if path.startswith(f"/{REPO}")} == {
        f"Bearer {READER}"
    }
    model.save_pretrained(tmp_path / "saved")
    copies = [file.read_bytes() for name in ("c", "saved") for file in (tmp_path / name).rglob("*") if file.is_file()]
    assert copies and not any(READER.encode() in content for content in copies)
    out, err = capfd.readouterr()
    assert READER not in caplog.text + out + err + repr(model) + str(vars(model))


def changed(data, **changes):
    content = json.loads(data)
    for key, value in changes.items():
        where, _, name = key.rpartition("__")
        (content[where] if where else content)[name] = value
    return json.dumps(content).encode()


def test_unknown_keys_warn_and_hostile_ones_are_refused(hub, published):
    model, put = published
    config = hub.files(REPO)["config.json"]
    put(config__json=changed(config, auto_map={"AutoModel": "evil.py--Model"}, config__next_year=1))
    with pytest.warns(UserWarning) as warned:
        assert same(load_it(), model)
    assert {text for w in warned for text in ("'auto_map'", "'next_year'") if text in str(w.message)} == {
        "'auto_map'", "'next_year'",
    }  # fmt: skip
    hostile = {
        "a name of 2000 letters": changed(config, architecture="x" * 2000),
        "an address": changed(config, config__backbone="hf-hub:evil/backbone"),
        "a path": changed(config, config__backbone="../../evil"),
        "huge numbers": changed(config, config__fpn_channels=10**9),
        "a list instead of a number": changed(config, config__head_depth=[1]),
        "no finite number": config.replace(b'"nms_iou": 0.6', b'"nms_iou": NaN'),
        "too long": changed(config, recipe={"x": "y" * 2_000_000}),
        "too deep": b"[" * 100_000,
        "no text": b"\xff\xfe",
        "of another library": b'{"model_type": "bert"}',
    }
    for what, data in hostile.items():
        assert data != config, what
        put(config__json=data)
        with pytest.raises((CheckpointError, ConfigError)) as caught:
            load_it()
        assert len(str(caught.value)) < 1500, what


def test_weights_that_do_not_fit_are_refused(hub, published):
    _, put = published
    state = load(hub.files(REPO)["model.safetensors"])
    name, tensor = next((name, tensor) for name, tensor in state.items() if tensor.ndim == 4)
    rest = {other: value for other, value in state.items() if other != name}
    bad = {
        r"missing +1": rest,
        r"unexpected +1\n +extra": {**state, "extra": tensor.clone()},
        r"wrong shape +1": {**rest, name: tensor[:1].contiguous()},
        r"1 tensor\(s\) hold NaN or infinity": {**rest, name: tensor * float("inf")},
    }
    for words, tensors in bad.items():
        put(model__safetensors=save(tensors))
        with pytest.raises(CheckpointError, match=words):
            load_it()


def test_files_that_are_no_weights_are_refused_by_what_they_are(hub, published, tmp_path):
    _, put = published
    whole = hub.files(REPO)["model.safetensors"]
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    bad = {
        "a Git LFS pointer": pointer,
        "truncated or damaged": whole[: len(whole) // 2],
        "what torch.save writes": (tmp_path / "a.pth").read_bytes(),
        "an empty file": b"",
    }
    for words, data in bad.items():
        put(model__safetensors=data)
        with pytest.raises(CheckpointError, match=words):
            load_it()
    put(model__safetensors=None, pytorch_model__bin=(tmp_path / "a.pth").read_bytes())
    with pytest.raises(HubError, match=r"has no model\.safetensors\. Pickled weights"):
        load_it()


def test_the_configuration_is_no_timm_wrapper_s(hub, published):
    """What transformers decides by, for where it is not installed: a timm model is what has no model_type, and a
    pretrained_cfg; code of a repository is what auto_map names."""
    content = json.loads(hub.files(REPO)["config.json"])
    assert content["model_type"] == "ld_hub"
    assert not {"pretrained_cfg", "auto_map", "architectures", "num_features"} & set(content)
    settings = json.loads(hub.files(REPO)["preprocessor_config.json"])
    assert not {"auto_map", "image_processor_type", "feature_extractor_type"} & set(settings)


def test_transformers_names_the_library(hub, published, tmp_path):
    """Not taken for a timm model in a wrapper, which transformers recognises by its configuration."""
    transformers = pytest.importorskip("transformers")
    (tmp_path / "config.json").write_bytes(hub.files(REPO)["config.json"])
    (tmp_path / "preprocessor_config.json").write_bytes(hub.files(REPO)["preprocessor_config.json"])
    for auto in (transformers.AutoConfig, transformers.AutoModel, transformers.AutoModelForObjectDetection):
        with pytest.raises(ValueError, match="ld_hub"):
            auto.from_pretrained(tmp_path)
