"""FGD: Focal and Global Knowledge Distillation (arXiv 2111.11837)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ld_hub.distillation import plain
from ld_hub.distillation.features import FeatureTerm, Level
from ld_hub.distillation.inputs import MapInputs, TermInputs
from ld_hub.distillation.recipes import Recipe, register_recipe
from ld_hub.distillation.terms import WholeConfig, register_term
from ld_hub.papers import Paper, register_paper
from ld_hub.structures import Targets

PAPER = register_paper(
    Paper(
        "2111.11837",
        "yang2022fgd",
        "Focal and Global Knowledge Distillation for Detectors",
        "Yang, Zhendong and Li, Zhe and Jiang, Xiaohu and Gong, Yuan and Yuan, Zehuan and Zhao, Danpei and Yuan, Chun",
        2022,
        "CVPR",
    )
)


@dataclass(frozen=True)
class FocalGlobalConfig(WholeConfig):
    """Weights of the parts of FGD; `weight` multiplies them all.

    Attributes:
        temperature: T of the attention maps.
        foreground: alpha, cells inside boxes.
        background: beta, all other cells.
        attention: gamma, attention maps themselves.
        relation: lambda, global context.
    """

    kind: ClassVar[str] = "fgd"
    temperature: float = 0.5
    foreground: float = 1e-3
    background: float = 5e-4
    attention: float = 5e-4
    relation: float = 5e-6


class GlobalContext(nn.Module):
    """A map plus what it says as a whole (GCNet, arXiv 1904.11492, fig. 4d); adds nothing at first.

    Args:
        channels: F.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 2)
        self.attend, last = nn.Linear(channels, 1), nn.Linear(hidden, channels)
        self.transform = nn.Sequential(nn.Linear(channels, hidden), nn.LayerNorm(hidden), nn.ReLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, rows: Tensor, valid: Tensor) -> Tensor:
        """``(N, P, F)`` with valid cells ``(N, P)`` to the same shape."""
        score = self.attend(rows).masked_fill(valid[..., None] == 0, torch.finfo(rows.dtype).min)
        context = (score.softmax(dim=1) * rows).sum(dim=1, keepdim=True)
        added: Tensor = rows + self.transform(context)
        return added


@register_term
class FocalGlobal(FeatureTerm[FocalGlobalConfig]):
    """Squared differences weighted by area and the teacher's attention, attention L1, global context (FGD, eq. 6-12).

    Sums over cells and channels, means over images.
    """

    paper = PAPER
    learns = ("features",)
    config_class = FocalGlobalConfig

    def build(self, widths: Sequence[int]) -> None:
        """A context block per level for either side."""
        self.student_context = nn.ModuleList(GlobalContext(width) for width in widths)
        self.teacher_context = nn.ModuleList(GlobalContext(width) for width in widths)

    def forward(self, inputs: MapInputs) -> Tensor:
        """Scalar."""
        total = inputs.student.box.new_zeros(())
        for level in self.levels(inputs):
            context = self.student_context[level.index](level.student, level.valid)
            target = self.teacher_context[level.index](level.teacher, level.valid)
            relation = ((context - target).square() * level.valid[..., None]).sum()
            total = total + self._focal(level, inputs.targets) + self.config.relation * relation
        return self.config.weight * total / inputs.step_counts().images

    def _focal(self, level: Level, targets: Targets) -> Tensor:
        """Foreground, background and attention parts of a level, summed over images."""
        config = self.config
        space, channel = attention(level.student, level.valid, config.temperature)
        space_t, channel_t = attention(level.teacher, level.valid, config.temperature)
        foreground, background = masks(targets, level)
        mask = config.foreground * foreground + config.background * background
        error = (level.student - level.teacher).square() * channel_t[:, None] * (mask * space_t)[..., None]
        differ = (space - space_t).abs().sum() + (channel - channel_t).abs().sum()
        return error.sum() + config.attention * differ

    def loops(self, inputs: TermInputs) -> float:
        """See `Term.loops`."""
        config, total = self.config, 0.0
        for part in plain.maps(self, inputs):
            space, channel = _plain_attention(part.student, part.inside, config.temperature)
            space_t, channel_t = _plain_attention(part.teacher, part.inside, config.temperature)
            boxes = inputs.targets.boxes[part.image][inputs.targets.usable[part.image]].tolist()
            areas = [_cell_area(p, boxes, part) for p in range(len(part.student))]
            outside = sum(not areas[p] for p in part.inside)
            mine = _plain_context(part.student, part.inside, self.student_context[part.level])
            theirs = _plain_context(part.teacher, part.inside, self.teacher_context[part.level])
            for p in part.inside:
                mask = config.foreground / areas[p] if areas[p] else config.background / outside
                for f, (s, t) in enumerate(zip(part.student[p], part.teacher[p], strict=True)):
                    total += mask * space_t[p] * channel_t[f] * (s - t) ** 2
                total += config.relation * sum((a - b) ** 2 for a, b in zip(mine[p], theirs[p], strict=True))
                total += config.attention * abs(space[p] - space_t[p])
            total += config.attention * sum(abs(a - b) for a, b in zip(channel, channel_t, strict=True))
        return config.weight * total / len(inputs.student.box)


