"""The page: images in, what each detector finds on them side by side, what differs between two, files to save."""

from __future__ import annotations

import html
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio
from PIL import Image

from ld_hub.app.columns import LOWEST, Column
from ld_hub.app.found_alone import differences
from ld_hub.drawing import draw_detections, save_picture, side_by_side
from ld_hub.preprocessing import load_image
from ld_hub.structures import Detections

THRESHOLD, NMS_IOU = 0.3, 0.6  # where sliders begin
ALONE, COMMON = (220, 30, 30), (150, 150, 150)  # colours of what one detector finds alone, and of what both find
NOBODY = "–"  # in place of a detector: no comparison
HEADS = ["found by", "class", "score", "x1", "y1", "x2", "y2"]
_STYLE = """
.gradio-container {max-width: 1400px !important}
@media (max-width: 600px) {.columns {flex-direction: column !important}}
"""


@dataclass(frozen=True)
class Seen:
    """What the page shows of an image.

    Attributes:
        found: Of each column.
        pictures: Drawn, of each column.
        rows: Of the table of differences.
    """

    found: tuple[Detections, ...]
    pictures: tuple[Image.Image, ...]
    rows: tuple[tuple[Any, ...], ...] = ()


def see(
    columns: Sequence[Column], image: Image.Image, threshold: float, nms_iou: float, pair: tuple[int, int] | None = None
) -> Seen:
    """Detect and draw.

    Args:
        columns: The detectors.
        image: RGB.
        threshold: Least score, exclusive, 0..1.
        nms_iou: Of the choice of boxes, 0..1.
        pair: Indices of two columns whose differences are marked; None marks none.
    """
    found = tuple(column.detect(image, threshold, nms_iou) for column in columns)
    if pair is None:
        return Seen(found, tuple(each.draw() for each in found))
    difference = differences(found[pair[0]], found[pair[1]])
    alone = {pair[0]: difference.first, pair[1]: difference.second}
    pictures = [_marked(each, image, alone[k]) if k in alone else each.draw() for k, each in enumerate(found)]
    rows = [_row(columns[k].title, found[k], index) for k in alone for index in alone[k]]
    return Seen(found, tuple(pictures), tuple(rows))


def _marked(found: Detections, image: Image.Image, alone: Sequence[int]) -> Image.Image:
    colors = [ALONE if k in alone else COMMON for k in range(len(found))]
    boxes, labels, scores = found.boxes.tolist(), found.labels.tolist(), found.scores.tolist()
    return draw_detections(image, boxes, labels, scores, label_names=found.label_names, colors=colors)


def _row(title: str, found: Detections, index: int) -> tuple[Any, ...]:
    name, score = found.label_names[int(found.labels[index])], round(float(found.scores[index]), 3)
    return (html.escape(title), html.escape(name), score, *(round(side, 1) for side in found.boxes[index].tolist()))


def files_of(columns: Sequence[Column], name: str, seen: Seen, folder: Path) -> tuple[str, str]:
    """Write what the page offers to save.

    Args:
        columns: The detectors.
        name: Of the image.
        seen: What was found on it.
        folder: Where to.

    Returns:
        Paths of ``detections.json`` (per detector what `Detections.to_list` gives) and ``detections.jpg``.
    """
    titles = [column.title for column in columns]
    content = {"image": name, "detections": {t: f.to_list() for t, f in zip(titles, seen.found, strict=True)}}
    text = folder / "detections.json"
    text.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    picture = seen.pictures[0] if len(columns) == 1 else side_by_side(seen.pictures, titles)
    return str(text), str(save_picture(picture, folder / "detections.jpg"))


def build(columns: Sequence[Column], examples: Sequence[str | Path] = ()) -> gradio.Blocks:
    """The page as a gradio app; `.launch()` serves it.

    Args:
        columns: The detectors, at least one.
        examples: Images that are there from the beginning.
    """
    titles = [column.title for column in columns]
    start = [str(path) for path in examples]

    def show(
        path: str | None, threshold: float, nms_iou: float, first: str | None = None, second: str | None = None
    ) -> list[Any]:
        if not path:
            return [None] * len(columns) + [[], None, None]
        pair = None
        if first in titles and second in titles and first != second:
            pair = titles.index(str(first)), titles.index(str(second))
        seen = see(columns, load_image(path), threshold, nms_iou, pair)
        folder = Path(tempfile.mkdtemp(prefix="ld_hub_app_"))
        return [*seen.pictures, [list(row) for row in seen.rows], *files_of(columns, Path(path).name, seen, folder)]

    def take(paths: list[str] | None) -> Any:
        choices = [(Path(path).name, path) for path in [*(paths or []), *start]]
        return gradio.update(choices=choices, value=choices[0][1] if choices else None)

    with gradio.Blocks(title="ld_hub", analytics_enabled=False) as page:
        gradio.HTML(f"<style>{_STYLE}</style>", visible=True, padding=False)
        gradio.Markdown("# What do they find?" if len(columns) > 1 else "# What does it find?")
        with gradio.Row(elem_classes="columns"):
            upload = gradio.File(label="images", file_count="multiple", file_types=["image"], height=120)
            inputs = _controls(columns, start)
        with gradio.Row(elem_classes="columns"):
            look = {"type": "pil", "interactive": False, "format": "png", "buttons": ["download", "fullscreen"]}
            pictures = [gradio.Image(label=title, **look) for title in titles]
        several = len(columns) > 1
        table = gradio.Dataframe(headers=HEADS, label="found by one alone", interactive=False, visible=several)
        with gradio.Row(elem_classes="columns"):
            saved = [gradio.File(label="JSON"), gradio.File(label="picture")]
        outputs = [*pictures, table, *saved]
        upload.change(take, upload, inputs[0])
        for control in inputs:
            control.change(show, inputs, outputs)
        page.load(show, inputs, outputs)
    return page


def _controls(columns: Sequence[Column], images: Sequence[str]) -> list[Any]:
    """What is chosen: the image, least score, NMS, and with several detectors two that are compared."""
    titles = [column.title for column in columns]
    fixed = [column.title for column in columns if column.fixed_nms]
    about = f"fixed in {', '.join(fixed)}" if fixed else "boxes of a class that overlap more are one object"
    with gradio.Column():
        choices = [(Path(path).name, path) for path in images]
        made = [
            gradio.Dropdown(choices, label="image", value=images[0] if images else None),
            gradio.Slider(LOWEST, 1, THRESHOLD, step=0.01, label="least score"),
            gradio.Slider(0.1, 0.95, NMS_IOU, step=0.01, label="NMS IoU", info=about),
        ]
        if len(columns) > 1:
            with gradio.Row():
                words = "mark what differs between", "and"
                made += [gradio.Dropdown([NOBODY, *titles], value=NOBODY, label=word) for word in words]
    return made
