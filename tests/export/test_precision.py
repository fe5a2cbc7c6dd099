"""Exports in smaller numbers: what becomes small and what does not, that AP decides, what int8 was calibrated on."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ld_hub.cli.main import main
from ld_hub.data import load_data
from ld_hub.errors import ConfigError, ExportError
from ld_hub.export import checking, reducing, writing
from ld_hub.export.checking import Tolerance
from ld_hub.export.half import halved
from ld_hub.export.program import DetectorRows, network_inputs
from ld_hub.export.quantizing import Quantizer, layers_of, rounded, with_int8_weights
from ld_hub.export.trunk import trunk
from ld_hub.runtime import Detector
from tests.export.conftest import Converted
from tests.export.test_exports import coco, pictures

LAST = {"model.head.cls.weight", "model.head.box.weight"}


def run(network: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(network.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def inputs_of(gfocal: Converted, number: int = 2) -> list[dict[str, np.ndarray]]:
    made = [network_inputs(gfocal.rows, image, None) for image in pictures()[:number]]
    return [{"images": images.numpy(), "image_sizes": sizes.numpy()} for images, sizes in made]


def takes_int8(network: Any) -> dict[str, bool]:
    """Whether map and weights of each convolution come out of whole numbers, by its weights."""
    made = {name: node for node in network.graph.node for name in node.output}
    found = {}
    for node in network.graph.node:
        if node.op_type == "Conv":
            sources = [made.get(name) for name in node.input[:2]]
            weight = next((source.input[0] for source in sources[1:] if source is not None), node.input[1])
            found[weight.removesuffix("_quantized")] = all(
                source is not None and source.op_type == "DequantizeLinear" for source in sources
            )
    return found


def test_the_trunk_ends_at_the_predictions(gfocal: Converted) -> None:
    inside = trunk(gfocal.network)
    of_kind = {kind: [n for n in gfocal.network.graph.node if n.op_type == kind] for kind in ("Conv", "Softmax")}
    assert {node.name for node in of_kind["Conv"]} <= inside
    assert len(of_kind["Softmax"]) == 1 and of_kind["Softmax"][0].name not in inside
    behind = {"row_boxes", "row_scores", "row_quality", "level_sizes"}
    assert not any(behind.intersection(n.output) for n in gfocal.network.graph.node if n.name in inside)
    weights = {name for name, each in gfocal.rows.named_modules() if isinstance(each, torch.nn.Conv2d)}
    assert set(layers_of(gfocal.network)) == {f"{name}.weight" for name in weights} - LAST


def test_float16_stops_before_boxes_and_scores(gfocal: Converted) -> None:
    import onnx

    half = halved(gfocal.network)
    onnx.checker.check_model(half)
    stored = {each.name: each.data_type for each in half.graph.initializer}
    assert {stored[name] for name in layers_of(gfocal.network)} == {onnx.TensorProto.FLOAT16}
    types = {
        each.name: each.type.tensor_type.elem_type for each in onnx.shape_inference.infer_shapes(half).graph.value_info
    }
    (softmax,) = [node for node in half.graph.node if node.op_type == "Softmax"]
    assert types[softmax.output[0]] == onnx.TensorProto.FLOAT
    (inputs,) = inputs_of(gfocal, 1)
    expected, found = run(gfocal.network, inputs), run(half, inputs)
    off = np.abs(found["row_scores"] - expected["row_scores"]).max()
    assert 0 < off < 0.01 and found["row_scores"].dtype == np.float32
    assert np.abs(found["row_boxes"] - expected["row_boxes"]).max() < 0.5


def test_rounded_weights_are_the_nearest() -> None:
    weight = np.random.default_rng(0).standard_normal((5, 3, 3, 3)).astype(np.float32)
    weight[2] = 0
    whole, scale = rounded(weight)
    assert whole.dtype == np.int8 and np.abs(whole).reshape(5, -1).max(axis=1).tolist() == [127, 127, 0, 127, 127]
    off = np.abs(whole * scale[:, None, None, None] - weight)
    assert (off <= 0.5001 * scale[:, None, None, None]).all()


def test_int8_weights_are_those_of_a_rounded_model(gfocal: Converted) -> None:
    network = with_int8_weights(gfocal.network)
    model = copy.deepcopy(gfocal.rows)
    layers = layers_of(gfocal.network)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in layers:
                whole, scale = rounded(weight.numpy())
                weight.copy_(torch.from_numpy(whole * scale[:, None, None, None]))
    (inputs,) = inputs_of(gfocal, 1)
    found = run(network, inputs)
    with torch.no_grad():
        expected = model(torch.from_numpy(inputs["images"]), torch.from_numpy(inputs["image_sizes"]))
    for name, values in zip(DetectorRows.OUTPUTS, expected, strict=True):
        np.testing.assert_allclose(found[name], values.numpy(), rtol=1e-4, atol=1e-4)
    plain = run(gfocal.network, inputs)["row_scores"]
    assert np.abs(found["row_scores"] - plain).max() > 1e-3  # the rounding is there
    assert len(network.SerializeToString()) < 0.6 * len(gfocal.network.SerializeToString())


def test_int8_leaves_the_predictions_and_what_is_kept(gfocal: Converted) -> None:
    inputs = inputs_of(gfocal)
    quantizer = Quantizer(gfocal.network, iter(inputs))
    kept = "model.neck.fpn_convs.0.weight"
    found = takes_int8(quantizer.quantized([kept]))
    assert set(found) == {*quantizer.layers, *LAST}
    assert {name for name, whole in found.items() if not whole} == {kept, *LAST}
    nothing = run(quantizer.quantized(list(quantizer.layers)), inputs[0])
    np.testing.assert_allclose(nothing["row_scores"], run(gfocal.network, inputs[0])["row_scores"], atol=1e-5)

    some = dict(list(quantizer.layers.items())[:3])
    quantizer.layers = some
    costs = {}
    for layer in some:
        alone = quantizer.quantized([other for other in some if other != layer])
        costs[layer] = 0.0
        for each in inputs:
            mine, theirs = run(alone, each), run(gfocal.network, each)
            costs[layer] += sum(np.sqrt(((mine[n] - theirs[n]) ** 2).sum() / (theirs[n] ** 2).sum()) for n in theirs)
    assert quantizer.by_cost() == sorted(some, key=lambda layer: -costs[layer])
    assert len(set(costs.values())) == 3


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda kept: 0.5, ()),
        (lambda kept: 3 - len(kept), ("a", "b", "c", "d")),
        (lambda kept: 2 if len(kept) != 2 else 1, ("a", "b")),
        (lambda kept: 9 + len(kept), ()),
    ],
)
def test_the_worst_layers_stay_float32_until_the_ap_is_there(
    loss: Callable[[Collection[str]], float], expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fake:
        def __init__(self, network: Any, inputs: Any) -> None:
            pass

        def quantized(self, kept: Collection[str] = ()) -> Any:
            return tuple(kept)

        def by_cost(self) -> list[str]:
            return list("abcdef")

    monkeypatch.setattr(reducing, "Quantizer", Fake)
    network: Any = object()
    assert reducing.quantized(network, iter([]), loss, 0.5) == (expected, expected)


def test_ap_may_rise_but_not_fall() -> None:
    limits = Tolerance(ap=0.5, reduced=True)
    assert [limits.loses(40, found) for found in (39.4, 39.6, 42.0)] == [True, False, False]
    assert [Tolerance().loses(40, found) for found in (39.9, 39.99, 40.1)] == [True, False, True]


@pytest.fixture
def data(gfocal: Converted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images to evaluate and to train on; the conversion is the one that was made already."""
    from ld_hub.export import onnx_format

    monkeypatch.setattr(onnx_format, "convert", lambda rows, size: gfocal.network)
    place = coco(gfocal.model, tmp_path / "coco")
    shutil.copytree(place / "val", place / "train")
    shutil.copy(place / "annotations/instances_val.json", place / "annotations/instances_train.json")
    return place


