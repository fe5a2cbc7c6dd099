"""Owners, regions and edges of one photograph, against loops that begin with the photograph's own px."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision.ops as tv
from PIL import Image

from ld_hub.analysis.ideas import ORDER, Ideas, gather, largest_answered
from ld_hub.analysis.photograph import UNKNOWN, Photograph
from ld_hub.distillation import REGIONS
from ld_hub.distillation.regions import OF_OVERLAPS
from ld_hub.errors import ConfigError, UnknownNameError
from ld_hub.preprocessing import DataConfig
from ld_hub.preprocessing.transforms import Preprocessor, collate
from ld_hub.registry import Registry
from ld_hub.structures import Targets
from tests.analysis.conftest import untrained
from tests.assigners.test_atss import loops as atss_loops
from tests.assigners.test_max_iou_fcos import max_iou_loops
from tests.distillation.test_regions import adaptive_threshold, iou

STRIDES = (8, 16, 32, 64, 128)
FACTOR = 64 / 96  # px of the model's input per px of the photograph
CELLS = [(5, 8), (3, 4), (2, 2), (1, 1), (1, 1)]  # rows, columns of the levels on 64 x 40 px; the input has 64 x 64
BOXES = np.array([[8.0, 10, 40, 50], [45, 4, 90, 56], [60, 30, 72, 44]], dtype=np.float32)


@pytest.fixture(scope="module")
def photograph() -> Photograph:
    """96 x 60 px of noise, with three boxes."""
    pixels = np.random.default_rng(3).integers(0, 255, (60, 96, 3), dtype=np.uint8)
    return Photograph(Image.fromarray(pixels), BOXES, (2, 5, UNKNOWN), ("triangle", "cross", "dog"), "Here.")


@pytest.fixture(scope="module")
def pair():
    student, teacher = untrained(seed=0), untrained(seed=1)
    teacher.data_config = DataConfig(mean=(90.0,) * 3, std=(60.0,) * 3, image_size=(64, 64))
    return student, teacher


def by_hand(model, photograph, config=None):
    """What a detector says of the photograph when it is asked alone."""
    batch = collate([Preprocessor(config or model.data_config)(photograph.image)])
    assert batch.images.shape[-2:] == (64, 64) and batch.image_sizes.tolist() == [[40, 64]]
    with torch.no_grad():
        return model(batch.images)


def places(per_cell: int):
    """Level, line, column and anchor of each row, counted out."""
    for level, stride in enumerate(STRIDES):
        side = math.ceil(64 / stride)
        for line in range(side):
            for column in range(side):
                for anchor in range(per_cell):
                    yield level, line, column, anchor


def on_the_photograph(level: int, line: int, column: int) -> bool:
    return line * STRIDES[level] < 40 and column * STRIDES[level] < 64


def maps(values: dict[int, float], per_cell: int = 1) -> list[np.ndarray]:
    """Largest value of the rows of each cell."""
    found = [np.zeros(shape) for shape in CELLS]
    for row, (level, line, column, _) in enumerate(places(per_cell)):
        if on_the_photograph(level, line, column):
            found[level][line, column] = max(found[level][line, column], values.get(row, 0.0))
    return found


def same(found, expected, tolerance=1e-6):
    assert len(found) == len(expected) == 5
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert np.allclose(one, other, atol=tolerance), (one, other)


def region(ideas: Ideas, name: str):
    return next(one for one in ideas.regions if one.name == name)


def test_cells_lie_on_the_photograph(photograph, pair):
    ideas = gather(photograph, pair[0])
    assert ideas.size == (64, 40) and [level.stride for level in ideas.levels] == list(STRIDES)
    for level in ideas.levels:
        assert level.cell == pytest.approx((level.stride * 96 / 64, level.stride * 60 / 40))
        assert level.first == (0, 0)  # anchors stand on corners
    points = gather(photograph, untrained("fcos", size=64), regions=["main"]).levels
    assert [level.first for level in points] == [pytest.approx([level.stride * 96 / 128] * 2) for level in points]
    assert [level.shape for level in ideas.owners] == CELLS
    for each in ideas.regions:
        assert [level.shape for level in each.members] == [level.shape for level in each.importance] == CELLS


def test_owners_of_atss_against_loops(photograph, pair):
    output = by_hand(pair[0], photograph)
    owner = atss_loops(output.priors, torch.tensor(BOXES) * FACTOR, torch.ones(len(output.priors)).bool(), 9)
    expected = [np.full(shape, -1) for shape in CELLS]
    for row, (level, line, column, _) in enumerate(places(1)):
        if on_the_photograph(level, line, column):
            expected[level][line, column] = owner[row]
    found = gather(photograph, pair[0]).owners
    same(found, expected)
    assert {int(v) for level in found for v in np.unique(level)} >= {-1, 0, 1}


def test_owners_of_cells_with_nine_anchors_against_loops(photograph):
    """The object with the most anchors of a cell has it; cells with none of any, but with ignored ones, are ignored."""
    model = untrained("retinanet", size=64)
    output = by_hand(model, photograph)
    boxes, everywhere = torch.tensor(BOXES) * FACTOR, torch.ones(len(output.priors)).bool()
    owner = max_iou_loops(output.priors, boxes, torch.ones(3).bool(), everywhere)
    votes: dict[tuple[int, int, int], list[int]] = {}
    for row, (level, line, column, _) in enumerate(places(9)):
        votes.setdefault((level, line, column), []).append(owner[row])
    expected = [np.full(shape, -1) for shape in CELLS]
    for (level, line, column), given in votes.items():
        if on_the_photograph(level, line, column):
            counts = [given.count(k) for k in range(3)]
            ignored = -2 if -2 in given else -1
            expected[level][line, column] = counts.index(max(counts)) if max(counts) else ignored
    found = gather(photograph, model).owners
    same(found, expected)
    assert any((level == -2).any() for level in found) and any((level >= 0).any() for level in found)


def test_main_and_inside_gt_against_loops(photograph, pair):
    output = by_hand(pair[0], photograph)
    score = output.cls_logits[0].sigmoid().max(dim=1).values.tolist()
    boxes = (BOXES * FACTOR).tolist()
    owner = atss_loops(output.priors, torch.tensor(BOXES) * FACTOR, torch.ones(len(output.priors)).bool(), 9)
    inside = {}
    for row, (level, line, column, _) in enumerate(places(1)):
        x, y = (k * STRIDES[level] for k in (column, line))  # GFL's anchors stand on the corners of cells
        if any(x1 < x < x2 and y1 < y < y2 for x1, y1, x2, y2 in boxes):
            inside[row] = score[row]
    ideas = gather(photograph, pair[0], pair[1])
    main = {row: score[row] for row, k in enumerate(owner) if k >= 0}
    for name, rows in (("main", main), ("inside_gt", inside)):
        found = region(ideas, name)
        same(found.importance, maps(rows))
        same(found.members, maps(dict.fromkeys(rows, 1.0)))
        assert sum(level.sum() for level in found.members) > 3


def test_vlr_against_loops(photograph, pair):
    output = by_hand(pair[0], photograph)
    everywhere = torch.ones(1, len(output.priors)).bool()
    batch = SimpleNamespace(student=output, assignment=SimpleNamespace(valid=everywhere))
    anchors, rows = output.priors.anchors.numpy(), {}
    for box in BOXES * np.float32(FACTOR):
        bound = adaptive_threshold(box, batch, 0)
        for row, anchor in enumerate(anchors):
            if iou(box, anchor) > 0 and 0.25 * bound <= iou(box, anchor, "iof") < bound:
                rows[row] = max(rows.get(row, 0.0), iou(box, anchor))
    found = region(gather(photograph, pair[0]), "vlr")
    same(found.importance, maps(rows), 1e-5)
    same(found.members, maps(dict.fromkeys(rows, 1.0)))
    assert len(rows) > 10


def test_what_the_teacher_decides_is_what_it_says_of_its_own_input(photograph, pair):
    """Its mean and standard deviation are others than the student's."""
    student, teacher = pair
    score = by_hand(teacher, photograph).cls_logits[0].sigmoid().max(dim=1).values.tolist()
    rows = {row: value for row, value in enumerate(score) if value >= 0.5}
    found = region(gather(photograph, student, teacher, regions=["confident"]), "confident")
    assert 0 < len(rows) < len(score)
    same(found.importance, maps(rows), 1e-4)
    same(found.members, maps(dict.fromkeys(rows, 1.0)))


