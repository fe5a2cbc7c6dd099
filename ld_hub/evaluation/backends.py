"""The scorers: pycocotools, whose numbers count, and hotcoco, which computes the same ones faster."""

from __future__ import annotations

import contextlib
import io
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ld_hub.errors import ConfigError

BACKENDS = ("pycocotools", "hotcoco")
Rows = list[dict[str, Any]]


class Curves(NamedTuple):
    """A scorer's arrays; -1 marks entries without ground truth. Axes as in `metrics.summarize`."""

    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]


def check_backend(backend: str) -> None:
    """Make sure a scorer exists and is installed.

    Raises:
        ConfigError: If not.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"Unknown evaluation backend '{backend}'; choose one of {', '.join(BACKENDS)}.")
    if backend == "hotcoco":
        try:
            import hotcoco  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                "backend='hotcoco' needs the package hotcoco: pip install 'ld_hub[fast-eval]', "
                "or leave the backend at 'pycocotools'."
            ) from error


def score(
    backend: str, content: dict[str, Any], detections: Rows, image_ids: list[int], category_ids: list[int]
) -> Curves:
    """Run a scorer on boxes.

    Args:
        backend: One of `BACKENDS`.
        content: Images, categories and annotations in COCO form, ids distinct and above 0; it may be changed.
        detections: Rows of a COCO results file.
        image_ids: Images to score, sorted.
        category_ids: Categories to score, sorted; they order the class axis.
    """
    run = _score_pycocotools if backend == "pycocotools" else _score_hotcoco
    with contextlib.redirect_stdout(io.StringIO()):  # both print their progress
        return run(content, detections, image_ids, category_ids)


def _score_pycocotools(
    content: dict[str, Any], detections: Rows, image_ids: list[int], category_ids: list[int]
) -> Curves:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = COCO(), COCO()
    truth.dataset = content
    # As COCO.loadRes does, which fails on an empty list.
    found.dataset = {
        "images": content["images"],
        "categories": content["categories"],
        "annotations": [
            {**row, "id": k, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
            for k, row in enumerate(detections, start=1)
        ],
    }
    truth.createIndex()
    found.createIndex()
    run = COCOeval(truth, found, "bbox")
    run.params.imgIds, run.params.catIds = image_ids, category_ids
    run.evaluate()
    run.accumulate()
    return Curves(run.eval["precision"], run.eval["recall"])


def _score_hotcoco(content: dict[str, Any], detections: Rows, image_ids: list[int], category_ids: list[int]) -> Curves:
    import hotcoco

    truth = hotcoco.COCO(content)
    run = hotcoco.COCOeval(truth, truth.load_res(detections), "bbox")
    run.params.img_ids, run.params.cat_ids = image_ids, category_ids
    run.evaluate()
    run.accumulate()
    arrays: dict[str, Any] = run.eval or {}
    return Curves(np.asarray(arrays["precision"]), np.asarray(arrays["recall"]))
