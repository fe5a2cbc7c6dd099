"""Names of the parts of a data set."""

from __future__ import annotations

from ld_hub.errors import MissingFileError

WHOLE = "all"  # stands for a split where data have no parts
# How people name the splits; the first name is the one used here.
SPLITS: dict[str, tuple[str, ...]] = {"train": ("train",), "val": ("val", "valid", "validation")}


class NoSplitError(MissingFileError):
    """There is no such part of the data, while nothing that was named is missing."""