def targets_of_boxes():
    labels = torch.zeros(3, dtype=torch.int64)
    return Targets.pad([torch.tensor(BOXES) * FACTOR], [labels], torch.tensor([[40, 64]]))


def test_rows_of_a_cell_are_counted_and_the_most_important_one_counts(photograph):
    model = untrained("retinanet", size=64)
    found = region(gather(photograph, model, regions=["all"]), "all")
    assert all((level <= 9).all() and (level > 0).any() for level in found.members[:1])
    output = by_hand(model, photograph)
    score = output.cls_logits[0].sigmoid().max(dim=1).values.tolist()
    answering = gather(photograph, model, regions=["main"]).regions[0]
    positive = model.assign(output.priors, targets_of_boxes()).gt_index[0] >= 0
    same(answering.importance, maps({row: score[row] for row in positive.nonzero().flatten().tolist()}, 9))
    ignored = int(sum((9 - level).sum() for level in found.members))
    boxes, grid = torch.tensor(BOXES) * FACTOR, by_hand(model, photograph).priors
    owner = max_iou_loops(grid, boxes, torch.ones(3).bool(), torch.ones(len(grid)).bool())
    shown = [k for k, place in zip(owner, places(9), strict=True) if on_the_photograph(*place[:3])]
    assert ignored == shown.count(-2) > 0


