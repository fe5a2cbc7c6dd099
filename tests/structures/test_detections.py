"""Detections: selecting, writing and drawing."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ld_hub.errors import ConfigError
from ld_hub.structures import Detections

NAMES = ("cat", "dog", "bird")


@pytest.fixture
def found() -> Detections:
    boxes = torch.tensor([[10.7, 20.2, 30.9, 45.5], [-1.5, 0.0, 5.0, 8.0], [1.0, 2.0, 3.0, 4.0]])
    return Detections(boxes, torch.tensor([0.9, 0.5, 0.3]), torch.tensor([1, 0, 2]), NAMES, (3, 7, 9))


def test_to_list_is_the_hugging_face_pipeline_form(found):
    rows = found.to_list()
    assert rows[0] == {
        "score": pytest.approx(0.9),
        "label": "dog",
        "box": {"xmin": 10, "ymin": 20, "xmax": 30, "ymax": 45},
    }
    assert rows[1]["box"] == {"xmin": -1, "ymin": 0, "xmax": 5, "ymax": 8}  # cut towards 0, as Tensor.int() there
    assert [type(v) for v in rows[0]["box"].values()] == [int] * 4
    assert list(rows[0]) == ["score", "label", "box"]
    json.dumps(rows)


def test_to_coco_writes_sizes_and_dataset_ids(found):
    rows = found.to_coco(42)
    assert [row["category_id"] for row in rows] == [7, 3, 9]
    assert {row["image_id"] for row in rows} == {42}
    assert rows[0]["bbox"] == pytest.approx([10.7, 20.2, 20.2, 25.3], abs=1e-5)
    assert rows[2]["bbox"] == [1.0, 2.0, 2.0, 2.0]
    json.dumps(rows)


def test_category_ids_default_to_the_labels(found):
    plain = Detections(found.boxes, found.scores, found.labels, NAMES)
    assert plain.category_ids == (0, 1, 2)
    assert [row["category_id"] for row in plain.to_coco(1)] == [1, 0, 2]


def test_to_pandas_has_a_row_for_each_object(found):
    table = found.to_pandas()
    assert list(table.columns) == ["xmin", "ymin", "xmax", "ymax", "score", "label", "class"]
    assert table[["xmin", "ymin", "xmax", "ymax"]].to_numpy().tolist() == found.boxes.tolist()
    assert table[table.score > 0.4].label.tolist() == ["dog", "cat"] and table["class"].tolist() == [1, 0, 2]
    assert len(Detections.empty(NAMES).to_pandas()) == 0


def test_to_supervision_is_read_by_it(found):
    pytest.importorskip("supervision")
    theirs = found.to_supervision()
    assert theirs.xyxy.tolist() == found.boxes.tolist() and theirs["class_name"].tolist() == ["dog", "cat", "bird"]
    assert theirs[theirs.confidence > 0.4].class_id.tolist() == [1, 0]
    assert len(Detections.empty(NAMES).to_supervision()) == 0


def test_what_another_library_is_needed_for_is_said(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ConfigError, match="pip install supervision"):
        found.to_supervision()


def test_to_fiftyone_gives_fractions_of_the_image(found):
    rows = found.to_fiftyone(width=100, height=50)
    assert [row["label"] for row in rows] == ["dog", "cat", "bird"]
    assert rows[2] == {"label": "bird", "bounding_box": pytest.approx([0.01, 0.04, 0.02, 0.04]),
                       "confidence": pytest.approx(0.3)}  # fmt: skip
    kept = replace(found, image=Image.new("RGB", (100, 50)))
    assert kept.to_fiftyone() == rows
    with pytest.raises(ConfigError, match="width and height"):
        found.to_fiftyone()


def test_length_iteration_and_selection(found):
    assert len(found) == 3
    assert [(label, round(score, 2)) for label, score, _ in found] == [("dog", 0.9), ("cat", 0.5), ("bird", 0.3)]
    assert found[0].label == "dog" and found[0].box == pytest.approx((10.7, 20.2, 30.9, 45.5))
    assert found[-1].label == "bird"
    assert found[1:].names == ["cat", "bird"]
    assert found[[2, 0]].names == ["bird", "dog"]
    assert found[found.labels == 0].names == ["cat"]
    assert found[:2].category_ids == (3, 7, 9)
    with pytest.raises(IndexError):
        found[3]


def test_selection_takes_the_integers_and_masks_of_other_libraries(found):
    for index in (np.int64(2), np.array(2), torch.tensor(2)):
        assert found[index].label == "bird"
    assert found[torch.tensor([2])].names == ["bird"]
    assert found[[np.int64(2), torch.tensor(0)]].names == ["bird", "dog"]
    assert found[[True, False, True]].names == ["dog", "bird"]
    assert found[[]].names == []
    with pytest.raises(TypeError):
        found["bird"]


def test_filter_keeps_scores_above_the_threshold(found):
    assert found.filter(0.4).names == ["dog", "cat"]
    assert found.filter(0.5).names == ["dog"]
    assert len(found.filter(1.0)) == 0


def test_to_moves_all_tensors(found):
    moved = found.to("meta")
    assert {moved.boxes.device.type, moved.scores.device.type, moved.labels.device.type} == {"meta"}
    assert moved.label_names == NAMES


def test_print_is_a_table(found):
    lines = str(found).splitlines()
    assert lines[0] == "Detections: 3 objects, boxes in px"
    assert lines[2].split() == ["dog", "0.900", "10.7", "20.2", "30.9", "45.5"]
    assert repr(found) == str(found)
    assert str(Detections.empty(NAMES)) == "Detections: no objects"
    many = found[[0] * 15]
    assert str(many).splitlines()[-1] == "  ... and 3 more"
    assert max(len(line) for line in str(many).splitlines()) <= 80


def test_draw_changes_only_a_copy(found):
    image = Image.new("RGB", (600, 500), "white")
    picture = found.draw(image)
    assert picture.size == (600, 500) and image.getcolors() == [(300000, (255, 255, 255))]
    assert picture.getcolors(maxcolors=100000) != image.getcolors()


def test_draw_without_image_says_what_to_do(found):
    with pytest.raises(ConfigError, match=r"draw\(PIL\.Image\.open"):
        found.draw()


def test_save_writes_the_kept_image(found, tmp_path):
    kept = Detections(found.boxes, found.scores, found.labels, NAMES, image=Image.new("L", (64, 48)))
    path = kept.save(tmp_path / "new" / "a.png")
    with Image.open(path) as picture:
        assert picture.size == (64 * 7, 48 * 7)  # enlarged by a whole factor until 448 px wide
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]
    with pytest.raises(ConfigError, match=r"\.json.*\.png"):
        kept.save(tmp_path / "a.json")
    assert not (tmp_path / "a.json").exists()


def test_empty_detections_work_everywhere():
    none = Detections.empty(NAMES)
    assert none.to_list() == [] and none.to_coco(1) == [] and list(none) == [] and len(none.filter(0.1)) == 0
    none.draw(Image.new("RGB", (10, 10)))


@pytest.mark.parametrize("boxes, scores, labels", [((2, 4), (3,), (2,)), ((2, 5), (2,), (2,)), ((2, 4), (2, 1), (2,))])
def test_shapes_that_do_not_fit_are_refused(boxes, scores, labels):
    with pytest.raises(ConfigError, match="boxes"):
        Detections(torch.zeros(boxes), torch.zeros(scores), torch.zeros(labels, dtype=torch.int64), NAMES)


def test_ids_must_match_names(found):
    with pytest.raises(ConfigError, match="3 label names but 2 category ids"):
        Detections(found.boxes, found.scores, found.labels, NAMES, (1, 2))
