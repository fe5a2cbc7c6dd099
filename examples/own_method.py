"""A method of one's own: the bins of all rows, after GO-LSD of D-FINE (arXiv 2410.13842, sec. 4.2).

Importing this file registers the term and a recipe of it, which has all that the others have from then on:
python examples/own_method.py mine/ runs/teacher/model STEPS
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

import ld_hub
from ld_hub.data import load_data
from ld_hub.distillation import BoxBinsKLConfig, Recipe, TermInputs, register_recipe, register_term
from ld_hub.distillation.methods.ld import BoxBinsKL
from ld_hub.distillation.regions import select
from ld_hub.distillation.terms import kl_divergence
from ld_hub.engine import TrainConfig
from ld_hub.ops.boxes import overlap


@dataclass(frozen=True)
class GlobalBinsConfig(BoxBinsKLConfig):
    kind: ClassVar[str] = "global_bins"
    region: str = "all"
    weight: float = 1.0
    temperature: float = 5.0


@register_term
class GlobalBins(BoxBinsKL):  # which refuses heads without bins, or with others
    config_class = GlobalBinsConfig

    def forward(self, inputs: TermInputs) -> Tensor:
        rows = select(inputs, self.config).rows
        pairs = inputs.pairs(rows)
        kl = kl_divergence(*pairs.outputs(), self.config.temperature, divisor=1).mean(dim=1) * pairs.weight
        matched = rows.gather(inputs.assignment.positive)
        iou = overlap(pairs.boxes()[0].detach(), rows.gather(inputs.assignment.boxes), "iou")
        kl = kl * torch.where(matched, iou, pairs.classes()[1].amax(dim=1).sigmoid())
        counts = inputs.step_counts()  # of the whole optimizer step: neither batch size nor split changes the loss
        positives = counts.positives.sum().clamp(min=1)
        others = counts.images * len(inputs.student.priors) - positives
        means = (kl * matched).sum() / positives.sqrt() + (kl * ~matched).sum() / others.sqrt()
        return self.config.weight * means / (positives.sqrt() + others.sqrt())


register_recipe(Recipe("global_bins", {"global_bins": GlobalBinsConfig()}, "bins of all rows (after GO-LSD)"))

if __name__ == "__main__":
    data, teacher, steps = load_data(sys.argv[1], "train"), ld_hub.create_model(sys.argv[2]), int(sys.argv[3])
    student = ld_hub.create_model("gfocal_tiny", num_classes=len(data.label_names), reg_max=teacher.config.reg_max)
    config = TrainConfig("runs/global_bins", steps=steps, image_size=teacher.data_config.image_size, log_every=10)
    ld_hub.DistillationTrainer(student, teacher, "global_bins", train_dataset=data, config=config).train()
