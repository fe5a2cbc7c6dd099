"""Where the time of inference and of a training step goes."""

from __future__ import annotations

import dataclasses
import io
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ld_hub.benchmark.memory import Memory, MemoryWatch
from ld_hub.distillation import Distiller, Recipe, TermInputs
from ld_hub.engine.asking import head_of, maps_of
from ld_hub.engine.detection_task import targets_of
from ld_hub.models.detector import DenseDetector
from ld_hub.preprocessing import DataConfig, TrainTransform, collate, load_image
from ld_hub.structures import DenseOutput, Detections, ImageBatch, StepCounts, Targets, Towers

CRITERION = ("assignment", "losses", "distillation", "backward of losses")  # parts of a step that are the method's
PREDICTED = ("cls_logits", "box", "quality", "features", "towers")  # what a network hands over


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
    """Seconds and memory of one part, over the repeats.

    Attributes:
        median: Seconds.
        least: Seconds.
        memory: The most of all rounds, the one that is not timed included.
    """

    median: float
    least: float
    memory: Memory

    @classmethod
    def of(cls, seconds: list[float], memory: list[Memory]) -> Timing:
        """Summarise the rounds; the first one warms up."""
        timed = seconds[1:] or seconds
        growths = [m.growth for m in memory if m.growth is not None]
        most = Memory(max(m.peak for m in memory), max(growths, default=None))
        return cls(statistics.median(timed), min(timed), most)


@dataclass(frozen=True)
class Milliseconds:
    """Time of some parts together, memory left aside.

    Attributes:
        median: Over the rounds.
        least: Over the rounds.
    """

    median: float
    least: float

    @classmethod
    def of(cls, *parts: Timing) -> Milliseconds:
        """The sum of them."""
        return cls(sum(part.median for part in parts) * 1e3, sum(part.least for part in parts) * 1e3)


class Watch:
    """Measures consecutive parts; on an accelerator each part is waited for."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.memory = device, MemoryWatch(device)
        self.parts: dict[str, tuple[list[float], list[Memory]]] = {}

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        """Do a part of the work and note what it took; returns its result."""
        seconds, memory = self.parts.setdefault(name, ([], []))
        self._wait()
        self.memory.start()
        start = time.perf_counter()
        result = work()
        self._wait()
        seconds.append(time.perf_counter() - start)
        memory.append(self.memory.stop())
        return result

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def timings(self) -> dict[str, Timing]:
        """Of each part, in the order of the first round."""
        return {name: Timing.of(*rounds) for name, rounds in self.parts.items()}


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
    watch: Watch, model: DenseDetector, student: DenseOutput, teacher: DenseOutput | None, batch: ImageBatch,
    distiller: Distiller | None, teacher_head: Callable[[Towers], DenseOutput] | None = None,
) -> Tensor:  # fmt: skip
    """Time assignment, losses and terms; returns the loss, connected to `student`."""
    targets = targets_of(batch)
    assignment = watch("assignment", lambda: model.assign(student.priors, targets))
    counts = StepCounts.local(assignment)
    losses = watch("losses", lambda: model.loss(student, targets, assignment=assignment, counts=counts))
    if distiller is not None and teacher is not None:
        inputs = TermInputs(student, teacher, assignment, targets, counts, teacher_head=teacher_head)
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
    distiller = None if teacher is None or recipe is None else Distiller(recipe)
    if distiller is not None and teacher is not None:
        distiller.setup(student.spec, teacher.spec)
        distiller.begin(work.repeats + 1)
        distiller.to(device)
        teacher.eval().requires_grad_(False)
    batch = synthetic_batch(work, student.data_config, student.config.num_classes).to(device)
    student.train()
    optimizer = torch.optim.SGD([p for p in student.parameters() if p.requires_grad], lr=1e-6, momentum=0.9)
    maps = maps_of(distiller.needs) if distiller is not None else {}
    picture, watch = _jpeg(work), Watch(device)
    for _ in range(work.repeats + 1):
        watch("data", lambda: _load_batch(picture, work, student.data_config))
        with torch.autocast(device.type, torch.bfloat16, enabled=work.precision == "bf16"):
            output = watch("student forward", lambda: student(batch.images, **maps))
            taught = (
                None if teacher is None else watch("teacher forward", lambda: _no_grad(teacher, batch.images, maps))
            )
            head = None if taught is None or teacher is None else head_of(teacher, taught.priors)
        leaf = _cut(output)
        loss = criterion_parts(watch, student, leaf, taught, batch, distiller, head)
        watch("backward of losses", loss.backward)
        pairs = [(o, v.grad) for o, v in zip(_tensors(output), _tensors(leaf), strict=True) if v.grad is not None]
        outputs, gradients = [o for o, _ in pairs], [g for _, g in pairs]
        watch("backward of network", partial(torch.autograd.backward, outputs, gradients))
        watch("optimizer", optimizer.step)
        optimizer.zero_grad(set_to_none=True)
    return watch.timings()


@dataclass(frozen=True)
class Overhead:
    """What the method costs beside its networks.

    Attributes:
        criterion: Seconds of assignment, losses and distillation, forward and backward.
        of_student: The same, over the student's forward and backward pass.
        step: Seconds of the whole step without data, over those of the networks alone (student forward and backward,
            teacher forward).
    """

    criterion: float
    of_student: float
    step: float

    @classmethod
    def of(cls, timings: Mapping[str, Timing]) -> Overhead:
        """Of the medians of `time_training`."""
        seconds = {name: timing.median for name, timing in timings.items() if name != "data"}
        student = seconds["student forward"] + seconds["backward of network"]
        criterion = sum(seconds.get(name, 0.0) for name in CRITERION)
        return cls(
            criterion, criterion / student, sum(seconds.values()) / (student + seconds.get("teacher forward", 0))
        )


def _cut(output: DenseOutput) -> DenseOutput:
    """The same output with leaves in place of its tensors, which ask for a gradient."""
    return dataclasses.replace(output, **{name: _detached(getattr(output, name)) for name in PREDICTED})


def _detached(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_detached(item) for item in value)
    return None if value is None else value.detach().requires_grad_()


def _tensors(value: Any) -> list[Tensor]:
    """All tensors of an output, or of a part of it, always in the same order."""
    if isinstance(value, DenseOutput):
        value = tuple(getattr(value, name) for name in PREDICTED)
    if isinstance(value, tuple):
        return [tensor for item in value for tensor in _tensors(item)]
    return [] if value is None else [value]


@dataclass(frozen=True)
class Inference:
    """What inference costs.

    Attributes:
        parts: Timings: data (decode, resize, collate), network, post-processing (decode, top-k, NMS).
        pairs: (location, class) pairs above the score threshold, per image.
        detections: What is left of them, per image.
    """

    parts: dict[str, Timing]
    pairs: float
    detections: float

    @property
    def outside_network(self) -> float:
        """Share of the time that is not the network's, between 0 and 1."""
        total = sum(part.median for part in self.parts.values())
        return 1 - self.parts["network"].median / total


