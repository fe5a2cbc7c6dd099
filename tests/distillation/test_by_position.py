"""Partners where no strides agree: the cell that a row's centre falls into, on the level of nearest stride."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from ld_hub.distillation import Distiller
from ld_hub.distillation.correspondence import Matching, as_seen
from ld_hub.ops.grids import level_shapes, multi_anchor_grid, point_grid, square_anchor_grid
from ld_hub.structures import DenseOutput, DetectorSpec
from tests.distillation.sides import fresh
from tests.support import build


def output_of(family: str) -> DenseOutput:
    return build.output(2, 3, family=family)


def spec_of(family: str) -> DetectorSpec:
    return build.spec(family=family, anchors_per_cell=9 if family == "retinanet" else 1, reg_max=16)


def grown(family: str, scale: float) -> DenseOutput:
    """Predictions on the grid of images `scale` times as big, levels of the usual strides."""
    shapes = level_shapes(int(scale * build.SIZE[0]), int(scale * build.SIZE[1]), build.STRIDES)
    if family == "retinanet":
        priors = multi_anchor_grid(shapes, build.STRIDES, scale=2.0, dtype=torch.float64)
    else:
        grid = point_grid if family == "fcos" else square_anchor_grid
        priors = grid(shapes, build.STRIDES, dtype=torch.float64)
    random = torch.Generator().manual_seed(7)
    cls = torch.randn(2, len(priors), 5, generator=random, dtype=torch.float64)
    box = torch.randn(2, len(priors), 4, 17, generator=random, dtype=torch.float64)
    return DenseOutput(cls, box, None, priors, build.coder(family))


@pytest.mark.parametrize("scale", [1.5, 1.45, 0.75])  # at 1.45 the nearest is not that of least difference
@pytest.mark.parametrize(("student", "teacher"), [("gfocal", "gfocal"), ("gfocal", "retinanet"), ("retinanet", "fcos")])
def test_boxes_are_compared_on_images_of_any_size(student: str, teacher: str, scale: float) -> None:
    """The row's centre lies on its partner's cell, on the level of nearest stride; boxes are in the student's px."""
    distiller = Distiller("bckd_box", teacher_scale=scale)
    remarks = distiller.setup(spec_of(student), spec_of(teacher))
    assert "nearest stride" in remarks[0]
    mine, theirs = fresh(output_of(student)), grown(teacher, scale)
    inputs = build.term_inputs(mine, theirs, build.targets(2, seed=2)).matched(distiller.matching)
    pairs = inputs.everywhere()
    decoded = theirs.decode().flatten(0, 1) / scale
    per_cell, of_teacher = mine.priors.anchors_per_cell, theirs.priors.anchors_per_cell
    logits, scores = theirs.cls_logits.amax(dim=2), mine.cls_logits.detach().amax(dim=2).flatten()
    compared = 0
    for k in range(0, len(pairs.rows.index), 11):
        if not inputs.assignment.valid.flatten()[k]:
            continue
        image, row = divmod(k, len(mine.priors))
        x, y = (mine.priors.centers[row] * scale).tolist()
        stride = mine.priors.strides[row].item()
        level = min(range(5), key=lambda i: abs(math.log(build.STRIDES[i] / scale / stride)))
        height, width = theirs.priors.level_shapes[level]
        column, line = int(x // build.STRIDES[level]), int(y // build.STRIDES[level])
        first = sum(theirs.priors.level_sizes[:level]) + (line * width + column) * of_teacher
        rivals = range(k // per_cell * per_cell, k // per_cell * per_cell + per_cell)
        best_of_mine = max(rivals, key=lambda r: float(scores[r]))
        assert pairs.weight[k] == float(column < width and line < height and k == best_of_mine)
        if pairs.weight[k]:
            partner = max(range(first, first + of_teacher), key=lambda r: float(logits[image, r]))
            assert torch.equal(pairs.boxes()[1][k], decoded[image * len(theirs.priors) + partner])
            compared += 1
    assert compared > 5
    loss = distiller(inputs)["distill_bckd_box"]
    loss.backward()
    assert loss > 0 and mine.box.grad is not None and mine.box.grad.isfinite().all() and mine.box.grad.any()


def test_rows_off_the_teachers_cells_have_no_partner() -> None:
    """Centres on the rim of the student's last cells, which the image does not fill."""
    size, scale = (40, 72), 1.5
    mine, theirs = (
        dataclasses.replace(output_of("fcos"), priors=point_grid(
            level_shapes(int(factor * size[0]), int(factor * size[1]), build.STRIDES), build.STRIDES,
            dtype=torch.float64)) for factor in (1, scale)
    )  # fmt: skip
    matching = Matching(spec_of("fcos"), as_seen(spec_of("fcos"), scale), scale)
    mine, theirs = (dataclasses.replace(o, cls_logits=o.cls_logits[:, : len(o.priors)]) for o in (mine, theirs))
    found = matching.partners(mine, theirs)
    expected = []
    for level, centers in zip(matching.nearest, mine.priors.centers.split(mine.priors.level_sizes), strict=True):
        height, width = theirs.priors.level_shapes[level]
        step = build.STRIDES[level]
        expected += [x * scale < width * step and y * scale < height * step for x, y in centers.tolist()]
    assert found.exists[0].tolist() == expected and 0 < expected.count(False) < 10


def test_partners_by_position_are_found_without_a_break_in_the_graph() -> None:
    """Of one image: nine rows of a cell contend for the teacher's best of nine, on cells of another size."""
    distiller = Distiller("bckd_box", teacher_scale=1.5)
    distiller.setup(spec_of("retinanet"), spec_of("retinanet"))
    mine, theirs = (
        dataclasses.replace(output, cls_logits=output.cls_logits[:1], box=output.box[:1])
        for output in (output_of("retinanet"), grown("retinanet", 1.5))
    )
    inputs = build.term_inputs(mine, theirs, build.targets(1, seed=2))

    def loss(box: Tensor) -> Tensor:
        return distiller(dataclasses.replace(inputs, student=dataclasses.replace(mine, box=box)))["distill_bckd_box"]

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(mine.box), loss(mine.box), rtol=1e-9) and loss(mine.box) > 0
