"""The tables of `ld-hub benchmark`: architectures, scorers, a teacher that is asked once, and loaders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ld_hub.benchmark.answers import Answer
    from ld_hub.benchmark.caching import CacheCost
    from ld_hub.benchmark.data_rates import DataRate
    from ld_hub.benchmark.figures import ScorerTable, SpeedTable
    from ld_hub.benchmark.scorers import Scoring
    from ld_hub.benchmark.steps import Workload
    from ld_hub.data import DetectionSet
    from ld_hub.distillation import Recipe
    from ld_hub.models.detector import DenseDetector
    from ld_hub.preprocessing import Augmentation


def speed_table(names: Sequence[str], work: Workload, device: torch.device, num_classes: int) -> SpeedTable:
    """Measure and print architectures with and without bins, row by row (LD paper, Table 3); at most 80 columns.

    Args:
        names: Registered names; none for the paper's four.
        work: What to measure.
        device: Where.
        num_classes: C.

    Returns:
        The figures.
    """
    from ld_hub.benchmark.detectors import PUBLISHED, SIZE, measure, with_and_without_bins
    from ld_hub.benchmark.figures import SpeedTable

    forms = with_and_without_bins(names or PUBLISHED)
    wide = max(12, *(len(name) for name in forms))
    print(f"\n{'':<{wide}}{'bins':>6}{'params':>10}{'multiply-adds':>15}{'network':>10}{'rest':>8}{'images/s':>10}")
    rows = []
    for name in forms:
        row = measure(name, work, device, num_classes)
        rows.append(row)
        size = f"{row.params / 1e6:>8.2f} M{row.multiply_adds / 1e9:>13.2f} G"
        speed = f"{row.network * 1e3:>7.1f} ms{row.postprocessing * 1e3:>5.1f} ms{row.images_per_second:>10.2f}"
        print(f"{name:<{wide}}{'yes' if row.bins else 'no':>6}{size}{speed}", flush=True)
    print(f"\nparams: trainable ones; multiply-adds at {SIZE[1]}x{SIZE[0]}; network and rest (decoding,\n"
          f"NMS) per image, medians; images/s without reading images.")  # fmt: skip
    return SpeedTable(tuple(rows))


def scorer_table(images: int, num_classes: int, detections: int) -> ScorerTable:
    """Measure and print the scorers on random detections; at most 80 columns.

    Args:
        images: Number of images.
        num_classes: C.
        detections: Per image.

    Returns:
        The figures.
    """
    from importlib.util import find_spec

    from ld_hub.benchmark.figures import ScorerTable
    from ld_hub.benchmark.scorers import ScoringLoad, time_scorers
    from ld_hub.evaluation.backends import BACKENDS

    load = ScoringLoad(images, num_classes, detections)
    backends = [name for name in BACKENDS if find_spec(name) is not None]
    print(f"\n{num_classes} classes, {detections} detections an image, random\n")
    print(f"{'scorer':<13}{'images':>8}{'seconds':>10}{'us/detection':>14}{'grew MiB':>10}{'KiB/image':>11}{'AP':>7}")
    rows: list[Scoring] = []
    for row in time_scorers(load, backends):
        rows.append(row)
        each = row.seconds / (row.images * detections) * 1e6
        memory = ("–", "–") if row.growth is None else (f"{row.growth / 2**20:.0f}",
                                                        f"{row.growth / 2**10 / row.images:.1f}")  # fmt: skip
        print(f"{row.backend:<13}{row.images:>8}{row.seconds:>10.2f}{each:>14.1f}{memory[0]:>10}{memory[1]:>11}"
              f"{100 * row.ap:>7.2f}", flush=True)  # fmt: skip
    whole = {row.backend: row.seconds for row in rows if row.images == images}
    ratio = whole["hotcoco"] / whole["pycocotools"] if len(whole) > 1 else None
    if ratio is None:
        print("\nhotcoco is not installed: pip install 'ld_hub[fast-eval]'")
    else:
        print(f"\nhotcoco takes {ratio:.3f} of pycocotools' time (1/{1 / ratio:.0f}) on {images} images")
    return ScorerTable(images, num_classes, detections, ratio, tuple(rows))


def answer_table() -> tuple[Answer, ...]:
    """Measure and print the commands that only look something up; at most 80 columns."""
    from ld_hub.benchmark.answers import time_answers

    print(f"{'ld-hub':<58}{'CPU s':>7}{'seconds':>9}{'exit':>6}")
    rows = []
    for answer in time_answers():
        rows.append(answer)
        command = answer.command if len(answer.command) <= 56 else f"{answer.command[:55]}…"
        print(f"{command:<58}{answer.cpu:>7.2f}{answer.seconds:>9.2f}{answer.code:>6}", flush=True)
    print(f"\nleast of three runs each; the dearest takes {max(row.cpu for row in rows):.2f} s of processor time")
    return tuple(rows)


def cache_table(student: DenseDetector, teacher: DenseDetector, recipe: Recipe, work: Workload) -> CacheCost:
    """Measure and print a teacher that is asked once; at most 80 columns.

    Args:
        student: On its device.
        teacher: On the same device.
        recipe: What is distilled.
        work: What to measure.
    """
    from ld_hub.benchmark.caching import measure_cache

    cost = measure_cache(student, teacher, recipe, work)
    print("\nteacher asked once")
    print(f"  {'step':<22}{'median ms':>11}{'least ms':>11}{'over plain':>12}{'KiB/image':>11}")
    steps = {"plain": cost.plain, "teacher asked": cost.live} | {f"{k} bits": v for k, v in cost.cached.items()}
    for step, time in steps.items():
        size = cost.bytes_per_image.get(step.removesuffix(" bits"))
        shown = "" if size is None else f"{size / 2**10:.0f}"
        over = time.median / cost.plain.median
        print(f"  {step:<22}{time.median:>11.1f}{time.least:>11.1f}{over:>12.3f}{shown:>11}")
    for term, difference in cost.differences.items():
        print(f"  {term} in 8 bits is {difference:.4%} from 32 bits")
    return cost


def data_table(
    dataset: DetectionSet, augmentations: Sequence[Augmentation], work: Workload, workers: int, step: float | None
) -> tuple[DataRate, ...]:
    """Measure and print how fast images come.

    Args:
        dataset: Whose images are read.
        augmentations: What is done to them, each by itself.
        work: What to measure.
        workers: Processes that load images.
        step: Images per second of a training step, or None.
    """
    import torch

    from ld_hub.benchmark.data_rates import measure_rate

    print(f"\nimages of '{dataset.source}', {workers} workers")
    print(f"  {'images/s':>10}{'slowest':>10}{'over step':>11}  augmentation")
    rows = []
    for each in augmentations:
        row = measure_rate(dataset, each, work, workers, step=step, pin_memory=torch.cuda.is_available())
        rows.append(row)
        over = "" if row.of_step is None else f"{row.of_step:.2f}"
        print(f"  {row.images_per_second:>10.1f}{row.slowest:>10.1f}{over:>11}  {row.augmentation}", flush=True)
    if step is not None:
        print("  below 1 a step waits for its images: more --workers, smaller images, or less augmentation")
    return tuple(rows)
