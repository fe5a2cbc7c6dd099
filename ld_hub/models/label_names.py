"""Names and category ids of classes; COCO's 80 are the default of models with 80 classes."""

from __future__ import annotations

from collections.abc import Sequence

from ld_hub.errors import ConfigError
from ld_hub.models.detector_config import whole_number
from ld_hub.structures.class_names import COCO_CATEGORY_IDS, COCO_LABELS


def default_labels(num_classes: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Label names and category ids for a model that was not told any: COCO's for 80 classes, else numbered."""
    if num_classes == len(COCO_LABELS):
        return COCO_LABELS, COCO_CATEGORY_IDS
    return tuple(f"class_{i}" for i in range(num_classes)), tuple(range(num_classes))


def make_labels(
    num_classes: int, label_names: Sequence[str] | None = None, category_ids: Sequence[int] | None = None
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Label names and category ids of C classes.

    Args:
        num_classes: C.
        label_names: C names in the order of the logits; None for the defaults.
        category_ids: C ids of the data set; None numbers given names from 0.

    Raises:
        ConfigError: If the number of names or ids is not C, or an id is not a whole number.
    """
    names, ids = default_labels(num_classes)
    if isinstance(label_names, str):
        raise ConfigError(f"label_names is the text {label_names!r}; expected a list of names.")
    if label_names is not None:
        names, ids = tuple(label_names), tuple(range(len(label_names)))
    if category_ids is not None:
        ids = tuple(whole_number("an id of category_ids", i, -(2**63), 2**63 - 1) for i in category_ids)
    for field, values in (("label_names", names), ("category_ids", ids)):
        if len(values) != num_classes:
            raise ConfigError(f"{field} has {len(values)} entries, but num_classes is {num_classes}.")
    return names, ids
