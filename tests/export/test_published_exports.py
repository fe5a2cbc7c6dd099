"""Exports on the Hub: beside their model and alone, with what was measured of them and nothing else."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from ld_hub.cli.main import main
from ld_hub.errors import ConfigError
from ld_hub.export.formats import ExportPlan
from ld_hub.hub.card_file import read_metadata
from ld_hub.runtime import Detector
from tests.export.conftest import Converted, detector
from tests.export.test_exports import coco, pictures
from tests.support.hub_client import connected
from tests.support.hub_state import Hub

hub = pytest.fixture(connected)
REPO = "org/small"
FIRST = "exports/onnx-float32"


def typed(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def measured(gfocal: Converted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model``, ``plain`` and ``pixels``, its exports, and ``coco``, their data; ``pixels`` was not measured."""
    root = tmp_path_factory.mktemp("measured")
    data = coco(gfocal.model, root / "coco")
    gfocal.model.save_pretrained(root / "model")
    gfocal.write(root / "plain", ExportPlan())
    gfocal.write(root / "pixels", ExportPlan(with_preprocessing=True))
    for place in ("model", "plain"):
        words = ("--workers", 0) if place == "model" else ()
        assert typed("eval", root / place, "--data", data, "--out", root / place / "eval", *words) == 0
    size = ("--size", 64, 96, "--repeats", 1, "--threads", 1)
    assert typed("benchmark", root / "plain", *size, "--json", root / "plain/benchmark.json") == 0
    return root


