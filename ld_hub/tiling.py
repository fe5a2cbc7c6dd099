"""Large images as tiles that overlap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from ld_hub.errors import ConfigError

View: TypeAlias = "tuple[int, int, int, int]"  # x1, y1, x2, y2 in px of the image


@dataclass(frozen=True)
class Tiling:
    """How large images are looked at: tile by tile, and once as a whole for what is larger than a tile.

    Attributes:
        size: Side of a tile in px of the original image. Each tile is scaled as any image is (`DataConfig`).
        overlap: Share of a tile's side that neighbours have in common at least, 0..0.9. What is no larger than that
            lies whole in a tile.
        whole: Also look at the whole image, scaled down.

    Raises:
        ConfigError: If a field has a value that cannot work.
    """

    size: int
    overlap: float = 0.2
    whole: bool = True

    def __post_init__(self) -> None:
        if self.size < 32:
            raise ConfigError(f"A tile's side is {self.size} px; expected at least 32, such as 1024.")
        if not 0 <= self.overlap <= 0.9:
            raise ConfigError(
                f"The overlap of tiles is {self.overlap!r}; expected a share of their side from 0 to 0.9."
            )

    def views(self, width: int, height: int) -> list[View]:
        """What is looked at of an image of width x height px, the whole image last; only that where it is no larger."""
        tiles = self.tiles(width, height)
        return [*tiles, (0, 0, width, height)] if self.whole and len(tiles) > 1 else tiles

    def tiles(self, width: int, height: int) -> list[View]:
        """The tiles of an image of width x height px, row by row; a smaller image is one of its own size."""
        columns, rows = self._starts(width), self._starts(height)
        return [(x, y, min(x + self.size, width), min(y + self.size, height)) for y in rows for x in columns]

    def _starts(self, side: int) -> list[int]:
        """Where tiles begin along a side of the image, evenly spread, so that the last ends where the image does."""
        if side <= self.size:
            return [0]
        room = side - self.size
        steps = math.ceil(room / max(1, math.floor(self.size * (1 - self.overlap))))
        return [k * room // steps for k in range(steps + 1)]
