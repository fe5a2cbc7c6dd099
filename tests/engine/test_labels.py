from __future__ import annotations

import warnings

import pytest
import torch

from ld_hub.data import load_coco
from ld_hub.engine import DetectionTrainer, DistillationTrainer, TrainConfig
from ld_hub.engine.labels import fit_labels
from ld_hub.errors import ConfigError
from ld_hub.hub import save_safetensors
from ld_hub.launch.start import load_start
from ld_hub.models.checkpoints.convert import load_checkpoint
from ld_hub.models.checkpoints.pretrained import save_pretrained
from ld_hub.models.factory import create_model
from ld_hub.structures.class_names import COCO_LABELS
from tests.engine.runs import NAMES, QUICK, SMALL, detector, sets

FROZEN = {**SMALL, "backbone": "test_resnet", "frozen_stages": 1, "norm_eval": True, "label_names": NAMES}


def test_the_same_classes_in_another_order_are_refused(data, tmp_path):
    training = load_coco(data, "train")
    save_pretrained(detector(), tmp_path / "model")
    model = create_model(tmp_path / "model")
    model.set_labels(("blue", "green", "red"))
    save_pretrained(model, tmp_path / "turned")
    turned = create_model(tmp_path / "turned")
    for make in (
        lambda: DetectionTrainer(turned, train_dataset=training),
        lambda: DistillationTrainer(turned, detector(seed=1), train_dataset=training),
        lambda: load_start(detector(), str(tmp_path / "turned")),
    ):
        with pytest.raises(ConfigError, match=r"blue, green, red there, red, green, blue in the data"):
            make()
    assert turned.label_names == ("blue", "green", "red")


def test_names_are_given_to_a_model_that_has_none(data, tmp_path):
    training = load_coco(data, "train")
    model = create_model("gfocal_tiny", num_classes=3, **SMALL)
    fit_labels(model, training)
    assert (model.label_names, model.category_ids) == (training.label_names, training.category_ids)
    other = detector()
    other.set_labels(("cat", "dog", "cow"))  # fine-tuning: nobody takes a cat for blue
    fit_labels(other, training)
    assert other.label_names == training.label_names


def test_cocos_names_are_a_default_only_without_weights(data, tmp_path):
    from dataclasses import replace

    turned = replace(load_coco(data, "train"), label_names=COCO_LABELS[::-1], category_ids=tuple(range(80)))
    fresh = create_model("gfocal_tiny", **SMALL)
    save_pretrained(fresh, tmp_path / "coco")
    fit_labels(fresh, turned)
    assert fresh.label_names == COCO_LABELS[::-1]
    with pytest.raises(ConfigError, match=r"person, bicycle.* there, toothbrush, hair drier"):
        fit_labels(create_model(tmp_path / "coco"), turned)


def frozen(**options):
    torch.manual_seed(0)
    model = create_model("gfocal_tiny", **{**FROZEN, **options})
    model.data_config = type(model.data_config)(image_size=(64, 64))
    return model


def train_one_step(data, out, model, **changes):
    config = TrainConfig(output_dir=str(out), **{**QUICK, "steps": 1, **changes})
    DetectionTrainer(model, train_dataset=sets(data)[0], config=config).train()


def test_frozen_stages_of_random_numbers_are_warned_of(data, tmp_path):
    with pytest.warns(UserWarning, match="1 of its stages are frozen") as caught:
        train_one_step(data, tmp_path / "plain", frozen())
    text = [str(entry.message) for entry in caught if "frozen" in str(entry.message)]
    assert len(text) == 1
    for way in ("pretrained_backbone=True", "backbone_checkpoint=FILE", "frozen_stages=0, norm_eval=False"):
        assert way in text[0]
    config = TrainConfig(output_dir=str(tmp_path / "distilled"), **{**QUICK, "steps": 1})
    with pytest.warns(UserWarning, match="1 of its stages are frozen"):
        DistillationTrainer(frozen(), detector(), train_dataset=sets(data)[0], config=config).train()


def test_frozen_stages_of_known_weights_are_as_they_should_be(data, tmp_path):
    donor = frozen()
    save_pretrained(donor, tmp_path / "whole")
    save_safetensors(donor.backbone.body.state_dict(), tmp_path / "backbone.safetensors")
    loaded = frozen()
    load_checkpoint(loaded, tmp_path / "whole/model.safetensors")
    started = frozen()
    load_start(started, str(tmp_path / "whole"))
    by_hand = frozen()
    by_hand.load_state_dict(donor.state_dict())
    with_backbone = frozen(backbone_checkpoint=tmp_path / "backbone.safetensors")
    assert with_backbone.backbone.initialized_from == str(tmp_path / "backbone.safetensors")
    models = [loaded, started, by_hand, with_backbone, frozen(frozen_stages=0), create_model(tmp_path / "whole")]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*are frozen")
        for index, model in enumerate(models):
            train_one_step(data, tmp_path / str(index), model)
        train_one_step(data, tmp_path / "0", frozen(), resume=True)  # the checkpoint brings the weights
    assert frozen().backbone.initialized_from is None


def test_a_part_of_the_weights_does_not_count_as_the_backbones():
    model = frozen()
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("backbone")}
    model.load_state_dict(state, strict=False)
    assert model.backbone.initialized_from is None
