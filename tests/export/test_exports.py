"""Exported detectors give what their models give: any size, any batch, every kind of program, every verb."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ld_hub
from ld_hub.cli.main import main
from ld_hub.errors import CheckpointError, ConfigError, ExportError
from ld_hub.export.formats import ExportPlan
from ld_hub.export.program import DetectorRows
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model
from ld_hub.runtime import Detector, ExportedError, Found, reader
from ld_hub.runtime.exported_files import write_sums
from ld_hub.structures import Detections
from tests.export.conftest import Converted, detector

HOUSE = str(Path(ld_hub.__file__).parent).encode()  # what torch's notes of the tracing would name
SIZES = ((96, 128), (128, 96), (40, 200), (33, 33))  # height, width of images


def pictures(sizes: Sequence[tuple[int, int]] = SIZES) -> list[Image.Image]:
    random = np.random.default_rng(0)
    blocks = [random.integers(0, 256, (h // 8 + 1, w // 8 + 1, 3), dtype=np.uint8) for h, w in sizes]
    return [
        Image.fromarray(b).resize((w, h), Image.Resampling.NEAREST) for b, (h, w) in zip(blocks, sizes, strict=True)
    ]


def assert_same(found: Found | Detections, expected: Detections, least: int = 4) -> None:
    """Detections in the tolerance of exports: 1e-3 of a box's side, 1e-4 of the score."""
    assert len(found) == len(expected) >= least
    boxes = expected.boxes.numpy()
    side = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True).clip(min=1)
    np.testing.assert_array_less(np.abs(np.asarray(found.boxes) - boxes) / side, 1e-3)
    np.testing.assert_allclose(np.asarray(found.scores), expected.scores.numpy(), rtol=0, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(found.labels), expected.labels.numpy())
    assert found.label_names == expected.label_names and found.category_ids == expected.category_ids


