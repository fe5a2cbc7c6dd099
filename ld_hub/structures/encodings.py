"""What image encoders hand over: maps of features, and neither rows nor boxes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class EncoderSpec:
    """The facts about an image encoder that distillation has to know before the first step.

    Attributes:
        name: Of the encoder, for messages.
        strides: Stride of each of its maps in px, finest first.
        channels: Channels of each of its maps.
    """

    name: str
    strides: tuple[float, ...]
    channels: tuple[int, ...]

    def seen_at(self, scale: float) -> EncoderSpec:
        """The same in px of images that are so many times smaller than those it is given."""
        return replace(self, strides=tuple(stride / scale for stride in self.strides))


@dataclass(frozen=True, eq=False)
class Encoding:
    """A batch as an image encoder sees it.

    Attributes:
        maps: ``(N, F_k, H_k, W_k)``, finest first; they cover the batch's padded images, or more.
        strides: px of the student's images per cell of each.
    """

    maps: tuple[Tensor, ...]
    strides: tuple[float, ...]

    def detach(self) -> Encoding:
        """Return the same maps without gradient."""
        return replace(self, maps=tuple(each.detach() for each in self.maps))
