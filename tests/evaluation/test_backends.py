"""The two scorers of COCO's rules agree on every array, on thousands of small sets."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ld_hub.errors import ConfigError
from ld_hub.evaluation.backends import choose_backend, score
from ld_hub.evaluation.found import Found
from ld_hub.evaluation.ground_truth import read_ground_truth

IDS = [2, 5, 9]  # 9 has no boxes
SIDES = np.array([4.0, 16.0, 32.0, 33.0, 96.0, 97.0, 150.0])  # 32 and 96: the area edges
AREAS = np.array([1024.0, 9216.0, 1023.99, 9216.01, 0.0])  # as a mask may have


def draw(seed):
    """Ties of score and IoU, crowds, empty images, areas on the edges, now and then more than 100 of a class."""
    random = np.random.default_rng(seed)
    fine = random.random() < 0.5

    def boxes(count):
        found = np.concatenate([random.integers(0, 60, (count, 2)), random.choice(SIDES, (count, 2))], axis=1)
        return found + fine * random.random((count, 4)) * [1, 1, 0, 0]

    images, annotations, parts = random.choice(50, random.integers(1, 5), replace=False), [], []
    crowded = random.random() < 0.05
    for image in np.sort(images).tolist():
        truth = boxes(random.integers(0, 5))
        for box in truth.tolist():
            row = {"image_id": image, "category_id": int(random.choice(IDS[:2])), "bbox": box}
            if random.random() < 0.2:
                row["area"] = float(random.choice(AREAS))
            annotations.append({**row, "iscrowd": int(random.random() < 0.2), "ignore": int(random.random() < 0.2)})
        near = truth[random.integers(0, len(truth), 3 * len(truth))] if len(truth) else boxes(0)
        near = near + random.choice([-3.0, -1.0, 0.0, 0.0, 2.0], near.shape) * [1, 1, 0.5, 0.5]
        guesses = np.concatenate([near, boxes(random.integers(0, 6)), boxes(120 * crowded)])
        categories = random.choice(IDS[: 1 if crowded else 3], len(guesses))
        ties = random.random() < 0.6
        scores = random.choice([0.1, 0.5, 0.5, 0.7, 0.9], len(guesses)) if ties else random.random(len(guesses))
        parts.append((np.full(len(guesses), image), categories, guesses.clip(min=0), scores))
    content = {
        "images": [{"id": int(number), "width": 300, "height": 300} for number in images],
        "categories": [{"id": number, "name": str(number)} for number in IDS],
        "annotations": annotations,
    }
    return read_ground_truth(content), Found(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@pytest.mark.parametrize("seeds", [range(400), pytest.param(range(400, 10_000), marks=pytest.mark.slow)], ids=len)
def test_all_arrays_are_equal_on_random_sets(seeds):
    pytest.importorskip("hotcoco")
    kinds = np.zeros(5, dtype=int)
    for seed in seeds:
        truth, found = draw(seed)
        exact, fast = (score(backend, truth, found, IDS) for backend in ("pycocotools", "hotcoco"))
        assert np.array_equal(exact.precision, fast.precision), seed
        assert np.array_equal(exact.recall, fast.recall), seed
        rows = truth.annotations
        kinds += [
            found.beyond(100) > 0,
            any(row["iscrowd"] for row in rows),
            any(row["area"] in (1024.0, 9216.0) for row in rows),
            len(np.unique(found.scores)) < len(found),
            len({row["image_id"] for row in rows}) < len(truth.images),
        ]
    assert (kinds > len(seeds) / 40).all(), kinds.tolist()  # each kind of trouble was there


@pytest.mark.parametrize("image", [0, -3, 2**53 + 1])
@pytest.mark.parametrize("category", [0, -1, 2**53 + 1])
def test_any_integer_is_an_id(image, category):
    """hotcoco by itself takes no negative ids, and rounds large ones."""
    pytest.importorskip("hotcoco")
    content = {
        "images": [{"id": image, "width": 50.5, "height": 50}, {"id": image + 1, "width": 50, "height": 50}],
        "categories": [{"id": category, "name": "a"}, {"id": category + 1, "name": "b"}],
        "annotations": [{"image_id": image, "category_id": category + 1, "bbox": [1, 1, 10, 10]}],
    }
    found = Found(np.array([image]), np.array([category + 1]), np.array([[1.0, 1, 10, 9]]), np.array([0.5]))
    exact, fast = (
        score(backend, read_ground_truth(content), found, [category, category + 1])
        for backend in ("pycocotools", "hotcoco")
    )
    assert np.array_equal(exact.precision, fast.precision) and np.array_equal(exact.recall, fast.recall)
    assert fast.recall[0, :, 0, 2].tolist() == [-1.0, 1.0]


def test_detections_beyond_the_limit():
    ids = np.repeat([1, 1, 2, 7], [103, 5, 101, 100])
    categories = np.repeat([5, 2, 5, 2], [103, 5, 101, 100])
    order = np.random.default_rng(0).permutation(len(ids))
    found = Found(ids[order], categories[order], np.zeros((len(ids), 4)), np.zeros(len(ids)))
    assert found.beyond(100) == 3 + 1
    assert found.beyond(1000) == 0 and found.beyond(0) == len(ids)
    assert Found(ids[:0], ids[:0], np.zeros((0, 4)), np.zeros(0)).beyond(100) == 0


def test_auto_takes_hotcoco_where_it_works(monkeypatch):
    class New:
        from_arrays = None

    for module, expected in (
        (SimpleNamespace(COCO=New), "hotcoco"),
        (SimpleNamespace(COCO=object), "pycocotools"),  # of an old version
        (SimpleNamespace(), "pycocotools"),  # broken: importing from it fails
        (None, "pycocotools"),  # not installed
    ):
        monkeypatch.setitem(sys.modules, "hotcoco", module)
        assert choose_backend("auto") == expected and choose_backend("pycocotools") == "pycocotools"
    with pytest.raises(ConfigError, match="Unknown evaluation backend 'tide'; choose one of auto, pycocotools"):
        choose_backend("tide")
