"""What it costs to keep a teacher's answers, and what a training step costs then."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ld_hub.benchmark.steps import Milliseconds, Watch, Workload, synthetic_batch, trained_logits
from ld_hub.distillation import Distiller, Recipe
from ld_hub.engine.detection_task import DetectionTask, targets_of, total_loss
from ld_hub.engine.distillation_task import ONLY, DistillationTask
from ld_hub.engine.teacher_cache import BITS, TeacherCache, pack, unpack
from ld_hub.hub import ShardStore
from ld_hub.models.detector import DenseDetector
from ld_hub.structures import DenseOutput, ImageBatch

SPREAD = 3.0  # standard deviation of the bin logits of a trained detector


@dataclass(frozen=True)
class CacheCost:
    """A teacher that is asked once, beside one that is asked in every step.

    Attributes:
        bytes_per_image: Of one answer on disk, by bits; with flips an image has two.
        differences: How far each term in 8 bits is from its value in 32, over that value.
        plain: Step of the student alone, without data, as the two below.
        live: Step with a teacher that is asked.
        cached: Step with answers read from disk, by bits.
    """

    bytes_per_image: Mapping[str, float]
    differences: Mapping[str, float]
    plain: Milliseconds
    live: Milliseconds
    cached: Mapping[str, Milliseconds]


def measure_cache(student: DenseDetector, teacher: DenseDetector, recipe: str | Recipe, work: Workload) -> CacheCost:
    """Keep a teacher's answers to a batch of noise, and take training steps with them; rounds alternate.

    Args:
        student: On its device.
        teacher: On the same device.
        recipe: What is distilled.
        work: What to measure.
    """
    device = next(student.parameters()).device
    task = DistillationTask(student, teacher, Distiller(recipe)).to(device).train()
    task.begin(work.repeats + 1)
    batch = synthetic_batch(work, student.data_config, student.config.num_classes).to(device)
    batch = dataclasses.replace(batch, contents=tuple(map(str, range(len(batch)))))
    needs = task.distillers[ONLY].needs
    plain, watch = DetectionTask(student).train(), Watch(device)
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=1e-6, momentum=0.9)
    with tempfile.TemporaryDirectory() as place:
        caches = {}
        for bits in BITS:
            caches[bits] = TeacherCache(teacher, student, 1.0, needs, ShardStore(Path(place) / f"{bits}", {}), bits)
            with _autocast(work, device):
                caches[bits].store.append(caches[bits].entries(batch))
        differences = _differences(task, batch, work)
        for _ in range(work.repeats + 1):
            watch("plain", partial(_step, plain, batch, optimizer, work))
            task.memories = {}
            watch("live", partial(_step, task, batch, optimizer, work))
            for bits, cache in caches.items():
                task.memories = {ONLY: cache}
                watch(f"{bits}", partial(_step, task, batch, optimizer, work))
        sizes = {f"{bits}": cache.store.size / len(batch) for bits, cache in caches.items()}
    times = {name: Milliseconds.of(timing) for name, timing in watch.timings().items()}
    return CacheCost(sizes, differences, times.pop("plain"), times.pop("live"), times)


@torch.no_grad()
def _differences(task: DistillationTask, batch: ImageBatch, work: Workload) -> dict[str, float]:
    """See `CacheCost.differences`; on answers that look trained: flat ones lose nothing."""
    with _autocast(work, batch.images.device):
        (answer,) = task.teach(batch).values()
    if not isinstance(answer, DenseOutput):
        raise AssertionError("the teacher of this benchmark is a detector")
    bins = answer.box.ndim == 4
    sharp = dataclasses.replace(
        answer,
        cls_logits=trained_logits(answer, targets_of(batch), work.seed),
        box=answer.box * (SPREAD / answer.box.std()) if bins else answer.box,
    )
    found = []
    for bits in BITS:
        torch.manual_seed(work.seed)  # some terms draw
        kept = unpack(pack(sharp, bits), answer.priors, answer.coder)
        with _autocast(work, batch.images.device):
            found.append(task(batch, taught={ONLY: kept}))
    codes, whole = found
    terms = [name for name in whole if name.startswith("distill_")]
    return {name: abs(float(codes[name] - whole[name])) / max(abs(float(whole[name])), 1e-12) for name in terms}


def _step(task: DetectionTask, batch: ImageBatch, optimizer: torch.optim.Optimizer, work: Workload) -> None:
    with _autocast(work, batch.images.device):
        losses = task(batch)
    total_loss(losses).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _autocast(work: Workload, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=work.precision == "bf16")
