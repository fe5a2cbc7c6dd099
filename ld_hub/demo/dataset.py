"""The demo dataset: made on the spot, in COCO format, the same for the same seed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ld_hub.demo.scene import CLASSES, MIN_VISIBLE_PIXELS, VISIBLE, Scene, paint_scene
from ld_hub.errors import ConfigError, DataError
from ld_hub.hub.files import atomic_write, new_directory
from ld_hub.structures import AnnotationRow, ImageFileRow

_VERSION = 1  # raise when the pictures change, so that old directories are not taken for new ones
_MAKER = "ld_hub demo"
_RULE = (
    f"A box is the smallest around the pixels that an object fills by at least {VISIBLE:g}, after what hides it; those "
    f"with fewer than {MIN_VISIBLE_PIXELS} such pixels are not annotated. Areas count these pixels."
)


def make_demo_dataset(
    out_dir: str | Path,
    *,
    train_images: int = 1500,
    val_images: int = 300,
    image_size: int = 128,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make a small detection dataset of textured scenes, without any download.

    Each image holds up to six overlapping objects of six classes on one of several backgrounds, with soft, fading and
    partly hidden edges. Image i depends on (`seed`, split, i) alone. A directory that already holds the same dataset is
    left as it is.

    Args:
        out_dir: Directory to make: ``train/``, ``val/`` and ``annotations/instances_{train,val}.json``.
        train_images: Number of training images.
        val_images: Number of validation images.
        image_size: Side of the images in px, at least 32.
        seed: Other seeds give other images.
        progress: Called with the number of images done and the total.

    Returns:
        `out_dir`.

    Raises:
        ConfigError: If a number makes no sense.
        DataError: If `out_dir` holds something else.
    """
    least = {"train_images": 1, "val_images": 1, "image_size": 32, "seed": 0}
    given = {"train_images": train_images, "val_images": val_images, "image_size": image_size, "seed": seed}
    for name, value in given.items():
        if value < least[name]:
            raise ConfigError(f"{name} must be at least {least[name]}, got {value}.")
    out = Path(out_dir).expanduser()
    counts = {"train": train_images, "val": val_images}
    made_with = {"version": _VERSION, "seed": seed, "image_size": image_size, **counts}
    if _is_there(out, made_with):
        return out
    step = _steps(sum(counts.values()), progress)
    with new_directory(out) as draft:
        for name, count in counts.items():
            _write_split(draft, name, count, made_with, step)
    return out


def _steps(total: int, progress: Callable[[int, int], None] | None) -> Callable[[], None]:
    """What is called after each image; tells `progress` how many are done."""
    numbers = itertools.count(1)

    def step() -> None:
        done = next(numbers)
        if progress is not None:
            progress(done, total)

    return step


def demo_scene(index: int, *, split: str = "train", image_size: int = 128, seed: int = 0) -> Scene:
    """Image number `index` of a demo dataset, painted anew.

    Args:
        index: From 0.
        split: ``"train"`` or ``"val"``.
        image_size: Side in px.
        seed: Seed of the dataset.
    """
    key = (seed, ("train", "val").index(split), index)
    return paint_scene(np.random.Generator(np.random.Philox(np.random.SeedSequence(key))), image_size)


def _is_there(out: Path, made_with: dict[str, int]) -> bool:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        info = json.loads((out / "annotations" / "instances_train.json").read_bytes())["info"]
        if info["description"] == _MAKER and info["made_with"] == made_with:
            return True
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{out} exists and is not this demo dataset; remove it or choose another directory.")


def _write_split(root: Path, name: str, count: int, made_with: dict[str, int], step: Callable[[], None]) -> None:
    folder = root / name
    folder.mkdir()
    images: list[ImageFileRow] = []
    annotations: list[AnnotationRow] = []
    side = made_with["image_size"]
    for index in range(count):
        scene = demo_scene(index, split=name, image_size=side, seed=made_with["seed"])
        image_id, file = index + 1, f"{index + 1:06d}.jpg"
        Image.fromarray(scene.pixels).save(folder / file, quality=90)
        images.append({"id": image_id, "file_name": file, "width": side, "height": side})
        for (x1, y1, x2, y2), label, area in zip(
            scene.boxes.tolist(), scene.labels.tolist(), scene.areas.tolist(), strict=True
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": area,
                    "iscrowd": 0,
                }
            )
        step()
    content = {
        "info": {"description": _MAKER, "made_with": made_with, "boxes": _RULE},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": label} for i, label in enumerate(CLASSES)],
    }
    atomic_write(root / "annotations" / f"instances_{name}.json", json.dumps(content))
