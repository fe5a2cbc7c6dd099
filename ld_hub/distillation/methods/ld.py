"""LD: localization distillation, in the main region and in the valuable localization region (arXiv 2102.12252)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import Tensor

from ld_hub.checked import Scalar
from ld_hub.distillation import plain
from ld_hub.distillation.inputs import Pairs, TermInputs
from ld_hub.distillation.methods import kd
from ld_hub.distillation.recipes import Recipe, register_recipe
from ld_hub.distillation.regions import select
from ld_hub.distillation.terms import PredictionConfig, Term, TermConfig, kl_divergence, register_term
from ld_hub.errors import ConfigError
from ld_hub.ops.distribution import rebin
from ld_hub.papers import Paper, register_paper
from ld_hub.structures import DetectorSpec

PAPER = register_paper(
    Paper(
        "2102.12252",
        "zheng2022ld",
        "Localization Distillation for Dense Object Detection",
        "Zheng, Zhaohui and Ye, Rongguang and Wang, Ping and Ren, Dongwei and Zuo, Wangmeng and Hou, Qibin and "
        "Cheng, Ming-Ming",
        2022,
        "CVPR",
    )
)
# What the published configurations set differently from GFocal's (reference SPEC 4 and 8). RetinaNet's weights are for
# the mean over 68 joint entries; a KL of one edge divided by 272 = 16 x 17 is as strong.
FAMILIES: dict[str, dict[str, dict[str, Scalar]]] = {
    "atss": {"ld_vlr": {"weight": 0.0375}},
    "fcos": {"ld_vlr": {"region": "inside_gt", "exclude_positives": True}},
    "retinanet": {
        "ld": {"weight": 5.0, "kl_divisor": 272},
        "ld_vlr": {"weight": 0.15, "kl_divisor": 272},
        **kd.RETINANET,
    },
}


@dataclass(frozen=True)
class BoxBinsKLConfig(PredictionConfig):
    """Localization Distillation (arXiv 2102.12252, eq. 4): KL between the bin distributions of each box edge.

    Attributes:
        temperature: T.
        normalizer: ``"images"``: 2 / N x the sum over rows, N being the images of the whole optimizer step, so that
            the batch size does not matter (equal to the published loss at its 2 images per device); ``"none"``: the
            plain sum of this rank's batch, as published.
        kl_divisor: The KL is divided by this; 17 keeps the published strength for any reg_max, None divides by the
            number of bins.
        joint: One softmax over the bins of all four edges, as LD's RetinaNet head has it; edges are then no
            distributions of their own. Its KL takes the place of the sum over edges.
        rebin: Move a teacher's distributions to the student's bins where their numbers differ
            (`ld_hub.ops.distribution.rebin`); otherwise that is an error.
    """

    kind: ClassVar[str] = "box_bins_kl"
    weight: float = 0.25
    temperature: float = 10.0
    normalizer: Literal["images", "none"] = "images"
    kl_divisor: int | None = 17
    joint: bool = False
    rebin: bool = False

    def published(self, reference: str, family: str) -> BoxBinsKLConfig:
        """A plain sum over rows, a mean over bins; with the accidents of LD's RetinaNet head, its own."""
        changed = replace(self, normalizer="none", kl_divisor=None)
        if (reference, family) != ("ld", "retinanet"):
            return changed
        return replace(changed, joint=True, exclude_positives=self.exclude_positives or self.region == "vlr")


