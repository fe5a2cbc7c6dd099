"""Numbers of the probe against plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from ld_hub.analysis import probe
from ld_hub.ops.distribution import expectation
from ld_hub.structures import Targets
from tests.support.build import STRIDES, output, spec, targets


def iou_of(a, b):
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    common = max(wide, 0) * max(high, 0)
    return common / max((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common, 1e-6)


@pytest.mark.parametrize("family", ["gfocal", "retinanet"])
def test_score_errors_cell_by_cell(family):
    plain = family == "retinanet"
    student, teacher = (output(2, seed, family=family, plain=plain).detach() for seed in (0, 1))
    levels = probe.score_errors(student, teacher)
    per_cell = student.priors.anchors_per_cell
    row = 0
    for level, (height, width) in zip(levels, student.priors.level_shapes, strict=True):
        assert level.shape == (2, height, width)
        for y in range(height):
            for x in range(width):
                for n in range(2):
                    gaps = [
                        abs(torch.sigmoid(student.cls_logits[n, k, c]) - torch.sigmoid(teacher.cls_logits[n, k, c]))
                        for k in range(row, row + per_cell)
                        for c in range(5)
                    ]
                    if (x + 3 * y + n) % 7 == 0:  # a seventh of the cells is enough for a loop this slow
                        assert float(level[n, y, x]) == pytest.approx(float(sum(gaps)) / len(gaps), abs=1e-12)
                row += per_cell
    assert row == len(student.priors)
    assert all(float(level.abs().max()) == 0 for level in probe.score_errors(student, student))


def test_maps_are_read_where_the_image_is():
    level = torch.arange(2 * 6 * 8, dtype=torch.float64).view(2, 6, 8)  # 96 x 128 px, stride 16
    sizes = torch.tensor([[96, 128], [50, 70]])
    inside = probe.on_image(level, 16, sizes)
    looked = probe.normalised(level, 16, sizes, side=5)
    for n, (high, wide) in enumerate(sizes.tolist()):
        for y in range(6):
            for x in range(8):
                assert bool(inside[n, y, x]) == (y * 16 < high and x * 16 < wide)
        for i in range(5):
            for j in range(5):
                y, x = (i + 0.5) / 5 * high, (j + 0.5) / 5 * wide  # px
                assert looked[n, i, j] == level[n, int(y // 16), int(x // 16)]


def test_entropy_and_the_two_bins_of_the_truth():
    logits = torch.randn(3, 4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for row, found in zip(logits, probe.edge_entropy(logits), strict=True):
        sides = []
        for side in row.tolist():
            total = sum(math.exp(v) for v in side)
            sides.append(-sum(math.exp(v) / total * math.log(math.exp(v) / total) for v in side))
        assert float(found) == pytest.approx(sum(sides) / 4, abs=1e-12)
    assert float(probe.edge_entropy(torch.zeros(4, 9))) == pytest.approx(math.log(9), abs=1e-6)
    distance = torch.tensor([0.0, 0.25, 3.0, 7.9, 8.0], dtype=torch.float64)
    bins = probe.truth_bins(distance, 9)
    assert torch.allclose(bins.sum(dim=1), torch.ones(5, dtype=torch.float64))
    assert torch.allclose(expectation((bins + 1e-300).log()), distance)
    assert (bins > 0).sum(dim=1).tolist() == [1, 2, 1, 2, 1] and bins[1, :2].tolist() == [0.75, 0.25]
    assert probe.truth_bins(torch.tensor([-3.0, 11.0]), 9).argmax(dim=1).tolist() == [0, 8]


@pytest.mark.parametrize("family", ["gfocal", "fcos"])
def test_candidates_one_by_one(family):
    made, truth = output(3, 4, family=family).detach(), targets(3, seed=2)
    made.cls_logits[:, ::3] -= 6  # some rows below the threshold
    found = probe.candidates(made, truth, most=200, threshold=0.05, least_iou=0.1)
    boxes, valid = made.decode().tolist(), made.priors.valid(truth.image_sizes)
    expected = []
    for n in range(3):
        rows = []
        for a in range(len(made.priors)):
            scores = made.cls_logits[n, a].sigmoid()
            rows.append((float(scores.max()) if valid[n, a] else 0.0, a, int(scores.argmax())))
        for score, a, label in sorted(rows, reverse=True)[:200]:
            mine = [
                iou_of(boxes[n][a], truth.boxes[n, g].tolist())
                for g in range(truth.boxes.shape[1])
                if truth.usable[n, g] and int(truth.labels[n, g]) == label
            ]
            if score > 0.05 and max(mine, default=0.0) >= 0.1:
                expected.append((float(probe.edge_entropy(made.box[n, a])), max(mine), score))
    assert len(expected) > 10
    for k, values in enumerate((found.entropy, found.iou, found.score)):
        assert torch.allclose(values, torch.tensor([row[k] for row in expected], dtype=torch.float64), atol=1e-9)


def test_overlaps_leave_crowds_and_empty_images_out():
    boxes = [torch.tensor([[0.0, 0, 10, 10], [0, 0, 20, 20]]), torch.zeros(0, 4)]
    labels = [torch.tensor([1, 1]), torch.zeros(0, dtype=torch.int64)]
    crowd = [torch.tensor([False, True]), torch.zeros(0, dtype=torch.bool)]
    truth = Targets.pad(boxes, labels, torch.tensor([[32, 32], [32, 32]]), crowd)
    own = torch.tensor([[[0.0, 0, 20, 20], [0, 0, 10, 10]]] * 2)
    found = probe.class_overlaps(own, torch.tensor([[1, 0], [1, 1]]), truth)
    assert found.tolist() == [[0.25, 0.0], [0.0, 0.0]]
    assert probe.class_overlaps(own[:, :0], torch.zeros(2, 0, dtype=torch.int64), truth).shape == (2, 0)


def test_the_positive_that_fits_best_is_followed():
    made, truth = output(2, 7).detach(), targets(2, seed=1)
    image, index = 1, 0
    box, label = truth.boxes[image, index], int(truth.labels[image, index])
    positive = torch.zeros(len(made.priors), dtype=torch.bool)
    positive[20:60] = True
    row = probe.best_positive(made, image, positive, box)
    overlaps = [iou_of(b, box.tolist()) for b in made.decode()[image].tolist()]
    assert row == max(range(20, 60), key=lambda a: overlaps[a])
    assert probe.best_positive(made, image, torch.zeros_like(positive), box) is None
    edge = probe.trace_edges(made, image, row, box, label)
    assert edge.iou == pytest.approx(overlaps[row])
    assert torch.allclose(edge.bins, made.box[image, row].softmax(dim=1))
    assert torch.allclose(edge.distance, expectation(made.box[image, row]))
    assert edge.score == pytest.approx(float(made.cls_logits[image, row, label].sigmoid()))
    (x, y), stride = made.priors.centers[row].tolist(), float(made.priors.strides[row])
    x1, y1, x2, y2 = box.tolist()
    true = [(x - x1) / stride, (y - y1) / stride, (x2 - x) / stride, (y2 - y) / stride]
    assert probe.true_distances(made.priors, row, box).tolist() == pytest.approx(true)


def test_which_detectors_can_be_compared_place_by_place():
    assert probe.why_not_comparable(spec(), spec("teacher", reg_max=None)) == ""
    assert "9 and 1 anchors" in probe.why_not_comparable(spec(anchors_per_cell=9), spec())
    assert "strides" in probe.why_not_comparable(spec(), spec(strides=STRIDES[:3]))
