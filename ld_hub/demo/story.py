"""The main job on an embedded data set: a teacher, a student alone, and the same student distilled."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ld_hub.analysis.curve_plots import plot_curves
from ld_hub.analysis.curves import LOSSES, course, panels
from ld_hub.benchmark.profile import params
from ld_hub.data import DetectionSet, load_coco
from ld_hub.data.unlabeled import without_annotations
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
from ld_hub.structures import Unlabeled
from ld_hub.version import __version__

TEACHER, STUDENT = "gfocal_r10t", "gfocal_tiny"
ALONE, LONGER, BEST = "alone", "alone_longer", "auto"
RECIPES = ("ld", "vlr", BEST)  # with all labels; with few it is the last
PICTURED = ("teacher", "student_alone", "student_vlr", "student_auto", "few_alone", "few_auto")


@dataclass(frozen=True)
class DemoSettings:
    """Size of the demo; the defaults take 2.5 minutes on two CPU cores with bf16, 5 without.

    Attributes:
        train_images: Generated images to train on.
        val_images: Generated images to evaluate on.
        labels: Training images that keep their labels in the second half of the demo, spread evenly over them.
        image_size: Side in px.
        teacher_steps: Optimizer steps of the teacher, which has all labels.
        student_steps: Optimizer steps of each student, but for those that train as many seconds as another.
        batch_size: Images per step, and as many without labels where there are such.
        lr: Of AdamW, falling to 0 by a cosine.
        seed: Of images, weights and order.
        workers: Processes that load images.
    """

    train_images: int = 1500
    val_images: int = 300
    labels: int = 60
    image_size: int = 96
    teacher_steps: int = 300
    student_steps: int = 150
    batch_size: int = 16
    lr: float = 3e-3
    seed: int = 0
    workers: int = 1


@dataclass(frozen=True)
class Row:
    """One line of the demo's table.

    Attributes:
        name: ``teacher``, or of a student ``alone``, ``alone_longer`` or the recipe.
        labels: Images with labels that it was trained on.
        without: Images without.
        directory: Of the model, in the demo's.
        model: Registered name.
        AP: Averaged over IoU 0.50:0.95, 0..100, as the next two.
        AP50: At IoU 0.50.
        AP75: At IoU 0.75.
        parameters: Of the detector.
        images_per_second: Forward pass and post-processing on the evaluated images, loading included.
        steps: Optimizer steps.
        seconds: Of training, the teacher's forward passes included.
    """

    name: str
    labels: int
    without: int
    directory: str
    model: str
    AP: float
    AP50: float
    AP75: float
    parameters: int
    images_per_second: float
    steps: int
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
        self._train_students(self.train_set, None, RECIPES)
        self._train_students(*self._few_labels(), (BEST,))
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

    def _few_labels(self) -> tuple[DetectionSet, DetectionSet]:
        """Some of the images with their labels, and the others without."""
        images = len(self.train_set)
        number = min(self.settings.labels, images - 1)
        kept = np.arange(number) * images // number
        others = np.setdiff1d(np.arange(images), kept)
        return self.train_set.select(kept), without_annotations(self.train_set.select(others))

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
        advance = self.stage("train the teacher", steps)
        courses = train_together({"": DetectionTask(teacher)}, self.train_set, self._config(steps), advance=advance)
        self._finish("teacher", teacher, courses[""], len(self.train_set), 0)

    def _train_students(self, labelled: DetectionSet, unlabeled: DetectionSet | None, recipes: Sequence[str]) -> None:
        """The student alone and by each recipe, and alone once more for as many seconds as the last recipe took."""
        steps, images = self.settings.student_steps, len(labelled)
        tasks: dict[str, DetectionTask] = {ALONE: DetectionTask(self._new_model(STUDENT))}
        for recipe in recipes:
            wanted = None if unlabeled is None else Unlabeled(batch=self.settings.batch_size)
            student, teacher = self._new_model(STUDENT), self.models["teacher"]
            tasks[recipe] = DistillationTask(student, teacher, Distiller(recipe), unlabeled=wanted)
        advance = self.stage(f"{images} labels: {', '.join(tasks)}", steps * len(tasks))
        courses = train_together(tasks, labelled, self._config(steps), unlabeled=unlabeled, advance=advance)
        longer = max(1, round(steps * courses[recipes[-1]].seconds / courses[ALONE].seconds))
        tasks = {ALONE: tasks.pop(ALONE), LONGER: DetectionTask(self._new_model(STUDENT)), **tasks}
        advance = self.stage(f"{images} labels: alone, for as long", longer)
        courses |= train_together({LONGER: tasks[LONGER]}, labelled, self._config(longer), advance=advance)
        for name, task in tasks.items():
            if isinstance(task, DistillationTask):
                task.model.name = f"{STUDENT}_{name}_{TEACHER.removeprefix('gfocal_')}"
                task.model.teaching = task.teaching
            others = 0 if unlabeled is None or not isinstance(task, DistillationTask) else len(unlabeled)
            self._finish(name, task.model, courses[name], images, others)

    def _finish(self, name: str, model: DenseDetector, course: Course, labels: int, without: int) -> None:
        """Evaluate and save a model, and add its row."""
        few = labels < len(self.train_set)
        directory = name if name == "teacher" else f"{'few' if few else 'student'}_{name}"
        advance = self.stage(f"evaluate {directory}", 1)
        start = time.perf_counter()
        metrics, evaluator = evaluate(model, self.val_set, batch_size=32, workers=self.settings.workers, progress=False)
        detecting = time.perf_counter() - start
        model.save_pretrained(self.out / directory)
        evaluator.save_detections(self.out / directory / "detections.json")
        ap, ap50, ap75 = (100 * (metrics.stats[key] or 0.0) for key in ("AP", "AP50", "AP75"))
        speed, size, steps = len(self.val_set) / detecting, params(model).total, course.steps
        self.rows.append(
            Row(name, labels, without, directory, model.name, ap, ap50, ap75, size, speed, steps, course.seconds)
        )
        self.models[directory], self.courses[directory] = model, course
        advance()

    def _draw(self, number: int = 6, threshold: float = 0.3) -> None:
        """Pictures of what each model finds on the first images of the evaluation set that have objects."""
        models = {name: self.models[name] for name in PICTURED}
        names = ["ground truth", *(name.replace("_", " ") for name in models)]
        advance = self.stage("draw detections", number)
        rows: list[Image.Image] = []
        records = [r for r in self.val_set.rows.select(range(min(40, len(self.val_set)))) if len(r["boxes"]) > 1]
        for record in records[:number]:
            with Image.open(record["path"]) as opened:
                picture = opened.convert("RGB")
            labels = self.val_set.label_names
            row = [draw_detections(picture, record["boxes"], record["labels"], label_names=labels)]
            for model in models.values():
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
    lines = [f"{'':<34}{'AP':>7}{'AP50':>7}{'AP75':>7}{'steps':>8}{'train s':>9}"]
    labels = None
    for r in rows:
        if r.name != "teacher" and r.labels != labels:
            labels = r.labels
            lines.append(f"student, {labels} images with labels")
        lines.append(f"{title(r):<34}{r.AP:>7.1f}{r.AP50:>7.1f}{r.AP75:>7.1f}{r.steps:>8}{r.seconds:>9.1f}")
    teacher, student = rows[0], rows[1]
    sizes = (f"{r.parameters / 1e6:.2f} M parameters, {r.images_per_second:.0f} images/s" for r in (teacher, student))
    return "\n".join([*lines, f"teacher: {next(sizes)}", f"student: {next(sizes)}"])


def title(row: Row) -> str:
    """A row's name in the table."""
    if row.name == "teacher":
        return row.name
    name = f"alone, as many seconds as {BEST}" if row.name == LONGER else row.name
    return f"  {name}, and {row.without} without" if row.without else f"  {name}"


def settings_from(values: Mapping[str, int | None]) -> DemoSettings:
    """Settings with the values that are not None."""
    return DemoSettings(**{key: value for key, value in values.items() if value is not None})
