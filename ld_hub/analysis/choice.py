"""Which images and boxes the report shows; the same ones for the same data and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ld_hub.data import DetectionSet

ENOUGH = 8  # boxes; a picture with more is not chosen for that
FEW = 1e-9  # difference of F1 that counts as none


def spread(number: int, most: int | None) -> list[int]:
    """At most `most` of `number` indices, evenly over all of them."""
    if most is None or most >= number:
        return list(range(number))
    return [int(i) for i in np.linspace(0, number - 1, most).round()]


def example_images(dataset: DetectionSet, most: int) -> list[int]:
    """Ids of images with objects: of each of `most` equal parts of the set, the one with the most boxes."""
    records = dataset.records
    usable = np.concatenate([[0], np.cumsum(~records.crowd)])
    counts = np.minimum(usable[records.offsets[1:]] - usable[records.offsets[:-1]], ENOUGH)
    parts = [part for part in np.array_split(np.arange(len(counts)), max(1, min(most, len(counts)))) if len(part)]
    best = [int(part[counts[part].argmax()]) for part in parts]
    return [int(records.image_ids[index]) for index in best if counts[index]]


def telling_images(f1: Sequence[Mapping[int, float | None]], most: int) -> dict[str, list[int]]:
    """Images on which detection went best, worst, and most differently.

    Args:
        f1: By image id, of one detector or of two; None where there was nothing to find and nothing was found.
        most: Images of each kind.

    Returns:
        Image ids under ``best`` and ``worst`` (mean F1 of the detectors) and, for two, ``gained`` and ``lost``
        (the second one's F1 less the first one's). No image is under two of them.
    """
    known = sorted(image for image in f1[0] if all(one.get(image) is not None for one in f1))
    values = {image: [float(one[image] or 0.0) for one in f1] for image in known}
    orders: dict[str, list[int]] = {}
    if len(f1) > 1:
        change = {image: pair[1] - pair[0] for image, pair in values.items()}
        orders["gained"] = sorted((i for i in known if change[i] > FEW), key=lambda i: (-change[i], i))
        orders["lost"] = sorted((i for i in known if change[i] < -FEW), key=lambda i: (change[i], i))
    mean = {image: sum(pair) / len(pair) for image, pair in values.items()}
    orders["best"] = sorted(known, key=lambda i: (-mean[i], i))
    orders["worst"] = sorted(known, key=lambda i: (mean[i], i))
    taken: set[int] = set()
    chosen = {}
    for kind, order in orders.items():
        chosen[kind] = [image for image in order if image not in taken][:most]
        taken.update(chosen[kind])
    return chosen


def telling_boxes(entropy: Sequence[float], gap: Sequence[float] | None) -> dict[str, int]:
    """Which of some boxes have the surest and the least sure edges, and on which two detectors differ most.

    Args:
        entropy: Mean edge entropy of each box.
        gap: Difference of the two detectors' IoU with it.

    Returns:
        Index of the ``sure``, the ``unsure`` and the ``apart`` box; none comes twice, so some may be missing.
    """
    chosen: dict[str, int] = {}
    wishes = {"sure": np.asarray(entropy), "unsure": -np.asarray(entropy)}
    if gap is not None:
        wishes["apart"] = -np.abs(np.asarray(gap))
    for kind, rank in wishes.items():
        free = [int(i) for i in np.argsort(rank, kind="stable") if int(i) not in chosen.values()]
        if free:
            chosen[kind] = free[0]
    return chosen
