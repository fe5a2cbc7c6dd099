from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from ld_hub.data import doctor, load_coco
from ld_hub.demo import make_demo_dataset
from ld_hub.demo.dataset import demo_scene
from ld_hub.demo.scene import CLASSES
from ld_hub.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return make_demo_dataset(tmp_path_factory.mktemp("demo") / "set", train_images=60, val_images=8, seed=3)


def files(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_it_is_a_clean_coco_dataset(demo):
    for split, count in (("train", 60), ("val", 8)):
        dataset = load_coco(demo, split, on_bad_box="error")
        assert len(dataset) == count
        assert dataset.label_names == CLASSES
        assert doctor(demo, split, check_images=True).healthy
    assert set(dataset.records.labels.tolist()) | set(load_coco(demo).records.labels.tolist()) == set(range(6))


def test_the_same_seed_makes_the_same_files(demo, tmp_path):
    again = make_demo_dataset(tmp_path / "b", train_images=60, val_images=8, seed=3)
    assert files(again) == files(demo)


def test_an_image_depends_on_seed_split_and_index_alone(demo, tmp_path):
    fewer = make_demo_dataset(tmp_path / "c", train_images=2, val_images=1, seed=3)
    for name in ("train/000001.jpg", "train/000002.jpg", "val/000001.jpg"):
        assert (fewer / name).read_bytes() == (demo / name).read_bytes()
    pictures = [demo_scene(0, seed=3), demo_scene(0, seed=4), demo_scene(1, seed=3), demo_scene(0, split="val", seed=3)]
    assert len({scene.pixels.tobytes() for scene in pictures}) == 4


def test_boxes_lie_in_the_image_and_areas_in_the_boxes():
    crowded = 0
    for index in range(60):
        scene = demo_scene(index, image_size=96)
        assert scene.pixels.shape == (96, 96, 3)
        assert len(scene.boxes) == len(scene.labels) == len(scene.areas) <= 6
        assert (scene.boxes >= 0).all()
        assert (scene.boxes <= 96).all()
        sides = scene.boxes[:, 2:] - scene.boxes[:, :2]
        assert (scene.areas <= sides.prod(axis=1)).all()
        assert (scene.areas >= sides.max(axis=1, initial=0)).all()  # no row or column of a box is empty
        x = np.minimum(scene.boxes[:, None, 2:], scene.boxes[None, :, 2:]) - np.maximum(
            scene.boxes[:, None, :2], scene.boxes[None, :, :2]
        )
        crowded += int((x > 0).all(axis=2).sum() > len(scene.boxes))
    assert crowded > 10  # overlapping boxes are common


def test_objects_stand_out_where_their_boxes_are():
    inside, outside = [], []
    for index in range(40):
        scene = demo_scene(index)
        pixels = scene.pixels.astype(float)
        mask = np.zeros(pixels.shape[:2], bool)
        for x1, y1, x2, y2 in scene.boxes:
            mask[y1:y2, x1:x2] = True
        if mask.any() and not mask.all():
            distance = np.abs(pixels - np.median(pixels[~mask], axis=0)).mean(axis=2)
            inside.append(distance[mask].mean())
            outside.append(distance[~mask].mean())
    assert np.mean(inside) > 1.4 * np.mean(outside)


def test_what_is_there_is_kept_and_other_things_are_not_overwritten(demo, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in demo.rglob("*")}
    assert make_demo_dataset(demo, train_images=60, val_images=8, seed=3) == demo
    assert {p: p.stat().st_mtime_ns for p in demo.rglob("*")} == before
    with pytest.raises(DataError, match="not this demo dataset"):
        make_demo_dataset(demo, train_images=61, val_images=8, seed=3)
    (tmp_path / "mine").mkdir()
    assert make_demo_dataset(tmp_path / "mine", train_images=1, val_images=1).is_dir()  # empty: may be filled
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a").touch()
    with pytest.raises(DataError, match="other"):
        make_demo_dataset(tmp_path / "other", train_images=1, val_images=1)


def test_an_interrupted_run_leaves_nothing(tmp_path):
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo_dataset(tmp_path / "x", train_images=3, val_images=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_progress_and_sizes(tmp_path):
    calls = []
    out = make_demo_dataset(
        tmp_path / "x", train_images=2, val_images=1, image_size=64, progress=lambda *a: calls.append(a)
    )
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert Image.open(out / "val" / "000001.jpg").size == (64, 64)
    assert json.loads((out / "annotations" / "instances_val.json").read_text())["images"][0]["width"] == 64


@pytest.mark.parametrize("name", ["train_images", "val_images", "image_size", "seed"])
def test_senseless_numbers_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=name):
        make_demo_dataset(tmp_path / "x", **{name: -1})
