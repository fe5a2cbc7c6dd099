"""VOC and YOLO directories as tests write them: by hand, not by the library's own writers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

OBJECT = """
  <object><name>{}</name><pose>Left</pose><difficult>{}</difficult>
    <bndbox><xmax>{}</xmax><xmin>{}</xmin><ymax>{}</ymax><ymin>{}</ymin></bndbox>
    <part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>
  </object>"""


def picture(path: Path, width: int = 60, height: int = 40) -> Path:
    """A grey picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, dtype=np.uint8)).save(path)
    return path


def voc_image(
    folder: Path,
    stem: str,
    objects: Sequence[tuple[str, int, tuple[float, float, float, float]]] = (),
    size: tuple[int, int] = (60, 40),
    *,
    with_size: bool = True,
) -> Path:
    """Write an image and its XML; objects are name, difficult, (xmin, ymin, xmax, ymax)."""
    picture(folder / "JPEGImages" / f"{stem}.jpg", *size)
    (folder / "Annotations").mkdir(exist_ok=True)
    (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    width, height = size
    shape = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>" if with_size else ""
    inner = "".join(OBJECT.format(name, flag, b[2], b[0], b[3], b[1]) for name, flag, b in objects)
    file = folder / "Annotations" / f"{stem}.xml"
    file.write_text(f"<annotation>\n  <filename>{stem}.jpg</filename>{shape}{inner}\n</annotation>\n")
    return file


def voc_list(folder: Path, part: str, *stems: str) -> None:
    """Write a list of images."""
    (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    (folder / "ImageSets" / "Main" / f"{part}.txt").write_text("".join(f"{stem}\n" for stem in stems))


def voc_year(folder: Path, test: bool, first: int = 1) -> Path:
    """Six images, one difficult object; two are train, one val, with `test` three are tested on."""
    stems = [f"{folder.name[3:]}_{first + k:06d}" for k in range(6 if test else 3)]
    for k, stem in enumerate(stems):
        objects = [("dog", 0, (1, 1, 60, 40)), ("person", int(k % 3 == 0), (5 + k, 6, 20 + k, 30))]
        voc_image(folder, stem, objects)
    voc_list(folder, "train", *stems[:2])
    voc_list(folder, "val", stems[2])
    voc_list(folder, "trainval", *stems[:3])
    voc_list(folder, "dog_trainval", *(f"{stem}  1" for stem in stems[:3]))
    if test:
        voc_list(folder, "test", *stems[3:])
    return folder


def voc_devkit(root: Path) -> Path:
    """VOC2007 with its test images, VOC2012 with the list of its test images alone, as they are published."""
    voc_year(root / "VOC2007", test=True)
    voc_list(voc_year(root / "VOC2012", test=False), "test", "2012_900001", "2012_900002")
    return root


def yolo_directory(root: Path, yaml: str | None = "train: images/train\nval: images/val\nnames: [cat, dog]\n") -> Path:
    """Two images to train on, one of them without a label file, and one to evaluate on."""
    picture(root / "images" / "train" / "a.png", 50, 40)
    picture(root / "images" / "train" / "deep" / "b.png", 64, 32)
    picture(root / "images" / "val" / "c.png", 20, 20)
    for name, text in (("train/a", "1 0.5 0.5 0.2 0.1\n\n0 0.25 0.5 0.5 1\n"), ("val/c", "0 0.5 0.5 1 1\n")):
        file = root / "labels" / f"{name}.txt"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    if yaml is not None:
        (root / "data.yaml").write_text(yaml)
    return root
