"""The page without a browser: what its columns find, what differs, what is saved; in Chromium among the slow tests."""

from __future__ import annotations

import json
import socket
import sys
import threading
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

from ld_hub.app.columns import KEPT, ExportColumn, ModelColumn, titles
from ld_hub.app.found_alone import differences
from ld_hub.cli.main import main
from ld_hub.structures import Detections
from tests.support.judged import lively

NAMES = ("cat", "dog")
needs_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed (extra `app`)")


def picture(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((96, 72))


def found(*rows, names=NAMES) -> Detections:
    boxes = torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([row[1] for row in rows], dtype=torch.int64)
    scores = torch.linspace(0.9, 0.5, len(rows)) if rows else torch.zeros(0)
    return Detections(boxes=boxes, scores=scores, labels=labels, label_names=names, category_ids=(1, 2))


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.6])
@pytest.mark.parametrize("nms_iou", [0.2, 0.6, 0.9])
def test_a_column_finds_what_predict_finds(threshold, nms_iou):
    model = lively(NAMES)
    mine = ModelColumn("a", model).detect(picture(), threshold, nms_iou)
    model.postprocess_config = type(model.postprocess_config)(nms_iou=nms_iou)
    expected = model.predict(picture(), threshold=threshold)
    assert len(mine) == len(expected) >= 1
    assert torch.equal(mine.boxes, expected.boxes) and torch.equal(mine.labels, expected.labels)


def test_the_network_is_asked_once_for_an_image():
    model, asked = lively(NAMES), []
    forward = model.forward
    model.forward = lambda *arguments, **options: asked.append(1) or forward(*arguments, **options)
    column = ModelColumn("a", model)
    for threshold, nms_iou in ((0.1, 0.6), (0.5, 0.6), (0.1, 0.3)):
        column.detect(picture(), threshold, nms_iou)
    assert len(asked) == 1
    for seed in range(1, KEPT + 1):
        column.detect(picture(seed), 0.3, 0.6)
    column.detect(picture(), 0.3, 0.6)
    assert len(asked) == KEPT + 2  # the first was forgotten


def test_an_export_is_a_column(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from ld_hub.export.exported_model import ExportedModel

    model = lively(NAMES)
    model.export(tmp_path / "exported")
    column = ExportColumn("a", ExportedModel(tmp_path / "exported"))
    mine, expected = column.detect(picture(), 0.2, 0.1), model.predict(picture(), threshold=0.2)
    assert column.fixed_nms and len(mine) == len(expected) > 3
    assert torch.allclose(mine.boxes, expected.boxes, atol=0.1)


def by_hand(first: Detections, second: Detections) -> tuple[list[int], list[int]]:
    """The same rule, box by box in plain Python."""

    def iou(a, b):
        w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        both = max(w, 0) * max(h, 0)
        return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)

    taken, alone = set(), []
    for k, box in enumerate(first.boxes.tolist()):
        name = first.label_names[int(first.labels[k])]
        best = None
        for j, other in enumerate(second.boxes.tolist()):
            same = second.label_names[int(second.labels[j])] == name
            if j not in taken and same and iou(box, other) >= 0.5 and (best is None or iou(box, other) > best[0]):
                best = iou(box, other), j
        if best is None:
            alone.append(k)
        else:
            taken.add(best[1])
    return alone, [j for j in range(len(second)) if j not in taken]


def test_differences_are_those_of_boxes_compared_by_hand():
    random = np.random.default_rng(0)
    seen = 0
    for _ in range(200):
        sets = []
        for names in (NAMES, NAMES[::-1]):  # classes count by name, not by number
            corners = random.integers(0, 6, (random.integers(0, 6), 2))
            sizes = random.integers(4, 12, corners.shape)
            rows = [([*c, *(c + s)], int(random.integers(2))) for c, s in zip(corners, sizes, strict=True)]
            sets.append(found(*rows, names=names))
        mine = differences(*sets)
        assert (list(mine.first), list(mine.second)) == by_hand(*sets)
        seen += len(sets[0]) - len(mine.first)
    assert seen > 20


