"""The runs of README.md's table: python -m examples.temperature.run DATA TEACHER OUT [--seeds 0 1] [--steps 200].

Students of one group and seed are trained together, so that they share images and teacher passes; each leaves
OUT/STEPS-SEED-NAME.json. What is there already is not made again. DATA and TEACHER are as examples/unlabeled/demo.sh
makes them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean

import torch

import ld_hub
from ld_hub.data import DetectionSet, load_data, train_loader
from ld_hub.distillation import BoxBinsKLConfig, Distiller, Recipe, TermConfig, TermInputs, get_recipe
from ld_hub.distillation.regions import RegionConfig, select
from ld_hub.engine import TrainConfig
from ld_hub.engine.compare import Course, train_together
from ld_hub.engine.detection_task import DetectionTask, targets_of
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.engine.evaluate import evaluate
from ld_hub.hub import atomic_write
from ld_hub.models.detector import DenseDetector
from ld_hub.preprocessing import TrainTransform

TEMPERATURES, TIMES = (1.0, 2.0, 4.0, 10.0), (1, 4)
PUBLISHED = {"main": 0.25, "vlr": 0.0625}  # weights of LD's terms
CROSSLD = ((1.0, 4), (2.0, 4), (2.0, 16), (10.0, 1))  # temperatures and times the published weights
SIZE = (128, 128)


def recipes() -> dict[str, dict[str, Recipe | None]]:
    """Each group's students by name; None is taught by nobody."""
    found: dict[str, dict[str, Recipe | None]] = {"cross": {"alone": None, "crosskd": get_recipe("crosskd")}}
    for temperature, times in CROSSLD:
        changes = {
            name: {"temperature": temperature, "weight": times * PUBLISHED[region]}
            for name, region in (("ld", "main"), ("ld_vlr", "vlr"))
        }
        found["cross"][f"crossld-T{temperature:g}-x{times}"] = get_recipe("crossld").with_terms(**changes)
    for region, weight in PUBLISHED.items():
        found[region] = {
            f"{region}-T{temperature:g}-x{times}": Recipe("study", {"ld": one(region, temperature, times * weight)})
            for temperature in TEMPERATURES
            for times in TIMES
        }
    return found


def one(region: str, temperature: float, weight: float) -> TermConfig:
    return BoxBinsKLConfig(region=region, temperature=temperature, weight=weight)


def new_student(data: DetectionSet, seed: int) -> DenseDetector:
    torch.manual_seed(seed)  # the same start for all
    labels = {"label_names": data.label_names, "category_ids": data.category_ids}
    student = ld_hub.create_model("gfocal_tiny", num_classes=len(data.label_names), **labels)
    student.data_config = replace(student.data_config, image_size=SIZE)
    return student


def settings(steps: int, seed: int) -> TrainConfig:
    return TrainConfig(
        steps=steps, seed=seed, batch_size=16, optimizer="adamw", lr=3e-3, scale_lr=False, lr_schedule="cosine",
        clip_grad_norm=10.0, channels_last=True, workers=0, log_every=max(steps // 10, 1),
    )  # fmt: skip


def train(
    group: Mapping[str, Recipe | None], teacher: DenseDetector, train_set: DetectionSet, steps: int, seed: int
) -> tuple[dict[str, DetectionTask], dict[str, Course]]:
    tasks: dict[str, DetectionTask] = {}
    for name, recipe in group.items():
        student = new_student(train_set, seed)
        tasks[name] = DistillationTask(student, teacher, Distiller(recipe)) if recipe else DetectionTask(student)
    done = [0]

    def advance() -> None:
        done[0] += 1
        if done[0] % (10 * len(tasks)) == 0:
            print(f"  step {done[0] // len(tasks)} of {steps}", flush=True)

    return tasks, train_together(tasks, train_set, settings(steps, seed), advance=advance)


def result(task: DetectionTask, course: Course, val_set: DetectionSet) -> dict[str, object]:
    metrics, _ = evaluate(task.model, val_set, batch_size=32, workers=0, progress=False)
    shares = {
        name.removeprefix("share/distill_"): mean(record[name] for record in course.losses)
        for name in (course.losses[-1] if course.losses else ())
        if name.startswith("share/")
    }
    points = {key: 100 * (metrics.stats[key] or 0.0) for key in ("AP", "AP50", "AP75")}
    return {**points, "seconds": round(course.seconds), "shares": shares}


@torch.no_grad()
def shapes(teacher: DenseDetector, data: DetectionSet, batches: int = 4) -> dict[str, dict[str, dict[str, float]]]:
    """What a teacher's edges look like at each temperature, on rows of each region of some training images.

    ``bins``: how many bins an edge spreads over, the exponential of its mean entropy. ``pull``: the mean norm of the
    gradient of ``T^2 KL`` on the logits of a student with flat bins, ``T |softmax(t / T) - 1 / (R + 1)|``.
    ``peak``: the share of that gradient's squares that stands on the teacher's two likeliest bins.
    """
    student = new_student(data, 0).eval()
    loader = iter(train_loader(data, TrainTransform(student.data_config, flip=0.0, seed=0), 32, seed=0, workers=0))
    logits: dict[str, list[torch.Tensor]] = {region: [] for region in PUBLISHED}
    for _ in range(batches):
        batch = next(loader)
        assignment, said = DetectionTask(student).assign(batch), teacher(batch.images)
        inputs = TermInputs(student(batch.images), said, assignment, targets_of(batch))
        for region, found in logits.items():
            rows = select(inputs, RegionConfig(region=region)).rows
            found.append(rows.gather(said.box)[rows.weight > 0])
    return {region: {f"{t:g}": _shape(torch.cat(found), t) for t in TEMPERATURES} for region, found in logits.items()}


def _shape(logits: torch.Tensor, temperature: float) -> dict[str, float]:
    p = (logits / temperature).softmax(dim=-1)
    entropy = torch.special.entr(p).sum(dim=-1).mean()
    gradient = temperature * (p - 1 / p.shape[-1])
    on_peak = gradient.gather(-1, p.topk(2, dim=-1).indices).square().sum() / gradient.square().sum()
    return {"bins": float(entropy.exp()), "pull": float(gradient.norm(dim=-1).mean()), "peak": float(on_peak)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--groups", nargs="+", choices=sorted(recipes()), default=list(recipes()))
    parser.add_argument("--only", nargs="+", help="of the groups, these students")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    train_set, val_set = (load_data(args.data, split) for split in ("train", "val"))
    teacher = ld_hub.create_model(args.teacher).eval()
    seen = args.out / "shapes.json"
    if not seen.exists():
        atomic_write(seen, json.dumps(shapes(teacher, train_set)))
    for seed in args.seeds:
        for title in args.groups:
            places = {name: args.out / f"{args.steps}-{seed}-{name}.json" for name in recipes()[title]}
            group = {
                name: recipe
                for name, recipe in recipes()[title].items()
                if not places[name].exists() and (args.only is None or name in args.only)
            }
            if not group:
                continue
            print(f"{args.steps} steps, seed {seed}: {', '.join(group)}", flush=True)
            tasks, courses = train(group, teacher, train_set, args.steps, seed)
            for name, task in tasks.items():
                found = result(task, courses[name], val_set)
                print(f"  {name:<18} AP {found['AP']:.1f}", flush=True)
                atomic_write(places[name], json.dumps(found))


if __name__ == "__main__":
    main()
