"""The scorers: pycocotools, whose numbers count, and hotcoco, which computes the same ones faster."""

from __future__ import annotations

import contextlib
import io
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ld_hub.errors import ConfigError
from ld_hub.evaluation.found import Found
from ld_hub.evaluation.ground_truth import GroundTruth

Column = Literal["id", "image_id", "category_id", "bbox", "area", "iscrowd"]
BACKENDS = ("pycocotools", "hotcoco")


class Curves(NamedTuple):
    """A scorer's arrays; -1 marks entries without ground truth. Axes as in `metrics.summarize`."""

    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]


def choose_backend(backend: str) -> str:
    """The scorer that a setting stands for.

    Args:
        backend: One of `BACKENDS`, or ``"auto"``: hotcoco where it works.

    Raises:
        ConfigError: If there is no such scorer, or hotcoco does not work here.
    """
    if backend == "auto":
        return "hotcoco" if _has_hotcoco() else "pycocotools"
    if backend not in BACKENDS:
        raise ConfigError(f"Unknown evaluation backend '{backend}'; choose one of auto, {', '.join(BACKENDS)}.")
    if backend == "hotcoco" and not _has_hotcoco():
        raise ConfigError(
            "backend='hotcoco' needs the package hotcoco: pip install 'ld_hub[fast-eval]', "
            "or leave the backend at 'auto'."
        )
    return backend


def _has_hotcoco() -> bool:
    """Whether there is a hotcoco that works and is new enough: better known before an evaluation than after it."""
    try:
        from hotcoco import COCO
    except ImportError:
        return False
    return hasattr(COCO, "from_arrays")


def score(backend: str, truth: GroundTruth, found: Found, category_ids: list[int]) -> Curves:
    """Run a scorer on boxes.

    Args:
        backend: One of `BACKENDS`.
        truth: Boxes of all images to score.
        found: Detections on them.
        category_ids: Categories to score, sorted; they order the class axis.
    """
    run = _score_pycocotools if backend == "pycocotools" else _score_hotcoco
    with contextlib.redirect_stdout(io.StringIO()):  # both print their progress
        return run(truth, found, category_ids)


def _score_pycocotools(truth: GroundTruth, found: Found, category_ids: list[int]) -> Curves:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    boxes, detections = COCO(), COCO()
    head = {"images": truth.images, "categories": truth.categories}
    boxes.dataset = {**head, "annotations": [dict(row) for row in truth.annotations]}  # it writes into them
    # As COCO.loadRes does, which fails on an empty list.
    rows = [
        {**row, "id": k, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
        for k, row in enumerate(found.rows(), start=1)
    ]
    detections.dataset = {**head, "annotations": rows}
    boxes.createIndex()
    detections.createIndex()
    run = COCOeval(boxes, detections, "bbox")
    run.params.imgIds, run.params.catIds = sorted(truth.image_ids), category_ids
    run.evaluate()
    run.accumulate()
    return Curves(run.eval["precision"], run.eval["recall"])


def _score_hotcoco(truth: GroundTruth, found: Found, category_ids: list[int]) -> Curves:
    import hotcoco

    def column(name: Column, kind: type = int) -> npt.NDArray[Any]:
        return np.array([row[name] for row in truth.annotations], dtype=kind)

    # It takes no negative ids, and detections as floats, which do not hold every integer: hence places for ids.
    images, categories = (np.array([row["id"] for row in rows]) for rows in (truth.images, truth.categories))
    image, category = np.searchsorted(images, found.image_ids), np.searchsorted(categories, found.category_ids)
    boxes = hotcoco.COCO.from_arrays(
        images=[{"id": place, "width": 0, "height": 0} for place in range(len(images))],  # it refuses broken sizes
        categories=[{"id": place, "name": str(place)} for place in range(len(categories))],
        image_ids=np.searchsorted(images, column("image_id")),
        category_ids=np.searchsorted(categories, column("category_id")),
        boxes=column("bbox", float).reshape(-1, 4),
        ids=column("id"),
        area=column("area", float),
        iscrowd=column("iscrowd"),
    )
    run = hotcoco.COCOeval(boxes, boxes.load_res(np.column_stack([image, found.boxes, found.scores, category])), "bbox")
    run.params.img_ids = list(range(len(images)))
    run.params.cat_ids = np.searchsorted(categories, category_ids).tolist()
    run.evaluate()
    run.accumulate()
    arrays = run.eval or {}
    return Curves(np.asarray(arrays["precision"]), np.asarray(arrays["recall"]))