def test_titles_tell_detectors_apart():
    assert titles(["runs/a/model", "runs/b/model", "org/name"]) == ["a/model", "b/model", "name"]
    assert titles(["m", "m"]) == ["./m (1)", "./m (2)"] or titles(["m", "m"]) == ["/m (1)", "/m (2)"]


def test_without_gradio_it_is_said_before_torch(tmp_path, monkeypatch, capsys):
    place = lively(NAMES).save_pretrained(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr("ld_hub.cli.verb_app.find_spec", lambda name: None)
    assert main(["app", str(place)]) == 2
    assert "pip install 'ld_hub[app]'" in capsys.readouterr().err
    assert main(["app", str(place), "--port", "0"]) == 2
    assert "--port is 0; expected 1 to 65535" in capsys.readouterr().err
    assert main(["app", str(place), "--images", str(tmp_path / "nowhere")]) == 2
    assert "No image directory" in capsys.readouterr().err


@needs_gradio
def test_what_is_shown_and_saved(tmp_path):
    from ld_hub.app.tryout import ALONE, build, files_of, see

    strange = ('<img src=x onerror="alert(1)">', "dog")
    columns = [ModelColumn("one", lively(strange)), ModelColumn("two", lively(strange, seed=1))]
    seen = see(columns, picture(), 0.3, 0.6, (0, 1))
    difference = differences(*seen.found)
    assert len(seen.rows) == len(difference.first) + len(difference.second) > 0
    assert all("<" not in str(row[1]) for row in seen.rows) and {row[0] for row in seen.rows} <= {"one", "two"}
    assert (np.asarray(seen.pictures[0]) == ALONE).all(axis=2).any() == bool(difference.first)
    text, drawn = files_of(columns, "a.jpg", seen, tmp_path)
    content = json.loads(open(text, encoding="utf-8").read())
    assert content["detections"]["one"] == json.loads(json.dumps(seen.found[0].to_list()))
    assert Image.open(drawn).width > 2 * 96
    assert build(columns).title == "ld_hub"


@needs_gradio
@pytest.mark.slow
def test_in_chromium(tmp_path):
    """Two models: upload, slider, comparison; boxes within 1 px of predict's, no error, usable at 390 px."""
    sync = pytest.importorskip("playwright.sync_api")
    from ld_hub.app.tryout import build

    models = [lively(NAMES), lively(NAMES, seed=1)]
    page = build([ModelColumn("one", models[0]), ModelColumn("two", models[1])])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    picture().save(tmp_path / "mine.png")
    threading.Thread(target=page.launch, daemon=True, kwargs={"server_port": port, "quiet": True}).start()
    with sync.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        except sync.Error:
            browser = playwright.chromium.launch()
        tab = browser.new_page(viewport={"width": 390, "height": 900})
        errors: list[str] = []
        tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        for _ in range(100):
            try:
                tab.goto(f"http://127.0.0.1:{port}")
                break
            except sync.Error:
                tab.wait_for_timeout(200)
        tab.set_input_files("input[type=file]", str(tmp_path / "mine.png"))
        link = tab.locator("a[download='detections.json']").first
        link.wait_for(timeout=30_000)

        def read(threshold: float) -> dict:
            for _ in range(100):
                address = link.get_attribute("href") or ""
                content = json.loads(tab.request.get(address).text())
                counts = {name: len(rows) for name, rows in content["detections"].items()}
                expected = [len(model.predict(picture(), threshold=threshold)) for model in models]
                if list(counts.values()) == expected:
                    return content["detections"]
                tab.wait_for_timeout(200)
            raise AssertionError((threshold, counts, expected))

        for threshold in (0.3, 0.5):
            slider = tab.get_by_label("number input for least score")
            slider.fill(str(threshold))
            slider.press("Enter")
            shown = read(threshold)
            for name, model in zip(("one", "two"), models, strict=True):
                expected = model.predict(picture(), threshold=threshold).to_list()
                assert [row["label"] for row in shown[name]] == [row["label"] for row in expected]
                for mine, other in zip(shown[name], expected, strict=True):
                    assert all(abs(mine["box"][side] - other["box"][side]) < 1 for side in other["box"])
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert errors == []
        browser.close()
    page.close()