def test_int8_by_the_verb(
    gfocal: Converted, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generous = replace(checking.TOLERANCES["int8"], ap=90)  # weights without training lose much
    monkeypatch.setitem(checking.TOLERANCES, "int8", generous)
    model, out = gfocal.model.save_pretrained(tmp_path / "model"), tmp_path / "out"
    flags = ["--data", str(data), "--precision", "int8", "--calibration_images", "2"]
    assert main(["export", str(model), "--out", str(out), *flags]) == 0
    assert "(exported)" in capsys.readouterr().out
    content = json.loads((out / "config.json").read_text())
    files = [data / "train/1.png", data / "train/3.png"]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert content["precision"] == "int8"
    assert content["calibration"] == {"images": ["1.png", "3.png"], "sha256": digest, "float32_layers": []}
    assert "convolutions are int8" in (out / "README.md").read_text() and not (out / "trial").exists()
    assert Detector(out).exported.precision == "int8" and len(Detector(out).predict(pictures()[0])) > 3

    (data / "train/3.png").write_bytes(b"no picture")
    assert main(["export", str(model), "--out", str(tmp_path / "x"), *flags]) == 2
    assert str(data / "train/3.png") in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_int8_that_loses_ap_is_not_written(
    gfocal: Converted, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(network: Any, *others: Any) -> tuple[Any, tuple[str, ...]]:
        import onnx

        made = onnx.ModelProto()
        made.CopyFrom(network)
        (bias,) = [each for each in made.graph.initializer if each.name.endswith("head.cls.bias")]
        bias.CopyFrom(onnx.numpy_helper.from_array(np.full(3, -20, np.float32), bias.name))
        return made, ("model.head.cls_tower.0.conv.weight",)

    monkeypatch.setattr(writing, "quantized", blind)
    sets = {"dataset": load_data(data, "val"), "calibration": load_data(data, "train")}
    with pytest.raises(ExportError, match=r"its AP is 0\.00, the model's \d+\.\d+; 0\.5 are allowed"):
        gfocal.model.export(tmp_path / "e", precision="int8", **sets)
    assert not (tmp_path / "e").exists()
    report = gfocal.model.export(tmp_path / "e", precision="int8", keep=True, **sets)
    assert report.remark == "int8 costs too much AP in head.cls_tower.0.conv: float32 there."


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_float16_finds_what_the_model_finds(gfocal: Converted, data: Path, to: str, tmp_path: Path) -> None:
    if to == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed (extra `openvino`)")
    gfocal.model.export(tmp_path / "plain", to=to)
    report = gfocal.model.export(tmp_path / "half", to=to, precision="float16")
    assert report.agreement.rows["row_scores"] > 1e-4 or to == "openvino"
    sizes = [sum(file.stat().st_size for file in (tmp_path / name).glob("model.*")) for name in ("plain", "half")]
    assert sizes[1] < 0.7 * sizes[0]
    assert json.loads((tmp_path / "half/config.json").read_text())["precision"] == "float16"
    assert "Numbers inside are float16" in (tmp_path / "half/README.md").read_text()


def test_too_many_lost_detections_are_blamed(
    gfocal: Converted, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(checking.TOLERANCES, "float16", Tolerance(box=1e-7, score=1e-7, matched=0.98, reduced=True))
    with pytest.raises(ExportError, match=r"\d+ of \d+ detections are further off than 1e-07 of a box's side"):
        gfocal.model.export(tmp_path / "e", precision="float16")


def test_what_cannot_be_is_refused(gfocal: Converted, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"name the data set with --data DIR.*int8_weights or float16"):
        gfocal.model.export(tmp_path / "e", precision="int8")
    model = str(gfocal.model.save_pretrained(tmp_path / "model"))
    for flags, words in (
        (["--precision", "int8"], "name the data set with --data DIR"),
        (["--precision", "int4"], "Unknown precision 'int4'"),
        (["--precision", "float16", "--to", "pt2", "--no_nms"], "Unknown precision 'float16'"),
        (["--precision", "int8", "--calibration_images", "0"], "--calibration_images 0: expected at least 1"),
    ):
        assert main(["export", model, "--out", str(tmp_path / "e"), *flags]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "e").exists()
