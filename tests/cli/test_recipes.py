from __future__ import annotations

import pytest
import torch

from ld_hub.cli.main import main
from ld_hub.distillation import Distiller, TermInputs, get_recipe, list_recipes
from ld_hub.distillation.needs import needs
from ld_hub.engine.asking import head_of
from ld_hub.models.factory import create_model
from ld_hub.structures import Targets

NEEDS = {
    "ld": ["bins in both"],
    "vlr": ["bins in both", "common classes"],
    "vlr_fine_grained": ["bins in both", "common classes", "a student with anchors"],
    "bckd": ["common classes"],
    "crosskd": [],
    "crossld": ["bins in the teacher"],
    "fine_grained": ["a student with anchors"],
    "cwd": ["common classes"],
    "gi": ["common classes"],
    "pkd": [],
    "fitnets": [],
}


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list_recipes()
    assert all(line.endswith(get_recipe(line.split()[0]).summary) for line in lines)
    assert len({line.index(get_recipe(line.split()[0]).summary) for line in lines}) == 1  # one column


@pytest.mark.parametrize("recipe", NEEDS)
def test_what_recipes_need(recipe: str) -> None:
    assert list(needs(get_recipe(recipe))) == NEEDS[recipe]


@pytest.mark.parametrize("recipe", [name for name in list_recipes() if not needs(get_recipe(name))])
def test_those_that_need_nothing_run_between_any_two(recipe: str) -> None:
    """Other widths, no class in common, another family, no bins."""
    torch.manual_seed(0)
    shape = {"backbone": "test_resnet", "head_width": 16, "head_depth": 1}
    student = create_model("gfocal_tiny", label_names=("a", "b"), fpn_channels=16, **shape)
    teacher = create_model("fcos", label_names=("c", "d", "e"), fpn_channels=32, **shape).eval().requires_grad_(False)
    truth = Targets.pad([torch.tensor([[5.0, 5, 40, 40]])], [torch.tensor([0])], torch.tensor([[64.0, 64]]))
    distiller = Distiller(recipe)
    distiller.setup(student.spec, teacher.spec)
    images, maps = torch.randn(1, 3, 64, 64), {kind: True for kind in distiller.needs}
    output = student(images, **maps)
    assignment = student.assigner(output.priors, truth, 2)
    taught = teacher(images, **maps)
    inputs = TermInputs(output, taught, assignment, truth, teacher_head=head_of(teacher, taught.priors))
    losses = distiller(inputs)
    assert all(0 < float(loss.detach()) < torch.inf for loss in losses.values()), losses


def test_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "vlr"]) == 0
    shown = capsys.readouterr().out
    assert "needs: bins in both; common classes\npaper: https://arxiv.org/abs/2102.12252\n" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert main(["recipes", "vlr", "--family", "retinanet", "--reference", "ld"]) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if "box_bins_kl" in line}
    assert [rows[term][2] for term in ("ld", "ld_vlr")] == ["5", "0.15"]  # reference SPEC 8
    assert "w/o positives" in " ".join(rows["ld_vlr"])
    assert main(["recipes", "pkd"]) == 0
    assert "needs: nothing" in capsys.readouterr().out
    assert main(["recipes", "vrl"]) == 2
    assert "Close matches: vlr" in capsys.readouterr().err


def test_the_table_has_a_paper_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "--markdown"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert len(rows) == len(list_recipes())
    for row, name in zip(rows, list_recipes(), strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[0] == f"`{name}`" and cells[4].startswith("[") and "https://arxiv.org/abs/" in cells[4]
        assert cells[2] == ", ".join(f"`{term}`" for term in get_recipe(name).terms)
