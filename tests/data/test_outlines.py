"""Outlines: the pixels inside of them, and their way from files to the objects they belong to."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as scorer

import ld_hub.data.coco
from ld_hub.data import load_coco, load_data
from ld_hub.data.coco import has_outlines
from ld_hub.data.tile_set import cut_into_tiles
from ld_hub.errors import DataError
from ld_hub.formats.masks import mask_of
from ld_hub.formats.outlines import packed
from ld_hub.tiling import Tiling
from tests.support.directories import voc_devkit, yolo_directory


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))


coordinates = st.floats(-6, 40, width=32)
rings = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=7)


def inside(ring, x, y):
    """Whether a ray to the right crosses the edges an odd number of times."""
    odd = False
    for (x1, y1), (x2, y2) in zip(ring, ring[1:] + ring[:1], strict=True):
        odd ^= (y1 > y) != (y2 > y) and x < x1 + (y - y1) / (y2 - y1) * (x2 - x1)
    return odd


def pixels(polygons, height, width):
    return np.array(
        [[any(inside(ring, x + 0.5, y + 0.5) for ring in polygons) for x in range(width)] for y in range(height)]
    ).reshape(height, width)


@settings(max_examples=150)
@given(polygons=st.lists(rings, min_size=1, max_size=3), height=st.integers(1, 30), width=st.integers(1, 30))
def test_polygons_are_filled_as_rays_tell(polygons, height, width):
    flat = [[number for point in ring for number in point] for ring in polygons]
    found = mask_of(packed(flat), (height, width))
    wrong = found != pixels(polygons, height, width)
    for row, column in np.argwhere(wrong):  # a pixel's middle on an edge, up to rounding, may be on either side
        x, y = column + 0.5, row + 0.5
        gaps = [
            abs((x2 - x1) * (y1 - y) - (x1 - x) * (y2 - y1)) / max(np.hypot(x2 - x1, y2 - y1), 1e-9)
            for ring in polygons
            for (x1, y1), (x2, y2) in zip(ring, ring[1:] + ring[:1], strict=True)
        ]
        assert min(gaps) < 1e-6


@settings(max_examples=80)
@given(bits=st.integers(1, 12).flatmap(lambda w: st.lists(st.lists(st.booleans(), min_size=w, max_size=w), min_size=1)))
def test_run_lengths_are_laid_out_as_pycocotools_does(bits):
    truth = np.array(bits, dtype=np.uint8)
    encoded = scorer.encode(np.asfortranarray(truth))
    compressed = {"size": list(truth.shape), "counts": encoded["counts"].decode()}
    columns = truth.T.reshape(-1)
    edges = np.flatnonzero(np.diff(columns)) + 1
    runs = np.diff([0, *edges, len(columns)]).tolist()
    plain = {"size": list(truth.shape), "counts": [0, *runs] if columns[0] else runs}
    for form in (compressed, plain):
        assert np.array_equal(mask_of(packed(form), truth.shape), truth.astype(bool))
    assert not mask_of(packed(plain), (truth.shape[0] + 1, truth.shape[1])).any()


def test_what_outlines_nothing_has_no_bytes():
    lists = ([], None, [[]], [[1, 2, 3]], [[1, 2, 3, 4]], "text", [[0, 0, 1, float("nan"), 5, 5]])
    runs = ([2, 2], None), ([2, 2], [1, 2]), (4, [4]), ([2, 2], [5, -1])
    for nothing in (*lists, *({"size": size, "counts": counts} for size, counts in runs)):
        assert packed(nothing) == b"", nothing
    square = [[1, 1, 4, 1, 4, 3, 1, 3]]
    points = [[1, 1], [4, 1], [4, 3], [1, 3]]
    for same in (square, square[0], points, [points], tuple(square), packed(square)):
        assert packed(same) == packed(square)
    assert np.argwhere(mask_of(packed(square), (5, 5))).tolist() == [[1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3]]


def outlined(coco):
    """Triangles for the first three objects, run lengths for the crowd, nothing for the others; the masks by box."""
    masks = {}
    sizes = {image["id"]: (image["height"], image["width"]) for image in coco.content["images"]}
    for k, row in enumerate(coco.content["annotations"]):
        x, y, w, h = row["bbox"]
        size = sizes[row["image_id"]]
        if k < 3:
            row["segmentation"] = [[x, y, x + w, y, x, y + h]]
            masks[row["id"]] = pixels([[(x, y), (x + w, y), (x, y + h)]], *size)
        elif row["iscrowd"]:
            masks[row["id"]] = np.random.default_rng(k).random(size) > 0.5
            encoded = scorer.encode(np.asfortranarray(masks[row["id"]].astype(np.uint8)))
            row["segmentation"] = {"size": list(size), "counts": encoded["counts"].decode()}
        else:
            row["segmentation"] = []
            masks[row["id"]] = np.zeros(size, dtype=bool)
    coco.write()
    return masks


def assert_own_masks(coco, dataset, masks):
    records, seen = dataset.records, 0
    left, top = {}, {}
    for row in coco.content["annotations"]:
        left[row["id"]], top[row["id"]] = row["bbox"][:2]
    for index, image_id in enumerate(records.image_ids.tolist()):
        found = records.masks(index)
        boxes = records.boxes[records.offsets[index] : records.offsets[index + 1]]
        assert found.shape == (len(boxes), *records.sizes[index])
        own = [row["id"] for row in coco.content["annotations"] if row["image_id"] == image_id]
        for box, mask in zip(boxes.tolist(), found, strict=True):
            (number,) = [k for k in own if (left[k], top[k]) == (box[0], box[1])]
            assert np.array_equal(mask, masks[number])
            seen += bool(mask.any())
    assert seen == 4


@pytest.mark.parametrize("large", [False, True])
def test_objects_of_coco_have_their_outlines(coco, monkeypatch, large):
    masks = outlined(coco)
    plain = load_coco(coco.root)
    if large:
        monkeypatch.setattr(ld_hub.data.coco, "LARGE", 1)
    dataset = load_data(coco.root, outlines=True)
    assert_own_masks(coco, dataset, masks)
    assert plain.outlines is None and plain.records.masks(0) is None and "outline" not in plain.rows.column_names
    assert dataset.rows.remove_columns("outline")[:] == plain.rows[:]
    some = dataset.select([3, 0])
    assert np.array_equal(some.records.masks(1), dataset.records.masks(0))


def test_outlines_stay_with_objects_that_are_repaired_or_held_out(coco):
    masks = outlined(coco)
    for k, row in enumerate(coco.content["annotations"]):
        row["id"], row["bbox"] = f"object {row['id']}", [str(side) for side in row["bbox"]] if k else row["bbox"]
    coco.content["annotations"].insert(
        0, {**coco.content["annotations"][0], "id": "nothing", "bbox": [], "segmentation": []}
    )
    coco.write()
    with pytest.warns(UserWarning, match="numbered anew"):
        dataset = load_data(coco.root, outlines=True)
    for row in coco.content["annotations"][1:]:
        row["id"], row["bbox"] = int(row["id"].split()[1]), [float(side) for side in row["bbox"]]
    del coco.content["annotations"][0]
    assert_own_masks(coco, dataset, masks)
    coco.write()
    with pytest.warns(UserWarning, match="held out"):
        part = load_data(coco.root, val_fraction=0.3, outlines=True)
    whole = load_data(coco.root, outlines=True)
    for index, image_id in enumerate(part.records.image_ids.tolist()):
        other = whole.records.image_ids.tolist().index(image_id)
        assert np.array_equal(part.records.masks(index), whole.records.masks(other))


def test_tiles_have_their_part_of_an_outline(coco):
    outlined(coco)
    dataset = load_coco(coco.root, outlines=True)
    tiles = cut_into_tiles(dataset, Tiling(40, 0.2)).records
    seen = 0
    for index in range(len(tiles.image_ids)):
        x1, y1, x2, y2 = tiles.crops[index][:4]
        masks = tiles.masks(index)
        whole = dataset.records.masks(dataset.records.image_ids.tolist().index(int(tiles.image_ids[index])))
        assert masks.shape[1:] == (y2 - y1, x2 - x1)
        for mask in masks:
            assert any(np.array_equal(mask, each[y1:y2, x1:x2]) for each in whole)
            seen += bool(mask.any())
    assert seen > 3


def test_labelme_polygons_and_circles_are_outlines(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    ring = [[2.0, 3.0], [20.0, 5.0], [9.0, 25.0]]
    shapes = [
        {"label": "dog", "shape_type": "rectangle", "points": [[1, 1], [30, 20]]},
        {"label": "cat", "shape_type": "polygon", "points": ring},
        {"label": "cat", "shape_type": "circle", "points": [[25, 15], [25, 20]]},
    ]
    content = {"shapes": shapes, "imagePath": "a.png", "imageWidth": 40, "imageHeight": 30}
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning):
        records = load_data(tmp_path, "all", outlines=True).records
    box, polygon, circle = records.masks(0)
    assert not box.any() and np.array_equal(polygon, pixels([[tuple(point) for point in ring]], 30, 40))
    y, x = np.mgrid[:30, :40] + 0.5
    assert (circle != ((x - 25) ** 2 + (y - 15) ** 2 < 25)).sum() <= 4
    with pytest.warns(UserWarning):
        assert load_data(tmp_path, "all").outlines is None


def test_data_without_outlines_are_refused_by_name(coco, tmp_path_factory):
    with pytest.raises(DataError, match=r"instances_train\.json has no outlines .*Leave --copy_paste out; mosaic"):
        load_data(coco.root, outlines=True)
    root = yolo_directory(tmp_path_factory.mktemp("yolo") / "shapes")
    with pytest.raises(DataError, match=r"\(images/train\) has no outlines of objects"):
        load_data(root, outlines=True)
    with pytest.raises(DataError, match=r"as it is read, has no outlines"):
        load_data(voc_devkit(tmp_path_factory.mktemp("voc")), outlines=True)
    with pytest.raises(DataError, match=r"'hf:org/name', as it is read, has no outlines"):
        load_data("hf:org/name", outlines=True)


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ('{"segmentation": []}', False), ('{"segmentation" : [[1, 2]]}', True), ('{"segmentation":\n{"size":1}}', True),
        ('{"segmentation": [ 3, 4]}', True), ('{"segmentation": null}', False), ('{"bbox": [1]}', False), ("", True),
    ],
)  # fmt: skip
def test_a_look_at_a_file_tells_whether_it_may_have_outlines(tmp_path, text, has):
    file = tmp_path / "a.json"
    file.write_text(text)
    assert has_outlines(file) == has


def test_objects_of_somebody_else_have_no_outlines(coco):
    """A teacher's boxes take the place of the labels, and of what belongs to these."""
    outlined(coco)
    dataset = load_coco(coco.root, outlines=True)
    other = dataset.with_objects(np.array([1, 1]), np.array([[1, 1, 5, 5], [2, 2, 9, 9]], np.float32), np.array([0, 1]))
    assert other.outlines is None and other.records.masks(1) is None
    assert other.records.boxes.tolist() == [[1, 1, 5, 5], [2, 2, 9, 9]]


