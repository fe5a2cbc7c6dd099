"""What is in a dataset, and what is wrong with it, before a training run finds out."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ld_hub.data.annotations import Bools, CocoFile, Floats
from ld_hub.data.checks import Problem, Repair, bad_boxes, box_corners, clip_boxes, image_rows, name_some
from ld_hub.data.detection_set import DetectionSet
from ld_hub.data.layouts import find_source
from ld_hub.data.reading import Reading
from ld_hub.data.source import read_sizes, tracked
from ld_hub.errors import LdHubError
from ld_hub.preprocessing import load_image, resize_shape

WIDTH = 80
_SAMPLE = 100  # images whose headers are read in any case
FEW = 20  # boxes of a class below which its AP says little
# 41 % of COCO's objects are below 32 x 32 px, which the resize to 800 x 1333 makes boxes of about 64 x 64 px: the
# published smallest anchors (scale 8, stride 8). The hint keeps that share of boxes below the smallest anchor.
_SHARE_BELOW, _SMALLEST_STRIDE = 0.41, 8
_SCALES = np.array([1, 1.5, 2, 3, 4, 6, 8, 12, 16])


@dataclass(frozen=True)
class Report:
    """What `doctor` found.

    Attributes:
        annotation_file: The file read; of VOC and YOLO, the directory and its parts.
        image_dir: Where its images are.
        images: Number of images.
        boxes: Number of boxes.
        empty: Images without any box.
        crowds: Boxes flagged as crowds.
        sizes: Boxes by COCO's areas: ``small`` < 32², ``medium``, ``large`` > 96² px.
        per_class: Boxes of each class name, crowds not counted.
        left_out: Boxes that training would leave out, by reason.
        problems: Everything that keeps the dataset from being used.
        notes: Remarks that do not.
        anchor_scale: Suggested anchor scale for the usual strides 8..128.
        image_size: The size that suggestion is for.
        checked: Images opened.
        repairs: What is put right on reading.
    """

    annotation_file: str
    image_dir: str
    images: int
    boxes: int
    empty: int
    crowds: int
    sizes: dict[str, int]
    per_class: dict[str, int]
    left_out: dict[str, int]
    problems: tuple[Problem, ...]
    anchor_scale: float | None
    image_size: tuple[int, int]
    checked: int = 0
    notes: tuple[str, ...] = field(default_factory=tuple)
    repairs: tuple[Repair, ...] = ()

    @property
    def healthy(self) -> bool:
        """No problem that keeps the dataset from being used."""
        return not self.problems

    def table(self) -> str:
        """The report as text of 80 columns."""
        lines = [_row("annotations", self.annotation_file), _row("images in", self.image_dir)]
        lines.append(_row("images", f"{self.images}, {self.empty} without boxes"))
        lines.append(_row("boxes", f"{self.boxes}, {self.crowds} crowds"))
        total = max(sum(self.sizes.values()), 1)
        shares = ", ".join(f"{name} {count} ({count / total:.0%})" for name, count in self.sizes.items())
        lines.append(_row("box areas", shares))
        for reason, count in self.left_out.items():
            lines.append(_row("left out", f"{count} box{'' if count == 1 else 'es'} {reason}"))
        if self.anchor_scale is not None:
            at = f"{self.image_size[0]} x {self.image_size[1]} px"
            lines.append(_row("anchor_scale", f"about {self.anchor_scale:g} fits these boxes at {at} (published: 8)"))
        if self.checked:
            lines.append(_row("images opened", str(self.checked)))
        lines += ["-" * WIDTH, *_class_columns(self.per_class), "-" * WIDTH]
        for repair in self.repairs:
            lines += _wrap(f"repaired: {repair.message}")
        for note in self.notes:
            lines += _wrap(f"note: {note}")
        for problem in self.problems:
            lines += _wrap(f"problem: {problem.kind} ({problem.count}): {problem.message}")
        count = len(self.problems)
        lines.append(f"{count} kind{'s' if count > 1 else ''} of problems." if count else "No problems.")
        return "\n".join(lines)


def doctor(
    data: DetectionSet | str | Path | None,
    split: str = "train",
    *,
    images: str | Path | None = None,
    annotations: str | Path | None = None,
    check_images: bool = False,
    image_size: tuple[int, int] = (800, 1333),
    reading: Reading | None = None,
) -> Report:
    """Examine a dataset in any layout of `load_data`; unlike that, goes on after the first fault.

    Args:
        data: A data directory, or a dataset that was read from one; None where both paths are given.
        split: ``"train"`` or ``"val"``, below the directory.
        images: Image directory, where it is not found by itself.
        annotations: Annotation file, where it is not found by itself.
        check_images: Open every image: finds damaged files and wrong sizes, takes a while. Without it, the sizes of
            some images are compared with those that are declared.
        image_size: `DataConfig.image_size` the model will be trained at; the anchor hint depends on it.
        reading: How loosely data are read; see `load_data`.

    Raises:
        MissingFileError: If there is no data to be found.
        DataError: If the annotation file cannot be read at all.
    """
    if isinstance(data, DetectionSet):
        images, annotations, data = data.image_dir, data.annotation_file, None
    source = find_source(data, split, images=images, annotations=annotations, reading=reading)
    coco, image_dir = source.coco, source.image_dir
    problems = source.all_problems()
    problems += _damaged(coco, image_dir) if check_images else _other_sizes(coco, image_dir)
    reasons = bad_boxes(coco)
    good = (image_rows(coco) >= 0) & np.isfinite(coco.boxes).all(axis=1) & ~np.any(list(reasons.values()), axis=0)
    areas = coco.areas[good]
    counts = {name: 0 for name in coco.label_names}
    for number, name in zip(coco.category_ids, coco.label_names, strict=True):
        counts[name] += int(((coco.category_of == number) & good & ~coco.crowd).sum())
    return Report(
        annotation_file=source.parts,
        image_dir=os.fspath(image_dir),
        images=len(coco.image_ids),
        boxes=len(coco.ids),
        empty=len(coco.image_ids) - len(np.intersect1d(coco.image_ids, coco.image_of[good])),
        crowds=int(coco.crowd.sum()),
        sizes={
            "small": int((areas < 32**2).sum()),
            "medium": int(((areas >= 32**2) & (areas <= 96**2)).sum()),
            "large": int((areas > 96**2).sum()),
        },
        per_class=counts,
        left_out={reason: int(mask.sum()) for reason, mask in reasons.items() if mask.any()},
        problems=tuple(problems),
        anchor_scale=_anchor_scale(coco, good & ~coco.crowd, image_size),
        image_size=image_size,
        checked=len(coco.file_names) if check_images else 0,
        notes=(*source.remarks, *source.notes, *_notes(coco, counts, good)),
        repairs=source.repairs,
    )


def _anchor_scale(coco: CocoFile, good: Bools, image_size: tuple[int, int]) -> float | None:
    """The scale that has as many boxes below its smallest anchors as the published one has on COCO."""
    if not good.any() or (coco.sizes < 1).any():
        return None
    boxes: Floats = clip_boxes(coco)[good]
    rows = image_rows(coco)[good]
    zoom = np.array([resize_shape(h, w, image_size)[0] / h for h, w in coco.sizes.tolist()])[rows]
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])) * zoom
    scale = max(float(np.quantile(sides, _SHARE_BELOW)) / _SMALLEST_STRIDE, 1e-3)
    return float(_SCALES[np.argmin(np.abs(np.log(_SCALES / scale)))])


def _other_sizes(coco: CocoFile, image_dir: Path) -> list[Problem]:
    """Images of a sample that are not of their declared size; those without or with a broken header are left aside."""
    rows = np.unique(np.linspace(0, max(len(coco.file_names) - 1, 0), _SAMPLE).round().astype(int))[: len(coco.sizes)]
    names = [coco.file_names[k] for k in rows.tolist()]
    faults = []
    for row, name, size in zip(rows.tolist(), names, read_sizes([image_dir / n for n in names], "sizes"), strict=True):
        declared = (int(coco.sizes[row, 1]), int(coco.sizes[row, 0]))
        if not isinstance(size, LdHubError) and size != declared:
            try:
                load_image(image_dir / name, size=declared)  # which knows of images that lie on their side
            except LdHubError as error:
                faults.append(str(error))
    if not faults:
        return []
    text = (
        f"of {len(names)} images looked at, {len(faults)}: {' '.join(faults[:3])}{'' if len(faults) <= 3 else ' ...'}"
    )
    return [Problem("other sizes", len(faults), text)]


def _damaged(coco: CocoFile, image_dir: Path) -> list[Problem]:
    faults: list[str] = []
    images = list(zip(coco.file_names, coco.sizes.tolist(), strict=True))
    for name, (height, width) in tracked(images, "opening images"):
        path = image_dir / name
        if not path.exists():
            continue  # already reported as missing
        try:
            load_image(path, size=(width, height))
        except LdHubError as error:
            faults.append(str(error))
    if not faults:
        return []
    return [Problem("damaged images", len(faults), " ".join(faults[:5]) + ("" if len(faults) <= 5 else " ..."))]


def _notes(coco: CocoFile, counts: dict[str, int], good: Bools) -> list[str]:
    notes = []
    few = [f"{name} ({count})" for name, count in counts.items() if count < FEW]
    if few:
        notes.append(f"classes with fewer than {FEW} boxes: {name_some(few, 12)}.")
    if (coco.ids == 0).any():
        notes.append(
            "annotation id 0 exists. pycocotools takes id 0 for 'no match', so that box counts as never found; "
            "number the annotations from 1."
        )
    clipped = int((np.abs(box_corners(coco) - clip_boxes(coco))[good] > 1).any(axis=1).sum())
    if clipped:
        notes.append(f"boxes that reach more than 1 px beyond their image: {clipped}. Training clips them.")
    twice = [name for name, count in Counter(coco.file_names).items() if count > 1]
    if twice:
        notes.append(f"images listed more than once: {name_some(twice)}. They count as often in AP.")
    return notes


def _row(name: str, value: str) -> str:
    room = WIDTH - 16
    return f"{name:<15} {value if len(value) <= room else '...' + value[3 - room :]}"


def _class_columns(counts: dict[str, int]) -> list[str]:
    """Classes and their boxes, most frequent first, in three columns."""
    cells = [f"{name[:17]:<17}{count:>8}" for name, count in sorted(counts.items(), key=lambda item: -item[1])]
    height = -(-len(cells) // 3)
    return ["  ".join(cells[row::height]).rstrip() for row in range(height)]


def _wrap(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