@pytest.fixture
def copy(measured: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    return Path(shutil.copytree(measured, tmp_path / "copy"))


def saved(hub: Hub, place: Path) -> Path:
    """A repository as a directory, as `hf download` makes it."""
    for name, content in hub.files(REPO).items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place


def rows(card: str, start: str) -> list[list[str]]:
    lines = [line.strip("|").split("|") for line in card.splitlines() if line.startswith("| " + start)]
    return [[cell.strip() for cell in line] for line in lines]


def test_beside_the_model(hub: Hub, measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--export", measured / "plain", "--export", measured / "pixels")
    assert typed("push", measured / "model", REPO, *flags) == 0
    files = hub.files(REPO)
    names = {"README.md", "SHA256SUMS", "config.json", "model.onnx"}
    own = {"eval/metrics.json", "eval/detections.json", "benchmark.json"}
    assert {name for name in files if name.startswith("exports/")} == {
        *(f"{FIRST}/{name}" for name in names | own),
        *(f"{FIRST}-pixels/{name}" for name in names),
    }
    for name in names | own:
        assert files[f"{FIRST}/{name}"] == (measured / "plain" / name).read_bytes()

    card = files["README.md"].decode()
    evaluation = json.loads((measured / "plain/eval/metrics.json").read_text())
    speed = json.loads((measured / "plain/benchmark.json").read_text())
    ((plain,), (pixels,)) = rows(card, f"`{FIRST}` "), rows(card, f"`{FIRST}-pixels` ")
    megabytes = len(files[f"{FIRST}/model.onnx"]) / 1e6
    assert plain[1:5] == ["onnx", "float32", f"{megabytes:.1f}", f"{100 * evaluation['stats']['AP']:.1f}"]
    assert plain[5] == "coco, val (4 images, coco)"
    assert float(plain[6]) == pytest.approx(speed["inference"]["images_per_second"], abs=0.051)
    assert re.search(r", 1 thread; onnxruntime [\d.]+, Python [\d.]+; 2 images of 96x64$", plain[7])
    assert pixels[1:3] == ["onnx", "float32"] and pixels[4:] == [""] * 4
    assert f"Not measured: AP of `{FIRST}-pixels`" in card and f"; speed of `{FIRST}-pixels`" in card

    place = saved(hub, tmp_path / "down")
    (image,) = pictures([(96, 128)])
    found, expected = (Detector(each).predict(image) for each in (place / FIRST, measured / "plain"))
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    capsys.readouterr()
    assert typed("verify", REPO, "--data", measured / "coco", "--workers", 0) == 0
    said = capsys.readouterr().out
    for what in (
        f"{FIRST}: every file is the one that SHA256SUMS lists",
        f"{FIRST}: it was made of this model",
        f"{FIRST}: eval/metrics.json: AP recomputed",
        f"README.md: row of {FIRST}-pixels",
    ):
        assert f"ok      {what}\n" in said

    assert typed("push", measured / "model", REPO) == 0  # of other weights, maybe: old programs do not stay
    assert not [name for name in hub.files(REPO) if name.startswith("exports/")]


def test_verify_finds_what_is_not_true(hub: Hub, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("push", copy / "model", REPO, "--export", copy / "plain") == 0
    files = hub.files(REPO)
    card = files["README.md"].decode()
    (row,) = rows(card, f"`{FIRST}` ")
    metrics = json.loads(files[f"{FIRST}/eval/metrics.json"])
    metrics["weights"]["tensors"] = "0" * 64
    program = files[f"{FIRST}/model.onnx"]
    lies = {
        "README.md": (card.replace(f"| {row[6]} |", "| 9999.9 |").encode(), "README.md: row of"),
        f"{FIRST}/eval/metrics.json": (json.dumps(metrics).encode(), "eval/metrics.json: program"),
        f"{FIRST}/model.onnx": (program[:-1] + bytes([program[-1] ^ 1]), "every file is the one that SHA256SUMS lists"),
    }
    for name, (lie, said) in lies.items():
        hub.commit(REPO, {**files, name: lie})
        capsys.readouterr()
        assert typed("verify", REPO, "--data", copy / "coco", "--workers", 0) == 1
        failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED")]
        assert failed and said in failed[0], (name, failed)


def test_alone(hub: Hub, measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("push", measured / "plain", REPO, "--license", "mit", "--private") == 0
    files = hub.files(REPO)
    assert set(files) == {
        *(".gitattributes", "README.md", "SHA256SUMS", "config.json", "model.onnx", "benchmark.json"),
        *("eval/metrics.json", "eval/detections.json"),
    }
    sums = dict(line.split("  ")[::-1] for line in files["SHA256SUMS"].decode().splitlines())
    assert sums == {name: hashlib.sha256(files[name]).hexdigest() for name in ("config.json", "model.onnx")}
    card, metadata = files["README.md"].decode(), read_metadata(files["README.md"].decode())
    ap = json.loads(files["eval/metrics.json"])["stats"]["AP"]
    assert metadata["license"] == "mit" and metadata["tags"] == ["gfocal", "onnx"]
    told = {each["type"]: each["value"] for each in metadata["model-index"][0]["results"][0]["metrics"]}
    assert told["map"] == pytest.approx(ap, abs=1e-4) and rows(card, f"`{REPO}` ")[0][4] == f"{100 * ap:.1f}"
    assert "Not measured" not in card and "## With onnxruntime alone" in card

    Detector(saved(hub, tmp_path / "down"))
    data, out = measured / "coco", tmp_path / "out"
    for model in (REPO, measured / "plain"):
        assert typed("predict", data / "val", "--model", model, "--out", out / Path(model).name) == 0
    found = [json.loads((out / name / "detections.json").read_text())["annotations"] for name in ("small", "plain")]
    assert found[0] == found[1] and len(found[0]) > 4
    assert typed("eval", REPO, "--data", data, "--out", out) == 0
    assert json.loads((out / "metrics.json").read_text())["stats"]["AP"] == ap
    assert typed("benchmark", REPO, "--size", 64, 96, "--repeats", 1, "--json", out / "speed.json") == 0
    speeds = [json.loads(file.read_text()) for file in (out / "speed.json", measured / "plain/benchmark.json")]
    assert speeds[0]["model"] == REPO and speeds[0]["program"]["digest"] == speeds[1]["program"]["digest"]
    capsys.readouterr()
    assert typed("verify", REPO, "--data", data) == 0 and typed("verify", tmp_path / "down", "--data", data) == 0
    assert capsys.readouterr().out.count("ok      README.md: row of") == 2

    written = tmp_path / "down" / "README.md"
    written.write_text(written.read_text() + "\nMy words.\n")
    assert typed("push", tmp_path / "down", "org/again") == 0
    assert hub.files("org/again")["README.md"].decode().endswith("\nMy words.\n")


def test_a_model_and_an_export_do_not_share_a_repository(
    hub: Hub, measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for first, second, said in (("model", "plain", "holds a model"), ("plain", "model", "holds an export")):
        assert typed("push", measured / first, f"org/{first}") == 0
        before = hub.files(f"org/{first}")
        assert typed("push", measured / second, f"org/{first}") == 2
        assert said in capsys.readouterr().err and hub.files(f"org/{first}") == before


def test_what_is_refused_before_anything_is_sent(
    hub: Hub, gfocal: Converted, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(said: str, *words: object) -> None:
        capsys.readouterr()
        assert typed("push", *words) == 2
        assert re.search(said, capsys.readouterr().err)

    plain = copy / "plain"
    refused("takes no --export", plain, REPO, "--export", plain)
    refused("no export there", copy / "model", REPO, "--export", copy / "model")
    refused("exports of the kind onnx-float32: name one", copy / "model", REPO, "--export", plain, "--export", plain)
    refused("is of another program", plain, REPO, "--eval", copy / "model/eval")
    other = detector()
    other.head.cls.bias.data += 1
    other.save_pretrained(copy / "other")
    refused(r"no export of this 'gfocal': its weights are \w+, the model's", copy / "other", REPO, "--export", plain)
    program = plain / "model.onnx"
    program.write_bytes(program.read_bytes()[:-1])
    refused(r"model\.onnx' was changed or cut short", plain, REPO)
    refused(r"model\.onnx' was changed or cut short", copy / "model", REPO, "--export", plain)
    assert hub.seen == []
    with pytest.raises(ConfigError, match="its structure or its classes are others"):
        detector("fcos").push_to_hub(REPO, exports=[copy / "pixels"])


def test_measurements_of_an_earlier_program_count_as_none(
    hub: Hub, gfocal: Converted, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ld_hub.export import onnx_format

    monkeypatch.setattr(onnx_format, "convert", lambda rows, size: gfocal.network)
    again = gfocal.model.export(copy / "plain", size=(128, 128)).directory  # eval/ and benchmark.json stay
    with pytest.warns(UserWarning) as caught:
        assert typed("push", again, REPO) == 0
    said = [str(each.message) for each in caught if "is of another program than the one beside it" in str(each.message)]
    assert [sentence.rpartition("`ld-hub ")[2].partition(" ")[0] for sentence in said] == ["eval", "benchmark"]
    assert set(hub.files(REPO)) == {".gitattributes", "README.md", "SHA256SUMS", "config.json", "model.onnx"}
    card = hub.files(REPO)["README.md"].decode()
    assert "Not measured: AP of" in card and "model-index" not in card