def masks_of(root):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the boxes around are taken
        return load_data(root, "all", outlines=True).records.masks(0)


def filled(ring):
    return pixels([[tuple(point) for point in ring]], 30, 40)


def nearly(found, inside, allowed):
    """Curves are taken for polygons: but for a few pixels on the edge, what a formula says of pixels' middles."""
    y, x = np.mgrid[:30, :40] + 0.5
    return (found != inside(x, y)).sum() <= allowed


def turned_ellipse(x, y):
    """Middle 20, 15; radii 12 and 5; turned by 30 degrees clockwise."""
    a = (x - 20) * np.cos(np.pi / 6) + (y - 15) * np.sin(np.pi / 6)
    b = (y - 15) * np.cos(np.pi / 6) - (x - 20) * np.sin(np.pi / 6)
    return (a / 12) ** 2 + (b / 5) ** 2 < 1


RING = [[2.0, 3.0], [20.0, 5.0], [9.0, 25.0]]


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    return tmp_path


def test_yolo_polygons_are_outlines(picture):
    row = " ".join(f"{x / 40} {y / 30}" for x, y in RING)
    (picture / "a.txt").write_text(f"0 {row}\n0 0.5 0.5 0.2 0.2\n")
    (picture / "classes.txt").write_text("cat\n")
    polygon, box = masks_of(picture)
    assert np.array_equal(polygon, filled(RING)) and not box.any()