@pytest.fixture(scope="module")
def exported(gfocal: Converted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gfocal.write(tmp_path_factory.mktemp("plain") / "exported", ExportPlan())


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """An exported directory to be damaged."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("to", "plan"),
    [
        ("onnx", ExportPlan()),
        ("onnx", ExportPlan(with_preprocessing=True)),
        ("onnx", ExportPlan(no_nms=True)),
        ("openvino", ExportPlan()),
    ],
)
def test_any_size_and_batch(gfocal: Converted, to: str, plan: ExportPlan, tmp_path: Path) -> None:
    if to == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed (extra `openvino`)")
    runs = Detector(gfocal.write(tmp_path / "e", plan, to))
    for batch in (1, 3):
        for size in SIZES:
            images = pictures([size] * batch)
            images[-1] = images[-1].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            expected = gfocal.model.predict(images, batch_size=batch)
            found = runs.detect([np.asarray(image) for image in images])
            for mine, theirs in zip(found, expected, strict=True):
                assert_same(mine, theirs)


def test_images_of_many_sizes_come_back_in_their_order(gfocal: Converted, exported: Path, tmp_path: Path) -> None:
    images = pictures()
    images[1].save(tmp_path / "1.png")
    sources = [images[0], tmp_path / "1.png", np.asarray(images[2]), images[3]]
    expected = gfocal.model.predict(images)
    runs = Detector(exported)
    found = runs.predict(sources, batch_size=2)
    for mine, theirs in zip(found, expected, strict=True):
        assert_same(mine, theirs)
    threshold = float(expected[0].scores[3])
    assert_same(runs.predict(images[0], threshold=threshold), expected[0].filter(threshold), least=2)
    first = next(iter(found[0]))
    assert (first.label, first.score) == (expected[0][0].label, pytest.approx(expected[0][0].score, abs=1e-4))


def test_programs_hold_no_path_of_the_machine(gfocal: Converted, exported: Path) -> None:
    assert HOUSE not in (exported / "model.onnx").read_bytes()
    names = {entry.key for node in gfocal.network.graph.node for entry in node.metadata_props}
    assert names == {"namespace"}  # which part of the model a node is of


def test_few_images_are_in_memory_at_once(gfocal: Converted, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, events = Detector(exported), []
    run, read = runs.run, reader.read_pixels
    monkeypatch.setattr(runs, "run", lambda inputs: (events.append("run"), run(inputs))[1])
    monkeypatch.setattr(reader, "read_pixels", lambda *given: (events.append("read"), read(*given))[1])
    images = pictures() + pictures(SIZES[:1])
    found = runs.predict_all(images, batch_size=1)
    assert events == ["read", "read", "run", "run"] * 2 + ["read", "run"]
    for mine, theirs in zip(found, gfocal.model.predict(images, batch_size=1), strict=True):
        assert_same(mine, theirs)


@pytest.mark.parametrize(
    ("channels", "ranges", "words"),
    [(1, ((0, 1000),), "1 band of more than 8 bits"), (4, (), "4 bands, and"), (3, ((0, 9),) * 3, "3 bands of more")],
)
def test_models_of_bands_are_refused(
    channels: int, ranges: tuple[tuple[float, float], ...], words: str, tmp_path: Path
) -> None:
    model = detector("gfocal", in_chans=channels)
    plain = {"mean": (0.0,) * channels, "std": (1.0,) * channels, "band_ranges": ranges}
    model.data_config = replace(model.data_config, **plain)
    with pytest.raises(ConfigError, match=f"takes {words}.*exported detectors take pictures of 8 bits"):
        model.export(tmp_path / "e", to="pt2", no_nms=True)
    assert not (tmp_path / "e").exists()


OTHERS: list[tuple[str, dict[str, object]]] = [("fcos", {}), ("retinanet", {})]
ALL = [
    *OTHERS,
    ("fcos", {"boxes": "bins"}),
    ("retinanet", {"boxes": "bins"}),
    ("atss", {}),
    ("atss", {"boxes": "bins"}),
    ("gfocalv2", {}),
]


@pytest.mark.parametrize(("name", "config"), OTHERS)
def test_other_families_at_a_fixed_size(name: str, config: dict[str, object], tmp_path: Path) -> None:
    agree(detector(name, **config), tmp_path, (128, 128))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "config"), ALL)
def test_all_families_at_any_size(name: str, config: dict[str, object], tmp_path: Path) -> None:
    agree(detector(name, **config), tmp_path, None)


@pytest.mark.slow
def test_a_body_of_patches(tmp_path: Path) -> None:
    agree(detector("gfocal", backbone="test_convnext"), tmp_path, None)


@pytest.mark.slow
def test_a_deformable_detector(tmp_path: Path) -> None:
    model = create_model("gfocal_r101_dcn", num_classes=3)
    torch.nn.init.constant_(model.head.cls.bias, -1.0)
    model.data_config = replace(model.data_config, image_size=(96, 128))
    agree(model.eval(), tmp_path, (128, 128))


def agree(model: DenseDetector, directory: Path, size: tuple[int, int] | None) -> None:
    """Export, and compare at two sizes in batches of one and three."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra `export`)")
    report = model.export(directory / "e", size=size)
    assert report.plan.size == size
    assert report.agreement.detections == report.agreement.matched + report.agreement.undecided > 0
    if size is not None:
        return
    runs = Detector(directory / "e")
    for batch in (1, 3):
        for each in SIZES[:2]:
            images = pictures([each] * batch)
            found = runs.predict(images)
            assert isinstance(found, list)
            for mine, theirs in zip(found, model.predict(images), strict=True):
                assert_same(mine, theirs, least=1)


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "timm", "onnx", "onnxscript"):
            raise ImportError(f"{name} must not be imported")
