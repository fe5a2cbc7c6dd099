"""DDF: box-edge distributions where an object is and where none is, each by its own say (arXiv 2410.13842)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ld_hub.distillation import plain
from ld_hub.distillation.inputs import Pairs, TermInputs
from ld_hub.distillation.methods.ld import edges, require_bins
from ld_hub.distillation.recipes import Recipe, register_recipe
from ld_hub.distillation.regions import select
from ld_hub.distillation.terms import PredictionConfig, Term, kl_divergence, register_term
from ld_hub.errors import ConfigError
from ld_hub.ops.boxes import overlap
from ld_hub.papers import Paper, register_paper
from ld_hub.structures import DetectorSpec

PAPER = register_paper(
    Paper(
        "2410.13842",
        "peng2024dfine",
        "{D-FINE}: Redefine Regression Task in {DETR}s as Fine-grained Distribution Refinement",
        "Peng, Yansong and Li, Hebei and Wu, Peixi and Zhang, Yueyi and Sun, Xiaoyan and Wu, Feng",
        2024,
    )
)


@dataclass(frozen=True)
class DecoupledBinsKLConfig(PredictionConfig):
    """Decoupled distillation of box edges (D-FINE, arXiv 2410.13842): matched and unmatched rows apart.

    Attributes:
        temperature: T.
        iou: Whose box a matched row is weighted by: ``"teacher"``, or ``"student"`` as in D-FINE, where the layers of
            one network teach each other. The boxes of a student that has just begun overlap nothing, and a term with
            their weight would be silent when there is most to learn.
        rebin: See `BoxBinsKLConfig`.
    """

    kind: ClassVar[str] = "box_ddf"
    weight: float = 1.5
    region: str = "all"
    temperature: float = 5.0
    iou: Literal["teacher", "student"] = "teacher"
    rebin: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iou not in {"teacher", "student"}:
            raise ConfigError(f"iou is {self.iou!r}; expected 'teacher' or 'student'.")


@register_term
class DecoupledBinsKL(Term[DecoupledBinsKLConfig]):
    """``weight * mean over images of (sqrt(P) m + sqrt(U) u) / (sqrt(P) + sqrt(U))`` (D-FINE, sec. 4.2).

    P and U are an image's matched and unmatched rows in the region, m and u the means over these rows and their four
    edges of ``w T^2 KL(softmax(t / T) || softmax(s / T))``, summed over bins. w, a constant to the gradient, is for a
    matched row the IoU of its box with its ground truth, for an unmatched one the teacher's best class score. (The
    paper writes sums over rows with these factors; means are what D-FINE computes.)

    Adapted to dense heads: the teacher is another network, not the last layer of the decoder; a row's partner is that
    of its location, not its query; matched are the positives of the student's assigner, unmatched all other rows of
    the region, by default all on the images, thousands where D-FINE has hundreds; P and U are of each image, where
    D-FINE takes those of the batch, scaled to 8 images, so that here, too, the batch size does not matter. D-FINE's
    union of all layers' matches has no counterpart. Written from descriptions, not compared with the published code.
    """

    paper = PAPER
    learns = ("box",)
    config_class = DecoupledBinsKLConfig

    def setup(self, student: DetectorSpec, teacher: DetectorSpec) -> list[str]:
        """Both heads need bins, the same number of them."""
        remarks = super().setup(student, teacher)
        require_bins(student, teacher, self.config.rebin)
        return remarks

    def forward(self, inputs: TermInputs) -> Tensor:
        """Scalar."""
        config, images = self.config, len(inputs.student.box)
        pairs = inputs.pairs(select(inputs, config).rows)
        student, teacher = edges(pairs, config.temperature)
        kl = kl_divergence(student, teacher, config.temperature, divisor=1).mean(dim=1)  # (K,)
        matched, weight = self._weights(inputs, pairs)
        part = 2 * (pairs.rows.index // pairs.rows.per_image) + matched.long()  # (K,) into 2 N: unmatched, matched
        sums = kl.new_zeros(2 * images).index_add(0, part, kl * weight).view(images, 2)
        counts = kl.new_zeros(2 * images).index_add(0, part, pairs.weight.to(kl.dtype)).view(images, 2)
        roots = counts.sqrt()
        per_image = (sums / roots.clamp(min=1)).sum(dim=1) / roots.sum(dim=1).clamp(min=1)  # sqrt(P) m = sum / sqrt(P)
        return config.weight * per_image.sum() / inputs.step_counts().images

    @torch.no_grad()
    def _weights(self, inputs: TermInputs, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Which rows are matched ``(K,)`` bool, and how much each counts ``(K,)``, 0 on filling rows."""
        matched = pairs.rows.gather(inputs.assignment.positive)
        boxes = pairs.boxes()[0 if self.config.iou == "student" else 1]
        iou = overlap(boxes, pairs.rows.gather(inputs.assignment.boxes).to(boxes.dtype))
        score = pairs.partners.gather(inputs.teacher.cls_logits).amax(dim=1).sigmoid()
        return matched, torch.where(matched, iou, score) * pairs.weight

    def loops(self, inputs: TermInputs) -> float:
        """See `Term.loops`."""
        config, images = self.config, len(inputs.student.box)
        parts: list[dict[bool, list[float]]] = [{True: [], False: []} for _ in range(images)]
        matched, truth = inputs.assignment.positive.tolist(), inputs.assignment.boxes.tolist()
        for row in plain.rows(inputs, config):
            here = matched[row.image][row.index]
            box = row.student.corners if config.iou == "student" else row.teacher.corners
            weight = plain.overlap(box, truth[row.image][row.index], "iou") if here else max(row.teacher.scores)
            pairs = zip(row.student.box, row.teacher.box, strict=True)
            parts[row.image][here].append(weight * plain.mean([plain.kl(s, t, config.temperature) for s, t in pairs]))
        total = 0.0
        for image in parts:
            roots = {here: math.sqrt(len(found)) for here, found in image.items()}
            both = sum(roots[here] * plain.mean(found) for here, found in image.items())
            total += both / (sum(roots.values()) or 1)
        return config.weight * total / images


register_recipe(
    Recipe(
        "ddf",
        {"ddf": DecoupledBinsKLConfig()},
        "box-edge KL, matched and unmatched rows decoupled (D-FINE's DDF)",
        paper=PAPER.address,
    )
)