def test_cvat_shapes_are_outlines(picture):
    mask = np.random.default_rng(0).random((6, 8)) > 0.4
    edges = np.flatnonzero(np.diff(mask.reshape(-1))) + 1
    runs = np.diff([0, *edges, mask.size]).tolist()
    rle = ", ".join(map(str, [0, *runs] if mask[0, 0] else runs))
    points = ";".join(f"{x},{y}" for x, y in RING)
    (picture / "annotations.xml").write_text(
        '<annotations><image id="0" name="a.png" width="40" height="30">'
        '<box label="cat" xtl="1" ytl="1" xbr="9" ybr="8"/>'
        f'<polygon label="cat" points="{points}"/>'
        '<ellipse label="cat" cx="20" cy="15" rx="12" ry="5" rotation="30"/>'
        f'<mask label="cat" rle="{rle}" left="30" top="20" width="8" height="6"/>'
        '<box label="cat" xtl="10" ytl="10" xbr="30" ybr="20" rotation="30"/>'
        f'<mask label="cat" rle="{rle}, 1" left="30" top="20" width="8" height="6"/>'
        "</image></annotations>"
    )
    box, polygon, ellipse, pixel, turned, wrong = masks_of(picture)
    assert not box.any() and not wrong.any() and np.array_equal(polygon, filled(RING))
    assert nearly(ellipse, turned_ellipse, 4)
    expected = np.zeros((30, 40), dtype=bool)
    expected[20:26, 30:38] = mask
    assert np.array_equal(pixel, expected)

    def in_turned_box(x, y):
        a = (x - 20) * np.cos(np.pi / 6) + (y - 15) * np.sin(np.pi / 6)
        b = (y - 15) * np.cos(np.pi / 6) - (x - 20) * np.sin(np.pi / 6)
        return (abs(a) < 10) & (abs(b) < 5)

    assert nearly(turned, in_turned_box, 0)
    with pytest.warns(UserWarning, match="boxes that are turned"):
        boxes = load_data(picture, "all").records.boxes
    y, x = np.nonzero(in_turned_box(*(np.mgrid[:3000, :4000][::-1] + 0.5) / 100))  # a hundredth of a pixel fine
    assert np.allclose(boxes[4], [x.min() / 100, y.min() / 100, x.max() / 100, y.max() / 100], atol=0.02)
    y, x = np.nonzero(turned_ellipse(*(np.mgrid[:3000, :4000][::-1] + 0.5) / 100))
    assert np.allclose(boxes[2], [x.min() / 100, y.min() / 100, x.max() / 100, y.max() / 100], atol=0.02)


