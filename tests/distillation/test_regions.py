"""Every region, and every term that takes one, against second versions in NumPy loops."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from ld_hub.distillation import REGIONS, Distiller, Recipe, TermInputs
from ld_hub.distillation.regions import OF_OVERLAPS, RegionConfig, require_region, select
from ld_hub.errors import ConfigError
from tests.distillation.sides import ROW_TERMS, Kind, distiller_of, inputs_of, spec
from tests.support import build

IGNORED = -2
GAMMA, NEARLY, SURE = 0.4, 0.6, 0.8  # other than the defaults
Rows = dict[tuple[int, int], float]  # importance of image and row


def batch(kind: Kind, seed: int = 5) -> TermInputs:
    """Three images with padding on the first; one of two boxes of the last is a crowd."""
    inputs = inputs_of(kind, kind, seed=seed)
    truth = inputs.targets
    assert truth.usable.sum(dim=1).tolist() == [2, 3, 4]
    truth.crowd[2, 1] = True
    again = build.term_inputs(inputs.student, inputs.teacher, truth)
    return dataclasses.replace(again, teacher_head=inputs.teacher_head)


def iou(a: np.ndarray, b: np.ndarray, kind: str = "iou") -> float:
    both = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    wide, high = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    far = ((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) / 4
    union = sum(areas) - both
    extra = {
        "iou": 0.0,
        "giou": -(wide * high - union) / (wide * high),
        "diou": -far / (wide**2 + high**2),
        "iof": both / areas[1] - both / union - far / (wide**2 + high**2),  # over the second one's area
    }
    return float(both / union + extra[kind])


def scores(logits: torch.Tensor) -> np.ndarray:
    return logits.detach().sigmoid().numpy()


def adaptive_threshold(box: np.ndarray, inputs: TermInputs, image: int) -> float:
    """Mean + standard deviation of the IoU of the nine nearest anchors of each level (ATSS)."""
    priors = inputs.student.priors
    levels, valid, anchors = priors.levels.numpy(), inputs.assignment.valid[image].numpy(), priors.anchors
    assert anchors is not None
    middle, found = (box[:2] + box[2:]) / 2, []
    for level in range(5):
        rows = np.flatnonzero((levels == level) & valid)
        far = np.linalg.norm(priors.centers.numpy()[rows] - middle, axis=1)
        found += [iou(box, anchors[rows[k]].numpy()) for k in np.argsort(far, kind="stable")[:9]]
    return float(np.mean(found) + np.std(found, ddof=1))


def valuable(inputs: TermInputs, criterion: str) -> Rows:
    found: Rows = {}
    anchors = inputs.student.priors.anchors
    assert anchors is not None
    for n in range(3):
        for box in inputs.targets.boxes[n][inputs.targets.usable[n]].numpy():
            bound = adaptive_threshold(box, inputs, n)
            for a in np.flatnonzero(inputs.assignment.valid[n]):
                anchor = anchors[a].numpy()
                overlap = iou(box, anchor)
                if overlap > 0 and GAMMA * bound <= iou(box, anchor, criterion) < bound:
                    found[n, int(a)] = max(found.get((n, int(a)), 0.0), overlap)
    return found


def disagreeing(inputs: TermInputs) -> Rows:
    """Ten per image and level: greedy, and those that overlap a better one by more than 0.3 do not count."""
    s, t = scores(inputs.student.cls_logits), scores(inputs.teacher.cls_logits)
    mine, theirs = (o.decode().detach().numpy() for o in (inputs.student, inputs.teacher))
    found: Rows = {}
    levels = inputs.student.priors.levels.numpy()
    for n in range(3):
        for level in range(5):
            rows = [a for a in np.flatnonzero(levels == level) if inputs.assignment.valid[n, a]]
            gap = t[n] - s[n]
            rows.sort(key=lambda a: -np.abs(gap[a]).max())
            kept: list[np.ndarray] = []
            for a in rows:
                box = theirs[n, a] if gap[a][np.abs(gap[a]).argmax()] > 0 else mine[n, a]
                if len(kept) < 10 and all(iou(box, other) <= 0.3 for other in kept):
                    kept.append(box)
                    found[n, int(a)] = 1.0
    return found


def rows_of(inputs: TermInputs, region: str, criterion: str = "iof") -> Rows:
    if region == "gi":
        return disagreeing(inputs)
    if region == "vlr":
        return valuable(inputs, criterion)
    best = scores(inputs.student.cls_logits).max(axis=2)
    teacher = scores(inputs.teacher.cls_logits).max(axis=2)
    also = valuable(inputs, criterion) if region == "main+vlr" else {}
    found: Rows = {}
    for n, a in inputs.assignment.valid.nonzero().tolist():
        owner, score, sure = int(inputs.assignment.gt_index[n, a]), float(best[n, a]), float(teacher[n, a])
        if region in {"main", "main+vlr"}:
            found[n, a] = max(score * (owner >= 0), also.get((n, a), 0.0))
        elif region == "all":
            found[n, a] = score * (owner != IGNORED)
        elif region == "confident":
            found[n, a] = sure * (sure >= SURE) * (owner != IGNORED)
        elif region == "fine_grained":
            assert inputs.assignment.overlaps is not None
            found[n, a] = score * any(row[a] > NEARLY * row.max() > 0 for row in inputs.assignment.overlaps[n])
        else:
            x, y = inputs.student.priors.centers[a].tolist()
            boxes = inputs.targets.boxes[n][inputs.targets.usable[n]].tolist()
            inside = any(x1 < x < x2 and y1 < y < y2 for x1, y1, x2, y2 in boxes)
            found[n, a] = score * (inside if region == "inside_gt" else not inside)
    return {row: weight for row, weight in found.items() if weight}


@pytest.mark.parametrize("family", build.FAMILIES)
@pytest.mark.parametrize("region", [region for region in REGIONS if region != "gi_batch"])
def test_regions_against_loops(region: str, family: str) -> None:
    inputs = batch((family, False))
    total = len(inputs.student.priors)
    config = RegionConfig(region, gamma=GAMMA, nearly=NEARLY, min_score=SURE)
    if family == "fcos" and region in OF_OVERLAPS:
        with pytest.raises(ConfigError, match=r"needs anchors.*'inside_gt'"):
            require_region(config, spec((family, False)), spec((family, False)))
        return
    expected = {n * total + a: weight for (n, a), weight in rows_of(inputs, region).items()}

    def found(config: RegionConfig) -> dict[int, float]:
        selected = select(dataclasses.replace(inputs), config)
        pairs = zip(selected.rows.index.tolist(), selected.rows.weight, selected.importance.tolist(), strict=True)
        return {row: importance for row, taken, importance in pairs if taken}

    assert len(expected) > 10
    assert found(config) == pytest.approx(expected)
    positive = set(inputs.assignment.positive.flatten().nonzero().flatten().tolist())
    assert set(found(dataclasses.replace(config, exclude_positives=True))) == set(expected) - positive
    levels = inputs.student.priors.levels
    with_positives = {int(levels[row % total]) for row in positive}
    assert 0 < len(with_positives) < 5
    gated = {row for row in expected if int(levels[row % total]) in with_positives}
    assert set(found(dataclasses.replace(config, levels="with_positives"))) == gated


@pytest.mark.parametrize("family", ["gfocal", "retinanet"])
def test_valuable_localization_as_the_paper_writes_it(family: str) -> None:
    inputs = batch((family, False))
    selected = select(inputs, RegionConfig("vlr", gamma=GAMMA, criterion="diou"))
    total = len(inputs.student.priors)
    expected = {n * total + a: weight for (n, a), weight in valuable(inputs, "diou").items()}
    assert dict(zip(selected.rows.index.tolist(), selected.importance.tolist(), strict=True)) == pytest.approx(expected)
    assert set(expected) != {n * total + a for n, a in valuable(inputs, "iof")}


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return np.asarray(e / e.sum())


def kl(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    t, s = softmax(teacher / temperature), softmax(student / temperature)
    return float(temperature**2 * (t * np.log(t / s)).sum())


def expected_of(name: str, inputs: TermInputs, rows: Rows, main: bool) -> float:
    """The default settings of `ROW_TERMS`."""
    s_cls, t_cls = (o.cls_logits.detach().numpy() for o in (inputs.student, inputs.teacher))
    s_box, t_box = (o.box.detach().numpy() for o in (inputs.student, inputs.teacher))
    mine, theirs = (o.decode().detach().numpy() for o in (inputs.student, inputs.teacher))
    levels, strides = inputs.student.priors.levels.numpy(), inputs.student.priors.strides.numpy()
    samples = sum(max(int(count), 1) for count in inputs.assignment.positive.sum(dim=1))
    if name == "ld":
        edges = {(n, a): sum(kl(s_box[n, a, e], t_box[n, a, e], 10.0) for e in range(4)) for n, a in rows}
        return 2 / 3 * sum(0.25 / 4 / 17 * weight * edges[row] for row, weight in rows.items())
    if name == "kd":
        value = 0.0
        for level in range(5):
            for images in [range(3)] if main else [[0], [1], [2]]:
                here = [kl(s_cls[n, a], t_cls[n, a], 2.0) for n, a in rows if levels[a] == level and n in images]
                value += 10 / 80 * float(np.mean(here)) * (len(images) / 3 if not main else 1) if here else 0.0
        return value
    if name == "feature":
        return imitation(inputs, rows)
    value = 0.0
    for (n, a), weight in rows.items():
        p, q = (1 / (1 + np.exp(-x[n, a])) for x in (s_cls, t_cls))
        gap = np.abs(p - q)
        if name == "bce":
            value += float((gap * -(q * np.log(p) + (1 - q) * np.log(1 - p))).sum())
        else:
            factor = weight if name == "iou_region" else float(gap.max())
            value += 4 * factor * (1 - iou(mine[n, a] / strides[a], theirs[n, a] / strides[a], "giou"))
    return value / samples


def imitation(inputs: TermInputs, rows: Rows) -> float:
    priors, value, start = inputs.student.priors, 0.0, 0
    for level in zip(inputs.student.features or (), inputs.teacher.features or (), strict=True):
        s, t = (m.detach().numpy() for m in level)
        height, width = s.shape[2:]
        end = start + height * width * priors.anchors_per_cell
        for n in range(3):
            cells = {(a - start) // priors.anchors_per_cell for image, a in rows if image == n and start <= a < end}
            errors = [((s[n, :, c // width, c % width] - t[n, :, c // width, c % width]) ** 2).mean() for c in cells]
            value += 2 / 3 * float(sum(errors)) / len(errors) if errors else 0.0
        start = end
    return value


@pytest.mark.parametrize("family", ["gfocal", "fcos", "retinanet"])
@pytest.mark.parametrize("region", [region for region in REGIONS if region != "gi_batch"])
def test_terms_in_regions_against_loops(region: str, family: str) -> None:
    if (family == "fcos" and region in OF_OVERLAPS) or (family == "retinanet" and region in {"all", "outside_gt"}):
        return
    kind = (family, False)
    inputs = batch(kind)
    options = {"region": region, "gamma": GAMMA, "nearly": NEARLY, "min_score": SURE}
    terms = {name: dataclasses.replace(config, **options) for name, config in ROW_TERMS.items()}
    distiller = distiller_of(Recipe("x", terms), kind, kind)
    assert distiller is not None
    found = distiller(inputs)
    rows = rows_of(inputs, region)
    for name in ROW_TERMS:
        expected = expected_of(name, inputs, rows, region == "main")
        assert math.isclose(found[f"distill_{name}"].item(), expected, rel_tol=1e-6), name


@pytest.mark.parametrize("name", [name for name in ROW_TERMS if name not in {"kd", "bce", "iou"}])
def test_instances_by_class_need_a_common_class(name: str) -> None:
    config = dataclasses.replace(ROW_TERMS[name], region="gi")
    kind = ("gfocal", False)
    with pytest.raises(ConfigError, match="no class name in common"):
        Distiller(Recipe("x", {"x": config})).setup(spec(kind), spec(kind, label_names=tuple("vwxyz")))
