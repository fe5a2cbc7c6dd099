"""Rows of a class predictor that are taken over by their names, whatever the order and number of the classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ld_hub.models.detector import DenseDetector

SHOWN = 8  # names in a message


@dataclass(frozen=True)
class ClassRows:
    """What became of the classes of a model that starts from another one.

    Attributes:
        kept: Names whose rows are the other's.
        new: Names whose rows start anew.
    """

    kept: tuple[str, ...]
    new: tuple[str, ...]

    def __str__(self) -> str:
        if not self.new:
            return f"all {len(self.kept)} classes kept by name"
        kept = f"class rows kept by name: {_some(self.kept)}" if self.kept else "no class kept by name"
        return f"{kept}; new: {_some(self.new)}"


@torch.no_grad()
def take_class_rows(model: DenseDetector, donor: DenseDetector) -> ClassRows:
    """Copy the rows of common classes from another model's class predictor; the others stay as they are.

    With several anchors per cell each anchor has a row for every class.

    Args:
        model: Whose class predictor is fresh; its ``label_names`` say which classes it has.
        donor: Of the same structure but for the classes.
    """
    ours, theirs = model.get_classifier(), donor.get_classifier()
    pairs = [(own, donor.label_names.index(name)) for own, name in enumerate(model.label_names)
             if name in donor.label_names]  # fmt: skip
    to, source = [own for own, _ in pairs], [other for _, other in pairs]
    anchors = model.anchors_per_cell
    for mine, other in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        if mine is None or other is None:
            continue
        mine.view(anchors, model.num_classes, -1)[:, to] = other.view(anchors, donor.num_classes, -1)[:, source]
    names = model.label_names
    return ClassRows(tuple(names[own] for own in to), tuple(name for name in names if name not in donor.label_names))


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
