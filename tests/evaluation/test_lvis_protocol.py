"""LVIS' average precision against a plain loop after the paper's definition, and against COCO's on full labels."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ld_hub.errors import DataError, EvaluationError
from ld_hub.evaluation import DetectionEvaluator, DetectionMetrics
from ld_hub.evaluation.agreement import score_detections
from ld_hub.hub.card_file import METRICS
from ld_hub.hub.evidence import LVIS_NAMES
from ld_hub.structures import Detections

IDS, FREQUENCY = (5, 2, 9, 7), {5: "r", 2: "f", 9: "c", 7: "f"}
NAMES = tuple(f"c{number}" for number in IDS)
AREAS = {"": (0, 1e10), "s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}


def draw(seed: int, *, everything: bool = False) -> tuple[dict, list[dict]]:
    """Images with boxes of some categories, others looked for in vain, others not; sizes on the edges of the areas."""
    random = np.random.default_rng(seed)
    sides = [8.0, 30.0, 32.0, 34.0, 96.0, 100.0]
    images, annotations, rows = [], [], []
    for number in sorted(random.choice(90, 7, replace=False).tolist()):
        count = int(random.integers(0, 7))
        boxes = np.column_stack([random.integers(0, 60, (count, 2)), random.choice(sides, (count, 2))])
        categories = random.choice(IDS[:3], count)
        for box, category in zip(boxes.tolist(), categories.tolist(), strict=True):
            annotations.append({"image_id": number, "category_id": category, "bbox": box, "area": box[2] * box[3]})
        absent = sorted(set(IDS) - set(categories.tolist()))
        several = [c for c in absent if everything or random.random() < 0.5]
        some = [] if everything else [c for c in set(categories.tolist()) if random.random() < 0.4]
        images.append({"id": number, "width": 200, "height": 200, "neg_category_ids": several,
                       "not_exhaustive_category_ids": some})  # fmt: skip
        near = boxes[random.integers(0, count, 3 * count)] if count else boxes
        far = np.column_stack([random.integers(0, 60, (4, 2)), random.choice(sides, (4, 2))])
        labels = random.choice(IDS, len(near) + 4)
        if count:
            right = random.integers(0, count, len(near))
            near, labels[: len(near)] = boxes[right], categories[right]
        for guess, category in zip([*(near + random.choice([-3, 0, 0, 1], near.shape)), *far], labels, strict=True):
            box = [float(side) for side in [*guess[:2], *np.maximum(guess[2:], 1)]]
            score = float(random.choice([0.2, 0.5, 0.5, 0.8]) if seed % 2 else random.random())
            rows.append({"image_id": number, "category_id": int(category), "bbox": box, "score": score})
    for k, row in enumerate(annotations, start=1):
        row.update(id=k, iscrowd=0)
    categories = [{"id": number, "name": f"c{number}", "frequency": FREQUENCY[number]} for number in IDS]
    return {"images": images, "categories": categories, "annotations": annotations}, rows


def iou(one: Sequence[float], other: Sequence[float]) -> float:
    wide = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    high = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    common = max(wide, 0) * max(high, 0)
    return common / (one[2] * one[3] + other[2] * other[3] - common)


def judge(mine: list[dict], found: list[dict], threshold: float, area: tuple, complete: bool) -> list[tuple]:
    """Score and verdict of the detections of a class on an image that somebody looked at; those that count."""
    judged = []
    fits = {a["id"]: area[0] <= a["area"] <= area[1] for a in mine}
    free = {a["id"]: a for a in mine}
    for row in sorted(found, key=lambda r: -r["score"]):
        near = [(iou(row["bbox"], a["bbox"]), k, a["id"]) for k, a in enumerate(free.values())]
        near = [pair for pair in near if pair[0] >= threshold]
        # boxes of another size are taken only by what finds no right one
        best = max((p for p in near if fits[p[2]]), default=None) or max(near, default=None)
        if best:
            del free[best[2]]
            if fits[best[2]]:
                judged.append((row["score"], True))
        elif complete and area[0] <= row["bbox"][2] * row["bbox"][3] <= area[1]:
            judged.append((row["score"], False))
    return judged


def plain(content: dict, rows: list[dict], category: int, threshold: float, area: tuple) -> tuple | None:
    """AP and recall of one class, one image and one detection after the other; None without boxes to find."""
    judged, positives = [], 0
    for image in content["images"]:
        mine = [a for a in content["annotations"] if (a["image_id"], a["category_id"]) == (image["id"], category)]
        if mine or category in image["neg_category_ids"]:
            positives += sum(area[0] <= a["area"] <= area[1] for a in mine)
            found = [r for r in rows if (r["image_id"], r["category_id"]) == (image["id"], category)]
            complete = category not in image["not_exhaustive_category_ids"]
            judged += judge(mine, found, threshold, area, complete)
    if not positives:
        return None
    right, curve = 0, []
    for k, (_, correct) in enumerate(sorted(judged, key=lambda each: -each[0]), start=1):
        right += correct
        curve.append((right / positives, right / k))
    levels = np.linspace(0, 1, 101)
    return np.mean([max((p for r, p in curve if r >= level), default=0.0) for level in levels]), right / positives


def plain_stats(content: dict, rows: list[dict]) -> dict[str, float | None]:
    """The 13 numbers from `plain`."""
    table = {
        (c, k, size): plain(content, rows, c, threshold, area)
        for c in IDS
        for k, threshold in enumerate(np.linspace(0.5, 0.95, 10))
        for size, area in AREAS.items()
    }

    def mean(which: int = 0, size: str = "", steps: Sequence[int] = range(10), letters: str = "rcf") -> float | None:
        cells = [table[c, k, size] for c in IDS for k in steps if FREQUENCY[c] in letters]
        values = [cell[which] for cell in cells if cell is not None]
        return float(np.mean(values)) if values else None

    stats = {"AP": mean(), "AP50": mean(steps=[0]), "AP75": mean(steps=[5])}
    stats |= {f"AP{size}": mean(size=size) for size in "sml"} | {
        f"AP{letter}": mean(letters=letter) for letter in "rcf"
    }
    return stats | {"AR300": mean(1)} | {f"AR{size}": mean(1, size) for size in "sml"}


def score(content: dict, rows: list[dict], protocol: str = "lvis") -> DetectionMetrics:
    evaluator = DetectionEvaluator(content, category_ids=IDS, label_names=NAMES, protocol=protocol)
    for image in content["images"]:
        mine = [row for row in rows if row["image_id"] == image["id"]]
        boxes = torch.tensor([row["bbox"] for row in mine], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor([IDS.index(row["category_id"]) for row in mine], dtype=torch.int64)
        scores = torch.tensor([row["score"] for row in mine], dtype=torch.float64)
        evaluator.update([image["id"]], [Detections(boxes, scores, labels, NAMES)])
    return evaluator.compute()


@pytest.mark.parametrize("seed", range(12))
def test_numbers_are_those_of_a_plain_loop(seed: int) -> None:
    content, rows = draw(seed)
    metrics, expected = score(content, rows), plain_stats(content, rows)
    assert tuple(metrics.stats) == LVIS_NAMES == tuple(expected)
    assert metrics.stats == {name: pytest.approx(value, abs=1e-12) for name, value in expected.items()}
    assert 0 < metrics["AP"] < 1 and metrics["AP"] != score(content, rows, "coco")["AP"]


@pytest.mark.parametrize("seed", range(6))
def test_where_everything_was_looked_for_everywhere_the_numbers_are_cocos(seed: int) -> None:
    content, rows = draw(seed, everything=True)
    for k, row in enumerate(content["annotations"]):
        row["iscrowd"] = int(k % 7 == 3)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {**content, "annotations": [dict(row) for row in content["annotations"]]}
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes([dict(row) for row in rows]), "bbox")
        run.params.maxDets = [1, 10, 300]
        run.evaluate()
        run.accumulate()
    precision, recall = run.eval["precision"][..., 2], run.eval["recall"][..., 2]
    parts = [precision[..., 0], precision[0, ..., 0], precision[5, ..., 0], *(precision[..., k] for k in (1, 2, 3))]
    parts += [precision[:, :, [k for k, c in enumerate(sorted(IDS)) if FREQUENCY[c] == f], 0] for f in "rcf"]
    parts += [recall[..., k] for k in range(4)]
    means = [part[part > -1].mean() if (part > -1).any() else None for part in parts]
    metrics = score(content, rows)
    assert list(metrics.stats.values()) == [pytest.approx(value, abs=1e-12) for value in means]
    assert metrics["AP"] == pytest.approx(score(content, rows, "coco")["AP"], abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_numbers_are_those_of_hotcoco(seed: int) -> None:
    hotcoco = pytest.importorskip("hotcoco")
    content, rows = draw(seed)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = hotcoco.COCO(content)
        run = hotcoco.COCOeval(truth, truth.load_res(rows), "bbox", lvis_style=True)
        run.run()
    theirs = run.get_results()
    names = {name: "AR@300" if name == "AR300" else f"{name}@300" if name[:2] == "AR" else name for name in LVIS_NAMES}
    expected = {ours: theirs[name] for ours, name in names.items()}
    assert {name: -1 if value is None else value for name, value in score(content, rows).stats.items()} == {
        name: pytest.approx(value, abs=1e-9) for name, value in expected.items()
    }


A, B = [0.0, 0.0, 100.0, 100.0], [100.0, 100.0, 50.0, 50.0]


def one_image(guesses: list[tuple[list[float], float, int]], **lists: list[int]) -> DetectionMetrics:
    """One image with a box of category 5; guesses (xywh, score, category)."""
    image = {"id": 3, "width": 200, "height": 200, "neg_category_ids": [], "not_exhaustive_category_ids": [], **lists}
    content = {
        "images": [image],
        "categories": [{"id": number, "name": f"c{number}", "frequency": FREQUENCY[number]} for number in IDS],
        "annotations": [{"image_id": 3, "category_id": 5, "bbox": A}],
    }
    rows = [{"image_id": 3, "category_id": c, "bbox": box, "score": s} for box, s, c in guesses]
    return score(content, rows)


def test_by_hand() -> None:
    wrong_first = [(B, 0.9, 5), (A, 0.8, 5)]
    assert one_image(wrong_first)["AP"] == pytest.approx(1 / 2)
    assert one_image(wrong_first, not_exhaustive_category_ids=[5])["AP"] == pytest.approx(1)
    assert one_image(wrong_first, not_exhaustive_category_ids=[2])["AP"] == pytest.approx(1 / 2)
    metrics = one_image([(A, 0.8, 5)])
    assert (metrics["APr"], metrics["APc"], metrics["APf"], metrics["AR300"]) == (1.0, None, None, 1.0)
    assert "LVIS" in metrics.table() and metrics.per_class == {"c5": 1.0, "c2": None, "c9": None, "c7": None}


def test_300_detections_of_an_image_count_whatever_their_class() -> None:
    """They are chosen before those are left out that nobody looked for."""
    others = [(B, 0.9, 2)] * 299
    for many, found in ((others, 1.0), ([*others, (B, 0.9, 7)], 0.0)):
        metrics = one_image([*many, (A, 0.8, 5)])
        assert metrics["AP"] == found and metrics.not_counted == len(many) - 299
    assert "1 detections were not counted: LVIS counts the 300 best of each image" in metrics.table()


def test_files_without_the_fields_are_refused() -> None:
    content, rows = draw(0)
    del content["images"][2]["neg_category_ids"]
    with pytest.raises(
        EvaluationError, match=rf"1 of 7 images have no 'neg_category_ids'.*{content['images'][2]['id']}"
    ):
        score(content, rows)
    content["images"][2]["neg_category_ids"] = [1.5]
    with pytest.raises(DataError, match=r"'neg_category_ids' of image id \d+ is \[1.5\]"):
        score(content, rows)


def test_results_files_and_cards_know_the_protocol(tmp_path) -> None:
    content, rows = draw(4)
    assert score_detections(rows, content, IDS, NAMES, "lvis").stats == score(content, rows).stats
    assert set(METRICS["lvis"]) < set(LVIS_NAMES) and METRICS["lvis"]["APr"] == "lvis_map_rare"
