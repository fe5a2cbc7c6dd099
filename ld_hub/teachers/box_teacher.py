"""What a teacher is that only detects, and what is checked of everything it says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from ld_hub.errors import DataError

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor

    from ld_hub.structures import Detections
    from ld_hub.teachers.photos import Photo

LEAST = 0.01  # score below which a detection is not even unsure
MOST = 300  # detections of an image that are kept, the best ones
_THREADS = 4  # that decode images: Pillow lets the others run meanwhile


class BoxTeacher(ABC):
    """A teacher that says what is on an image, and nothing else.

    Args:
        name: What cards and messages call it.
        label_names: Its classes; empty where it has numbers only (`classes`).
        origin: Where exactly it came from: ``org/name@commit``, or the empty string.
        digest: Hex digits of the sha256 of what it consists of, or what else tells it from others; the empty string
            where nothing does.
    """

    kind: ClassVar[str]  # in words, for cards and messages

    def __init__(self, name: str, label_names: Sequence[str] = (), *, origin: str = "", digest: str = "") -> None:
        self.name, self.label_names, self.origin, self.digest = name, tuple(label_names), origin, digest

    def describe(self) -> str:
        """Who it is, in one line."""
        count = f" of {len(self.label_names)} classes" if self.label_names else ""
        return f"{self.name}: {self.kind}{count}"

    def knows(self, photos: Sequence[Photo]) -> list[bool]:
        """Which of these images it can say something about; called once for each data set, before `detect`.

        The images without labels come first. A file of boxes finds out here which images it names.

        Raises:
            DataError: If it cannot be told which image is meant.
        """
        return [True for _ in photos]

    def classes(self, label_names: Sequence[str], category_ids: Sequence[int]) -> tuple[str, ...]:
        """Names of the labels that `detect` gives, after it has been called.

        Args:
            label_names: The student's classes: those of a teacher that has no names of its own, in their order.
            category_ids: The ids of these in the student's data.
        """
        return self.label_names or tuple(label_names)

    def to(self, device: torch.device) -> BoxTeacher:
        """Put it where it is to run; nothing to do for one that does not compute."""
        return self

    @abstractmethod
    def detect(self, photos: Sequence[Photo]) -> list[Detections]:
        """What is on each image: boxes in px of the file, labels, scores; of images that it `knows`."""


class PixelTeacher(BoxTeacher):
    """A teacher that looks at pixels."""

    def detect(self, photos: Sequence[Photo]) -> list[Detections]:
        """See `BoxTeacher.detect`."""
        with ThreadPoolExecutor(_THREADS) as pool:
            return self.see(list(pool.map(lambda photo: photo.load(), photos)))

    @abstractmethod
    def see(self, images: Sequence[Image.Image]) -> list[Detections]:
        """What is on each of these RGB images: boxes in px, labels, scores."""


def numbers(labels: Tensor) -> tuple[str, ...]:
    """Names of classes that nobody has named: as many as there are labels up to the largest.

    Args:
        labels: ``(K,)`` int64.
    """
    return tuple(str(k) for k in range(int(labels.max()) + 1 if len(labels) else 0))


def detections_in(said: Mapping[str, Tensor], label_names: tuple[str, ...]) -> Detections:
    """Detections, on the CPU, of the mapping with boxes, scores and labels that other libraries return.

    Args:
        said: Of one image.
        label_names: Of the classes.
    """
    from ld_hub.structures import Detections

    boxes, scores, labels = (said[key].cpu().clone() for key in ("boxes", "scores", "labels"))
    return Detections(boxes, scores, labels, label_names)


class Checked(NamedTuple):
    """Detections that can be taught.

    Attributes:
        found: On the image, each with an area, best scores first.
        clipped: Number of boxes that reached beyond the image.
        outside: Number of boxes without area on the image, which are left out.
    """

    found: Detections
    clipped: int
    outside: int


def check(found: Detections, photo: Photo, who: str) -> Checked:
    """Refuse what makes no sense, cut boxes to the image, and leave out those below `LEAST` and beyond `MOST`.

    Args:
        found: Of one image.
        photo: The image.
        who: The teacher, for messages.

    Raises:
        DataError: If a number is not finite, a score is outside 0..1, or a label is no class; names the image.
    """
    import torch

    boxes, scores = found.boxes.detach().float().cpu(), found.scores.detach().float().cpu()
    labels = found.labels.detach().cpu().long()
    broken = ~(boxes.isfinite().all(dim=1) & (scores >= 0) & (scores <= 1))  # also NaN
    if broken.any():
        k = int(broken.nonzero()[0])
        shown = ", ".join(f"{side:g}" for side in boxes[k].tolist())
        raise DataError(
            f"Teacher '{who}', image '{photo.path}': detection {k + 1} has the score {scores[k].item():g} and the box "
            f"({shown}); expected a score from 0 to 1 and finite numbers of px. Do its scores have to be divided by "
            "100, or did its network diverge?"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < max(len(found.label_names), 1):
        raise DataError(
            f"Teacher '{who}', image '{photo.path}': a label is {int(labels.max())}; it has {len(found.label_names)} "
            "classes, numbered from 0."
        )
    height, width = photo.size
    inside = torch.minimum(boxes.clamp(min=0), torch.tensor([width, height, width, height], dtype=boxes.dtype))
    cut = (inside - boxes).abs().amax(dim=1) > 1 if len(boxes) else torch.zeros(0, dtype=torch.bool)
    area = (inside[:, 2:] > inside[:, :2]).all(dim=1)
    order = scores.argsort(descending=True, stable=True)
    order = order[(area & (scores >= LEAST))[order]][:MOST]
    kept = type(found)(inside[order], scores[order], labels[order], found.label_names)
    return Checked(kept, int((cut & area).sum()), int((~area).sum()))
