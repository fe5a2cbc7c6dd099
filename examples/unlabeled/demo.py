"""The runs on the demo's images: python -m examples.unlabeled.demo OUT [--seeds 0 1 2] [--regimes few all].

With all labels, and with 60 and the other images without. Students of one seed are trained together, so that they share
images and teacher passes. Each leaves OUT/SEED-REGIME-NAME.json; what is there already is not made again. About 15
minutes a seed on one CPU core.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import ld_hub
from ld_hub.data import DetectionSet, load_data
from ld_hub.data.unlabeled import without_annotations
from ld_hub.demo import make_demo_dataset
from ld_hub.distillation import Distiller, Recipe, get_recipe
from ld_hub.engine import TrainConfig
from ld_hub.engine.compare import train_together
from ld_hub.engine.detection_task import DetectionTask
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.engine.evaluate import evaluate
from ld_hub.hub import atomic_write
from ld_hub.models.detector import DenseDetector
from ld_hub.structures import Unlabeled

SIZE, LABELS, STEPS, TEACHER_STEPS = 96, 60, 200, 400
FADES = {"decay": "cosine", "decay_from": 0.667, "last_step": 1.0}  # over the last third of the run
TARGETS = Unlabeled(batch=16, terms=False, labeled_terms=False)


def fading(recipe: Recipe) -> Recipe:
    return recipe.with_terms(**{term: FADES for term in recipe.terms})


RECIPES = {
    "vlr": get_recipe("vlr"),
    "bckd": get_recipe("bckd"),
    "crosskd": get_recipe("crosskd"),
    "crosskd.fade": fading(get_recipe("crosskd")),
    "crossld": get_recipe("crossld"),
    "crossld.x4": get_recipe("crossld").with_terms(ld={"weight": 1.0}, ld_vlr={"weight": 0.25}),
    "ld.T2": get_recipe("ld").with_terms(ld={"temperature": 2.0, "weight": 1.0}),
}
LENGTHS = {"alone": 1, "alone.twice": 2, "alone.long": 4}  # times the steps
REGIMES = {
    "few": (*LENGTHS, "targets", "vlr", "bckd", "crossld", "crossld.x4", "crosskd", "crosskd.fade"),
    "all": ("alone", "alone.twice", "vlr", "bckd", "ld.T2", "crossld", "crossld.x4", "crosskd", "crosskd.fade"),
}


def settings(steps: int, seed: int) -> TrainConfig:
    return TrainConfig(
        steps=steps, seed=seed, batch_size=16, optimizer="adamw", lr=3e-3, scale_lr=False, lr_schedule="cosine",
        clip_grad_norm=10.0, channels_last=True, workers=0, log_every=50,
    )  # fmt: skip


def new_model(name: str, data: DetectionSet, seed: int) -> DenseDetector:
    torch.manual_seed(seed)  # the same start for all of a name
    labels = {"label_names": data.label_names, "category_ids": data.category_ids}
    model = ld_hub.create_model(name, num_classes=len(data.label_names), anchor_scale=4.0, **labels)
    model.data_config = replace(model.data_config, image_size=(SIZE, SIZE))
    return model


def ap(model: DenseDetector, data: DetectionSet) -> float:
    metrics, _ = evaluate(model, data, batch_size=32, workers=0, progress=False)
    return 100 * (metrics.stats["AP"] or 0.0)


def teacher_of(directory: Path, train_set: DetectionSet, seed: int) -> DenseDetector:
    if not (directory / "config.json").is_file():
        teacher = new_model("gfocal_r10t", train_set, seed)
        train_together({"teacher": DetectionTask(teacher)}, train_set, settings(TEACHER_STEPS, seed))
        teacher.save_pretrained(directory)
    return ld_hub.create_model(directory)


def run(out: Path, regime: str, seed: int) -> None:
    missing = [name for name in REGIMES[regime] if not place(out, seed, regime, name).exists()]
    if not missing:
        return
    data = make_demo_dataset(out / f"data-{seed}", image_size=SIZE, seed=seed)
    train_set, val_set = load_data(data, "train"), load_data(data, "val")
    teacher = teacher_of(out / f"teacher-{seed}", train_set, seed)
    labelled, pool = train_set, None
    if regime == "few":
        kept = np.arange(LABELS) * len(train_set) // LABELS
        others = train_set.select(np.setdiff1d(np.arange(len(train_set)), kept))
        labelled, pool = train_set.select(kept), without_annotations(others)
    alone = [
        "alone",
        *(name for name in missing if name in LENGTHS),
    ]  # others' seconds are set beside those of the first
    groups: dict[int, dict[str, DetectionTask]] = {
        STEPS * LENGTHS[name]: {name: DetectionTask(new_model("gfocal_tiny", train_set, seed))} for name in alone
    }
    for name in missing:
        if name not in LENGTHS:
            wanted = None if pool is None else TARGETS if name == "targets" else Unlabeled(batch=16)
            distiller = Distiller(RECIPES.get(name, RECIPES["vlr"]))
            task = DistillationTask(new_model("gfocal_tiny", train_set, seed), teacher, distiller, unlabeled=wanted)
            groups.setdefault(STEPS, {})[name] = task
    print(f"seed {seed}, {regime}: {', '.join(missing)} (teacher: AP {ap(teacher, val_set):.1f})", flush=True)
    for steps, tasks in groups.items():
        taught = any(isinstance(task, DistillationTask) for task in tasks.values())
        courses = train_together(tasks, labelled, settings(steps, seed), unlabeled=pool if taught else None)
        for name, task in tasks.items():
            cost = courses[name].seconds / courses["alone"].seconds if steps == STEPS else steps / STEPS
            found = {"AP": ap(task.model, val_set), "steps": steps, "cost": round(cost, 3)}
            print(f"  {name:<14} AP {found['AP']:.1f}, {cost:.1f} x alone", flush=True)
            atomic_write(place(out, seed, regime, name), json.dumps(found))


def place(out: Path, seed: int, regime: str, name: str) -> Path:
    return out / f"{seed}-{regime}-{name}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--regimes", nargs="+", choices=list(REGIMES), default=list(REGIMES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    for seed in args.seeds:
        for regime in args.regimes:
            run(args.out, regime, seed)


if __name__ == "__main__":
    main()
