"""The main job on an embedded data set: a teacher, a student alone, and the same student distilled."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from ld_hub.analysis.curve_plots import plot_curves
from ld_hub.analysis.curves import LOSSES, course, panels
from ld_hub.benchmark.profile import params
from ld_hub.data import DetectionSet, load_coco
from ld_hub.demo.dataset import make_demo_dataset
from ld_hub.distillation import Distiller
from ld_hub.drawing import contact_sheet, draw_detections, save_picture
from ld_hub.engine.compare import Course, train_together
from ld_hub.engine.detection_task import DetectionTask
from ld_hub.engine.devices import fast_bf16
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.engine.evaluate import evaluate
from ld_hub.engine.train_config import TrainConfig
from ld_hub.hub import atomic_write
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model
from ld_hub.version import __version__

TEACHER, STUDENT = "gfocal_r10t", "gfocal_tiny"
RECIPES = ("ld", "vlr")
ALONE = "alone"


@dataclass(frozen=True)
class DemoSettings:
    """Size of the demo; the defaults take some minutes on two CPU cores.

    Attributes:
        train_images: Generated images to train on.
        val_images: Generated images to evaluate on.
        image_size: Side in px.
        teacher_steps: Optimizer steps of the teacher.
        student_steps: Optimizer steps of each student.
        batch_size: Images per step.
        lr: Of AdamW, falling to 0 by a cosine.
        seed: Of images, weights and order.
        workers: Processes that load images.
    """

    train_images: int = 1500
    val_images: int = 300
    image_size: int = 128
    teacher_steps: int = 400
    student_steps: int = 200
    batch_size: int = 16
    lr: float = 3e-3
    seed: int = 0
    workers: int = 1


@dataclass(frozen=True)
class Row:
    """One line of the demo's table.

    Attributes:
        name: ``teacher``, ``student alone``, ``student ld``, ``student vlr``.
        model: Registered name.
        AP: Averaged over IoU 0.50:0.95, 0..100, as the next two.
        AP50: At IoU 0.50.
        AP75: At IoU 0.75.
        parameters: Of the detector.
        images_per_second: Forward pass and post-processing on the evaluated images, loading included.
        seconds: Of training, the teacher's forward passes included.
    """

    name: str
    model: str
    AP: float
    AP50: float
    AP75: float
    parameters: int
    images_per_second: float
    seconds: float


class Demo:
    """Runs the stages one after another; the command shows what happens.

    Args:
        out: Directory for data, models, pictures and figures.
        settings: Size of everything.
        stage: Called with a stage's title and number of steps; returns a function that is called after each step.
    """

    def __init__(self, out: Path, settings: DemoSettings, stage: Callable[[str, int], Callable[[], None]]) -> None:
        self.out, self.settings, self.stage = out, settings, stage
        self.rows: list[Row] = []
        self.courses: dict[str, Course] = {}
        self.models: dict[str, DenseDetector] = {}
        self.train_set: DetectionSet
        self.val_set: DetectionSet

    def run(self) -> list[Row]:
        """All stages; returns the table."""
        started = time.perf_counter()
        self._make_data()
        self._train_teacher()
        self._train_students()
        self._draw()
        self._write(time.perf_counter() - started)
        return self.rows

    def _make_data(self) -> None:
        s = self.settings
        advance = self.stage("make the data set", s.train_images + s.val_images)
        directory = self.out / "data"
        make_demo_dataset(
            directory,
            train_images=s.train_images,
            val_images=s.val_images,
            image_size=s.image_size,
            seed=s.seed,
            progress=lambda done, total: advance(),
        )
        self.train_set, self.val_set = load_coco(directory, "train"), load_coco(directory, "val")

    def _config(self, steps: int) -> TrainConfig:
        s = self.settings
        return TrainConfig(
            steps=steps, batch_size=s.batch_size, optimizer="adamw", lr=s.lr, scale_lr=False, lr_schedule="cosine",
            clip_grad_norm=10.0, seed=s.seed, workers=s.workers, log_every=10, channels_last=True,
            precision="bf16" if fast_bf16() else "no",
        )  # fmt: skip

    def _new_model(self, name: str) -> DenseDetector:
        """A fresh model; the same weights whenever it is called with the same name."""
        torch.manual_seed(self.settings.seed)
        labels, ids = self.train_set.label_names, self.train_set.category_ids
        model = create_model(name, num_classes=len(labels), label_names=labels, category_ids=ids)
        side = self.settings.image_size
        model.data_config = replace(model.data_config, image_size=(side, side))
        return model

    def _train_teacher(self) -> None:
        steps = self.settings.teacher_steps
        teacher = self._new_model(TEACHER)
        tasks = {"teacher": DetectionTask(teacher)}
        advance = self.stage("train the teacher", steps)
        self.courses |= train_together(tasks, self.train_set, self._config(steps), advance=advance)
        self._finish("teacher", teacher)

    def _train_students(self) -> None:
        steps = self.settings.student_steps
        tasks: dict[str, DetectionTask] = {ALONE: DetectionTask(self._new_model(STUDENT))}
        for recipe in RECIPES:
            tasks[recipe] = DistillationTask(self._new_model(STUDENT), self.models["teacher"], Distiller(recipe))
        advance = self.stage(f"train the student: {', '.join(tasks)}", steps * len(tasks))
        self.courses |= train_together(tasks, self.train_set, self._config(steps), advance=advance)
        for name, task in tasks.items():
            if isinstance(task, DistillationTask):
                task.model.name = f"{STUDENT}_{name}_{TEACHER.removeprefix('gfocal_')}"
                task.model.teaching = task.teaching
            self._finish(name, task.model)

    def _finish(self, name: str, model: DenseDetector) -> None:
        """Evaluate and save a model, and add its row."""
        title = name if name == "teacher" else f"student {name}"
        advance = self.stage(f"evaluate the {title}", 1)
        start = time.perf_counter()
        metrics, evaluator = evaluate(model, self.val_set, batch_size=32, workers=self.settings.workers, progress=False)
        detecting = time.perf_counter() - start
        directory = self.out / title.replace(" ", "_")
        model.save_pretrained(directory)
        evaluator.save_detections(directory / "detections.json")
        ap, ap50, ap75 = (100 * (metrics.stats[key] or 0.0) for key in ("AP", "AP50", "AP75"))
        speed, cost = len(self.val_set) / detecting, self.courses[name].seconds
        self.rows.append(Row(title, model.name, ap, ap50, ap75, params(model).total, speed, cost))
        self.models[name] = model
        advance()

    def _draw(self, number: int = 6, threshold: float = 0.3) -> None:
        """Pictures of what each model finds on the first images of the evaluation set that have objects."""
        names = ["ground truth", *(row.name for row in self.rows)]
        advance = self.stage("draw detections", number)
        rows: list[Image.Image] = []
        records = [r for r in self.val_set.rows.select(range(min(40, len(self.val_set)))) if len(r["boxes"]) > 1]
        for record in records[:number]:
            with Image.open(record["path"]) as opened:
                picture = opened.convert("RGB")
            labels = self.val_set.label_names
            row = [draw_detections(picture, record["boxes"], record["labels"], label_names=labels)]
            for model in self.models.values():
                found = model.predict(picture, threshold=threshold)
                row.append(found.draw())  # type: ignore[union-attr]  # one picture, one answer
            save_picture(contact_sheet(row, names, columns=len(row)), self.out / "pictures" / f"{len(rows):02d}.png")
            rows += row
            advance()
        save_picture(contact_sheet(rows, names, columns=len(names)), self.out / "pictures" / "all.png")

    def _write(self, seconds: float) -> None:
        result = {
            "ld_hub_version": __version__,
            "torch_version": torch.__version__,
            "threads": torch.get_num_threads(),
            "precision": self._config(1).precision,
            "settings": asdict(self.settings),
            "seconds": round(seconds, 1),
            "rows": [asdict(row) for row in self.rows],
            "losses": {name: course.losses for name, course in self.courses.items()},
        }
        atomic_write(self.out / "results.json", json.dumps(result, indent=1))
        atomic_write(self.out / "results.txt", format_table(self.rows) + "\n")
        students = [course(name, each.losses) for name, each in self.courses.items() if name != "teacher"]
        plot_curves(panels(students, LOSSES), self.out / "pictures" / "losses.png")


def format_table(rows: Sequence[Row]) -> str:
    """The demo's table, at most 80 columns."""
    lines = [f"{'':<14}{'AP':>7}{'AP50':>7}{'AP75':>7}{'params':>10}{'images/s':>11}{'train s':>10}"]
    lines += [
        f"{r.name:<14}{r.AP:>7.1f}{r.AP50:>7.1f}{r.AP75:>7.1f}{r.parameters / 1e6:>8.2f} M"
        f"{r.images_per_second:>11.0f}{r.seconds:>10.1f}"
        for r in rows
    ]
    return "\n".join(lines)


def settings_from(values: Mapping[str, int | None]) -> DemoSettings:
    """Settings with the values that are not None."""
    return DemoSettings(**{key: value for key, value in values.items() if value is not None})
