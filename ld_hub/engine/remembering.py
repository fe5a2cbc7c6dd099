"""Before a run whose teachers are asked once: what is in their caches, and asking for what is not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch

from ld_hub.checked import Scalar
from ld_hub.data import DetectionSet
from ld_hub.data.source import tracked
from ld_hub.engine.box_task import BoxTask
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.engine.evaluate import batches_of, gathered
from ld_hub.engine.identity import DIGEST, weights_digest
from ld_hub.engine.teacher_cache import TeacherCache, mirror
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import CacheError, ConfigError
from ld_hub.hub import ShardStore, cache_root
from ld_hub.models.detector import DenseDetector
from ld_hub.ops.dist import rank, world_size
from ld_hub.preprocessing import DataConfig
from ld_hub.preprocessing.transforms import content_key
from ld_hub.structures import ImageBatch
from ld_hub.teachers.box_teacher import BoxTeacher, PixelTeacher

if TYPE_CHECKING:
    from accelerate import Accelerator

AUTO = "auto"  # the place that the library chooses
Bits = Literal[8, 32]


@dataclass(frozen=True)
class CacheWanted:
    """How the teachers' answers are kept.

    Attributes:
        place: Directory, or ``"auto"``: one below `cache_root`, which another run with the same teacher, images and
            sizes finds again.
        bits: 8 for codes, 32 for the networks' own numbers.

    Raises:
        ConfigError: If there are no such bits.
    """

    place: str
    bits: Bits = 8

    def __post_init__(self) -> None:
        if self.bits not in get_args(Bits):
            raise ConfigError(f"cache_bits is {self.bits!r}; expected 8 or 32.")

    def refuse(self, config: TrainConfig, data: DataConfig) -> None:
        """Refuse an augmentation that answers cannot be kept for.

        Args:
            config: Settings of the run.
            data: Preprocessing of the student.

        Raises:
            ConfigError: If there is one; names it.
        """
        config.augmentation.require_still()
        short = data.image_size[0]
        if config.short_sides is not None and config.short_sides != (short, short):
            raise ConfigError(
                f"cache_teacher: short_sides {' '.join(map(str, config.short_sides))} gives an image another "
                f"size each time, and a teacher's answer holds for one. Leave short_sides out (all images get "
                f"{short} px then), or cache_teacher."
            )


def remember(
    task: DistillationTask | BoxTask,
    wanted: CacheWanted,
    datasets: tuple[DetectionSet | None, DetectionSet | None],
    config: TrainConfig,
    accelerator: Accelerator,
) -> list[DetectionSet | None]:
    """Fill the caches of a task's teachers, which do not run any more then (but for heads that terms go through).

    Every rank has to call it, and asks for its share. What is there already, of an earlier run or of one that was
    killed in here, is kept.

    Args:
        task: Its `memories` are set, and `remarks` say what was found and made. Of a teacher that only detects, its
            `store`: boxes follow every augmentation.
        wanted: Where and how.
        datasets: Images that the teachers are asked about: those with labels, and those without.
        config: Settings of the run.
        accelerator: Devices and precision.

    Returns:
        The same data sets, whose batches say what is on their images.

    Raises:
        ConfigError: If an augmentation is wanted that the cache cannot follow.
        CacheError: If the place holds the cache of another teacher, size or data, or a file in it is damaged.
    """
    if isinstance(task, BoxTask):
        task.store = _store_of_boxes(task.teacher, wanted)
        return list(datasets)
    if not task.detectors:
        raise ConfigError(
            "cache_teacher (--cache_teacher) keeps what detectors say, and only an image encoder teaches here."
        )
    wanted.refuse(config, task.model.data_config)
    known = [None if dataset is None else _with_hashes(dataset) for dataset in datasets]
    without = config.batch_size if task.unlabeled is None else task.unlabeled.batch
    pairs = [(data, size) for data, size in zip(known, (config.batch_size, without), strict=True) if data is not None]
    images, batches = [data for data, _ in pairs], [size for _, size in pairs]
    for name, teacher in task.detectors.items():
        distiller = task.distillers[name]
        facts = cache_identity(
            teacher, task.model, distiller.teacher_scale, distiller.needs, wanted.bits, accelerator.mixed_precision
        )
        facts["images"] = _digest(sorted({each for dataset in images for each in _hashes(dataset)}))
        store = ShardStore(_place(wanted, teacher, None if len(task.teachers) == 1 else name, facts), facts)
        cache = TeacherCache(teacher, task.model, distiller.teacher_scale, distiller.needs, store, wanted.bits)
        before = len(store)
        with accelerator.autocast():
            for dataset, number in zip(images, batches, strict=True):
                fill(cache, dataset, replace(config, batch_size=number), accelerator.device)
        accelerator.wait_for_everyone()
        store.refresh()
        _require_whole(cache, images, config)
        task.memories[name] = cache
        task.remarks.append(_describe(cache, len(store) - before))
        if not distiller.needs & {"towers"}:
            teacher.to("cpu")  # it has said what it had to say
    return known


def _store_of_boxes(teacher: BoxTeacher, wanted: CacheWanted) -> ShardStore | None:
    """Where the detections of a teacher that looks at pixels are kept; None for one that is a file already."""
    if not isinstance(teacher, PixelTeacher):
        return None
    if not teacher.digest:
        raise ConfigError(
            f"cache_teacher: nothing tells the answers of '{teacher.name}' from those of another {teacher.kind}. Give "
            "it an attribute 'version', a text that changes when its answers would."
        )
    facts = {"teacher": teacher.name, "kind": teacher.kind, "weights": teacher.digest[:DIGEST], "answers": "boxes"}
    name = teacher.name.replace("/", "--")
    directory = cache_root() / "teachers" / f"{name}-{_digest(facts)}" if wanted.place == AUTO else Path(wanted.place)
    return ShardStore(directory, facts)


def cache_identity(
    teacher: DenseDetector, student: DenseDetector, scale: float, needs: frozenset[str], bits: int, precision: str
) -> dict[str, Scalar]:
    """What a teacher's answers depend on, beside the images; in words, for messages.

    Args:
        teacher: Who answers.
        student: Whose input the images are.
        scale: Size of the teacher's images over the student's.
        needs: Maps that are kept.
        bits: Of what is kept.
        precision: Of the networks: ``"no"`` (float32), ``"bf16"``, ``"fp16"``.
    """
    data = student.data_config
    own = {name: value for name, value in teacher.data_config.to_dict().items() if name != "image_size"}
    return {
        "teacher": teacher.name,
        "weights": weights_digest(teacher),
        "image_size": "x".join(map(str, data.image_size)),
        "size_divisor": data.size_divisor,
        "teacher_scale": float(scale),
        "teacher_config": _digest([asdict(teacher.config), own]),
        "maps": ", ".join(sorted(needs)) or "none",
        "bits": bits,
        "precision": {"no": "float32"}.get(precision, precision),
    }


@torch.no_grad()
def fill(cache: TeacherCache, dataset: DetectionSet, config: TrainConfig, device: torch.device) -> None:
    """Ask for what is missing; this rank's share of it.

    Args:
        cache: Of the teacher.
        dataset: With hashes of the files.
        config: Settings: whether images are mirrored, and how many a batch has; as many go through the network.
        device: Where the teacher is asked.
    """
    hashes = _hashes(dataset)
    first = {each: index for index, each in reversed(list(enumerate(hashes)))}  # of copies of an image, one is enough
    missing = sorted(index for each, index in first.items() if cache.missing(_orientations(each, config)))
    if not missing:
        return
    cache.teacher.to(device)
    if config.channels_last:
        cache.teacher.to(memory_format=torch.channels_last)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    batches = batches_of(
        cache.student,
        dataset.select(missing),
        config.batch_size,
        config.workers,
        device,
        progress=True,
        title=f"asking {cache.teacher.name}",
    )
    with cache.store.writer() as writer:
        for loaded in batches:
            batch = _filled(loaded.to(device), config.batch_size)
            for each in [batch, mirror(batch)] if config.augmentation.flip else [batch]:
                absent = dict.fromkeys(cache.missing(each.contents))
                entries = cache.entries(replace(each, images=each.images.contiguous(memory_format=layout)))
                for content in absent:
                    writer.add(content, entries[content])


def _filled(batch: ImageBatch, number: int) -> ImageBatch:
    """A batch of exactly so many images, the first ones again where there are fewer."""
    if len(batch) == number:
        return batch
    index = [place % len(batch) for place in range(number)]
    contents = tuple(batch.contents[place] for place in index)
    return replace(batch, images=batch.images[index], image_sizes=batch.image_sizes[index], contents=contents)


def _orientations(file_hash: str, config: TrainConfig) -> list[str]:
    """What batches may show of an image (`ImageBatch.contents`)."""
    return [content_key(file_hash, mirrored) for mirrored in ((False, True) if config.augmentation.flip else (False,))]


def _with_hashes(dataset: DetectionSet) -> DetectionSet:
    """The data set with the hashes of its files; each rank reads its share of them."""
    share = range(rank(), len(dataset), world_size())
    found = [dataset.records.find_file_hash(index) for index in tracked(share, "reading images")]
    hashes = [""] * len(dataset)
    for start, each in enumerate(gathered(found)):
        hashes[start :: world_size()] = each
    return dataset.with_file_hashes(hashes)


def _hashes(dataset: DetectionSet) -> list[str]:
    return [dataset.records.file_hash(index) for index in range(len(dataset))]


def _place(wanted: CacheWanted, teacher: DenseDetector, name: str | None, facts: Mapping[str, Scalar]) -> Path:
    """Directory of a teacher's cache; `name` tells it from others of the run."""
    if wanted.place == AUTO:
        return cache_root() / "teachers" / f"{teacher.name or 'teacher'}-{_digest(dict(facts))}"
    return Path(wanted.place) if name is None else Path(wanted.place) / name


def _require_whole(cache: TeacherCache, images: Sequence[DetectionSet], config: TrainConfig) -> None:
    absent = cache.missing([each for data in images for file in _hashes(data) for each in _orientations(file, config)])
    if absent:
        raise CacheError(
            f"'{cache.store.directory}' lacks {len(absent)} answers after all ranks have written theirs: does every "
            "process see the same directory? --cache_teacher names one that all of them can read."
        )


def _describe(cache: TeacherCache, new: int) -> str:
    """What is kept, for the user."""
    number, size = len(cache.store), cache.store.size
    return (
        f"{cache.teacher.name or 'The teacher'} is asked once: {number} answers of {size / number / 2**10:.0f} KiB "
        f"({cache.bits} bits), {new} of them new, in {cache.store.directory}"
    )


def _digest(content: object) -> str:
    """First digits of the SHA-256 of JSON values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:DIGEST]
