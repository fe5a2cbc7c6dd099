"""MGD: masked generative distillation (arXiv 2205.01529)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ld_hub.distillation import plain
from ld_hub.distillation.features import FeatureTerm
from ld_hub.distillation.inputs import MapInputs, TermInputs
from ld_hub.distillation.recipes import Recipe, register_recipe
from ld_hub.distillation.terms import WholeConfig, register_term
from ld_hub.errors import ConfigError
from ld_hub.papers import Paper, register_paper

PAPER = register_paper(
    Paper(
        "2205.01529",
        "yang2022mgd",
        "Masked Generative Distillation",
        "Yang, Zhendong and Li, Zhe and Shao, Mingqi and Shi, Dachuan and Yuan, Zehuan and Yuan, Chun",
        2022,
        "ECCV",
    )
)


@dataclass(frozen=True)
class MaskedGenerationConfig(WholeConfig):
    """MGD (arXiv 2205.01529): the teacher's map is generated from a part of the student's cells.

    Attributes:
        masked: Share of the student's cells that are put to zero, drawn anew in every step.
    """

    kind: ClassVar[str] = "mgd"
    weight: float = 2e-5
    masked: float = 0.65

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.masked < 1:
            raise ConfigError(f"masked is {self.masked!r}; expected a share of at least 0 and below 1.")


@register_term
class MaskedGeneration(FeatureTerm[MaskedGenerationConfig]):
    """``weight * sum over levels, cells and channels of (G(masked s) - t)^2``, mean over images (MGD, eq. 3).

    G is 3x3 convolution, ReLU, 3x3 convolution, one per level, trained with the student. The draw of the cells is the
    only thing in which two splits of a batch differ.
    """

    paper = PAPER
    learns = ("features",)
    config_class = MaskedGenerationConfig

    def build(self, widths: Sequence[int]) -> None:
        """The generators."""
        self.generators = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
            for width in widths
        )

    def forward(self, inputs: MapInputs) -> Tensor:
        """Scalar."""
        total = inputs.student.box.new_zeros(())
        for level in self.levels(inputs):
            kept = torch.rand(level.valid.shape, device=level.valid.device) >= self.config.masked
            student = level.student * (level.valid * kept)[..., None]
            image = student.transpose(1, 2).unflatten(2, level.shape)
            generated = self.generators[level.index](image).flatten(2).transpose(1, 2)
            total = total + ((generated - level.teacher).square() * level.valid[..., None]).sum()
        return self.config.weight * total / inputs.step_counts().images

    def loops(self, inputs: TermInputs) -> float:
        """See `Term.loops`; equal after the same `torch.manual_seed`, by which the cells are drawn."""
        total, kept = 0.0, list[list[bool]]()
        for part in plain.maps(self, inputs):
            if part.image == 0:  # a level's cells are drawn for all images at once
                kept = (torch.rand(len(inputs.student.box), len(part.student)) >= self.config.masked).tolist()
            inside = set(part.inside)
            kernel, bias, last_kernel, last_bias = (p.tolist() for p in self.generators[part.level].parameters())
            cells = [
                cell if p in inside and kept[part.image][p] else [0.0] * len(cell)
                for p, cell in enumerate(part.student)
            ]
            hidden = [[max(x, 0.0) for x in cell] for cell in _convolved(cells, kernel, bias, part)]
            generated = _convolved(hidden, last_kernel, last_bias, part)
            for p in part.inside:
                total += sum((g - t) ** 2 for g, t in zip(generated[p], part.teacher[p], strict=True))
        return self.config.weight * total / len(inputs.student.box)


def _convolved(cells: list[list[float]], kernel: Any, bias: list[float], size: plain.Map) -> list[list[float]]:
    """A 3x3 convolution with zeros around, cell by cell; `kernel` by output, input, row and column."""
    found = []
    for y in range(size.height):
        for x in range(size.width):
            out = list(bias)
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if 0 <= y + dy < size.height and 0 <= x + dx < size.width:
                        cell = cells[(y + dy) * size.width + x + dx]
                        for o, rows in enumerate(kernel):
                            out[o] += sum(rows[i][dy + 1][dx + 1] * value for i, value in enumerate(cell))
            found.append(out)
    return found


register_recipe(
    Recipe(
        "mgd", {"mgd": MaskedGenerationConfig()}, "teacher's map generated from masked cells (MGD)", paper=PAPER.address
    )
)
