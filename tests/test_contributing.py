"""What CONTRIBUTING shows is true: a file and a test make a method, a family, a format, and nothing else is touched."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ld_hub.data
import ld_hub.models
from ld_hub.data import load_coco, load_data
from ld_hub.data.readers import READERS, known_readers
from ld_hub.distillation import RECIPES, TERMS, Distiller, get_recipe, methods
from ld_hub.distillation.needs import needs
from ld_hub.engine import DistillationTrainer, TrainConfig
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model
from ld_hub.papers import PAPERS
from ld_hub.publishing.cards import model_card
from ld_hub.publishing.snapshot import package_models
from ld_hub.registry import MODELS, Registry
from tests.distillation import test_gradients, test_laws, test_loops
from tests.distillation.sides import CHANNELS, KINDS, distiller_of, inputs_of
from tests.engine.runs import QUICK, detector, records, write_data

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PACKAGES = {"methods": methods, "models": ld_hub.models, "data": ld_hub.data}


def files_of(text: str) -> dict[str, str]:
    """The new files of the diffs in a text, by path."""
    found = {}
    for block in re.findall(r"^```diff\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for part in block.split("--- /dev/null\n")[1:]:
            head, hunk, *lines = part.splitlines()
            assert all(line.startswith("+") for line in lines), head
            assert hunk == f"@@ -0,0 +1,{len(lines)} @@", head
            found[head.removeprefix("+++ b/")] = "".join(f"{line[1:]}\n" for line in lines)
    return found


FILES = files_of(TEXT)


@pytest.fixture(autouse=True)
def laid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The three files in their rooms, for as long as a test lasts."""
    known_readers(), package_models()  # what is the package's own stays registered
    registries: tuple[Registry, ...] = (TERMS, RECIPES, PAPERS, MODELS, READERS)
    for registry in registries:
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    before, added = set(sys.modules), tmp_path / "added"
    for path, text in FILES.items():
        if path.startswith("ld_hub/"):
            room = added / Path(path).parent.name
            room.mkdir(parents=True, exist_ok=True)
            (room / Path(path).name).write_text(text)
            package = PACKAGES[room.name]
            monkeypatch.setattr(package, "__path__", [*package.__path__, str(room)])
    yield added
    for name in set(sys.modules) - before:  # theirs alone: all else was there already, or may stay
        if str(added) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def discover_methods() -> None:
    """What importing the package of methods does."""
    source = Path(str(methods.__file__)).read_text()
    exec(compile(source, "methods/__init__.py", "exec"), {"__name__": methods.__name__, "__path__": methods.__path__})


@pytest.mark.parametrize("path", [path for path in FILES if path.startswith("tests/")])
def test_their_tests_pass(path: str, laid: Path, tmp_path: Path) -> None:
    discover_methods()
    names: dict[str, object] = {"__name__": "their_test"}
    exec(compile(FILES[path], path, "exec"), names)
    tests = {name: value for name, value in names.items() if name.startswith("test_")}
    assert tests
    for test in tests.values():
        assert callable(test)
        marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
        for value in marks[0].args[1] if marks else [tmp_path / "theirs"]:
            (tmp_path / "theirs").mkdir(exist_ok=True)
            test(value)


def test_the_method_is_compared_with_its_loops_and_obeys_the_laws() -> None:
    discover_methods()
    (kind,) = {term.kind for term in get_recipe("lskd").terms.values()}
    for detectors in KINDS:
        assert test_loops.compare(TERMS[kind].config_class(), detectors)
    changes = test_loops.changes_of(TERMS[kind].config_class())
    assert {"weight", "temperature", "region"} <= {name for change in changes for name in change}
    for change in changes:
        assert test_loops.compare(TERMS[kind].config_class(**change), ("gfocal", False))
    test_laws.test_equal_detectors_have_nothing_to_teach("lskd", "gfocal")
    test_laws.test_others_teach_and_the_teacher_never_learns("lskd", "fcos")
    test_laws.test_what_stands_on_the_padding_does_not_count("lskd", "retinanet")
    pair = (("gfocal", False), ("retinanet", False))
    test_gradients.test_the_gradient_does_not_depend_on_the_split("lskd", *pair)
    distiller = distiller_of("lskd", *pair[:1] * 2)
    assert distiller is not None
    inputs = inputs_of(("gfocal", False), ("gfocal", False), number=2, seed=3, objects=1, channels=CHANNELS)
    test_gradients.check_gradient(distiller, inputs, TERMS[kind].learns)


