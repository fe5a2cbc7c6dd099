"""A batch as student and teacher see it, with every map that a term may ask for: for laws over all recipes.

The teacher's predictions are its head's on its tower maps, so that CrossKD has a teacher that agrees with itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ld_hub.distillation import (
    REGIONS,
    BoxBinsKLConfig,
    BoxIoUConfig,
    ClassBCEConfig,
    ClassKLConfig,
    Distiller,
    FeatureMSEConfig,
    Recipe,
    TermConfig,
    TermInputs,
    get_recipe,
    list_recipes,
)
from ld_hub.errors import ConfigError
from ld_hub.structures import DenseOutput, DetectorSpec, StepCounts, Targets, Towers
from tests.support import build

Kind = tuple[str, bool]  # family, plain boxes
CHANNELS, WIDTH, CLASSES = 5, 4, 5
KINDS: list[Kind] = [(f, plain) for f in build.FAMILIES for plain in (False, True) if (f, plain) != ("gfocal", True)]
RECIPES = list_recipes()
ROW_TERMS: dict[str, TermConfig] = {
    "ld": BoxBinsKLConfig(),
    "kd": ClassKLConfig(),
    "bce": ClassBCEConfig(),
    "iou": BoxIoUConfig(),
    "iou_region": BoxIoUConfig(weighting="region"),
    "feature": FeatureMSEConfig(),
}
DEFAULT_REGIONS = [region for region in REGIONS if region != "gi_batch"]  # which is the published fault


def spec(kind: Kind, name: str = "student", **changes: Any) -> DetectorSpec:
    family, plain = kind
    rows = {"anchors_per_cell": 9 if family == "retinanet" else 1, "points": family == "fcos"}
    widths = {"feature_channels": CHANNELS, "tower_channels": WIDTH}
    return build.spec(name, **{"family": family, "reg_max": None if plain else 16, **rows, **widths, **changes})


def head(kind: Kind, seed: int) -> Callable[[Towers], DenseOutput]:
    """A head of one 1x1 convolution per branch, frozen."""
    family, plain = kind
    random = torch.Generator().manual_seed(seed)
    coder, per_cell = build.coder(family, 16, plain), 9 if family == "retinanet" else 1
    wanted = {"cls": CLASSES, "box": coder.channels, "quality": 1}
    kernels = {
        name: torch.randn(per_cell * number, WIDTH, 1, 1, generator=random, dtype=torch.float64)
        * (1 if number == 5 else 0.5)
        for name, number in wanted.items()
    }
    kernels["box"] *= 0.3 if plain else 2.0

    def predict(towers: Towers) -> DenseOutput:
        def maps(name: str, side: int) -> list[Tensor]:
            return [torch.nn.functional.conv2d(t[side], kernels[name].to(t[side].dtype)) for t in towers]

        boxes = maps("box", 1)
        if plain and family == "fcos":  # distances of some strides
            boxes = [box + torch.tensor(2.0 * stride).log() for box, stride in zip(boxes, build.STRIDES, strict=True)]
        quality = maps("quality", 1) if family in {"atss", "fcos"} else None
        priors = build.grid(family, torch.float64 if towers[0][0].dtype == torch.float64 else torch.float32)
        return DenseOutput.from_levels(maps("cls", 0), boxes, quality, priors, coder)

    return predict


def maps(number: int, seed: int, family: str, channels: int, sides: int = 1) -> Iterator[tuple[Tensor, ...]]:
    random = torch.Generator().manual_seed(seed)
    for height, width in build.grid(family).level_shapes:
        shape = (number, channels, height, width)
        yield tuple(torch.randn(shape, generator=random, dtype=torch.float64) for _ in range(sides))


def leaves(output: DenseOutput) -> list[Tensor]:
    """What a gradient may reach."""
    flat = [m for pair in output.towers or () for m in pair]
    quality = [] if output.quality is None else [output.quality]
    return [output.cls_logits, output.box, *quality, *(output.features or ()), *flat]


def fresh(output: DenseOutput, change: Callable[[Tensor], Tensor] = lambda x: x) -> DenseOutput:
    """The same values as leaves of a graph, maybe changed."""

    def leaf(x: Tensor) -> Tensor:
        return change(x.detach().clone()).requires_grad_()

    return dataclasses.replace(
        output,
        cls_logits=leaf(output.cls_logits),
        box=leaf(output.box),
        quality=None if output.quality is None else leaf(output.quality),
        features=tuple(leaf(m) for m in output.features or ()),
        towers=tuple((leaf(a), leaf(b)) for a, b in output.towers or ()),
    )


def side(kind: Kind, number: int, seed: int, channels: int = CHANNELS) -> DenseOutput:
    """Predictions of a head, with maps."""
    family = kind[0]
    towers = tuple((a, b) for a, b in maps(number, seed + 100, family, WIDTH, sides=2))
    features = tuple(m for (m,) in maps(number, seed + 200, family, channels))
    return fresh(dataclasses.replace(head(kind, seed)(towers), features=features, towers=towers))


def targets(number: int, seed: int = 2, dtype: torch.dtype = torch.float64) -> Targets:
    """0 to 4 boxes per image; the first image is smaller than the batch, so that there is padding."""
    truth = build.targets(number, seed, CLASSES, dtype)
    truth.image_sizes[0] = torch.tensor([64.0, 64.0])
    return truth


def inputs_of(
    student: Kind,
    teacher: Kind,
    number: int = 3,
    seed: int = 1,
    objects: int = 2,
    *,
    same: bool = False,
    channels: int = CHANNELS,
    width: int = WIDTH,
) -> TermInputs:
    """Two detectors on a batch.

    Args:
        student: Its kind.
        teacher: Its kind.
        number: Images.
        seed: Of the values.
        objects: Seed of the ground truths.
        same: The teacher is the student.
        channels: Of the student's pyramid.
        width: Of the student's towers.
    """
    theirs = side(teacher, number, seed + 1)
    mine = fresh(theirs) if same else side(student, number, seed, channels)
    if width != WIDTH:
        narrow = tuple((a[:, :width].detach(), b[:, :width].detach()) for a, b in mine.towers or ())
        mine = fresh(dataclasses.replace(mine, towers=narrow))
    inputs = build.term_inputs(mine, theirs, targets(number, objects))
    return dataclasses.replace(inputs, teacher_head=head(teacher, seed + 1))


def distiller_of(
    recipe: str | Recipe,
    student: Kind,
    teacher: Kind,
    reference: str | None = None,
    *,
    trained: bool = False,
    **changes: Any,
) -> Distiller | None:
    """Set up and in float64; None where the recipe does not fit the two, which says so before the first step.

    Args:
        recipe: Its name, or itself.
        student: Its kind.
        teacher: Its kind.
        reference: See `Distiller`.
        trained: Far from the parameters that the terms start with.
        **changes: Of the student's description.
    """
    recipe = get_recipe(recipe)
    if reference is not None:
        recipe = recipe.published(reference)
    random = {name: {"masked": 0.0} for name, term in recipe.terms.items() if term.kind == "mgd"}
    recipe = recipe.with_terms(**random)  # random cells are the one thing that depends on how a batch is split
    distiller = Distiller(recipe)
    torch.manual_seed(0)
    try:
        distiller.setup(spec(student, **changes), spec(teacher, "teacher"))
    except ConfigError as error:
        assert any(word in str(error) for word in ("bins", "anchors")), error
        return None
    for parameter in distiller.parameters() if trained else ():
        torch.nn.init.normal_(parameter, std=0.3)
    return distiller.double()


def total(distiller: Distiller, inputs: TermInputs) -> Tensor:
    return torch.stack(list(distiller(inputs).values())).sum()


def parts_of(inputs: TermInputs, split: list[list[int]]) -> list[TermInputs]:
    """The batch cut into micro-batches of these images, with the normalisers of the whole step."""
    parts = []
    for images in split:
        sides = []
        for output in (inputs.student, inputs.teacher):
            piece, truth = build.parts_of(output, inputs.targets, [images])[0]
            features = tuple(m[images] for m in output.features or ())
            towers = tuple((a[images], b[images]) for a, b in output.towers or ())
            sides.append(dataclasses.replace(piece, features=features, towers=towers))
        part = build.term_inputs(sides[0], sides[1], truth)
        parts.append(dataclasses.replace(part, teacher_head=inputs.teacher_head))
    counts = StepCounts.mean([StepCounts.local(part.assignment) for part in parts])
    return [dataclasses.replace(part, counts=counts) for part in parts]


def gradients(distiller: Distiller, inputs: TermInputs, wrt: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(total(distiller, inputs), wrt, allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, wrt, strict=True)]


def moved(inputs: TermInputs, side: str, **changes: Any) -> TermInputs:
    return dataclasses.replace(inputs, **{side: dataclasses.replace(getattr(inputs, side), **changes)})