@register_term
class BoxBinsKL(Term[BoxBinsKLConfig]):
    """``weight / 4 * sum over rows and edges of importance * T^2 KL``. See `BoxBinsKLConfig`.

    Distances count from the student's centres: where a teacher's are elsewhere (FCOS against anchors), its
    distributions are moved.
    """

    paper = PAPER
    learns = ("box",)
    config_class = BoxBinsKLConfig

    def setup(self, student: DetectorSpec, teacher: DetectorSpec) -> list[str]:
        """Both heads need bins, the same number of them."""
        remarks = super().setup(student, teacher)
        require_bins(student, teacher, self.config.rebin)
        return remarks

    def forward(self, inputs: TermInputs) -> Tensor:
        """Scalar."""
        config = self.config
        region = select(inputs, config)
        pairs = inputs.pairs(region.rows)
        student, teacher = edges(pairs, config.temperature)
        if config.joint:
            student, teacher = student.flatten(1).unsqueeze(1), teacher.flatten(1).unsqueeze(1)  # (K, 1, 4(R+1))
        kl = kl_divergence(student, teacher, config.temperature, config.kl_divisor)  # (K, 4), or (K, 1)
        total = config.weight / 4 * ((region.importance * pairs.weight)[:, None] * kl).sum()
        return total if config.normalizer == "none" else total * (2 / inputs.step_counts().images)

    def loops(self, inputs: TermInputs) -> float:
        """See `Term.loops`."""
        config, total = self.config, 0.0
        for row in plain.rows(inputs, config):
            student, teacher = row.student.box, row.teacher.box  # four edges of R+1 logits
            if config.joint:
                student, teacher = ([[logit for edge in box for logit in edge]] for box in (student, teacher))
            for s, t in zip(student, teacher, strict=True):
                total += row.importance * plain.kl(s, t, config.temperature) / (config.kl_divisor or len(s))
        scale = 1.0 if config.normalizer == "none" else 2 / len(inputs.student.box)
        return config.weight / 4 * total * scale


def require_bins(student: DetectorSpec, teacher: DetectorSpec, rebin: bool) -> None:
    """Refuse pairs whose box edges have no distributions that can be compared.

    Args:
        student: Its description.
        teacher: Its description.
        rebin: Whether the teacher's distributions may be moved to another number of bins.

    Raises:
        ConfigError: With the way out.
    """
    for spec in (student, teacher):
        if spec.reg_max is None:
            raise ConfigError(
                f"Localization distillation compares bin distributions, and '{spec.name}' has none. "
                f"Take its form with bins (boxes='bins', e.g. '{spec.family}_r50_bins'), or the recipe 'kd' "
                "(classes only), 'bckd' or 'crosskd' (boxes of any kind)."
            )
    if student.reg_max != teacher.reg_max and not rebin:
        raise ConfigError(
            f"reg_max is {student.reg_max} in student '{student.name}' and {teacher.reg_max} in teacher "
            f"'{teacher.name}'. Build the student with reg_max={teacher.reg_max}, or let the term move the "
            "teacher's distributions to the student's bins (rebin=True)."
        )


def edges(pairs: Pairs, temperature: float) -> tuple[Tensor, Tensor]:
    """Bin logits ``(K, 4, R+1)`` of both, the teacher's in the student's bins and from its centres.

    Args:
        pairs: Rows of two heads with bins.
        temperature: T at which they are compared, and moved where they have to be.
    """
    student, teacher = pairs.outputs()
    shift = pairs.edge_shifts()
    if shift is not None or student.shape[-1] != teacher.shape[-1]:
        teacher = temperature * rebin(teacher / temperature, student.shape[-1], shift)
    return student, teacher


MAIN: dict[str, TermConfig] = {
    "kd": kd.ClassKLConfig(),
    "ld": BoxBinsKLConfig(),
    "ld_vlr": BoxBinsKLConfig(weight=0.0625, region="vlr"),
}
register_recipe(
    Recipe(
        "ld",
        {"ld": BoxBinsKLConfig()},
        "box-edge KL on the positives (published 36.5 / 39.9 / 41.0 weights)",
        paper=PAPER.address,
        families=FAMILIES,
    )
)
register_recipe(
    Recipe(
        "vlr", MAIN, "the LD paper's full method: main KD + main LD + VLR LD", paper=PAPER.address, families=FAMILIES
    )
)