def test_via_regions_are_outlines(picture):
    shapes = [
        {"name": "rect", "x": 1, "y": 1, "width": 8, "height": 7},
        {"name": "polygon", "all_points_x": [x for x, _ in RING], "all_points_y": [y for _, y in RING]},
        {"name": "circle", "cx": 25, "cy": 15, "r": 5},
        {"name": "ellipse", "cx": 20, "cy": 15, "rx": 12, "ry": 5, "theta": np.pi / 6},
    ]
    regions = [{"shape_attributes": shape, "region_attributes": {"label": "cat"}} for shape in shapes]
    (picture / "via.json").write_text(json.dumps({"a.png1": {"filename": "a.png", "size": 1, "regions": regions}}))
    rect, polygon, circle, ellipse = masks_of(picture)
    assert not rect.any() and np.array_equal(polygon, filled(RING))
    assert nearly(circle, lambda x, y: (x - 25) ** 2 + (y - 15) ** 2 < 25, 4) and nearly(ellipse, turned_ellipse, 4)


def test_label_studio_shapes_are_outlines(picture):
    def result(kind, **value):
        labels = {f"{kind}labels": ["cat"]}
        return {"type": f"{kind}labels", "original_width": 40, "original_height": 30, "value": value | labels}

    results = [
        result("rectangle", x=10, y=10, width=20, height=20),
        result("polygon", points=[[x / 0.4, y / 0.3] for x, y in RING]),
        result("ellipse", x=50, y=50, radiusX=30, radiusY=5 / 0.3, rotation=30),
    ]
    task = {"id": 1, "data": {"image": "a.png"}, "annotations": [{"result": results}]}
    (picture / "result.json").write_text(json.dumps([task]))
    rectangle, polygon, ellipse = masks_of(picture)
    assert not rectangle.any() and (polygon != filled(RING)).sum() == 0 and nearly(ellipse, turned_ellipse, 4)
