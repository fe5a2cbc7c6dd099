"""Published weights end to end: a file of each structure is downloaded, checked, converted, cached and loaded."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ld_hub.errors import CheckpointError, HubError
from ld_hub.models.checkpoints.convert import translate_openmmlab
from ld_hub.models.checkpoints.weights import OPENMMLAB
from ld_hub.models.factory import create_model
from ld_hub.models.names import get_pretrained_cfg, list_pretrained
from ld_hub.registry import MODELS
from ld_hub.version import __version__
from tests.support.checkpoints import KEY_LISTS, PROJECT, pth, tensors
from tests.support.server import Server, breaks_after, one_after_another, status

SMALL = "gfocal_r18_ld_r101.mmdet_1x_coco"


def publish(full: str, content: bytes, digest: str, server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the server have this file in the place of the published one; returns the path it is asked for."""
    name, _, tag = full.partition(".")
    entry, cfg = MODELS[name], get_pretrained_cfg(full)
    tags = {**entry.pretrained, tag: replace(cfg, sha256=digest[:8])}
    monkeypatch.setitem(MODELS._entries, name, replace(entry, pretrained=tags))
    monkeypatch.setenv("LD_HUB_OPENMMLAB", server)
    monkeypatch.setattr(Server, "content", content)
    return "/" + cfg.url.removeprefix(OPENMMLAB)


def left_in(cache: Path) -> list[str]:
    """What lies in the cache, without the locks."""
    return sorted(path.name for path in cache.iterdir() if path.name != ".locks") if cache.exists() else []


