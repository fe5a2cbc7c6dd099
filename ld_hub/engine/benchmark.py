"""Where the time of inference and of a training step goes."""

from __future__ import annotations

import dataclasses
import io
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ld_hub.distillation import Distiller, Recipe, TermInputs
from ld_hub.models.detector import DenseDetector
from ld_hub.preprocessing import DataConfig, TrainTransform, collate, load_image
from ld_hub.structures import DenseOutput, ImageBatch, StepCounts, Targets


@dataclass(frozen=True)
class Workload:
    """What is measured.

    Attributes:
        batch_size: Images per batch.
        height: Of the padded batch in px.
        width: Of the padded batch in px.
        boxes: Objects per image.
        repeats: Measured rounds, after one that is not counted.
        precision: ``"no"`` (float32) or ``"bf16"`` autocast of the networks.
        channels_last: Memory format of images and weights.
        seed: Of images and boxes.
    """

    batch_size: int = 2
    height: int = 800
    width: int = 1344
    boxes: int = 20
    repeats: int = 5
    precision: str = "no"
    channels_last: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Timing:
    """Seconds of one part, over the repeats."""

    median: float
    least: float

    @classmethod
    def of(cls, seconds: list[float]) -> Timing:
        """Summarise the repeats."""
        return cls(statistics.median(seconds), min(seconds))