sys.meta_path.insert(0, Blocker())
"""


@pytest.mark.parametrize("pixels", [False, True])
def test_readme_runs_without_torch(gfocal: Converted, pixels: bool, tmp_path: Path) -> None:
    directory = gfocal.write(tmp_path / "e", ExportPlan(with_preprocessing=pixels))
    (image,) = pictures([(150, 200)])
    image.save(directory / "photo.jpg", quality=95)
    with Image.open(directory / "photo.jpg") as photo:
        expected = gfocal.model.predict(photo.convert("RGB"), threshold=0.3)
    assert len(expected) > 2
    blocks = re.findall(r"^```python\n(.*?)^```$", (directory / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2 and max(block.count("\n") for block in blocks) <= 30
    for block in blocks:
        script = f"{BLOCKED}\n{block}\nassert 'torch' not in sys.modules"
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=directory, capture_output=True, text=True, check=False,
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert [line.split()[0] for line in lines] == expected.names
        for line, theirs in zip(lines, expected, strict=True):
            numbers = [float(number) for number in re.findall(r"\d+\.\d+(?:e-\d+)?|\d+\.?", line)]
            assert numbers[0] == pytest.approx(theirs.score, abs=0.02)  # Pillow's bilinear resize rounds its own way
            assert numbers[1:] == pytest.approx(theirs.box, abs=1.0)


def test_import_brings_no_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "from ld_hub.runtime import Detector"],
        capture_output=True,
        text=True,
        check=True,
    )
    names = {name.partition(".")[0] for name in re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE)}
    assert {"numpy", "PIL", "ld_hub"} <= names and not names & {"torch", "torchvision", "timm", "huggingface_hub"}


def damage(directory: Path, what: str) -> str:
    """Break a file; returns what the message says."""
    program, config = directory / "model.onnx", directory / "config.json"
    content = json.loads(config.read_text())
    if what == "program":
        program.write_bytes(program.read_bytes()[:-1] + b"\0")
        return r"model\.onnx' was changed or cut short"
    if what == "labels":
        config.write_text(config.read_text().replace('"cat"', '"dog"'))
        return r"config\.json' was changed or cut short"
    if what == "missing":
        program.unlink()
        return r"model\.onnx' is missing"
    if what == "sums":
        (directory / "SHA256SUMS").unlink()
        return "has no SHA256SUMS"
    if what == "number of labels":
        content["label_names"], content["category_ids"] = ["cat", "dog"], [3, 8]
        message = r"detects 3 classes, and config\.json names 2"
    elif what == "ids":
        content["category_ids"] = [3]
        message = "3 label_names and 1 category_ids"
    elif what == "format":
        content["to"] = "abacus"
        message = "a program of the kind 'abacus'; ld_hub.runtime runs onnx and openvino"
    elif what == "version":
        content["format_version"] = 99
        message = "format_version 99"
    else:
        import onnx

        model = onnx.load(program)
        model.opset_import[0].version = 99
        onnx.save(model, program)
        message = r"cannot be run by onnxruntime .*[Oo]pset 99"
    config.write_text(json.dumps(content))
    write_sums(directory)
    return message


@pytest.mark.parametrize(
    "what", ["program", "labels", "missing", "sums", "number of labels", "ids", "format", "version", "opset"]
)
def test_damaged_exports_are_refused(copy: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = damage(copy, what)
    with pytest.raises(ExportedError, match=message) as error:
        Detector(copy)
    assert "\n" not in str(error.value)
    pictures([(40, 60)])[0].save(copy / "a.png")
    assert main(["predict", str(copy / "a.png"), "--model", str(copy), "--out", str(copy / "out")]) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.fixture
def saved(gfocal: Converted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model in a directory; its conversion is the one that was made already."""
    from ld_hub.export import onnx_format

    monkeypatch.setattr(onnx_format, "convert", lambda rows, size: gfocal.network)
    return gfocal.model.save_pretrained(tmp_path / "model")


def test_the_verbs(saved: Path, gfocal: Converted, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = coco(gfocal.model, tmp_path / "coco")
    out = str(tmp_path / "out")
    assert main(["export", str(saved), "--out", out, "--data", str(data)]) == 0
    said = capsys.readouterr().out
    (theirs, mine) = map(float, re.findall(r"AP ([\d.]+) \(model\), ([\d.]+) \(exported\)", said)[0])
    assert 5 < theirs < 95 and mine == pytest.approx(theirs, abs=0.05)
    assert not (tmp_path / "out/rows").exists()
    aps = []
    for model, flags in ((str(saved), ["--workers", "0"]), (out, [])):
        assert main(["eval", model, "--data", str(data), "--out", str(tmp_path / "eval"), *flags]) == 0
        aps.append(json.loads((tmp_path / "eval/metrics.json").read_text()))
    assert aps[1]["stats"]["AP"] == pytest.approx(aps[0]["stats"]["AP"], abs=5e-4)
    assert 100 * aps[1]["stats"]["AP"] == pytest.approx(mine, abs=0.01)
    assert aps[1]["weights"]["file"] == "model.onnx" and aps[1]["model"]["architecture"] == "gfocal"
    assert main(["predict", str(data / "val"), "--model", out, "--out", str(tmp_path / "p"), "--threshold", "0.2"]) == 0
    found = json.loads((tmp_path / "p/detections.json").read_text())
    expected = [len(each) for each in gfocal.model.predict(data / "val", threshold=0.2)]
    assert [len(image["detections"]) for image in found["images"]] == expected and sum(expected) > 5
    flags = ["--size", "64", "96", "--repeats", "1", "--json", str(tmp_path / "b.json")]
    assert main(["benchmark", out, *flags]) == 0
    assert json.loads((tmp_path / "b.json").read_text())["inference"]["images_per_second"] > 0
    capsys.readouterr()
    assert main(["benchmark", out, "--teacher", "gfocal_r18"]) == 2
    assert "has no training step" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="exported detector"):
        create_model(out)


