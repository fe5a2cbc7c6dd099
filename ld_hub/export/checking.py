"""Whether an exported detector gives what its model gives: rows, detections, AP; and what differs first if not.

Shapes: A rows, K detections of an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ld_hub.export.program import DetectorRows, network_inputs
from ld_hub.layers.postprocess import PostprocessConfig
from ld_hub.models.inference import iter_predict
from ld_hub.ops.boxes import pairwise_iou
from ld_hub.runtime import Detector, Found
from ld_hub.runtime.pixels import prepare, read_pixels
from ld_hub.structures import Detections

Arrays = Sequence[NDArray[Any]]


@dataclass(frozen=True)
class Tolerance:
    """How far an exported detector may be off.

    Attributes:
        box: Of a box's longer side (of 1 px, if that is longer).
        score: Absolute.
        ap: Of an AP in 0..100.
        matched: Least share of the detections that the exported one must have, of those that no threshold decides.
        reduced: Of a program in smaller numbers: AP may rise, and the network's outputs are measured, not blamed.
    """

    box: float = 1e-3
    score: float = 1e-4
    ap: float = 0.05
    matched: float = 1.0
    reduced: bool = False

    def loses(self, expected: float, found: float) -> bool:
        """Whether an AP is too far from the model's."""
        return (expected - found if self.reduced else abs(expected - found)) > self.ap


TOLERANCES = {
    "float32": Tolerance(),
    "float16": Tolerance(box=0.02, score=0.01, ap=0.1, matched=0.98, reduced=True),
    "int8_weights": Tolerance(box=0.1, score=0.1, ap=0.5, matched=0.8, reduced=True),
    "int8": Tolerance(box=0.1, score=0.1, ap=0.5, matched=0.0, reduced=True),  # judged by AP, never without data
}


@dataclass
class Agreement:
    """What was compared.

    Attributes:
        images: Number of images.
        rows: Largest difference of each output of the network: boxes as `Tolerance.box`, others absolute.
        detections: Of the model on all images.
        matched: How many of these the exported one has within tolerance.
        undecided: Those of either side alone that stand on a threshold, where rounding decides.
        largest_box: Largest difference of matched boxes, as `Tolerance.box`.
        largest_score: Largest difference of matched scores.
        ap: AP of the model and of the exported one, 0..100; None without data.
        fault: What differs first, a sentence; empty where everything is within tolerance.
    """

    images: int = 0
    rows: dict[str, float] = field(default_factory=dict)
    detections: int = 0
    matched: int = 0
    undecided: int = 0
    largest_box: float = 0.0
    largest_score: float = 0.0
    ap: tuple[float, float] | None = None
    fault: str = ""

    def blame(self, sentence: str) -> None:
        """Note what differs, unless something before it did."""
        self.fault = self.fault or sentence

    def to_dict(self) -> dict[str, object]:
        """As JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        rows = ", ".join(f"{name} {value:.1e}" for name, value in self.rows.items())
        lines = [
            f"{self.images} images: {self.matched} of {self.detections} detections are the model's"
            + (f" ({self.undecided} stand on a threshold)" if self.undecided else ""),
            f"largest differences: boxes {self.largest_box:.1e} of their side, scores {self.largest_score:.1e}"
            + (f"; rows: {rows}" if rows else ""),
        ]
        if self.ap is not None:
            lines.append(f"AP {self.ap[0]:.2f} (model), {self.ap[1]:.2f} (exported)")
        return "\n".join(lines)


def random_images(image_size: tuple[int, int], number: int = 2, seed: int = 0) -> list[Image.Image]:
    """Pictures of random blocks, lying and standing in turn, of the size that a model wants.

    Args:
        image_size: Short and longest long side in px.
        number: Of pictures.
        seed: Of the colours.
    """
    random = np.random.default_rng(seed)
    short = image_size[0]
    long = min(image_size[1], short * 4 // 3)
    made = []
    for index in range(number):
        width, height = (long, short) if index % 2 == 0 else (short, long)
        blocks = random.integers(0, 256, (max(1, height // 12), max(1, width // 12), 3), dtype=np.uint8)
        made.append(Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST))
    return made


def compare_rows(
    agreement: Agreement, rows: DetectorRows, exported: Detector, images: Iterable[Image.Image], limits: Tolerance
) -> None:
    """Compare the network's outputs on the same input, image by image.

    Args:
        agreement: Gets the largest differences.
        rows: The model.
        exported: Without preprocessing and without a choice of boxes.
        images: RGB.
        limits: What is blamed.
    """
    for image in images:
        padded, image_sizes = network_inputs(rows, image, exported.exported.size)
        with torch.no_grad():
            expected = rows(padded, image_sizes)
        found = exported.run({"images": padded.numpy(), "image_sizes": image_sizes.numpy()})
        for name, mine, theirs in zip(rows.OUTPUTS[:3], found, expected, strict=False):
            _compare_output(agreement, name, mine, theirs.numpy(), limits)


def _compare_output(
    agreement: Agreement, name: str, found: NDArray[Any], expected: NDArray[Any], limits: Tolerance
) -> None:
    boxes = name.endswith("boxes")
    if found.shape != expected.shape:
        agreement.blame(f"the network's {name} have the shape {found.shape}, the model's {expected.shape}")
        return
    off = np.abs(found.astype(np.float64) - expected)
    if boxes:
        off = off / _longer_side(expected)
    off = np.nan_to_num(off, nan=np.inf)
    largest = float(off.max(initial=0))
    agreement.rows[name] = max(agreement.rows.get(name, 0.0), largest)
    allowed = limits.box if boxes else limits.score
    if largest > allowed and not limits.reduced:
        place = tuple(int(index) for index in np.unravel_index(int(off.argmax()), off.shape))
        agreement.blame(f"the network's {name} are off by {largest:.2g} at {place}, allowed are {allowed:g}")


def _longer_side(boxes: NDArray[Any]) -> NDArray[Any]:
    """``(..., 1)`` px, at least 1."""
    sides: NDArray[Any] = (boxes[..., 2:] - boxes[..., :2]).max(axis=-1, keepdims=True).clip(min=1)
    return sides


def compare_detections(
    agreement: Agreement, rows: DetectorRows, exported: Detector, images: Sequence[Image.Image], limits: Tolerance
) -> None:
    """Compare what is found on images, from the pixels on.

    Args:
        agreement: Gets the counts and largest differences.
        rows: The model.
        exported: As it will be kept.
        images: RGB.
        limits: What is blamed.
    """
    config, lost = rows.model.postprocess_config, 0
    for number, image in enumerate(images):
        expected = _expected(rows, exported, image)
        (found,) = exported.predict_all([image])
        mine = as_detections(found)
        agreement.images += 1
        agreement.detections += len(expected)
        alone = _match(agreement, mine, expected, limits)
        undecided = [each for each in alone if _on_a_threshold(each, mine, expected, config, limits)]
        agreement.undecided += len(undecided)
        lost += sum(each[0] == "model" for each in alone if each not in undecided)
        if len(alone) > len(undecided) and not limits.reduced:
            side, index = next(each for each in alone if each not in undecided)
            which = (expected if side == "model" else mine)[index]
            agreement.blame(
                f"preprocessing or choice of boxes: on image {number} only the {side} finds {which.label} "
                f"{which.score:.4f} at {tuple(round(edge, 2) for edge in which.box)}"
            )
    if lost > (1 - limits.matched) * agreement.detections:
        agreement.blame(
            f"{lost} of {agreement.detections} detections are further off than {limits.box:g} of a box's side or "
            f"{limits.score:g} of the score; at least {limits.matched:.0%} have to be within"
        )


def _expected(rows: DetectorRows, exported: Detector, image: Image.Image) -> Detections:
    """What the model finds; padded as the exported one pads, where that is another size than the model's own."""
    if exported.exported.size is None:
        return next(iter_predict(rows.model, [image], keep_images=False))
    pixels = read_pixels(image, rows.model.data_config.channels)
    batch = prepare([pixels], exported.exported.preparation, exported.exported.size)
    sizes, factors = torch.from_numpy(batch.image_sizes), torch.from_numpy(batch.factors[:, :2])
    with torch.no_grad():
        return rows.model.postprocess(rows.model(torch.from_numpy(batch.images)), sizes, factors)[0]


