from __future__ import annotations

import json

import pytest

from ld_hub.data import doctor, load_coco
from ld_hub.errors import DataError, MissingFileError


def test_counts_of_a_healthy_dataset(coco):
    report = doctor(coco.root)
    assert report.healthy
    assert (report.images, report.boxes, report.empty, report.crowds) == (5, 6, 1, 1)
    # areas 205, 2400, 400, 25, 1200, 81
    assert report.sizes == {"small": 4, "medium": 2, "large": 0}
    assert report.per_class == {"cat": 2, "dog": 2, "bird": 1}  # the crowd is a bird
    assert "fewer than 20 boxes: cat (2), dog (2), bird (1)" in report.notes[0]
    assert report.table().endswith("No problems.")
    same = doctor(load_coco(coco.root))
    assert same.per_class == report.per_class


def test_all_problems_are_listed_at_once(coco):
    annotations = coco.content["annotations"]
    annotations[0]["image_id"] = 1
    annotations[1]["category_id"] = 1
    annotations[2]["bbox"] = [0, 0, float("inf"), 1]
    annotations[3]["bbox"] = [70, 70, 5, 5]
    (coco.images / "2.png").unlink()
    (coco.images / "3.png").write_bytes((coco.images / "3.png").read_bytes()[:100])
    coco.write()
    report = doctor(coco.root, check_images=True)
    assert {(p.kind, p.count) for p in report.problems} == {
        ("unknown images", 1),
        ("unknown categories", 1),
        ("non-finite boxes", 1),
        ("missing images", 1),
        ("damaged images", 1),
    }
    assert report.left_out == {"outside the image": 1}
    table = report.table()
    for words in ("3.png", "2.png", "5 kinds of problems.", "outside the image"):
        assert words in table


def test_images_are_opened_on_request_only(coco):
    (coco.images / "3.png").write_bytes(b"")
    assert doctor(coco.root).healthy
    assert not doctor(coco.root, check_images=True).healthy


def test_the_table_is_80_columns_wide(coco):
    coco.content["categories"] += [{"id": 100 + i, "name": f"a rather long class name {i}"} for i in range(50)]
    coco.write()
    lines = doctor(coco.root).table().splitlines()
    assert max(map(len, lines)) == 80


def test_annotation_id_zero_is_pointed_out(coco):
    assert not any("pycocotools" in note for note in doctor(coco.root).notes)
    coco.content["annotations"][0]["id"] = 0
    coco.write()
    assert any("pycocotools" in note for note in doctor(coco.root).notes)


@pytest.mark.parametrize(("side", "scale"), [(64, 8.0), (33, 4.0), (500, 16.0), (2, 1.0)])
def test_anchor_scale_puts_the_smallest_anchor_among_the_boxes(coco, side, scale):
    coco.content["images"] = [{"id": 1, "file_name": "0.png", "height": 800, "width": 1200}]
    coco.content["annotations"] = [
        {"id": i + 1, "image_id": 1, "category_id": 2, "bbox": [0, 0, side, side], "area": side**2} for i in range(9)
    ]
    coco.file.write_text(json.dumps(coco.content))
    assert doctor(coco.root).anchor_scale == scale
    if side == 64:  # at half the size the objects are half as large
        assert doctor(coco.root, image_size=(400, 666)).anchor_scale == 4.0


def test_corners_in_place_of_sizes_are_refused_before_training(coco):
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco.content["images"]}
    for row in coco.content["annotations"]:
        width, height = sizes[row["image_id"]]
        row["bbox"] = [0.4 * width, 0.2 * height, 0.9 * width, 0.6 * height]  # x + "width" is 1.3 times the image's
    coco.write()
    with pytest.raises(DataError, match=r"6 of 6 boxes reach out of their image when read as x, y, width, height"):
        load_coco(coco.root)
    assert [problem.kind for problem in doctor(coco.root).problems] == ["corners as boxes"]


def test_what_is_no_fault_and_yet_worth_knowing(coco):
    notes = " ".join(doctor(coco.root).notes)
    assert "reach more than 1 px beyond their image: 1." in notes and "more than once" not in notes
    coco.content["images"][1]["file_name"] = "0.png"  # of another size there
    coco.write()
    assert any("images listed more than once: 0.png." in note for note in doctor(coco.root).notes)


def test_names_that_differ_in_case_alone(coco):
    coco.content["images"][1]["file_name"] = "1.PNG"
    coco.write()
    with pytest.raises(MissingFileError, match=r"1\.PNG\. There is 1\.png: upper and lower case matter here"):
        load_coco(coco.root)


def test_sides_that_overflow_are_one_error_without_warnings(coco, recwarn):
    coco.content["annotations"][0]["bbox"] = [1e308, 1e308, 1e308, 1e308]
    coco.write()
    with pytest.raises(DataError, match="not finite numbers: annotation id 11"):
        load_coco(coco.root)
    assert not recwarn.list
