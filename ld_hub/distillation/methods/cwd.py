"""CWD: channel-wise distillation (arXiv 2011.13256)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ld_hub.distillation import plain
from ld_hub.distillation.correspondence import require_common_classes
from ld_hub.distillation.features import FeatureTerm
from ld_hub.distillation.inputs import MapInputs, TermInputs
from ld_hub.distillation.recipes import Recipe, register_recipe
from ld_hub.distillation.terms import Term, WholeConfig, register_term
from ld_hub.papers import Paper, register_paper
from ld_hub.structures import DetectorSpec, EncoderSpec

PAPER = register_paper(
    Paper(
        "2011.13256",
        "shu2021cwd",
        "Channel-wise Knowledge Distillation for Dense Prediction",
        "Shu, Changyong and Liu, Yifan and Gao, Jianfei and Yan, Zheng and Shen, Chunhua",
        2021,
        "ICCV",
    )
)


@dataclass(frozen=True)
class ChannelKLConfig(WholeConfig):
    """CWD (arXiv 2011.13256): each channel's map as a distribution over the cells of an image.

    Attributes:
        on: ``"features"``, the pyramid's channels, or ``"logits"``, the class logits.
        temperature: T.
    """

    kind: ClassVar[str] = "cwd"
    weight: float = 10.0
    on: Literal["features", "logits"] = "features"
    temperature: float = 1.0


@register_term
class ChannelKL(FeatureTerm[ChannelKLConfig]):
    """``weight * sum over levels of T^2 KL / F``, mean over images (CWD, eq. 4). See `ChannelKLConfig`."""

    paper = PAPER
    learns = ("cls", "features")
    config_class = ChannelKLConfig

    def setup(self, student: DetectorSpec, teacher: DetectorSpec) -> list[str]:
        """See `FeatureTerm.setup`; logits need no adapters, and have channels in common only where classes are."""
        if self.config.on == "features":
            return super().setup(student, teacher)
        require_common_classes(student, teacher)
        return []

    def setup_encoder(self, student: DetectorSpec, encoder: EncoderSpec) -> list[str]:
        """See `FeatureTerm.setup_encoder`; logits need a detector as the teacher."""
        if self.config.on == "features":
            return super().setup_encoder(student, encoder)
        return Term.setup_encoder(self, student, encoder)

    def forward(self, inputs: MapInputs) -> Tensor:
        """Scalar."""
        temperature, total = self.config.temperature, inputs.student.box.new_zeros(())
        for student, teacher, valid in self._maps(inputs):
            outside = (1 - valid)[..., None] * (torch.finfo(student.dtype).min / 8)  # no share of the softmax
            log_p = (student / temperature + outside).log_softmax(dim=1)
            log_t = (teacher / temperature + outside).log_softmax(dim=1)
            total = total + (log_t.exp() * (log_t - log_p)).sum() / student.shape[2]
        return self.config.weight * temperature**2 * total / inputs.step_counts().images

    def _maps(self, inputs: MapInputs) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Student and teacher ``(N, P, F)`` and valid cells ``(N, P)`` of each level."""
        if self.config.on == "features":
            for level in self.levels(inputs):
                yield level.student, level.teacher, level.valid
            return
        if not isinstance(inputs, TermInputs):
            raise AssertionError("logits are of a detector: TermInputs")
        student, teacher, weight = inputs.class_maps()
        sizes = inputs.student.priors.level_sizes
        yield from zip(student.split(sizes, 1), teacher.split(sizes, 1), weight.split(sizes, 1), strict=True)

    def loops(self, inputs: TermInputs) -> float:
        """See `Term.loops`."""
        total = 0.0
        for student, teacher in self._cells(inputs):
            channels = list(zip(zip(*student, strict=True), zip(*teacher, strict=True), strict=True))
            total += plain.mean([plain.kl(s, t, self.config.temperature) for s, t in channels])
        return self.config.weight * total / len(inputs.student.box)

    def _cells(self, inputs: TermInputs) -> Iterator[tuple[list[list[float]], list[list[float]]]]:
        """Of each image and level the cells, or rows, on the image: F numbers of student and teacher."""
        if self.config.on == "features":
            for part in plain.maps(self, inputs):
                yield [part.student[p] for p in part.inside], [part.teacher[p] for p in part.inside]
            return
        levels, valid = inputs.student.priors.levels.tolist(), inputs.assignment.valid.tolist()
        for image, inside in enumerate(valid):
            for level in range(max(levels) + 1):
                rows = [a for a, here in enumerate(levels) if here == level and inside[a]]
                yield inputs.student.cls_logits[image, rows].tolist(), inputs.teacher.cls_logits[image, rows].tolist()


register_recipe(
    Recipe(
        "cwd",
        {"cwd": ChannelKLConfig(), "cwd_cls": ChannelKLConfig(on="logits", weight=5.0)},
        "channels as distributions over the image (CWD, ICCV 2021)",
        paper=PAPER.address,
    )
)
