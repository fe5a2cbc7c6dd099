from __future__ import annotations

import pytest
import torch

from ld_hub.cli.main import main
from ld_hub.models.factory import create_model
from tests.support import golden


def save(path, stem: str, **extra):
    info, _ = golden.load(stem)
    state = {
        name: torch.tensor(0.25 if item["dtype"] == "float32" else 3).expand(item["shape"])
        for name, item in info["keys"].items()
    }
    state["bbox_head.integral.project"] = torch.arange(17.0)
    torch.save({"state_dict": state, **extra}, path)
    return path


def test_a_published_file_becomes_a_model_directory(tmp_path, capsys):
    file = save(tmp_path / "voc.pth", "keys_LD_gfl_r18_voc", meta={"CLASSES": [f"c{i}" for i in range(20)]})
    assert main(["convert", str(file), str(tmp_path / "out"), "--model", "gfocal_r18_ld_r101"]) == 0
    shown = capsys.readouterr().out
    assert "matched        169" in shown and "missing          0" in shown and "create_model(" in shown
    model = create_model(tmp_path / "out")
    assert model.name == "gfocal_r18_ld_r101" and model.label_names[:2] == ("c0", "c1")
    assert model.config.num_classes == 20
    assert bool((model.head.cls.weight == 0.25).all()) and not model.training


def test_labels_from_a_file_and_coco_keeps_its_category_ids(tmp_path, capsys):
    file = save(tmp_path / "voc.pth", "keys_LD_gfl_r18_voc")
    (tmp_path / "labels.txt").write_text("\n".join(f"name {i}" for i in range(20)))
    arguments = ["convert", str(file), str(tmp_path / "out"), "--model", "gfocal_r18"]
    assert main([*arguments, "--label_names", str(tmp_path / "labels.txt")]) == 0
    assert create_model(tmp_path / "out").label_names[19] == "name 19"
    from ld_hub.structures.class_names import COCO_LABELS

    file = save(tmp_path / "coco.pth", "keys_LD_gfl_r18", meta={"CLASSES": COCO_LABELS})
    assert main(["convert", str(file), str(tmp_path / "coco"), "--model", "gfocal_r18"]) == 0
    assert create_model(tmp_path / "coco").category_ids[-1] == 90


def test_more_labels_than_a_file_name_has_room_for(tmp_path, capsys):
    file = save(tmp_path / "coco.pth", "keys_LD_gfl_r18")
    names = [f"kind {i}" for i in range(80)]
    arguments = ["convert", str(file), str(tmp_path / "out"), "--model", "gfocal_r18", "--label_names", ",".join(names)]
    assert len(arguments[-1]) > 255
    assert main(arguments) == 0
    assert list(create_model(tmp_path / "out").label_names) == names


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ([], "weights for 20 classes, the model has 80"),
        (["--num_classes", "7"], "weights for 20 classes, the model has 7"),
        (["--num_classes", "0"], "num_classes is 0"),
        (["--label_names", "a,,b"], "--label_names 'a,,b'"),
        (["--label_names", "voc.pth"], "'voc.pth' is no text file"),
        (["--num_classes", "20", "--label_names", "a,b"], "num_classes: 20, label_names: 2"),
    ],
)
def test_errors_leave_no_directory(tmp_path, capsys, monkeypatch, extra, words):
    monkeypatch.chdir(tmp_path)
    file = save(tmp_path / "voc.pth", "keys_LD_gfl_r18_voc")
    assert main(["convert", str(file), str(tmp_path / "out"), "--model", "gfocal_r18", *extra]) == 2
    assert words in capsys.readouterr().err
    assert [place.name for place in tmp_path.iterdir()] == ["voc.pth"]


def test_a_file_for_another_model(tmp_path, capsys):
    file = save(tmp_path / "r18.pth", "keys_LD_gfl_r18")
    assert main(["convert", str(file), str(tmp_path / "out"), "--model", "gfocal_r34"]) == 2
    shown = capsys.readouterr().err
    assert "missing" in shown and "backbone.body.layer1.2.conv1.weight" in shown