def require_same(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Every tensor of the file lies in the model, unchanged, where the key map says."""
    own = model.state_dict()
    expected, report = translate_openmmlab(model, state)
    assert report.ok and expected.keys() == own.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in expected.items())
    kept = [tensor for name, tensor in state.items() if name != PROJECT]
    assert sorted(map(bits, own.values())) == sorted(map(bits, kept))  # by no key map at all


def bits(tensor: Tensor) -> int:
    """A number that tells contents apart, whatever the order they are summed in."""
    return int(tensor.contiguous().flatten().view(torch.int32).sum())


def test_there_is_a_key_list_for_every_published_file():
    assert set(list_pretrained()) == set(KEY_LISTS)
    for full, lists in KEY_LISTS.items():  # what is said of a file whose list is put together says so
        assert ("its head and its backbone" in get_pretrained_cfg(full).note) == (len(lists) > 1)
        assert get_pretrained_cfg(full).note.endswith("file not run")


@pytest.mark.parametrize("full", KEY_LISTS)
def test_every_published_file(full, server, tmp_path, monkeypatch):
    state = tensors(*KEY_LISTS[full])
    content, digest = pth(state, zipped="_2022" in get_pretrained_cfg(full).url)  # older files have the older format
    path = publish(full, content, digest, server, monkeypatch)
    model = create_model(full, pretrained=True, cache_dir=tmp_path)
    assert [asked for asked, _ in Server.seen] == [path]
    assert not model.training and model.name == full.partition(".")[0]
    require_same(model, state)
    directory = tmp_path / Path(path).stem
    assert left_in(tmp_path) == [directory.name]
    assert left_in(directory) == ["config.json", "converted_from.json", "model.safetensors", "preprocessor_config.json"]
    record = json.loads((directory / "converted_from.json").read_text())
    assert (record.pop("url"), record.pop("sha256"), record.pop("size")) == (server + path, digest, len(content))
    assert datetime.fromisoformat(record.pop("date")).tzinfo is not None
    assert record == {"model": model.name, "tag": full.partition(".")[2], "ld_hub_version": __version__}
    shutil.rmtree(directory)


def test_the_second_call_needs_no_network(server, tmp_path, monkeypatch):
    publish(SMALL, *pth(tensors("LD_gfl_r18")), server, monkeypatch)
    monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path))
    first = create_model(SMALL, pretrained=True)
    Server.seen.clear()
    monkeypatch.setenv("LD_HUB_OFFLINE", "1")
    second = create_model("gfocal_r18_ld_r101", pretrained=True)  # its default tag
    assert Server.seen == []
    own = second.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in first.state_dict().items())
    shutil.rmtree(tmp_path / Path(get_pretrained_cfg(SMALL).url).stem)
    with pytest.raises(HubError, match=r"LD_HUB_OFFLINE=1 forbids the network.*belongs at .*330e6332\.pth'"):
        create_model(SMALL, pretrained=True)


def test_settings_that_belong_to_a_tag(server, tmp_path, monkeypatch):
    full = "fcos_r101_caffe.mmdet_ms2x_coco"
    publish(full, *pth(tensors(*KEY_LISTS[full])), server, monkeypatch)
    model = create_model("fcos_r101_caffe", pretrained=True, cache_dir=tmp_path)
    with torch.device("meta"):
        fresh, plain = create_model(full), create_model("fcos_r101_caffe")
    for one in (model, fresh):
        assert (one.config.boxes, one.config.centerness_on, one.config.center_radius) == ("exp", "cls", 0.0)
        assert one.data_config.mean == (102.9801, 115.9465, 122.7717)
        assert (one.data_config.std, one.data_config.channel_order) == ((1.0, 1.0, 1.0), "bgr")
        assert one.postprocess_config.nms_iou == 0.5
    assert (plain.config.boxes, plain.data_config.mean) == ("relu", (103.53, 116.28, 123.675))
    shutil.rmtree(tmp_path)


def test_deformable_convolutions_of_version_2_are_recognised(server, tmp_path, monkeypatch):
    full = "gfocal_r101_dcn.mmdet_ms2x_coco"
    state = tensors("LD_gfl_r101_dcn", offsets=27)
    publish(full, *pth(state), server, monkeypatch)
    model = create_model(full, pretrained=True, cache_dir=tmp_path)
    assert model.config.backbone == "r101_dcnv2"
    require_same(model, state)
    shutil.rmtree(tmp_path)


def test_fcos_files_of_early_2020_have_other_names(server, tmp_path, monkeypatch):
    """In OpenMMLab's files of that time the predictors are called fcos_cls, fcos_reg, fcos_centerness."""
    full = "fcos_r50_caffe.mmdet_1x_coco"
    state = tensors(*KEY_LISTS[full])
    early = {name.replace("bbox_head.conv_", "bbox_head.fcos_"): tensor for name, tensor in state.items()}
    assert len(early.keys() - state.keys()) == 6
    publish(full, *pth(early, zipped=False), server, monkeypatch)
    require_same(create_model(full, pretrained=True, cache_dir=tmp_path), state)
    shutil.rmtree(tmp_path)


class RunsCode:
    """A pickle that would leave a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.trace),)


def without_a_key(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name != "bbox_head.gfl_cls.weight"}


def with_another_shape(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "neck.fpn_convs.0.conv.weight": torch.zeros(256, 128, 3, 3)}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without_a_key, r"missing +1\n +head\.cls\.weight"),
        (with_another_shape, r"wrong shape +1\n.*\[256, 128, 3, 3\] in the file, \[256, 256, 3, 3\] in the model"),
    ],
)
def test_a_file_that_does_not_fit(server, tmp_path, monkeypatch, damage, words):
    publish(SMALL, *pth(damage(tensors("LD_gfl_r18"))), server, monkeypatch)
    with pytest.raises(CheckpointError, match=words) as caught:
        create_model(SMALL, pretrained=True, cache_dir=tmp_path)
    assert "The file is the published one" in str(caught.value)
    assert left_in(tmp_path) == []


def test_a_file_that_wants_to_run_code(server, tmp_path, monkeypatch):
    content, digest = pth([RunsCode(tmp_path / "trace")])
    publish(SMALL, content, digest, server, monkeypatch)
    with pytest.raises(CheckpointError, match="would run code from the file"):
        create_model(SMALL, pretrained=True, cache_dir=tmp_path / "cache")
    assert left_in(tmp_path / "cache") == [] and not (tmp_path / "trace").exists()
    pickle.loads(pickle.dumps(RunsCode(tmp_path / "trace")))
    assert (tmp_path / "trace").exists()  # it would have


@pytest.mark.parametrize(
    ("arrives", "words"),
    [
        (
            lambda content: content[:5000] + b"\0" + content[5001:],
            r"another file than the published one: a zip archive",
        ),
        (lambda content: content[:5000], "another file than the published one"),
        (lambda content: b"<html><body>Not found</body></html>", "another file than the published one: a web page"),
        (lambda content: b"", "an empty file"),
    ],
)
def test_another_file_is_not_read(server, tmp_path, monkeypatch, arrives, words):
    content, digest = pth(tensors("LD_gfl_r18"))
    publish(SMALL, arrives(content), digest, server, monkeypatch)
    monkeypatch.setattr("torch.load", lambda *a, **k: pytest.fail("the file was read"))
    with pytest.raises(HubError, match=words) as caught:
        create_model(SMALL, pretrained=True, cache_dir=tmp_path)
    assert str(tmp_path / "ld_r18_gflv1_r101_fpn_coco_1x_20220702_062206-330e6332.pth") in str(caught.value)
    assert left_in(tmp_path) == []


def test_a_moved_address(server, tmp_path, monkeypatch):
    path = publish(SMALL, b"", "0" * 8, server, monkeypatch)
    Server.answers[path] = status(404)
    with pytest.raises(HubError, match=rf"The weights of '{SMALL}' are not here: .*{path} answered 404.*belongs at '"):
        create_model(SMALL, pretrained=True, cache_dir=tmp_path)
    assert left_in(tmp_path) == []


def test_an_interrupted_download_goes_on(server, tmp_path, monkeypatch):
    content, digest = pth(tensors("LD_gfl_r18"))
    path = publish(SMALL, content, digest, server, monkeypatch)
    half = len(content) // 2
    Server.answers[path] = one_after_another(breaks_after(half, ETag='"one"'), status(503), status(503))
    with pytest.raises(HubError, match=f"{half:,} bytes are kept"):
        create_model(SMALL, pretrained=True, cache_dir=tmp_path)
    Server.answers.clear()
    Server.seen.clear()
    create_model(SMALL, pretrained=True, cache_dir=tmp_path)
    assert [headers["Range"] for _, headers in Server.seen] == [f"bytes={half}-"]
    assert left_in(tmp_path) == [Path(path).stem]


def test_a_full_disk_while_converting(server, tmp_path, monkeypatch):
    publish(SMALL, *pth(tensors("LD_gfl_r18")), server, monkeypatch)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ld_hub.hub.weights_file.save_file", full)
    with pytest.raises(HubError, match="the disk is full"):
        create_model(SMALL, pretrained=True, cache_dir=tmp_path)
    assert left_in(tmp_path) == []


TWO = """
import sys
from dataclasses import replace
from ld_hub.models.factory import create_model
from ld_hub.registry import MODELS
full, digest = sys.argv[1:]
name, _, tag = full.partition(".")
entry = MODELS[name]
tags = {tag: replace(entry.pretrained[tag], sha256=digest)}
MODELS.register(name, replace(entry, pretrained=tags), replace=True)
print("ready", flush=True)
sys.stdin.readline()
print(float(create_model(full, pretrained=True).head.cls.weight.sum()))
"""


def test_two_processes_at_once_download_once(server, tmp_path, monkeypatch):
    content, digest = pth(state := tensors("LD_gfl_r18"))
    path = publish(SMALL, content, digest, server, monkeypatch)
    Server.answers[path] = lambda self: (time.sleep(0.5), self.whole())  # long enough for both to ask
    command = [sys.executable, "-c", TWO, SMALL, digest]
    variables = {**os.environ, "LD_HUB_CACHE": str(tmp_path)}
    both = [
        subprocess.Popen(command, env=variables, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    sums = [float(process.communicate(timeout=60)[0]) for process in both]
    assert sums == [pytest.approx(float(state["bbox_head.gfl_cls.weight"].sum()))] * 2
    assert len(Server.seen) == 1
    assert left_in(tmp_path) == [Path(path).stem]