def as_detections(found: Found, image: Image.Image | None = None) -> Detections:
    """What an exported detector found, as a model gives it."""
    boxes, scores, labels = (torch.from_numpy(each) for each in (found.boxes, found.scores, found.labels))
    return Detections(boxes, scores, labels, found.label_names, found.category_ids, image)


def _match(agreement: Agreement, found: Detections, expected: Detections, limits: Tolerance) -> list[tuple[str, int]]:
    """Pair detections off; returns those of one side alone, ``("model" | "exported", index)``."""
    free = set(range(len(found)))
    alone: list[tuple[str, int]] = []
    side = torch.from_numpy(_longer_side(expected.boxes.numpy()))
    for index in range(len(expected)):
        box = ((found.boxes - expected.boxes[index]).abs() / side[index]).amax(dim=1)
        score = (found.scores - expected.scores[index]).abs()
        fits = (box <= limits.box) & (score <= limits.score) & (found.labels == expected.labels[index])
        best = min(
            (k for k in fits.nonzero().flatten().tolist() if k in free), key=lambda k: float(box[k]), default=None
        )
        if best is None:
            alone.append(("model", index))
            continue
        free.discard(best)
        agreement.matched += 1
        agreement.largest_box = max(agreement.largest_box, float(box[best]))
        agreement.largest_score = max(agreement.largest_score, float(score[best]))
    return alone + [("exported", index) for index in sorted(free)]


def _on_a_threshold(
    which: tuple[str, int], found: Detections, expected: Detections, config: PostprocessConfig, limits: Tolerance
) -> bool:
    """Whether rounding decides if a detection is kept: its score, or its overlap with another one, is at a limit."""
    side, index = which
    own, other = (expected, found) if side == "model" else (found, expected)
    score = float(own.scores[index])
    if score <= config.score_threshold + limits.score:
        return True
    if len(other) == config.max_detections and score <= float(other.scores[-1]) + limits.score:
        return True
    same = other.labels == own.labels[index]
    overlaps = pairwise_iou(own.boxes[index][None, None], other.boxes[same])[0, 0]
    return bool(((overlaps - config.nms_iou).abs() <= limits.box).any())
