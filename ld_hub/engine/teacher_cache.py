"""A teacher that is asked once: its outputs for the images of a run, kept on disk and read in every step after.

Shapes: N images, A rows of a batch's grid, a rows of an image's own grid, C classes, R = reg_max, F channels.

What is kept is what the network says to an image alone, padded to its own multiple of ``size_divisor``. In a batch of
larger images the rows are laid into the larger grid; those beyond the image's own grid are off it (`Priors.valid`) and
say "nothing here". A live teacher sees the batch's padding there, which reaches into the image near its right and lower
border as far as its receptive field; the cache does not depend on the neighbours. Where all images of a batch have one
size the two are equal, in 32 bits bit for bit, if the teacher was asked about as many images at once as a batch has: a
convolution's rounding may depend on that.

A mirrored image has an entry of its own. To mirror the rows instead would be wrong by up to a stride: rows stand on
cells counted from the left, anchors on their top-left corners, and an image's width is seldom a multiple of 128 px; and
a network is not symmetric. So with flips there are two entries per image, both exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor

from ld_hub.engine.asking import ask
from ld_hub.errors import CacheError
from ld_hub.hub import ShardStore
from ld_hub.models.detector import DenseDetector
from ld_hub.ops.quantize import LARGEST, Quantized, quantize
from ld_hub.preprocessing.transforms import content_key
from ld_hub.structures import BoxCoder, DenseOutput, ImageBatch, Priors

Grid: TypeAlias = tuple[tuple[int, int], ...]  # height and width in cells of each level

BITS = (8, 32)
OFF_LOGIT = -20.0  # class logit of rows beyond an image: a score of 2e-9
_GRID = "grid"  # field of an entry: (L, 2) cells of each level
_SIDES = ("cls", "box")  # of a pair of tower maps
_TOWER = "towers.0.cls"


class TeacherCache:
    """One teacher's outputs for images prepared for a student.

    Args:
        teacher: Who is asked; its network does not run where it is only read.
        student: Whose input the images are.
        scale: Size of the teacher's images over the student's.
        needs: Maps that are kept as well: ``"features"``, ``"towers"``.
        store: Where; its identity says all that the entries depend on.
        bits: 32 keeps the network's numbers; 8 keeps bin and class logits and maps as codes (`pack`).
    """

    def __init__(
        self,
        teacher: DenseDetector,
        student: DenseDetector,
        scale: float,
        needs: frozenset[str],
        store: ShardStore,
        bits: int,
    ) -> None:
        self.teacher, self.student, self.scale, self.needs = teacher, student, scale, needs
        self.store, self.bits = store, bits

    def missing(self, contents: Sequence[str]) -> list[str]:
        """Which of these images (`ImageBatch.contents`) have no entry."""
        return [content for content in contents if content not in self.store]

    def entries(self, batch: ImageBatch) -> dict[str, dict[str, Tensor]]:
        """Ask the teacher; an entry of each image, by what is on it.

        Args:
            batch: Images that would all be padded to the size of the batch alone.
        """
        output = ask(self.teacher, batch, self.student, self.scale, self.needs)
        fields = {name: part.cpu() for name, part in pack(output, self.bits).items()}
        grid = torch.tensor(output.priors.level_shapes, dtype=torch.int32)
        return {
            content: {_GRID: grid, **{name: part[index].contiguous() for name, part in fields.items()}}
            for index, content in enumerate(batch.contents)
        }

    def read(self, batch: ImageBatch) -> DenseOutput:
        """What the teacher said to the images of a batch, on their device; nothing waits for the device.

        Args:
            batch: With `ImageBatch.contents`, all of which have entries.

        Raises:
            CacheError: If an image has no entry, or its shard is damaged.
        """
        absent = self.missing(batch.contents)
        if absent or len(batch.contents) != len(batch):
            raise CacheError(
                f"'{self.store.directory}' has no entry for {len(absent) or len(batch)} of {len(batch)} images: it was "
                "filled for other images, or files were deleted meanwhile. Start again: what is missing is made."
            )
        entries = [self.store.read(content) for content in batch.contents]
        grids: list[Grid] = [tuple((int(h), int(w)) for h, w in entry[_GRID].tolist()) for entry in entries]
        height, width = (int(side * self.scale) for side in batch.images.shape[-2:])
        device = batch.images.device
        priors = self.teacher.make_priors(height, width, device)
        fields = {}
        for name in entries[0]:
            if name != _GRID:
                placed = _place(name, [entry[name] for entry in entries], grids, priors, pinned=device.type == "cuda")
                fields[name] = placed.to(device, non_blocking=True)
        return _finished(unpack(fields, priors, self.teacher.coder), grids, batch.images)


def mirror(batch: ImageBatch) -> ImageBatch:
    """The same images, each flipped left to right within its own width; without targets.

    Args:
        batch: Not mirrored, with `ImageBatch.contents`.
    """
    column = torch.arange(batch.images.shape[3], device=batch.images.device)
    width = batch.image_sizes[:, 1, None].to(column.device)
    source = torch.where(column < width, width - 1 - column, column)[:, None, None]  # (N, 1, 1, W)
    return replace(
        batch,
        images=batch.images.gather(3, source.expand_as(batch.images)),
        targets=None,
        contents=tuple(content_key(content, True) for content in batch.contents),
    )


def pack(output: DenseOutput, bits: int) -> dict[str, Tensor]:
    """An output as it is kept.

    In 8 bits (`ld_hub.ops.quantize`), bin logits are codes with a scale for each edge, less their largest, which no
    softmax sees; class logits are codes with a scale and a largest value for each row, maps the same for each channel;
    all else is float16.

    Args:
        output: Of a batch.
        bits: 8 or 32.

    Returns:
        Tensors ``(N, ...)`` by field.
    """
    parts = {"cls": output.cls_logits, "box": output.box}
    parts |= {} if output.quality is None else {"quality": output.quality}
    parts |= {f"features.{level}": each for level, each in enumerate(output.features or ())}
    for level, pair in enumerate(output.towers or ()):
        parts |= {f"towers.{level}.{side}": each for side, each in zip(_SIDES, pair, strict=True)}
    if bits == 32:
        return parts
    fields: dict[str, Tensor] = {}
    for name, part in parts.items():
        if name == "cls" or _is_map(name) or part.ndim == 4:
            codes = quantize(part.flatten(2) if _is_map(name) else part, softmax=name == "box")
            fields |= {f"{name}.codes": codes.codes.view_as(part), f"{name}.scale": codes.scale}
            fields |= {} if codes.top is None else {f"{name}.top": codes.top}
        else:
            fields[name] = part.clamp(-LARGEST, LARGEST).half()
    return fields


def unpack(fields: Mapping[str, Tensor], priors: Priors, coder: BoxCoder) -> DenseOutput:
    """The inverse of `pack`.

    Args:
        fields: Of a batch.
        priors: Its grid.
        coder: Of the teacher.
    """

    def part(name: str) -> Tensor:
        if name in fields:
            return fields[name] if _is_map(name) else fields[name].float()
        codes = fields[f"{name}.codes"]
        flat = codes.flatten(2) if _is_map(name) else codes
        return Quantized(flat, fields[f"{name}.scale"], fields.get(f"{name}.top")).restore().view_as(codes)

    names = {name.removesuffix(".codes") for name in fields}
    levels = range(len(priors.level_shapes))
    towers = tuple((part(f"towers.{level}.cls"), part(f"towers.{level}.box")) for level in levels if _TOWER in names)
    return DenseOutput(
        cls_logits=part("cls"),
        box=part("box"),
        quality=part("quality") if "quality" in names else None,
        priors=priors,
        coder=coder,
        features=tuple(part(f"features.{level}") for level in levels) if "features.0" in names else None,
        towers=towers or None,
    )


def _is_map(name: str) -> bool:
    return name.startswith(("features.", "towers."))


def _place(name: str, parts: Sequence[Tensor], grids: Sequence[Grid], priors: Priors, pinned: bool) -> Tensor:
    """A field of N images in one tensor on the CPU, each image's cells where they are on the grid of the batch.

    Args:
        name: Of the field.
        parts: N tensors: ``(a, ...)``, or ``(F, h, w)`` and ``(F,)`` of maps.
        grids: N grids.
        priors: Grid of the batch.
        pinned: Put the tensor into page-locked memory, from which copies need not be waited for.
    """
    shapes, per_cell, first = priors.level_shapes, priors.anchors_per_cell, parts[0]
    if _is_map(name):
        level = int(name.split(".")[1])
        shape = (len(parts), *first.shape[:1], *(shapes[level] if first.ndim == 3 else ()))
    else:
        shape = (len(parts), len(priors), *first.shape[1:])
    whole = torch.empty(shape, dtype=first.dtype, pin_memory=pinned)
    if any(grid != shapes for grid in grids):
        whole.fill_(OFF_LOGIT if name in ("cls", "cls.top") else 0)
    for into, part, grid in zip(whole, parts, grids, strict=True):
        if grid == shapes or into.shape == part.shape:
            into.copy_(part)
        elif _is_map(name):
            into[:, : part.shape[1], : part.shape[2]] = part
        else:
            sizes = [height * width * per_cell for height, width in grid]
            pairs = zip(into.split(priors.level_sizes), part.split(sizes), shapes, grid, strict=True)
            for rows, own, (_, wide), (height, width) in pairs:
                inner = own.view(height, width, per_cell, *own.shape[1:])
                rows.view(-1, wide, per_cell, *own.shape[1:])[:height, :width] = inner
    return whole


def _finished(output: DenseOutput, grids: Sequence[Grid], images: Tensor) -> DenseOutput:
    """The same output with maps that are 0 beyond each image's own grid, in the memory layout of the images."""
    shapes, device = output.priors.level_shapes, output.box.device
    layout = torch.contiguous_format if images.is_contiguous() else torch.channels_last
    own = torch.tensor(grids)[..., None, None, None]  # (N, L, 2, 1, 1, 1)
    inside = []
    for level, (height, width) in enumerate(shapes):
        row, column = torch.arange(height)[:, None], torch.arange(width)
        inside.append(((row < own[:, level, 0]) & (column < own[:, level, 1])).to(device, non_blocking=True))

    def finished(level: int, values: Tensor) -> Tensor:
        whole = values if all(grid == shapes for grid in grids) else values * inside[level]
        return whole.contiguous(memory_format=layout)

    features, towers = output.features, output.towers
    return replace(
        output,
        features=None if features is None else tuple(map(finished, range(len(features)), features)),
        towers=None if towers is None else tuple((finished(k, c), finished(k, b)) for k, (c, b) in enumerate(towers)),
    )
