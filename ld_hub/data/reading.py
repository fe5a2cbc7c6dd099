"""How loosely data are read, and what becomes of data without parts."""

from __future__ import annotations

from dataclasses import dataclass

from ld_hub.errors import ConfigError

HELD_OUT = 0.1  # of the images of data that come without parts


@dataclass(frozen=True)
class Reading:
    """What users may say about the reading of a data set.

    Attributes:
        strict: Refuse what would have to be repaired.
        val_fraction: Part of the images that is held out to evaluate on, chosen by the hash of their names: of data
            without parts (there 0.1 where None), and of training images without others to evaluate on.
        keep_root_category: Keep the category without boxes that Roboflow writes above the others.
        merge_categories: Make one category of those that share a name.
        columns: Of data of the Hub, where its names are others than usual; ``"bbox=box,category=label,form=xyxy"``.
        streaming: Fetch of data of the Hub the part alone that is asked for.
    """

    strict: bool = False
    val_fraction: float | None = None
    keep_root_category: bool = False
    merge_categories: bool = False
    columns: str | None = None
    streaming: bool = False

    def __post_init__(self) -> None:
        if self.val_fraction is not None and not 0 <= self.val_fraction < 1:
            raise ConfigError(f"val_fraction is a part of the images, from 0 to below 1, got {self.val_fraction}.")