def coco(model: DenseDetector, root: Path) -> Path:
    """A data set whose boxes are some of the model's own, so that AP is neither 0 nor 100."""
    (root / "val").mkdir(parents=True)
    (root / "annotations").mkdir()
    images, annotations = [], []
    for number, image in enumerate(pictures(), start=1):
        image.save(root / "val" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": image.width, "height": image.height})
        found = model.predict(image)
        assert isinstance(found, Detections)
        for row in found.to_coco(number)[::3]:
            box = row["bbox"]
            annotations.append({**row, "id": len(annotations) + 1, "area": box[2] * box[3], "iscrowd": 0})
    names = zip(model.category_ids, model.label_names, strict=True)
    content = {"images": images, "annotations": annotations, "categories": [{"id": i, "name": n} for i, n in names]}
    (root / "annotations/instances_val.json").write_text(json.dumps(content))
    return root


def test_what_differs_is_not_written(gfocal: Converted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ld_hub.export import onnx_format

    def convert(rows: DetectorRows, size: object) -> object:
        import onnx

        wrong = onnx.ModelProto()
        wrong.CopyFrom(gfocal.network)
        (bias,) = [each for each in wrong.graph.initializer if each.name.endswith("head.cls.bias")]
        values = onnx.numpy_helper.to_array(bias) + 0.01
        bias.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), bias.name))
        return wrong

    monkeypatch.setattr(onnx_format, "convert", convert)
    with pytest.raises(ExportError, match=r"the network's row_scores are off by .* allowed are 0\.0001.*--keep"):
        gfocal.model.export(tmp_path / "e")
    assert list(tmp_path.iterdir()) == []
    report = gfocal.model.export(tmp_path / "e", keep=True)
    assert report.agreement.fault.startswith("the network's row_scores") and report.agreement.rows["row_boxes"] < 1e-4
    assert Detector(tmp_path / "e").label_names == ("cat", "dog", "cow")


