"""CanKD: the student's cells attend to all of the teacher's before maps are compared (arXiv 2511.21503)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ld_hub.distillation import plain
from ld_hub.distillation.features import FeatureTerm, Level, standardised
from ld_hub.distillation.inputs import MapInputs, TermInputs
from ld_hub.distillation.recipes import Recipe, register_recipe
from ld_hub.distillation.terms import WholeConfig, register_term
from ld_hub.errors import ConfigError
from ld_hub.papers import Paper, register_paper

PAPER = register_paper(
    Paper(
        "2511.21503",
        "sun2026cankd",
        "{CanKD}: Cross-Attention-based Non-local operation for Feature-based Knowledge Distillation",
        "Sun, Shizhe and Ohyama, Wataru",
        2026,
        "WACV",
    )
)


@dataclass(frozen=True)
class CrossAttentionConfig(WholeConfig):
    """CanKD (arXiv 2511.21503): what of the teacher's map a student's cell resembles is added to that cell.

    Attributes:
        reduction: Channels of the teacher's pyramid over those in which cells are compared.
    """

    kind: ClassVar[str] = "cankd"
    weight: float = 5.0
    reduction: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reduction < 1:
            raise ConfigError(f"reduction is {self.reduction!r}; expected a whole number of at least 1.")


class CrossAttention(nn.Module):
    """``z_i = s_i + W (1 / P sum over j of (theta(s_i) . phi(t_j)) g(t_j))``, over the P cells on the image.

    Args:
        width: F, channels of both maps.
        inner: E, channels in which cells are compared.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.theta, self.phi, self.g = (nn.Linear(width, inner) for _ in range(3))
        self.out = nn.Linear(inner, width)
        nn.init.zeros_(self.out.weight)  # begins as the identity, as non-local blocks do
        nn.init.zeros_(self.out.bias)

    def forward(self, level: Level) -> Tensor:
        """``(N, P, F)``. Without a softmax the sum over j comes first: E x E numbers instead of P x P."""
        cells = level.valid.sum(dim=1)[:, None, None]
        keys = self.phi(level.teacher) * level.valid[..., None]
        mixed = keys.transpose(1, 2) @ self.g(level.teacher) / cells  # (N, E, E)
        attended: Tensor = self.out(self.theta(level.student) @ mixed)
        return level.student + attended


@register_term
class CrossAttentionFeature(FeatureTerm[CrossAttentionConfig]):
    """``weight * sum over levels of the mean of (z' - t')^2``, ' standardising each channel over an image's cells.

    z is the student's map after `CrossAttention` to the teacher's, one block per level, trained with the student. The
    sum over all cells of the teacher by dot products, the standardised squared error and the weight 5 are the
    authors'; the residual sum, the zero start and `reduction` are those of non-local blocks (arXiv 1711.07971), on
    which they build. Written from descriptions: neither compared with the published code nor with its numbers. Their
    variant with a dagger is not here.
    """

    paper = PAPER
    learns = ("features",)
    config_class = CrossAttentionConfig

    def build(self, widths: Sequence[int]) -> None:
        """The blocks."""
        reduction = self.config.reduction
        self.blocks = nn.ModuleList(CrossAttention(width, max(width // reduction, 1)) for width in widths)

    def forward(self, inputs: MapInputs) -> Tensor:
        """Scalar."""
        total = inputs.student.box.new_zeros(())
        for level in self.levels(inputs):
            student = standardised(self.blocks[level.index](level), level.valid)
            distance = (student - standardised(level.teacher, level.valid)).square() * level.valid[..., None]
            total = total + (distance.sum(dim=1).mean(dim=1) / level.valid.sum(dim=1)).sum()
        return self.config.weight * total / inputs.step_counts().images

    def loops(self, inputs: TermInputs) -> float:
        """See `Term.loops`."""
        total = 0.0
        for part in plain.maps(self, inputs):
            layers = dict(self.blocks[part.level].named_children())
            theta, phi, g, out = (
                [parameter.tolist() for parameter in layers[name].parameters()] for name in ("theta", "phi", "g", "out")
            )
            mine, theirs = ([side[p] for p in part.inside] for side in (part.student, part.teacher))
            keys, values = ([plain.linear(cell, *layer) for cell in theirs] for layer in (phi, g))
            attended = []
            for cell in mine:
                query = plain.linear(cell, *theta)
                alike = [sum(q * k for q, k in zip(query, key, strict=True)) for key in keys]  # with every cell
                mixed = [
                    plain.mean([a * v for a, v in zip(alike, row, strict=True)]) for row in zip(*values, strict=True)
                ]
                attended.append([c + a for c, a in zip(cell, plain.linear(mixed, *out), strict=True)])
            for z, t in zip(zip(*attended, strict=True), zip(*theirs, strict=True), strict=True):
                a, b = ([(x - plain.mean(side)) / plain.deviation(side) for x in side] for side in (z, t))
                total += plain.mean([(x - y) ** 2 for x, y in zip(a, b, strict=True)]) / len(theirs[0])
        return self.config.weight * total / len(inputs.student.box)


register_recipe(
    Recipe(
        "cankd",
        {"cankd": CrossAttentionConfig()},
        "student's cells attend to the teacher's (CanKD, WACV 2026)",
        paper=PAPER.address,
    )
)