def time_inference(model: DenseDetector, work: Workload) -> Inference:
    """Time the parts of inference, from image files to detections; scores are those of `trained_logits`."""
    device = next(model.parameters()).device
    batch = synthetic_batch(work, model.data_config, model.config.num_classes).to(device)
    model.eval()
    picture, watch = _jpeg(work), Watch(device)
    logits: Tensor | None = None
    found: list[Detections] = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=work.precision == "bf16"):
        for _ in range(work.repeats + 1):
            watch("data", lambda: _load_batch(picture, work, model.data_config))
            output = watch("network", lambda: model(batch.images))
            logits = trained_logits(output, targets_of(batch), work.seed) if logits is None else logits
            trained = dataclasses.replace(output, cls_logits=logits)
            found = watch(
                "post-processing", partial(model.postprocess, trained, batch.image_sizes, batch.scale_factors)
            )
    threshold = model.postprocess_config.score_threshold
    pairs = 0 if logits is None else int((logits.sigmoid() > threshold).sum())
    return Inference(watch.timings(), pairs / len(batch), sum(map(len, found)) / len(batch))


def trained_logits(output: DenseOutput, targets: Targets, seed: int = 0) -> Tensor:
    """Class logits ``(N, A, C)`` as a trained detector gives them.

    A network without training gives every (location, class) pair the same score, which is either no work for NMS or
    far too much. Here scores are high at the centre of each box, on the level whose anchors have its size, and fall off
    with the distance from it, and from that level; a second class gets a lower score at the same places, and all else
    is noise about a logit of -7. With 20 boxes on 800 x 1344 px some 3000 pairs of an image are above 0.05 (one anchor
    per cell), and the boxes of most of them overlap.

    Args:
        output: Of the network; says where its rows stand.
        targets: What was to be found.
        seed: Of the noise.
    """
    random, priors, boxes = torch.Generator().manual_seed(seed), output.priors, targets.boxes
    size = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1).sqrt()[..., None]  # (N, G, 1) px
    distance = (priors.centers - (boxes[..., None, :2] + boxes[..., None, 2:]) / 2).norm(dim=-1) / size  # (N, G, A)
    levels = (size / (8 * priors.strides)).log2().abs()  # how many levels from the one of this size
    value, owner = (1.5 - 8 * distance - 2 * levels).max(dim=1)  # (N, A)
    label = targets.labels.gather(1, owner)
    logits = torch.randn(output.cls_logits.shape, generator=random).to(output.cls_logits) - 7
    pair = torch.stack([label, (label + 1) % output.num_classes], dim=2)  # (N, A, 2)
    return logits.scatter_reduce(2, pair, torch.stack([value, value - 1.5], dim=2), "amax")


@torch.no_grad()
def _no_grad(model: DenseDetector, images: Tensor, maps: Mapping[str, bool]) -> DenseOutput:
    output: DenseOutput = model(images, **maps)
    return output
