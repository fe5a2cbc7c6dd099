"""Terms on feature maps and DIST: second versions in NumPy loops, laws of each method."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import nms

from ld_hub.distillation import REGIONS, TERMS, TermInputs
from ld_hub.distillation.correspondence import Matching
from ld_hub.distillation.methods.gi import disagreement
from ld_hub.distillation.regions import RegionConfig, select
from ld_hub.structures import StepCounts
from tests.support import build

CHANNELS = 6
KINDS = ("feature_mse", "pkd", "cwd", "fgd", "mgd", "dist")


def maps(number: int, seed: int, family: str = "gfocal", channels: int = CHANNELS) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(seed)
    shapes = build.grid(family).level_shapes
    made = [torch.randn(number, channels, *shape, generator=random, dtype=torch.float64) for shape in shapes]
    return tuple(m.requires_grad_() for m in made)


def inputs_of(
    number: int = 3, seed: int = 1, family: str = "gfocal", small: bool = True, channels: int = CHANNELS
) -> Any:
    """Student and teacher with maps; with `small`, one image is smaller than the batch, so that there is padding."""
    student, teacher = (build.output(number, seed + k, family=family) for k in range(2))
    student = dataclasses.replace(student, features=maps(number, seed + 10, family, channels))
    teacher = dataclasses.replace(teacher, features=maps(number, seed + 20, family))
    truth = build.targets(number, seed=2)
    if small:
        truth.image_sizes[0] = torch.tensor([64.0, 64.0])
    return build.term_inputs(student, teacher, truth)


def term(kind: str, width: int = CHANNELS, **fields: Any) -> Any:
    config_class = TERMS[kind].config_class
    made = TERMS[kind](config_class(**fields))
    torch.manual_seed(0)
    made.setup(build.spec(feature_channels=width), build.spec("teacher", feature_channels=CHANNELS))
    return made.double()


def levels_of(inputs: TermInputs) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """``(N, P, F)`` of both sides and valid cells ``(N, P)``, per level."""
    priors, start, found = inputs.student.priors, 0, []
    valid = inputs.assignment.valid[:, :: priors.anchors_per_cell].numpy()
    assert inputs.student.features is not None and inputs.teacher.features is not None
    for s, t in zip(inputs.student.features, inputs.teacher.features, strict=True):
        size = s.shape[2] * s.shape[3]
        rows = [m.detach().flatten(2).transpose(1, 2).numpy() for m in (s, t)]
        found.append((rows[0], rows[1], valid[:, start : start + size]))
        start += size
    return found


@pytest.mark.parametrize("family", ["gfocal", "retinanet"])
@pytest.mark.parametrize("region", ["all", "main"])
@pytest.mark.parametrize("mean", ["image", "batch"])
def test_imitation_against_loops(family: str, region: str, mean: str) -> None:
    inputs = inputs_of(family=family)
    priors = inputs.student.priors
    rows = select(inputs, RegionConfig(region)).rows
    chosen = np.zeros(inputs.assignment.valid.shape, bool)
    chosen.reshape(-1)[rows.index[rows.weight > 0].numpy()] = True
    chosen = chosen.reshape(3, -1, priors.anchors_per_cell).any(axis=2)
    expected, start = 0.0, 0
    for s, t, _ in levels_of(inputs):
        here = chosen[:, start : start + s.shape[1]]
        start += s.shape[1]
        errors = [[((s[n, p] - t[n, p]) ** 2).mean() for p in range(s.shape[1]) if here[n, p]] for n in range(3)]
        if mean == "batch":
            together = [e for image in errors for e in image]
            expected += np.mean(together) if together else 0.0
        else:
            expected += sum(np.mean(image) for image in errors if image) / 3
    found = term("feature_mse", region=region, mean=mean, weight=3.0)(inputs)
    assert found.item() == pytest.approx(3 * expected, rel=1e-12)


def test_imitation_may_leave_out_levels_without_positives() -> None:
    inputs = inputs_of()
    counts = StepCounts.local(inputs.assignment).positives
    assert 0 < (counts > 0).sum() < len(counts)
    expected = 0.0
    for (s, t, valid), count in zip(levels_of(inputs), counts, strict=True):
        inside = valid.astype(bool)
        expected += ((s[inside] - t[inside]) ** 2).mean() * bool(count > 0)
    assert term("feature_mse", mean="batch", levels="with_positives", weight=1.0)(inputs).item() == pytest.approx(
        expected
    )


def test_pkd_is_one_minus_the_correlation_of_each_channel() -> None:
    inputs = inputs_of()
    expected = 0.0
    for s, t, valid in levels_of(inputs):
        for n in range(3):
            cells = valid[n].astype(bool)
            if cells.sum() == 1:  # a single cell is constant
                continue
            pairs = [(s[n, cells, c], t[n, cells, c]) for c in range(CHANNELS)]
            expected += np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in pairs]) / 3
    found = term("pkd", weight=2.0)(inputs)
    assert found.item() == pytest.approx(2 * expected, rel=1e-9)


def test_pkd_over_the_batch_is_the_published_form_up_to_the_unbiased_deviation() -> None:
    inputs = inputs_of(small=False)
    expected = 0.0
    for s, t, _ in levels_of(inputs):
        a, b = s.reshape(-1, CHANNELS), t.reshape(-1, CHANNELS)
        a, b = ((x - x.mean(0)) / x.std(0) for x in (a, b))
        expected += ((a - b) ** 2).mean() / 2
    assert term("pkd", weight=1.0, over="batch")(inputs).item() == pytest.approx(expected, rel=1e-9)


def test_pkd_does_not_see_scale_and_shift_of_a_channel() -> None:
    inputs = inputs_of()
    moved = [m.detach() * torch.linspace(0.5, 3, CHANNELS)[:, None, None] - 7 for m in inputs.student.features]
    other = dataclasses.replace(inputs, student=dataclasses.replace(inputs.student, features=tuple(moved)))
    pkd = term("pkd")
    assert pkd(other).item() == pytest.approx(pkd(inputs).item(), rel=1e-9)


@pytest.mark.parametrize("on", ["features", "logits"])
def test_cwd_against_loops(on: str) -> None:
    inputs = inputs_of()
    if on == "features":
        levels = levels_of(inputs)
    else:
        sides = (inputs.student.cls_logits, inputs.teacher.cls_logits, inputs.assignment.valid)
        split = [side.detach().split(inputs.student.priors.level_sizes, dim=1) for side in sides]
        levels = [tuple(part.numpy() for part in level) for level in zip(*split, strict=True)]
    expected, temperature = 0.0, 2.0
    for s, t, valid in levels:
        for n in range(3):
            for c in range(s.shape[2]):
                p, q = (np.exp(x[n, valid[n].astype(bool), c] / temperature) for x in (t, s))
                p, q = p / p.sum(), q / q.sum()
                expected += temperature**2 * (p * np.log(p / q)).sum() / (3 * s.shape[2])
    found = term("cwd", on=on, weight=5.0, temperature=temperature)(inputs)
    assert found.item() == pytest.approx(5 * expected, rel=1e-9)


def test_fgd_against_loops() -> None:
    inputs = inputs_of()
    made = term("fgd", foreground=0.5, background=0.25, attention=0.125, relation=0.0625, weight=2.0)
    truth, expected = inputs.targets, 0.0
    truth.crowd[1, 0] = True  # is no object
    assert truth.usable.sum() > 3
    shapes, strides = inputs.student.priors.level_shapes, inputs.student.priors.level_strides
    for (s, t, valid), (height, width), stride in zip(levels_of(inputs), shapes, strides, strict=True):
        for n in range(3):
            space_s, channel_s = _attention(s[n], valid[n])
            space_t, channel_t = _attention(t[n], valid[n])
            foreground, background = np.zeros(height * width), np.zeros(height * width)
            for i in range(height):
                for j in range(width):
                    p = i * width + j
                    for box in truth.boxes[n][truth.usable[n]].numpy():
                        x1, y1 = np.floor(box[:2] / stride)
                        x2, y2 = np.ceil(box[2:] / stride)
                        if x1 <= j < x2 and y1 <= i < y2:
                            foreground[p] = max(foreground[p], 1 / ((x2 - x1) * (y2 - y1)))
                    background[p] = float(foreground[p] == 0 and valid[n, p])
            foreground = foreground * valid[n]
            background = background / max(background.sum(), 1)
            mask = 0.5 * foreground + 0.25 * background
            for p in range(height * width):
                expected += (mask[p] * space_t[p] * channel_t * (s[n, p] - t[n, p]) ** 2).sum()
            expected += 0.125 * (np.abs(space_s - space_t).sum() + np.abs(channel_s - channel_t).sum())
            expected += 0.0625 * (((s[n] - t[n]) ** 2) * valid[n][:, None]).sum()  # the blocks add nothing at first
    assert made(inputs).item() == pytest.approx(2 * expected / 3, rel=1e-9)


def test_global_context_against_loops() -> None:
    inputs = inputs_of()
    made = term("fgd", foreground=0, background=0, attention=0, relation=1.0)
    random = torch.Generator().manual_seed(1)
    for parameter in made.parameters():
        nn.init.normal_(parameter, generator=random)
    expected = 0.0
    for index, (s, t, valid) in enumerate(levels_of(inputs)):
        for n in range(3):
            inside = valid[n].astype(bool)
            sides = ((s[n, inside], made.student_context[index]), (t[n, inside], made.teacher_context[index]))
            one, two = (rows + _context(rows, dict(block.named_parameters())) for rows, block in sides)
            expected += ((one - two) ** 2).sum() / 3
    assert made(inputs).item() == pytest.approx(expected, rel=1e-9)


def _context(rows: np.ndarray, block: dict[str, Tensor]) -> np.ndarray:
    w = {name: value.detach().numpy() for name, value in block.items()}
    score = np.exp(rows @ w["attend.weight"][0])
    hidden = (score / score.sum()) @ rows @ w["transform.0.weight"].T + w["transform.0.bias"]
    hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + 1e-5) * w["transform.1.weight"] + w["transform.1.bias"]
    return np.asarray(np.maximum(hidden, 0) @ w["transform.3.weight"].T + w["transform.3.bias"])


def _attention(rows: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inside = valid.astype(bool)
    space = np.exp(np.abs(rows).mean(1) / 0.5) * inside
    channel = np.exp(np.abs(rows[inside]).mean(0) / 0.5)
    return space / space.sum() * inside.sum(), channel / channel.sum() * rows.shape[1]


def test_mgd_asks_for_the_teacher_at_every_cell_also_where_the_student_is_hidden() -> None:
    inputs = inputs_of(number=2, small=False)
    positive = tuple(m.detach().abs() for m in inputs.student.features)
    inputs = dataclasses.replace(inputs, student=dataclasses.replace(inputs.student, features=positive))
    made = term("mgd", weight=1.0, masked=0.65)
    for generator in made.generators:  # hands through what is not negative
        for conv in (generator[0], generator[2]):
            nn.init.dirac_(conv.weight)
            nn.init.zeros_(conv.bias)
    torch.manual_seed(3)
    found = made(inputs)
    torch.manual_seed(3)
    expected, hidden, cells = 0.0, 0, 0
    for s, t, _ in levels_of(inputs):
        kept = (torch.rand(s.shape[:2]) >= 0.65).numpy()
        expected += ((s * kept[..., None] - t) ** 2).sum() / 2
        hidden, cells = hidden + (~kept).sum(), cells + kept.size
    assert found.item() == pytest.approx(expected, rel=1e-12)
    assert abs(hidden / cells - 0.65) < 4 * (0.65 * 0.35 / cells) ** 0.5


def test_dist_against_loops() -> None:
    inputs = inputs_of()
    s, t = (o.cls_logits.detach().sigmoid().numpy() for o in (inputs.student, inputs.teacher))
    valid = inputs.assignment.valid.numpy()
    expected = 0.0
    for n in range(3):
        a, b = s[n, valid[n]], t[n, valid[n]]
        expected += 0.5 * np.mean([1 - np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]) / 3
        expected += 2.0 * np.mean([1 - np.corrcoef(x, y)[0, 1] for x, y in zip(a.T, b.T, strict=True)]) / 3
    found = term("dist", inter=0.5, intra=2.0, weight=3.0)(inputs)
    assert found.item() == pytest.approx(3 * expected, rel=1e-9)


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_dist_says_nothing_where_a_side_is_constant(side: str) -> None:
    inputs = inputs_of()
    logits = torch.zeros_like(getattr(inputs, side).cls_logits).requires_grad_()
    constant = dataclasses.replace(getattr(inputs, side), cls_logits=logits)
    loss = term("dist")(dataclasses.replace(inputs, **{side: constant}))
    assert loss.item() == 0
    loss.backward()
    student = logits if side == "student" else inputs.student.cls_logits
    assert student.grad is not None and not student.grad.any()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "dist"])
def test_narrow_students_get_adapters_that_learn(kind: str) -> None:
    inputs, made = inputs_of(channels=4), term(kind, width=4)
    assert len(made.adapters) == 5
    made(inputs).backward()
    assert all(p.grad is not None for p in made.adapters.parameters())
    assert not term(kind).adapters


def test_a_teacher_of_images_twice_as_big_teaches_by_its_next_level() -> None:
    inputs, made = inputs_of(), term("feature_mse", weight=1.0)
    teacher = dataclasses.replace(inputs.teacher, features=(torch.zeros(0), *(inputs.teacher.features or ())[:4]))
    strides = (4, *build.STRIDES[:4])
    matching = Matching(build.spec(), build.spec("teacher", strides=strides), teacher_scale=2)
    object.__setattr__(shifted := dataclasses.replace(inputs, teacher=teacher), "matching", matching)
    expected = 0.0
    for s, t, valid in levels_of(inputs)[:4]:
        expected += sum(((s[n] - t[n])[valid[n].astype(bool)] ** 2).mean() for n in range(3)) / 3
    assert made(shifted).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("together", [False, True])
def test_general_instances_are_what_nms_keeps(together: bool) -> None:
    inputs = inputs_of(small=not together)
    region = REGIONS["gi_batch" if together else "gi"](inputs, RegionConfig())
    score, boxes = disagreement(inputs)
    expected, start = set(), 0
    for size in inputs.student.priors.level_sizes:
        rows = [(n, a) for n in range(3) for a in range(start, start + size) if inputs.assignment.valid[n, a]]
        for images in [range(3)] if together else [[n] for n in range(3)]:
            part = [(n, a) for n, a in rows if n in images]
            kept = nms(torch.stack([boxes[r] for r in part]), torch.stack([score[r] for r in part]), 0.3)[:10]
            expected |= {part[k] for k in kept.tolist()}
        start += size
    assert {(n, a) for n, a in region.mask.nonzero().tolist()} == expected
