"""`ld-hub demo` and `ld-hub benchmark` on the smallest sizes that exercise every part."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import ld_hub
from ld_hub.cli.main import main
from ld_hub.data import load_coco
from ld_hub.demo.story import RECIPES
from ld_hub.structures import Unlabeled


def test_everything_it_promises_is_there(demo: Path) -> None:
    result = json.loads((demo / "results.json").read_text())
    students = [f"student_{name}" for name in ("alone", "alone_longer", "ld", "vlr", "auto")]
    names = ["teacher", *students, "few_alone", "few_alone_longer", "few_auto"]
    rows = {row["directory"]: row for row in result["rows"]}
    assert list(rows) == names == list(result["losses"])
    assert [rows[f"student_{name}"]["model"] for name in RECIPES] == [f"gfocal_tiny_{name}_r10t" for name in RECIPES]
    assert [(row["labels"], row["without"]) for row in rows.values()] == [(24, 0)] * 6 + [(8, 0)] * 2 + [(8, 16)]
    terms = set(result["losses"]["student_vlr"][0])
    assert terms >= {"loss_cls", "distill_kd", "distill_ld_vlr", "share/distill_ld_vlr"}
    assert {"loss_cls", "unlabeled_cls", "unlabeled_cross_box"} <= set(result["losses"]["few_auto"][0])
    assert max(map(len, (demo / "results.txt").read_text().splitlines())) <= 80
    with Image.open(demo / "pictures" / "all.png") as sheet:
        assert sheet.width > 7 * 96
    assert len(load_coco(demo / "data", "train")) == 24


def test_its_ap_is_pycocotools_on_the_saved_detections(demo: Path) -> None:
    truth = COCO(str(demo / "data/annotations/instances_val.json"))
    for row in json.loads((demo / "results.json").read_text())["rows"]:
        found = json.loads((demo / row["directory"] / "detections.json").read_text())
        if not found:
            assert row["AP"] == 0
            continue
        score = COCOeval(truth, truth.loadRes(found), "bbox")
        score.evaluate()
        score.accumulate()
        score.summarize()
        assert row["AP"] == pytest.approx(100 * max(score.stats[0], 0), abs=1e-9)


def test_its_models_load_by_directory_and_know_how_they_were_made(demo: Path) -> None:
    model = ld_hub.create_model(str(demo / "student_vlr"))
    assert model.teaching is not None
    assert (model.teaching.recipe, model.teaching.teachers) == ("vlr", ("gfocal_r10t",))
    found = model.predict(demo / "data" / "val", threshold=0.0)
    assert len(found) == 12


def test_students_start_from_the_same_weights(demo: Path) -> None:
    losses = json.loads((demo / "results.json").read_text())["losses"]
    for names in (["student_alone", "student_ld", "student_vlr", "student_auto"], ["few_alone", "few_auto"]):
        assert len({losses[name][0]["loss_cls"] for name in names}) == 1


def test_few_labels_learn_by_what_the_images_without_them_show(demo: Path) -> None:
    model = ld_hub.create_model(str(demo / "few_auto"))
    assert model.teaching is not None
    assert (model.teaching.recipe, model.teaching.unlabeled) == ("auto", Unlabeled(batch=4))


def test_benchmark_measures_every_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "gfocal_tiny_vlr_r10t --size 64 64 --batch_size 1 --boxes 2 --num_classes 3 --repeats 1".split()
    assert main(["benchmark", *words, "--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    figures = json.loads((tmp_path / "out.json").read_text())
    parts = figures["training"]["parts"]
    assert list(parts) == ["data", "student forward", "teacher forward", "assignment", "losses", "distillation",
                           "backward of losses", "backward of network", "optimizer"]  # fmt: skip
    assert all(p["median_ms"] >= p["least_ms"] > 0 for p in parts.values())
    assert all(name in printed for name in [*parts, "post-processing", "peak process memory"])
    assert max(map(len, printed.splitlines())) <= 110
    assert figures["peak_bytes"] > 2**20
    inference = figures["inference"]
    medians = {name: part["median_ms"] for name, part in inference["parts"].items()}
    assert list(medians) == ["data", "network", "post-processing"]
    assert inference["outside_network"] == pytest.approx(1 - medians["network"] / sum(medians.values()))
    assert inference["pairs_per_image"] >= inference["detections_per_image"] >= 0
    assert main(["benchmark", "gfocal_tiny", "--repeats", "0"]) == 2
    assert "--repeats" in capsys.readouterr().err