def test_the_loops_catch_a_wrong_term(monkeypatch: pytest.MonkeyPatch) -> None:
    discover_methods()
    term = TERMS["standard_kl"]
    right = term.forward
    monkeypatch.setattr(term, "forward", lambda self, inputs: right(self, inputs) * (1 + 1e-6))
    with pytest.raises(AssertionError):
        test_loops.compare(term.config_class(), ("gfocal", False))


def test_the_method_trains_and_its_card_cites_it(tmp_path: Path) -> None:
    discover_methods()
    data = write_data(tmp_path / "data")
    student, config = detector(), TrainConfig(output_dir=str(tmp_path / "run"), **QUICK)
    trainer = DistillationTrainer(
        student, detector(seed=1), "lskd", train_dataset=load_coco(data, "train"), config=config
    )
    trainer.train()
    steps = [record for record in records(tmp_path / "run") if "loss" in record]
    assert len(steps) == 2 and all(step["distill_lskd"] > 0 for step in steps)
    card = model_card(create_model(tmp_path / "run/model"), run=tmp_path / "run")
    assert "@inproceedings{sun2024logit," in card and "class KL of standardised logits" in card
    assert needs(get_recipe("lskd")) == ("common classes",)


def test_the_family_is_found_and_distilled() -> None:
    models = package_models()
    assert models["slim_r18"].built_by == "ld_hub.models.slim:Slim"
    assert models["slim_r18_ld_r50"].distilled is not None
    sizes = {"backbone": "test_resnet", "num_classes": 3, "fpn_channels": 16, "head_width": 16}
    student, teacher = create_model("slim", **sizes), create_model("gfocal", head_depth=2, **sizes)
    assert isinstance(student, DenseDetector) and student.spec.points
    for recipe in ("ld", "vlr", "bckd", "crosskd", "pkd"):
        distiller = Distiller(recipe)
        distiller.setup(student.spec, teacher.spec)
        assert recipe != "vlr" or distiller.recipe.terms["ld_vlr"].region == "inside_gt"
    assert "Slim with the backbone" in model_card(student)


def test_the_format_is_read_and_trained_on(tmp_path: Path) -> None:
    root = tmp_path / "csv"
    (root / "images").mkdir(parents=True)
    lines = ["file,label,x1,y1,x2,y2"]
    for index in range(4):
        Image.fromarray(np.full((64, 64, 3), 40 * index, np.uint8)).save(root / f"images/{index}.png")
        lines.append(f"images/{index}.png,{'ab'[index % 2]},4,{index},40,50")
    (root / "train.csv").write_text("\n".join(lines))
    data = load_data(root)
    assert (len(data), data.label_names, data.source) == (4, ("a", "b"), f"{root} (train.csv)")
    student, teacher = (create_model("gfocal_tiny", label_names=("a", "b"), reg_max=8) for _ in range(2))
    config = TrainConfig(output_dir=str(tmp_path / "run"), **QUICK, image_size=(64, 64))
    DistillationTrainer(student, teacher, "ld", train_dataset=data, config=config).train()
    assert all(torch.isfinite(p).all() for p in student.parameters())
    assert len([record for record in records(tmp_path / "run") if "loss" in record]) == 2
    (root / "val").mkdir()
    with pytest.raises(ld_hub.errors.MissingFileError, match=r"val\.csv of the format CSV; VOC's"):
        load_data(root, "val")