def test_another_choice_of_boxes_is_found_out(
    gfocal: Converted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ld_hub.export import choice_graph, onnx_format

    def other(config: object, levels: int) -> str:
        return choice_graph.choice_graph(replace(config, nms_iou=0.3), levels)  # type: ignore[type-var]

    monkeypatch.setattr(onnx_format, "convert", lambda rows, size: gfocal.network)
    monkeypatch.setattr(onnx_format, "choice_graph", other)
    with pytest.raises(ExportError, match="preprocessing or choice of boxes: on image 0 only the model finds"):
        gfocal.model.export(tmp_path / "e")


def test_formats_refuse_what_they_cannot_hold(gfocal: Converted, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed (extra `openvino`)")
    with pytest.raises(ConfigError, match=r"by a grey level: export without --with_preprocessing"):
        gfocal.model.export(tmp_path / "e", to="openvino", with_preprocessing=True)
    with pytest.raises(ConfigError, match=r"pt2 programs give rows: export with --no_nms"):
        gfocal.model.export(tmp_path / "e", to="pt2")
    assert list(tmp_path.iterdir()) == []


def test_pt2_programs_give_rows(gfocal: Converted, tmp_path: Path) -> None:
    report = gfocal.model.export(tmp_path / "e", to="pt2", no_nms=True, size=(128, 128))
    with zipfile.ZipFile(tmp_path / "e/model.pt2") as archive:
        assert not [name for name in archive.namelist() if HOUSE in archive.read(name)]
    assert report.agreement.detections == report.agreement.matched + report.agreement.undecided > 10
    program = torch.export.load(tmp_path / "e/model.pt2").module()
    images, sizes = torch.randn(3, 3, 128, 128), torch.tensor([[128, 128], [100, 90], [128, 64]])
    with torch.no_grad():
        for mine, theirs in zip(program(images, sizes), DetectorRows(gfocal.model)(images, sizes), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    with pytest.raises(ExportedError, match=r"a program of the kind 'pt2'; ld_hub\.runtime runs onnx and openvino"):
        Detector(tmp_path / "e")


@pytest.mark.slow
def test_packages_of_aotinductor_give_rows(gfocal: Converted, tmp_path: Path) -> None:
    """Two compilations: a minute or two."""
    report = gfocal.model.export(tmp_path / "e", to="aoti", no_nms=True)
    assert report.agreement.detections == report.agreement.matched + report.agreement.undecided > 10
    assert "aoti_load_package" in (tmp_path / "e/README.md").read_text()
    program = torch._inductor.aoti_load_package(str(tmp_path / "e/model.pt2"))
    for batch, height, width in ((1, 128, 160), (3, 96, 64)):
        images, sizes = torch.randn(batch, 3, height, width), torch.tensor([[height, width]] * batch)
        with torch.no_grad():
            for mine, theirs in zip(program(images, sizes), DetectorRows(gfocal.model)(images, sizes), strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    with pytest.raises(ExportedError, match=r"a program of the kind 'aoti'; ld_hub\.runtime runs onnx and openvino"):
        Detector(tmp_path / "e")


def test_what_cannot_be_compiled_is_said(gfocal: Converted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise RuntimeError("No working C++ compiler found\nin torch._inductor.config.cpp.cxx")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", refuse)
    with pytest.raises(ConfigError, match=r"No working C\+\+ compiler found\)\. It takes a C\+\+ compiler .*--to pt2"):
        gfocal.model.export(tmp_path / "e", to="aoti", no_nms=True)
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments(saved: Path, gfocal: Converted, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        gfocal.model.export(tmp_path / "mine")
    assert main(["export", str(saved), "--out", str(saved)]) == 2  # a model's own directory
    assert "holds other files" in capsys.readouterr().err
    assert main(["export", str(saved), "--out", str(tmp_path / "x"), "--to", "onxx"]) == 2
    assert "Unknown format 'onxx'. Close matches: onnx" in capsys.readouterr().err
    data = coco(gfocal.model, tmp_path / "coco")
    file = data / "annotations/instances_val.json"
    content = json.loads(file.read_text())
    for row in content["images"]:
        del row["width"], row["height"]
    file.write_text(json.dumps(content))
    assert main(["export", str(saved), "--out", str(tmp_path / "x"), "--data", str(data), "--strict"]) == 2
    assert "Strict reading (--strict) repairs nothing" in capsys.readouterr().err and not (tmp_path / "x").exists()
    gfocal.model.export(tmp_path / "again")
    gfocal.model.export(tmp_path / "again", with_preprocessing=True)  # an earlier export is replaced
    assert json.loads((tmp_path / "again/config.json").read_text())["takes_pixels"] is True


def test_of_an_earlier_export_nothing_stays(gfocal: Converted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ld_hub.export import onnx_format
    from ld_hub.export.web_page import RUNTIME_FILES

    monkeypatch.setattr(onnx_format, "convert", lambda rows, size: gfocal.network)
    for name in RUNTIME_FILES:
        (tmp_path / name).write_text(name)
    place = gfocal.write(tmp_path / "e", ExportPlan(with_preprocessing=True, page=tmp_path))
    mine = {"eval/metrics.json", "benchmark.json", "notes.txt"}
    for name in mine:
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(name)
    assert (place / "index.html").is_file() and len(list(place.iterdir())) > 10
    gfocal.model.export(place)
    left = {file.relative_to(place).as_posix() for file in place.rglob("*") if file.is_file()}
    assert left == {"config.json", "model.onnx", "README.md", "SHA256SUMS", *mine}
    with (place / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  ../{tmp_path.name}\n")
    with pytest.raises(ExportedError, match="expected names of files beside it"):
        Detector(place)
    with pytest.raises(ConfigError, match=r"expected names of files beside it.*remove"):
        gfocal.model.export(place)