class _Watch:
    """Measures consecutive parts; on an accelerator each part is waited for."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.parts = device, dict[str, list[float]]()

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        self._wait()
        start = time.perf_counter()
        result = work()
        self._wait()
        self.parts.setdefault(name, []).append(time.perf_counter() - start)
        return result

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def timings(self) -> dict[str, Timing]:
        return {name: Timing.of(seconds[1:] or seconds) for name, seconds in self.parts.items()}


def synthetic_batch(work: Workload, config: DataConfig, num_classes: int) -> ImageBatch:
    """A batch of noise with random boxes, as training takes it."""
    random = torch.Generator().manual_seed(work.seed)
    size = torch.tensor([work.width, work.height], dtype=torch.float32)
    extent = (torch.rand(work.batch_size, work.boxes, 2, generator=random) * 0.3 + 0.02) * size
    corner = torch.rand(work.batch_size, work.boxes, 2, generator=random) * (size - extent)
    labels = torch.randint(0, num_classes, (work.batch_size, work.boxes), generator=random)
    sizes = torch.tensor([[work.height, work.width]] * work.batch_size)
    images = torch.randn(work.batch_size, config.channels, work.height, work.width, generator=random)
    if work.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    return ImageBatch(
        images=images,
        image_sizes=sizes,
        scale_factors=torch.ones(work.batch_size, 2),
        original_sizes=sizes,
        targets=Targets.pad(list(torch.cat([corner, corner + extent], dim=2)), list(labels), sizes),
    )


def _jpeg(work: Workload) -> bytes:
    """A picture of 640 x 480 px with the detail of a photograph."""
    random = np.random.default_rng(work.seed)
    coarse = Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8)).resize((640, 480))
    picture = np.asarray(coarse, np.int16) + random.integers(-12, 13, (480, 640, 3))
    stream = io.BytesIO()
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def _load_batch(picture: bytes, work: Workload, config: DataConfig) -> ImageBatch:
    sized = dataclasses.replace(config, image_size=(min(work.height, work.width), max(work.height, work.width)))
    transform = TrainTransform(sized, flip=0.5, seed=work.seed)
    none = torch.zeros(0, 4)
    return collate([transform(load_image(picture), none, key=(0, i)) for i in range(work.batch_size)])


def criterion_parts(
    watch: _Watch, model: DenseDetector, student: DenseOutput, teacher: DenseOutput | None, batch: ImageBatch,
    distiller: Distiller | None,
) -> Tensor:  # fmt: skip
    """Time assignment, losses and terms; returns the loss, connected to `student`."""
    targets = batch.targets
    if targets is None:
        raise AssertionError("a synthetic batch has targets")
    assignment = watch("assignment", lambda: model.assign(student.priors, targets))
    counts = StepCounts.local(assignment)
    losses = watch("losses", lambda: model.loss(student, targets, assignment=assignment, counts=counts))
    if distiller is not None and teacher is not None:
        inputs = TermInputs(student, teacher, assignment, targets, counts)
        losses = losses | watch("distillation", lambda: distiller(inputs))
    return torch.stack(list(losses.values())).sum()


def time_training(
    student: DenseDetector, teacher: DenseDetector | None, recipe: str | Recipe | None, work: Workload
) -> dict[str, Timing]:
    """Time the parts of a training step.

    The backward pass is cut at the head's outputs, so that the cost of losses and terms stands apart from the
    network's.

    Args:
        student: On its device.
        teacher: On the same device, or None for plain training.
        recipe: With a teacher: what is distilled.
        work: What to measure.

    Returns:
        Timings by part, in the order of the step: data, student forward, teacher forward, assignment, losses,
        distillation, backward of losses, backward of network, optimizer.
    """
    device = next(student.parameters()).device
    distiller = None if teacher is None or recipe is None else Distiller(recipe).to(device)
    if distiller is not None and teacher is not None:
        distiller.setup(student.spec, teacher.spec)
        teacher.eval().requires_grad_(False)
    batch = synthetic_batch(work, student.data_config, student.config.num_classes).to(device)
    student.train()
    optimizer = torch.optim.SGD([p for p in student.parameters() if p.requires_grad], lr=1e-6, momentum=0.9)
    picture, watch = _jpeg(work), _Watch(device)
    for _ in range(work.repeats + 1):
        watch("data", lambda: _load_batch(picture, work, student.data_config))
        with torch.autocast(device.type, torch.bfloat16, enabled=work.precision == "bf16"):
            output = watch("student forward", lambda: student(batch.images))
            taught = None if teacher is None else watch("teacher forward", lambda: _no_grad(teacher, batch.images))
        leaf = dataclasses.replace(
            output,
            cls_logits=output.cls_logits.detach().requires_grad_(),
            box=output.box.detach().requires_grad_(),
        )
        loss = criterion_parts(watch, student, leaf, taught, batch, distiller)
        watch("backward of losses", loss.backward)
        gradients = [leaf.cls_logits.grad, leaf.box.grad]
        outputs = [output.cls_logits, output.box]
        watch("backward of network", partial(torch.autograd.backward, outputs, gradients))
        watch("optimizer", optimizer.step)
        optimizer.zero_grad(set_to_none=True)
    return watch.timings()


def time_inference(model: DenseDetector, work: Workload) -> dict[str, Timing]:
    """Time the parts of inference: network, and post-processing (decode, top-k, NMS)."""
    device = next(model.parameters()).device
    batch = synthetic_batch(work, model.data_config, model.config.num_classes).to(device)
    model.eval()
    watch = _Watch(device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=work.precision == "bf16"):
        for _ in range(work.repeats + 1):
            output = watch("network", lambda: model(batch.images))
            trained = trained_looking(output, work.seed)
            watch("post-processing", partial(model.postprocess, trained, batch.image_sizes, batch.scale_factors))
    return watch.timings()


def trained_looking(output: DenseOutput, seed: int = 0) -> DenseOutput:
    """The same output with scores as a trained detector gives them: nearly all low, about 1 location in 100 not.

    A network without training gives every pair the same score, which is either no work for NMS or far too much.
    """
    random = torch.Generator().manual_seed(seed)
    logits = torch.full(output.cls_logits.shape, -7.0)
    number, rows, classes = logits.shape
    hot = torch.rand(number, rows, generator=random) < 0.01
    label = torch.randint(0, classes, (number, rows), generator=random)
    value = torch.rand(number, rows, generator=random) * 5 - 4
    logits.scatter_(2, label[..., None], torch.where(hot, value, -7.0)[..., None])
    return dataclasses.replace(output, cls_logits=logits.to(output.cls_logits))


@torch.no_grad()
def _no_grad(model: DenseDetector, images: Tensor) -> DenseOutput:
    output: DenseOutput = model(images)
    return output


def peak_memory(device: torch.device) -> tuple[str, int]:
    """What was measured, and the peak so far in bytes: the accelerator's allocations, or the process's memory."""
    if device.type == "cuda":
        return "device memory", torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return "process memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def hardware(device: torch.device) -> str:
    """Name of the machine and the libraries, for tables that leave it."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{_processor()}, {torch.get_num_threads()} threads"
    return f"{name}; torch {torch.__version__}, Python {platform.python_version()}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        models = []
    return models[0] if models else platform.processor() or platform.machine()
