"""Objects of one image on another one, cut out along their outlines (Simple Copy-Paste, arXiv 2012.07177)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ld_hub.preprocessing.labelled import VISIBLE, Labelled


def some_objects(labelled: Labelled, random: np.random.Generator) -> Labelled:
    """An image with a random part of its objects: any number of those that have an outline and are no crowd.

    Args:
        labelled: With masks; none of its objects is taken where it has none.
        random: Says which.
    """
    if labelled.masks is None:
        return labelled.chosen(torch.zeros(len(labelled.boxes), dtype=torch.bool))
    fit = (labelled.masks.flatten(1).any(dim=1) & ~labelled.crowd).nonzero().flatten().tolist()
    number = int(random.integers(1, len(fit), endpoint=True)) if fit else 0
    taken = sorted(random.permutation(fit)[:number].tolist())
    return labelled.chosen(torch.tensor(taken, dtype=torch.int64))


def with_objects(ground: Labelled, source: Labelled, top: int, left: int) -> Labelled:
    """Paste all objects of an image onto another one; nothing but their own pixels is changed.

    The box of a pasted object encloses its pixels. Of an object on the ground that is hidden in part, the box is what
    it was, less what lies outside of the visible pixels; with less than a fifth (`VISIBLE`) of them visible, or a side
    below 1 px, the object is left out. Where an object has no outline, all pixels of its box count as its own.

    Args:
        ground: What is pasted on.
        source: Whose objects are pasted, with masks; not larger than `ground`.
        top: Row of its first row in px.
        left: Column of its first column in px.

    Returns:
        Objects of the ground, then those of the source; without masks.
    """
    if source.masks is None or not source.masks.any():
        return ground.bare
    kept = source.chosen(source.masks.flatten(1).any(dim=1))
    masks = source.masks[source.masks.flatten(1).any(dim=1)]
    (height, width), image = source.size, ground.image.clone()
    pasted = masks.any(dim=0)  # (h, w)
    place = image[:, top : top + height, left : left + width]
    place[:, pasted] = source.image[:, pasted]
    hidden = torch.zeros(ground.size, dtype=torch.bool)
    hidden[top : top + height, left : left + width] = pasted
    shift = torch.tensor([left, top, left, top])
    left_over = _visible(ground, hidden)
    return Labelled(
        image,
        torch.cat([left_over.boxes, (extents(masks) + shift).to(left_over.boxes.dtype)]),
        torch.cat([left_over.labels, kept.labels]),
        torch.cat([left_over.crowd, kept.crowd]),
    )


def extents(masks: Tensor) -> Tensor:
    """``(G, h, w)`` bool to ``(G, 4)`` int64 xyxy px, whole pixels that enclose what is True; 0 where nothing is."""
    columns, rows = masks.any(dim=1), masks.any(dim=2)
    ends = []
    for line in (columns, rows):  # argmax is the first of several
        first = line.int().argmax(dim=1)
        last = line.shape[1] - line.flip(1).int().argmax(dim=1)
        ends.append(torch.stack([first, last], dim=1) * line.any(dim=1, keepdim=True))
    x, y = ends
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)


def _visible(ground: Labelled, hidden: Tensor) -> Labelled:
    """What is left of the objects of an image, parts of which are hidden."""
    masks = _own_pixels(ground)
    seen = masks & ~hidden
    before, after = masks.flatten(1).sum(dim=1), seen.flatten(1).sum(dim=1)
    touched = after < before
    found = extents(seen).to(ground.boxes.dtype)
    low = torch.maximum(ground.boxes[:, :2], found[:, :2])
    high = torch.minimum(ground.boxes[:, 2:], found[:, 2:])
    kept = ~touched | ((after >= VISIBLE * before) & (high - low >= 1).all(dim=1))
    boxes = torch.where(touched[:, None], torch.cat([low, high], dim=1), ground.boxes)
    return replace(ground.bare, boxes=boxes).chosen(kept)


def _own_pixels(labelled: Labelled) -> Tensor:
    """``(G, h, w)`` masks of the objects, their boxes where they have none."""
    height, width = labelled.size
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    x1, y1, x2, y2 = (side[:, None] for side in (*labelled.boxes[:, :2].floor().T, *labelled.boxes[:, 2:].ceil().T))
    inside: Tensor = ((y > y1) & (y < y2))[:, :, None] & ((x > x1) & (x < x2))[:, None]
    if labelled.masks is None:
        return inside
    outlined = labelled.masks.flatten(1).any(dim=1)
    return torch.where(outlined[:, None, None], labelled.masks, inside)
