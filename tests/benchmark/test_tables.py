"""The tables of `ld-hub benchmark`: with and without bins, and the scorers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ld_hub.benchmark.detectors import PUBLISHED, measure, with_and_without_bins
from ld_hub.benchmark.figures import Figures
from ld_hub.benchmark.scorers import ScoringLoad, random_evaluator, sizes, time_scorers, time_scoring
from ld_hub.benchmark.steps import CRITERION, Workload
from ld_hub.cli.main import main
from ld_hub.errors import CheckpointError, ConfigError, UnknownNameError
from ld_hub.preprocessing.augmentation import PRESETS


def test_forms_of_a_name() -> None:
    assert with_and_without_bins(PUBLISHED) == [
        "retinanet_r50", "retinanet_r50_bins", "fcos_r50_caffe", "fcos_r50_caffe_bins",
        "atss_r50", "atss_r50_bins", "gfocal_r50",
    ]  # fmt: skip
    assert with_and_without_bins(["atss_r50_bins", "atss_r50"]) == ["atss_r50", "atss_r50_bins"]
    assert with_and_without_bins(["retinanet_r50_ld_r101"]) == ["retinanet_r50", "retinanet_r50_bins"]
    with pytest.raises(UnknownNameError, match="atss_r51"):
        with_and_without_bins(["atss_r51"])


def test_a_row_has_the_published_size() -> None:
    """LD paper, Table 3: 32.22 M trainable parameters, 208.31 G multiply-adds."""
    row = measure("gfocal_r50", Workload(1, 64, 64, 2, 1), torch.device("cpu"))
    assert (round(row.params / 1e6, 2), round(row.multiply_adds / 1e9, 2), row.bins) == (32.22, 208.31, True)
    assert round(row.all_params / 1e6, 2) == 32.44
    assert row.images_per_second == pytest.approx(1 / (row.network + row.postprocessing)) and row.postprocessing > 0


def test_times_are_per_image(monkeypatch: pytest.MonkeyPatch) -> None:
    times = SimpleNamespace(
        parts={"network": SimpleNamespace(median=6.0), "post-processing": SimpleNamespace(median=2.0)}
    )
    monkeypatch.setattr("ld_hub.benchmark.detectors.time_inference", lambda model, work: times)
    row = measure("gfocal_tiny", Workload(4, 64, 64, 2, 1), torch.device("cpu"))
    assert (row.network, row.postprocessing, row.images_per_second) == (1.5, 0.5, 0.5)


def test_verb_of_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["gfocal_tiny", "atss_r18", "--table", "--size", "64", "64", "--repeats", "1", "--batch_size", "1"]
    assert main(["benchmark", *words, "--num_classes", "3", "--device", "cpu", "--json", str(tmp_path / "o.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    content = json.loads((tmp_path / "o.json").read_text())
    assert "torch" in lines[0] and content["hardware"] == lines[0]
    assert max(map(len, lines[:-1])) <= 80
    rows = content["table"]["rows"]
    assert [(row["name"], row["bins"]) for row in rows] == [
        ("gfocal_tiny", True), ("atss_r18", False), ("atss_r18_bins", True)
    ]  # fmt: skip
    shown = [line.split() for line in lines if line.startswith(("gfocal", "atss"))]
    assert [words[2] for words in shown] == [f"{row['params'] / 1e6:.2f}" for row in rows]
    assert [words[-1] for words in shown] == [f"{row['images_per_second']:.2f}" for row in rows]
    assert rows[2]["params"] > rows[1]["params"] and rows[2]["multiply_adds"] > rows[1]["multiply_adds"]


def test_random_detections_are_worth_scoring() -> None:
    """Neither hopeless nor perfect, inside the image, and the same for every scorer."""
    load = ScoringLoad(images=30, num_classes=5, detections=20)
    evaluator = random_evaluator(load, "pycocotools")
    state = evaluator.state()
    assert len(evaluator) == 30 and len(state["scores"]) == 600
    assert state["boxes"].min() >= 0 and (state["boxes"][:, :2] + state["boxes"][:, 2:]).max() <= 640 + 1e-9
    assert 0.05 < evaluator.compute()["AP50"] < 0.95
    assert sum(row["iscrowd"] for row in evaluator.truth.annotations) > 0
    again = random_evaluator(load, "pycocotools").state()
    assert all(np.array_equal(state[name], again[name]) for name in state)
    first = time_scoring(load, "pycocotools")
    assert first.ap == evaluator.compute()["AP"] and first.seconds > 0
    with pytest.raises(ConfigError, match="images is 0"):
        ScoringLoad(images=0)


def test_scorers_are_timed_on_growing_sets_in_processes_of_their_own() -> None:
    assert sizes(5000) == [1250, 2500, 5000] and sizes(1) == [1]
    load = ScoringLoad(images=1, num_classes=3, detections=5)
    (row,) = time_scorers(load, ["pycocotools"])
    assert (row.backend, row.images, row.ap) == ("pycocotools", 1, time_scoring(load, "pycocotools").ap)


def test_verb_of_the_scorers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hotcoco")

    def here(load: ScoringLoad, backends: list[str]):
        """Without processes, which take seconds to start."""
        return [time_scoring(load, backend) for backend in backends]

    monkeypatch.setattr("ld_hub.benchmark.scorers.time_scorers", here)
    words = ["benchmark", "--eval", "--images", "20", "--num_classes", "4", "--detections", "10"]
    assert main([*words, "--json", str(tmp_path / "o.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    content = json.loads((tmp_path / "o.json").read_text())["eval"]
    slow, fast = content["rows"]
    assert (slow["backend"], fast["backend"], slow["ap"]) == ("pycocotools", "hotcoco", fast["ap"])
    assert content["ratio"] == pytest.approx(fast["seconds"] / slow["seconds"])
    assert f"hotcoco takes {content['ratio']:.3f} of pycocotools' time" in "\n".join(lines)
    assert max(map(len, lines[:-1])) <= 80


@pytest.mark.parametrize("words", [[], ["a", "b"], ["a", "--eval"], ["--eval", "--table"], ["--eval", "--images", "0"]])
def test_words_that_do_not_fit(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *words]) == 2
    error = capsys.readouterr().err
    assert "--images is 0" in error if "0" in words else "Give one model name" in error


def test_figures_are_read_as_they_were_written(tmp_path: Path) -> None:
    words = "gfocal_tiny_vlr_r10t --size 64 64 --batch_size 1 --boxes 2 --num_classes 3 --repeats 1 --device cpu"
    assert main(["benchmark", *words.split(), "--json", str(tmp_path / "o.json")]) == 0
    content = json.loads((tmp_path / "o.json").read_text())
    figures = Figures.from_dict(content)
    assert json.loads(json.dumps(figures.to_dict())) == content
    assert figures.workload == Workload(1, 64, 64, 2, 1) and figures.eval is None
    assert figures.training is not None and figures.criterion_ms is not None
    parts = [figures.training.parts[name].median_ms for name in CRITERION]
    assert figures.criterion_ms.median == pytest.approx(sum(parts))
    everything = sum(part.median_ms for name, part in figures.training.parts.items() if name != "data")
    assert figures.training.images_per_second == pytest.approx(1000 / everything)


def test_a_figure_of_another_type_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"'inference\.images_per_second' is '9'; expected a number"):
        Figures.from_dict({"hardware": "h", "inference": {"images_per_second": "9"}})
    with pytest.raises(CheckpointError, match=r"'hardware' is missing"):
        Figures.from_dict({})


def test_loaders_are_timed_beside_the_mirror(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", str(data), "--augment", "strong", "--workers", "0", "--size", "48", "64", "--repeats", "2"]
    file = tmp_path / "o.json"
    step = ["gfocal_tiny", "--mode", "training", "--num_classes", "3", "--device", "cpu", "--boxes", "2"]
    assert main(["benchmark", *step, *words, "--json", str(file)]) == 0
    figures = Figures.from_dict(json.loads(file.read_text()))
    assert figures.data is not None and figures.training is not None
    mirror, strong = figures.data
    assert (mirror.augmentation, mirror.workers) == ("flip 0.5", 0) and "mosaic 0.5" in strong.augmentation
    for row in figures.data:
        assert row.images_per_second >= row.slowest > 0
        assert row.of_step == pytest.approx(row.images_per_second / figures.training.images_per_second)
    printed = capsys.readouterr().out
    assert f"{mirror.images_per_second:.1f}" in printed and "below 1 a step waits" in printed
    assert main(["benchmark", *words[:2], *words[4:], "--json", str(file)]) == 0
    (alone,) = Figures.from_dict(json.loads(file.read_text())).data or ()
    assert (alone.augmentation, alone.of_step) == ("flip 0.5", None)


def test_a_rate_is_of_all_images_of_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch takes a tenth of a second, the first round a whole one more."""
    import ld_hub.benchmark.data_rates as room

    now = [0.0]

    def batches():
        now[0] += 1.0
        while True:
            now[0] += 0.1
            yield None

    monkeypatch.setattr(room.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(room, "train_loader", lambda *args, **options: batches())
    row = room.measure_rate(None, PRESETS["flip"], Workload(3, 48, 64, 2, 2), 2, step=15.0)
    assert row.images_per_second == pytest.approx(30.0) == row.slowest and row.of_step == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--data no/such", "no/such"), ("--eval --data .", "Give one model name"), ("--data . --crop 2", "crop is 2"),
        ("--table --data .", "Give one model name"), ("--data . --workers -1", "--workers is -1"),
    ],
)  # fmt: skip
def test_loaders_that_cannot_be_timed(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *words.split()]) == 2
    assert said in capsys.readouterr().err
