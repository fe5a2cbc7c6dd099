"""Tables of README.md, made by running each recipe: python examples/pairs/table.py [--write].

Every registered recipe takes a training step between every pair of (very small) detectors. Takes two minutes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from ld_hub import create_model
from ld_hub.distillation import Distiller, list_recipes
from ld_hub.engine.detection_task import total_loss
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.errors import ConfigError
from ld_hub.models.detector import DenseDetector
from ld_hub.structures import ImageBatch, Targets

README = Path(__file__).parent / "README.md"
KINDS: dict[str, dict] = {
    "GFocal": {"name": "gfocal"},
    "GFocalV2": {"name": "gfocalv2"},
    "ATSS": {"name": "atss"},
    "ATSS, bins": {"name": "atss", "boxes": "bins"},
    "FCOS": {"name": "fcos"},
    "FCOS, bins": {"name": "fcos", "boxes": "bins"},
    "RetinaNet": {"name": "retinanet"},
    "RetinaNet, bins": {"name": "retinanet", "boxes": "bins", "box_loss": "giou"},
}
NAMES = ("cat", "dog", "horse")
# A GFocal student and a GFocal teacher that differs in one thing: fields of the teacher, of the distiller.
DIFFERENCES: dict[str, tuple[dict, dict]] = {
    "`reg_max` 8 instead of 16": ({"reg_max": 8}, {}),
    "wider pyramid (`fpn_channels`)": ({"fpn_channels": 12}, {}),
    "wider head (`head_width`)": ({"head_width": 12}, {}),
    "other classes, two of three in common": ({"label_names": ("dog", "sheep", "cat", "cow")}, {}),
    "other classes, named by `class_map`": ({"label_names": ("dog", "kitty")}, {"class_map": {"cat": "kitty"}}),
    "no class in common": ({"label_names": ("car", "bus")}, {}),
    "images twice as big (`teacher_scale=2`)": ({}, {"teacher_scale": 2.0}),
    "images 1.5 times as big": ({}, {"teacher_scale": 1.5}),
}
Cells = dict[tuple[str, str], dict[str, str]]  # (row, column) to what stops each recipe; empty where it runs


def detector(role: str, seed: int, name: str, **options) -> DenseDetector:
    torch.manual_seed(seed)
    options = {"label_names": NAMES, "fpn_channels": 8, "head_width": 8, "head_depth": 3, "norm_eval": True, **options}
    model = create_model(name, backbone="test_resnet", num_classes=len(options["label_names"]), **options)
    for parameter in model.head.parameters():  # untrained heads say nearly the same everywhere
        nn.init.normal_(parameter, std=0.2)
    model.name = role
    return model


def batch() -> ImageBatch:
    """Two images of 64 x 64 px with three objects."""
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    boxes = [torch.tensor([[4.0, 8.0, 40.0, 44.0], [30.0, 20.0, 62.0, 60.0]]), torch.tensor([[10.0, 2.0, 26.0, 20.0]])]
    labels = [torch.tensor([0, 2]), torch.tensor([1])]
    sizes = torch.full((2, 2), 64.0)
    return ImageBatch(images, sizes, torch.ones(2, 2), sizes, Targets.pad(boxes, labels, sizes))


def attempt(student: DenseDetector, teacher: DenseDetector, recipe: str, run: bool = True, **options) -> str:
    """The first sentence of what stops a recipe between two detectors, or nothing once a training step is through."""
    try:
        task = DistillationTask(student, teacher, Distiller(recipe, **options)).train()
    except ConfigError as error:
        reason = re.sub(r"^Recipe '\w+'(, term '\w+')?: ", "", str(error))
        reason = re.sub(r"(?i)(?:\b(?:student|teacher) )?'(student|teacher)'", r"the \1", reason)
        reason = re.sub(r"^(\w+) is ", r"`\1` is ", reason)
        return re.split(r"[.:] (?=[A-Z])", reason[0].upper() + reason[1:])[0]
    if run:
        losses = task(batch())
        total = total_loss(losses)
        total.backward()
        terms = [value for name, value in losses.items() if name.startswith("distill_")]
        gradients = [p.grad for p in task.parameters() if p.grad is not None]
        if not (total.isfinite() and sum(terms) > 0 and all(g.isfinite().all() for g in gradients)):
            raise AssertionError(f"{recipe} between {student.name} and {teacher.name}: {losses}")
        task.zero_grad()
    return ""


def families(run: bool | set[tuple[str, str]] = True) -> Cells:
    """Every pair of kinds; `run` may name the pairs that take a step."""
    students = {kind: detector("student", 1, **config) for kind, config in KINDS.items()}
    teachers = {kind: detector("teacher", 2, **config) for kind, config in KINDS.items()}
    return {
        (s, t): {r: attempt(student, teacher, r, run is True or (run and (s, t) in run)) for r in list_recipes()}
        for s, student in students.items()
        for t, teacher in teachers.items()
    }


def differences() -> Cells:
    student = detector("student", 1, "gfocal")
    return {
        (what, "runs"): {
            r: attempt(student, detector("teacher", 2, "gfocal", **fields), r, **options) for r in list_recipes()
        }
        for what, (fields, options) in DIFFERENCES.items()
    }


class Notes:
    """Numbered reasons."""

    def __init__(self, letter: str) -> None:
        self.letter, self.reasons = letter, []

    def mark(self, reason: str) -> str:
        if reason not in self.reasons:
            self.reasons.append(reason)
        return f"{self.letter}{self.reasons.index(reason) + 1}"

    def lines(self) -> list[str]:
        return [f"- {self.letter}{number}: {reason}." for number, reason in enumerate(self.reasons, 1)]


def listed(recipes: Iterable[str]) -> str:
    return ", ".join(f"`{recipe}`" for recipe in recipes)


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def pair_tables(cells: Cells) -> list[str]:
    """One matrix for all recipes that run between the same pairs."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for recipe in list_recipes():
        alike.setdefault(tuple(cell[recipe] for cell in cells.values()), []).append(recipe)
    always = [recipe for behaviour, recipes in alike.items() if not any(behaviour) for recipe in recipes]
    notes = Notes("")
    lines = [f"Between all {len(cells)} pairs of the {len(KINDS)} kinds run {listed(always)}.", ""]
    for behaviour, recipes in alike.items():
        if any(behaviour):
            marks = {pair: notes.mark(reason) if reason else "✓" for pair, reason in zip(cells, behaviour, strict=True)}
            lines += [f"**{listed(recipes)}**", "", row("student \\ teacher", *KINDS), "|---" * (len(KINDS) + 1) + "|"]
            lines += [row(student, *(marks[student, teacher] for teacher in KINDS)) for student in KINDS]
            lines.append("")
    return [*lines, "✓ runs; a number is the reason why not:", "", *notes.lines()]


def difference_table(cells: Cells) -> list[str]:
    notes = Notes("D")
    lines = [row("the teacher has", "does not run"), "|---|---|"]
    for (what, _), cell in cells.items():
        stopped: dict[str, list[str]] = {}
        for recipe, reason in cell.items():
            if reason:
                stopped.setdefault(notes.mark(reason), []).append(recipe)
        whole = [len(recipes) == len(cell) for recipes in stopped.values()]
        texts = [f"{'all' if any(whole) else listed(recipes)}: {mark}" for mark, recipes in stopped.items()]
        lines.append(row(what, "; ".join(texts) or "(all run)"))
    return [*lines, "", *notes.lines()]


def put(text: str, mark: str, lines: list[str]) -> str:
    begin, end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
    head, rest = text.split(begin)
    return f"{head}{begin}\n" + "\n".join(lines) + f"\n{end}{rest.split(end)[1]}"


def main() -> None:
    text = put(README.read_text(), "pairs", pair_tables(families()))
    text = put(text, "differences", difference_table(differences()))
    if "--write" in sys.argv:
        README.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
