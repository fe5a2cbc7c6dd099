"""What every head hands over: all levels flattened into rows, predictions in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ld_hub.structures.priors import Priors

Towers = tuple[tuple[Tensor, Tensor], ...]  # a class and a box map of each pyramid level


class BoxCoder(Protocol):
    """How a head's box predictions become boxes; the coder alone knows whether there are bins."""

    @property
    def reg_max(self) -> int | None:
        """R for distributions over R+1 bins, None for plain regression."""
        ...

    @property
    def channels(self) -> int:
        """Regression channels per prior: 4 * (R + 1) with bins, else 4."""
        ...

    def decode(self, box: Tensor, priors: Priors) -> Tensor:
        """``(N, A, 4, R+1)`` or ``(N, A, 4)`` predictions to ``(N, A, 4)`` xyxy px."""
        ...

    def decode_rows(self, box: Tensor, priors: Priors, rows: Tensor) -> Tensor:
        """``(K, 4, R+1)`` or ``(K, 4)`` predictions of the rows ``(K,)`` of A to ``(K, 4)`` xyxy px."""
        ...


@dataclass(frozen=True)
class DetectorSpec:
    """The facts about a detector that distillation has to compare before the first step.

    Attributes:
        name: Registered name, for messages.
        family: ``"gfocal"``, ``"atss"``, ...
        num_classes: C.
        label_names: C names, in the order of the logits.
        reg_max: R, or None where boxes are plain regression.
        strides: Stride of each pyramid level in px.
        anchors_per_cell: Rows per cell.
        feature_channels: F of the pyramid.
        tower_channels: Channels at the taps of the head's towers.
        mean: Per-channel mean the model's input is normalised with (0..255 scale).
        std: Per-channel standard deviation, same scale.
        points: Whether its rows are points, without anchors that could overlap boxes (FCOS).
    """

    name: str
    family: str
    num_classes: int
    label_names: tuple[str, ...]
    reg_max: int | None
    strides: tuple[int, ...]
    anchors_per_cell: int
    feature_channels: int
    tower_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    points: bool = False


class HeadMaps(NamedTuple):
    """What a head returns: one map per level, finest first.

    Attributes:
        cls: ``(N, anchors * C, H, W)`` class logits.
        box: ``(N, anchors * 4 * (R+1), H, W)`` bin logits, or ``(N, anchors * 4, H, W)`` raw regression.
        quality: ``(N, anchors, H, W)`` centerness or quality logits; None where a head has none.
        towers: Class and box maps ``(N, F, H, W)`` at the taps of the head's towers (`ld_hub.layers.towers.Tower`).
    """

    cls: list[Tensor]
    box: list[Tensor]
    quality: list[Tensor] | None = None
    towers: Towers = ()


@dataclass(frozen=True, eq=False)
class DenseOutput:
    """Raw predictions of a dense detector for a batch.

    Attributes:
        cls_logits: ``(N, A, C)``.
        box: ``(N, A, 4, R+1)`` bin logits (sides left, top, right, bottom) or ``(N, A, 4)`` raw regression.
        quality: ``(N, A)`` centerness or quality logits, or None.
        priors: The grid of the A rows.
        coder: Decodes `box` to xyxy px.
        features: Pyramid maps ``(N, F, H, W)``, only when asked for.
        towers: Class and box maps at the taps of the head's towers, per level, only when asked for.
    """

    cls_logits: Tensor
    box: Tensor
    quality: Tensor | None
    priors: Priors
    coder: BoxCoder
    features: tuple[Tensor, ...] | None = None
    towers: Towers | None = None

    @classmethod
    def from_levels(
        cls,
        cls_levels: Sequence[Tensor],
        box_levels: Sequence[Tensor],
        quality_levels: Sequence[Tensor] | None,
        priors: Priors,
        coder: BoxCoder,
    ) -> DenseOutput:
        """Flatten per-level maps, once, and cast predictions to at least float32.

        Accelerate casts outputs of autocast forwards back to float32 only inside dicts and tuples, hence here.

        Args:
            cls_levels: L maps ``(N, anchors * C, H, W)``.
            box_levels: L maps ``(N, anchors * 4 * (R+1), H, W)`` or ``(N, anchors * 4, H, W)``.
            quality_levels: L maps ``(N, anchors, H, W)`` or None.
            priors: Grid of the same levels.
            coder: Coder of `box_levels`.
        """
        per_cell = priors.anchors_per_cell
        box = _flatten(box_levels, per_cell)
        if coder.reg_max is not None:
            box = box.unflatten(2, (4, coder.reg_max + 1))
        quality = None if quality_levels is None else _flatten(quality_levels, per_cell).squeeze(2)
        return cls(_flatten(cls_levels, per_cell), box, quality, priors, coder)

    @property
    def num_classes(self) -> int:
        """C."""
        return self.cls_logits.shape[2]

    def decode(self) -> Tensor:
        """All boxes, ``(N, A, 4)`` xyxy px of the padded batch image."""
        return self.coder.decode(self.box, self.priors)

    def detach(self) -> DenseOutput:
        """Return the same predictions and maps without gradient (a teacher's)."""
        return replace(
            self,
            cls_logits=self.cls_logits.detach(),
            box=self.box.detach(),
            quality=None if self.quality is None else self.quality.detach(),
            features=None if self.features is None else tuple(m.detach() for m in self.features),
            towers=None if self.towers is None else tuple((c.detach(), b.detach()) for c, b in self.towers),
        )


def _flatten(levels: Sequence[Tensor], per_cell: int) -> Tensor:
    """L maps ``(N, per_cell * K, H, W)`` to ``(N, A, K)`` in float32 (float64 stays)."""
    rows = []
    for level in levels:
        number, channels, height, width = level.shape
        flat = level.permute(0, 2, 3, 1).reshape(number, height * width * per_cell, channels // per_cell)
        rows.append(flat if flat.dtype == torch.float64 else flat.float())
    return torch.cat(rows, dim=1)