def decoded(output, row):
    """``xyxy`` px of the photograph, by the sum over the bins."""
    bins = np.exp(output.box[0, row].double().numpy())
    bins /= bins.sum(axis=1, keepdims=True)
    distance = (bins * np.arange(bins.shape[1])).sum(axis=1) * float(output.priors.strides[row])
    x, y = output.priors.centers[row].tolist()
    return bins, np.array([x - distance[0], y - distance[1], x + distance[2], y + distance[3]]) / FACTOR


def test_edges_against_loops(photograph, pair):
    student, teacher = pair
    mine, theirs = by_hand(student, photograph), by_hand(teacher, photograph)
    owner = atss_loops(mine.priors, torch.tensor(BOXES) * FACTOR, torch.ones(len(mine.priors)).bool(), 9)
    for k in (0, 1):
        truth = torch.tensor(BOXES[k : k + 1]).double()
        rows = [row for row, one in enumerate(owner) if one == k]
        fit = {row: float(tv.box_iou(truth, torch.tensor(decoded(mine, row)[1])[None])) for row in rows}
        best = max(fit, key=lambda row: fit[row])
        ideas = gather(photograph, student, teacher, names=("small", "big"), chosen=k)
        assert ideas.chosen == k and [one.name for one in ideas.edges] == ["small", "big"]
        for one, output, tolerance in zip(ideas.edges, (mine, theirs), (1e-5, 1e-4), strict=True):
            bins, box = decoded(output, best)
            assert one.bins.shape == (4, 9) and np.allclose(one.bins, bins, atol=tolerance)
            assert np.allclose(one.box, box, atol=100 * tolerance)
            assert one.center == pytest.approx((mine.priors.centers[best] / FACTOR).tolist())
            assert one.bin == pytest.approx([float(mine.priors.strides[best]) / FACTOR] * 2)
            assert one.iou == pytest.approx(float(tv.box_iou(truth, torch.tensor(box)[None])), abs=1e-3)


def test_a_teacher_of_nine_anchors_speaks_with_its_best_one_of_the_cell(photograph, pair):
    teacher = untrained("retinanet", seed=4, size=64)
    ideas = gather(photograph, pair[0], teacher, regions=["main"])
    mine, theirs = by_hand(pair[0], photograph), by_hand(teacher, photograph, pair[0].data_config)
    first = ideas.edges[0]
    bins = mine.box[0].softmax(dim=2).numpy()
    (row,) = [k for k in range(len(bins)) if np.allclose(bins[k], first.bins, atol=1e-6)]
    anchors = range(9 * row, 9 * row + 9)
    best = max(anchors, key=lambda k: float(theirs.cls_logits[0, k].max()))
    assert ideas.edges[1].bins is None  # plain numbers
    assert np.allclose(ideas.edges[1].box, (theirs.decode()[0, best] / FACTOR).numpy(), atol=1e-2)


