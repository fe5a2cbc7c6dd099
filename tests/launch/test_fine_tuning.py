"""Starting from another model: rows by name, and what the commands say about it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ld_hub.errors import ConfigError
from ld_hub.launch.arguments import ModelArguments
from ld_hub.launch.closing import next_commands
from ld_hub.launch.data_arguments import DataArguments
from ld_hub.launch.start import load_start
from ld_hub.models.factory import create_model

SMALL = {"backbone": "test_resnet", "fpn_channels": 16, "head_width": 16, "head_depth": 1}
OURS = ("zebra", "cat", "dog", "emu")


def made(family, names, seed):
    torch.manual_seed(seed)
    model = create_model(family, label_names=names, **SMALL)
    for tensor in model.get_classifier().parameters():
        torch.nn.init.normal_(tensor)
    return model


@pytest.mark.parametrize("family", ["gfocal", "retinanet"])
@pytest.mark.parametrize("theirs", [("dog", "bird", "cat"), ("dog", "cat", "emu", "zebra"), ("cat", "x", "y", "z")])
def test_rows_of_classes_go_where_the_class_is(family, theirs, tmp_path):
    donor, model = made(family, theirs, 1), made(family, OURS, 2)
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    said = load_start(model, str(donor.save_pretrained(tmp_path / "donor")), by_name=True)
    anchors = 9 if family == "retinanet" else 1
    old, new = donor.state_dict(), model.state_dict()
    for kind in ("weight", "bias"):
        name = f"head.cls.{kind}"
        for anchor in range(anchors):
            for place, label in enumerate(OURS):
                row = new[name][anchor * len(OURS) + place]
                expected = (
                    old[name][anchor * len(theirs) + theirs.index(label)] if label in theirs
                    else fresh[name][anchor * len(OURS) + place]
                )  # fmt: skip
                assert torch.equal(row, expected), (kind, anchor, label)
    assert all(torch.equal(new[name], old[name]) for name in new if not name.startswith("head.cls."))
    assert model.label_names == OURS
    expected = {
        ("dog", "bird", "cat"): "class rows kept by name: cat, dog; new: zebra, emu.",
        ("dog", "cat", "emu", "zebra"): "all 4 classes kept by name.",
        ("cat", "x", "y", "z"): "class rows kept by name: cat; new: zebra, dog, emu.",
    }
    assert said.endswith(expected[theirs])


def test_one_start_at_a_time_and_names_are_needed(tmp_path):
    with pytest.raises(ConfigError, match="--checkpoint and --finetune_from exclude each other"):
        ModelArguments(checkpoint="a", finetune_from="b").require_one_start()
    (tmp_path / "a.pth").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"does not say what its classes are called.*--checkpoint FILE"):
        ModelArguments(finetune_from=str(tmp_path / "a.pth")).require_one_start()
    with pytest.raises(ConfigError, match="would keep random numbers"):
        ModelArguments(pretrained_backbone=False, frozen_stages=1).require_one_start()
    ModelArguments(pretrained_backbone=False, frozen_stages=1, finetune_from="x").require_one_start()
    ModelArguments(pretrained_backbone=False, frozen_stages=0).require_one_start()


def test_what_may_be_typed_next():
    assert next_commands(Path("runs/my run/best"), DataArguments(data="d")) == (
        "next: ld-hub predict PHOTO.jpg --model 'runs/my run/best'\n      ld-hub eval 'runs/my run/best' --data d"
    )
    own = DataArguments(train_images="t", train_annotations="t.json", val_images="v", val_annotations="v.json")
    assert next_commands(Path("m"), own).endswith("\n      ld-hub eval m --images v --annotations v.json")
    alone = DataArguments(train_images="t", train_annotations="t.json")
    assert next_commands(Path("m"), alone) == "next: ld-hub predict PHOTO.jpg --model m"
