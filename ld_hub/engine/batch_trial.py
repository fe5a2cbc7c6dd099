"""How many images of a data set fit into memory at once, by training steps that leave no trace."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from ld_hub.data import DetectionSet
from ld_hub.engine.detection_task import DetectionTask, step_counts, targets_of, total_loss
from ld_hub.engine.evaluate import gathered
from ld_hub.engine.lesson_task import LessonTask
from ld_hub.engine.lessons import Lesson
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import ConfigError
from ld_hub.ops.dist import alone
from ld_hub.ops.hardware import free_memory
from ld_hub.optim.batch_search import largest_batch
from ld_hub.preprocessing.geometry import padded_shape, resize_shape
from ld_hub.structures import ImageBatch, ScoredTargets, Targets

STEPS_PER_PASS = 8  # a pass over the images is not to have fewer steps
MOST = 512
SPARE = 0.1  # of the GPU's memory, for what a trial does not see: fragments, other sizes of images
PART = 0.5  # of a CPU's free memory; the rest is for loaders, copies and the system
FOUND = 100  # boxes on an image by a teacher that only detects: it has not been asked yet
STATES = {"sgd": 1, "adamw": 2}  # copies of the parameters that the optimizer keeps


def find_batch(
    task: DetectionTask,
    dataset: DetectionSet,
    config: TrainConfig,
    accelerator: Accelerator,
    unlabeled: DetectionSet | None = None,
) -> tuple[int, str]:
    """The largest batch of images with labels of a process, the same on every rank.

    A GPU is asked by whole steps on images of the largest size with as many boxes as any image has. A CPU would not
    say no before the machine is out of memory: there, what the backward pass of one such image keeps is counted.
    Images without labels are in each step, as many as they always are.

    Args:
        task: Where it is trained; its weights, statistics and gradients are as before afterwards.
        dataset: Images to train on.
        config: Settings.
        accelerator: Gives device and precision.
        unlabeled: Images without labels to train on, or None; the task is a `LessonTask` then.

    Returns:
        Images, and what was tried, for the user.

    Raises:
        ConfigError: If not even one image fits.
    """
    trial = _Trial(task, dataset, config, accelerator, unlabeled)
    most = max(1, min(MOST, len(dataset) // (STEPS_PER_PASS * config.accumulation * accelerator.num_processes)))
    kept = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    device = accelerator.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), alone():
        found = largest_batch(trial.fits, most)
    task.load_state_dict(kept)
    task.zero_grad(set_to_none=True)
    smallest = min(gathered(found))
    beside = f" beside the {trial.without} without labels" if trial.without else ""
    if smallest < 1:
        fewer = ", a smaller --unlabeled_batch" if trial.without else ""
        raise ConfigError(
            f"auto_batch: not even one image of {trial.size[1]} x {trial.size[0]} px fits into the memory of "
            f"'{device}'{beside}: give a smaller --image_size{fewer}, --grad_checkpointing, or --precision bf16."
        )
    limit = f"; {most} is an eighth of a pass" if smallest == most else ""
    return smallest, f"auto_batch: {smallest} images fit{beside} (tried {', '.join(map(str, trial.tried))}{limit})."


class _Trial:
    """Steps on images of the largest size, with the most boxes."""

    def __init__(
        self,
        task: DetectionTask,
        dataset: DetectionSet,
        config: TrainConfig,
        accelerator: Accelerator,
        unlabeled: DetectionSet | None = None,
    ) -> None:
        self.task, self.config, self.accelerator = task, config, accelerator
        self.device: torch.device = accelerator.device
        self.size = _largest(dataset, config, task)
        offsets = dataset.records.offsets
        self.boxes = int((offsets[1:] - offsets[:-1]).max(initial=0))
        self.without, self.other_size = 0, self.size  # images without labels of each step
        if unlabeled is not None and isinstance(task, LessonTask):
            self.without, self.other_size = task.wanted.batch, _largest(unlabeled, config, task)
        self.tried: list[int] = []
        self._needs: tuple[float, float] | None = None  # bytes of an image, and of those without labels, on a CPU
        task.to(self.device).train()
        for frozen in task.outside:
            frozen.to(self.device)

    def fits(self, images: int) -> bool:
        """Whether a step on so many images can be made."""
        self.tried.append(images)
        if self.device.type != "cuda":
            self._needs = (self._count(1, 0), self._count(0, self.without)) if self._needs is None else self._needs
            each, fixed = self._needs
            return fixed + images * each <= PART * free_memory()
        return self._goes(images)

    def _goes(self, images: int) -> bool:
        """Whether the device says yes to a whole step."""
        try:
            ballast = torch.empty(self._reserved(), dtype=torch.uint8, device=self.device)
            self._step(images, self.without)
            del ballast
            return True
        except torch.OutOfMemoryError:
            return False
        finally:
            self.task.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()

    def _reserved(self) -> int:
        """Bytes of the optimizer's state, the average, and some to spare."""
        weights = sum(p.numel() * p.element_size() for p in self.task.parameters() if p.requires_grad)
        total = torch.cuda.get_device_properties(self.device).total_memory
        return int(weights * (STATES[self.config.optimizer] + 1) + SPARE * total)

    def _count(self, images: int = 1, without: int = 0) -> float:
        """Bytes that the backward pass of a step needs: what autograd has kept, and gradients as large again."""
        kept: dict[int, int] = {}
        weights = {p.untyped_storage().data_ptr() for p in self.task.parameters()}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        if images + without:
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                self._step(images, without)
        return 2.0 * sum(kept.values())

    def _step(self, images: int, without: int) -> None:
        """Forward and backward pass on so many images with labels, and without."""
        batch = self._batch(images, self.size, self.boxes) if images else None
        assignment = None if batch is None else self.task.assign(batch)
        counts = None if assignment is None else step_counts([assignment])
        with self.accelerator.autocast():
            losses = self.task(batch, assignment, counts, 0, **self._lesson(without))
        total_loss(losses).backward()

    def _batch(self, images: int, size: tuple[int, int], boxes: int) -> ImageBatch:
        """Noise, with so many boxes on each image."""
        height, width = size
        pixels = torch.randn(images, self.task.model.data_config.channels, height, width, device=self.device)
        sizes = torch.tensor([[float(height), float(width)]]).expand(images, 2)
        scale = torch.tensor([width, height, width, height], dtype=torch.float32)
        low = torch.rand(images, boxes, 2) * 0.7
        corners = torch.cat([low, low + 0.05 + 0.25 * torch.rand_like(low)], dim=-1) * scale
        labels = torch.randint(self.task.model.num_classes, (images, boxes))
        layout = torch.channels_last if self.config.channels_last else torch.contiguous_format
        return ImageBatch(
            images=pixels.contiguous(memory_format=layout), image_sizes=sizes, scale_factors=torch.ones(images, 2),
            original_sizes=sizes, targets=Targets.pad(list(corners), list(labels), sizes),
            image_ids=tuple(range(images)),
        ).to(self.device)  # fmt: skip

    def _lesson(self, images: int) -> dict[str, Lesson]:
        """Images without labels, on each of which a teacher is sure of as many boxes as it can have found."""
        task = self.task
        if not images or not isinstance(task, LessonTask):
            return {}
        boxes = task.most_found(FOUND)
        batch = self._batch(images, self.other_size, boxes)
        targets = ScoredTargets.none(batch.image_sizes)
        if boxes:
            given = targets_of(batch)
            columns = {each.name: getattr(given, each.name) for each in fields(given)}
            targets = ScoredTargets(**columns, scores=given.valid.float(), sure=given.valid)
        return {"lesson": task.lesson(batch, targets, task.teach(batch))}


def _largest(dataset: DetectionSet, config: TrainConfig, task: DetectionTask) -> tuple[int, int]:
    """Height and width in px of the largest batch image: the sides of different images may meet in one batch."""
    data = task.model.data_config
    size = data.image_size if config.short_sides is None else (config.short_sides[1], data.image_size[1])
    shapes = [resize_shape(height, width, size) for height, width in set(map(tuple, dataset.sizes.tolist()))]
    height, width = (max(sides) for sides in zip(*shapes, strict=True))
    return padded_shape(height, width, data.size_divisor)


def batch_of(checkpoint: Path, config: TrainConfig, processes: int) -> TrainConfig:
    """The settings with the batch that a run to be continued had.

    Args:
        checkpoint: Its directory.
        config: Settings.
        processes: Of this run.
    """
    images, accumulation = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))["batch"]
    return replace(config, batch_size=max(1, images // (accumulation * processes)))