def attention(rows: Tensor, valid: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Where and in which channels a map is active (FGD, eq. 1-4).

    Args:
        rows: ``(N, P, F)``.
        valid: ``(N, P)`` 1.0 or 0.0.
        temperature: T.

    Returns:
        ``(N, P)`` with mean 1 over the valid cells, and ``(N, F)`` with mean 1.
    """
    size = rows.abs()
    cells = valid.sum(dim=1, keepdim=True)
    space = (size.mean(dim=2) / temperature).masked_fill(valid == 0, torch.finfo(rows.dtype).min).softmax(dim=1)
    channel = ((size * valid[..., None]).sum(dim=1) / cells / temperature).softmax(dim=1)
    return space * cells, channel * rows.shape[2]


@torch.no_grad()
def masks(targets: Targets, level: Level) -> tuple[Tensor, Tensor]:
    """Weights of cells inside boxes and outside of them.

    Returns:
        ``(N, P)`` 1 / area in cells of the smallest box that touches the cell, 0 outside; and ``(N, P)`` with sum 1
        per image over the valid cells outside all boxes.
    """
    height, width = level.shape
    low, high = (targets.boxes[..., :2] / level.stride).floor(), (targets.boxes[..., 2:] / level.stride).ceil()
    column = torch.arange(width, device=low.device)
    row = torch.arange(height, device=low.device)
    across = (column >= low[..., :1]) & (column < high[..., :1])  # (N, G, W)
    down = (row >= low[..., 1:]) & (row < high[..., 1:])  # (N, G, H)
    touched = (down[..., :, None] & across[..., None, :]).flatten(2) & targets.usable[..., None]  # (N, G, P)
    area = (high - low).clamp(min=1).prod(dim=-1, keepdim=True)
    foreground = (touched / area).amax(dim=1).to(level.valid.dtype) * level.valid
    background = (~touched.any(dim=1)).to(level.valid.dtype) * level.valid
    return foreground, background / background.sum(dim=1, keepdim=True).clamp(min=1)


def _plain_attention(
    cells: list[list[float]], inside: list[int], temperature: float
) -> tuple[dict[int, float], list[float]]:
    """`attention` of one image in plain numbers, by cell and by channel."""
    space = plain.softmax([plain.mean([abs(x) for x in cells[p]]) / temperature for p in inside])
    by_channel = zip(*(cells[p] for p in inside), strict=True)
    channel = plain.softmax([plain.mean([abs(x) for x in values]) / temperature for values in by_channel])
    by_cell = {p: share * len(inside) for p, share in zip(inside, space, strict=True)}
    return by_cell, [share * len(channel) for share in channel]


def _cell_area(p: int, boxes: list[list[float]], size: plain.Map) -> float:
    """Area in cells of the smallest box that touches a cell; 0 where none does."""
    y, x = divmod(p, size.width)
    areas = []
    for box in boxes:
        x1, y1 = (math.floor(side / size.stride) for side in box[:2])
        x2, y2 = (math.ceil(side / size.stride) for side in box[2:])
        if x1 <= x < x2 and y1 <= y < y2:
            areas.append((x2 - x1) * (y2 - y1))
    return min(areas, default=0)


def _plain_context(cells: list[list[float]], inside: list[int], block: nn.Module) -> dict[int, list[float]]:
    """`GlobalContext` of one image in plain numbers, by cell."""
    w = {name: value.tolist() for name, value in block.named_parameters()}
    share = plain.softmax([plain.linear(cells[p], w["attend.weight"], w["attend.bias"])[0] for p in inside])
    by_channel = zip(*(cells[p] for p in inside), strict=True)
    context = [sum(a * x for a, x in zip(share, values, strict=True)) for values in by_channel]
    hidden = plain.linear(context, w["transform.0.weight"], w["transform.0.bias"])
    middle = plain.mean(hidden)
    scale = math.sqrt(plain.mean([(x - middle) ** 2 for x in hidden]) + 1e-5)
    normed = zip(hidden, w["transform.1.weight"], w["transform.1.bias"], strict=True)
    active = [max((x - middle) / scale * a + b, 0.0) for x, a, b in normed]
    added = plain.linear(active, w["transform.3.weight"], w["transform.3.bias"])
    return {p: [x + a for x, a in zip(cells[p], added, strict=True)] for p in inside}


register_recipe(
    Recipe("fgd", {"fgd": FocalGlobalConfig()}, "focal and global features (FGD, CVPR 2022)", paper=PAPER.address)
)
