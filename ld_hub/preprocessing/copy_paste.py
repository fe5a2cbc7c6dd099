"""Objects of one image on another one, cut out along their outlines (Simple Copy-Paste, arXiv 2012.07177)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from ld_hub.preprocessing.labelled import VISIBLE, Labelled


def some_objects(labelled: Labelled, random: np.random.Generator) -> Labelled:
    """An image with a random part of its objects: any number of those that have an outline and are no crowd.

    Args:
        labelled: With masks; none of its objects is taken where it has none.
        random: Says which.
    """
    if labelled.masks is None:
        return labelled.chosen(torch.zeros(len(labelled.boxes), dtype=torch.bool))
    outlined = zip(labelled.masks.numpy(), labelled.crowd.tolist(), strict=True)
    fit = [k for k, (mask, crowd) in enumerate(outlined) if mask.any() and not crowd]
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
    masks = [] if source.masks is None else list(source.masks.numpy())  # NumPy's sums over bool are the faster ones
    found = [extent(mask) for mask in masks]
    kept = [k for k, box in enumerate(found) if box is not None]
    if not kept:
        return ground.bare
    (height, width), image = source.size, ground.image.clone()
    cut = np.logical_or.reduce([masks[k] for k in kept])
    np.copyto(image.numpy()[:, top : top + height, left : left + width], source.image.numpy(), where=cut)
    hidden = np.zeros(ground.size, dtype=bool)
    hidden[top : top + height, left : left + width] = cut
    left_over, pasted = _visible(ground, hidden), source.chosen(torch.tensor(kept))
    boxes = torch.tensor([found[k] for k in kept], dtype=ground.boxes.dtype)
    return Labelled(
        image,
        torch.cat([left_over.boxes, boxes + torch.tensor([left, top, left, top])]),
        torch.cat([left_over.labels, pasted.labels]),
        torch.cat([left_over.crowd, pasted.crowd]),
    )


def extent(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """``(h, w)`` to x1, y1, x2, y2 in whole px around what is True; None where nothing is."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _visible(ground: Labelled, hidden: NDArray[np.bool_]) -> Labelled:
    """What is left of the objects of an image, parts of which are hidden."""
    boxes, kept = ground.boxes.clone(), []
    for k, box in enumerate(boxes):
        own = _own_pixels(ground, k)
        seen = own & ~hidden
        before, after = np.count_nonzero(own), np.count_nonzero(seen)
        if after < before:
            found = extent(seen)
            if found is None or after < VISIBLE * before:
                continue
            limit = torch.tensor(found, dtype=boxes.dtype)
            box[:2], box[2:] = box[:2].maximum(limit[:2]), box[2:].minimum(limit[2:])
            if (box[2:] - box[:2] < 1).any():
                continue
        kept.append(k)
    return replace(ground.bare, boxes=boxes).chosen(torch.tensor(kept, dtype=torch.int64))


def _own_pixels(labelled: Labelled, number: int) -> NDArray[np.bool_]:
    """``(h, w)`` pixels of an object, those of its box where it has no outline."""
    if labelled.masks is not None and (mask := labelled.masks[number].numpy()).any():
        return mask
    low, high = labelled.boxes[number, :2].floor().int().tolist(), labelled.boxes[number, 2:].ceil().int().tolist()
    own = np.zeros(labelled.size, dtype=bool)
    own[low[1] : high[1], low[0] : high[0]] = True
    return own