@pytest.mark.parametrize("family", ["atss", "fcos", "retinanet"])
def test_plain_boxes_have_no_bins(photograph, family):
    model = untrained(family, size=64)
    ideas = gather(photograph, model, regions=["main"])
    (one,) = ideas.edges
    boxes = (by_hand(model, photograph).decode()[0] / FACTOR).numpy()
    assert one.bins is None and np.abs(boxes - one.box).max(axis=1).min() < 1e-3


def test_the_largest_object_that_a_cell_answers_for_is_chosen(photograph, pair):
    assert gather(photograph, pair[0], regions=["main"]).chosen == 1  # 45 x 52 px
    assignment = SimpleNamespace(gt_index=torch.tensor([[-1, 2, -2, 0, 0]]))
    assert largest_answered(assignment, BOXES) == 0  # nothing answers for the second one
    assert largest_answered(SimpleNamespace(gt_index=torch.tensor([[-1, -2]])), BOXES) is None


def test_an_object_for_which_no_cell_answers_has_no_edges(photograph):
    """FCOS: the point has to lie in the box, and this one is narrower than the grid."""
    thin = dataclasses.replace(photograph, boxes=np.array([[1.0, 1, 3, 3], *BOXES[:1]], dtype=np.float32))
    thin = dataclasses.replace(thin, labels=(0, 0), names=("a", "b"))
    ideas = gather(thin, untrained("fcos", size=64), regions=["main"], chosen=0)
    assert ideas.chosen == 0 and ideas.edges == []
    alone = dataclasses.replace(thin, boxes=thin.boxes[:1], labels=(0,), names=("a",))
    ideas = gather(alone, untrained("fcos", size=64))
    assert ideas.chosen is None and ideas.edges == [] and all((level == -1).all() for level in ideas.owners)


def test_all_regions_that_can_be_made_are_and_others_say_why(photograph, pair, monkeypatch):
    assert set(ORDER) == set(REGIONS)
    both = gather(photograph, *pair)
    assert [one.name for one in both.regions] == list(ORDER) and both.left_out == {}
    alone = gather(photograph, pair[0])
    assert set(alone.left_out) == {"confident", "gi", "gi_batch"} and alone.teacher is None
    assert all("compares with a teacher" in reason for reason in alone.left_out.values())
    points = gather(photograph, untrained("fcos", size=64), pair[1])
    assert set(points.left_out) == OF_OVERLAPS
    stranger = untrained(seed=2)
    stranger.set_labels([f"other {k}" for k in range(6)], range(1, 7))
    assert set(gather(photograph, pair[0], stranger).left_out) == {"gi", "gi_batch"}
    mine: Registry = Registry("region")
    for name in REGIONS:
        mine.register(name, REGIONS[name])
    mine.register("aha", REGIONS["main"])
    monkeypatch.setattr("ld_hub.analysis.ideas.REGIONS", mine)
    monkeypatch.setattr("ld_hub.distillation.regions.REGIONS", mine)
    assert [one.name for one in gather(photograph, *pair).regions] == [*ORDER, "aha"]


def test_what_was_asked_for_must_be_possible(photograph, pair):
    found = gather(photograph, *pair, regions=["gi", "main", "gi"])
    assert [one.name for one in found.regions] == ["gi", "main"]
    assert all(int((level > 0).sum()) <= 10 for level in found.regions[0].members)
    with pytest.raises(UnknownNameError, match=r"region 'mian'.*main"):
        gather(photograph, pair[0], regions=["mian"])
    with pytest.raises(ConfigError, match=r"'gi' compares with a teacher"):
        gather(photograph, pair[0], regions=["gi"])
    with pytest.raises(ConfigError, match=r"needs anchors"):
        gather(photograph, untrained("fcos", size=64), regions=["vlr"])
    with pytest.raises(ConfigError, match=r"no object 4: the photograph has the objects 1 to 3"):
        gather(photograph, pair[0], chosen=3)


def test_nothing_of_the_models_changes(photograph, pair):
    student, _ = pair
    student.train()
    try:
        before = {name: value.clone() for name, value in student.state_dict().items()}
        gather(photograph, *pair)
        assert student.training and all(torch.equal(before[n], v) for n, v in student.state_dict().items())
    finally:
        student.eval()
