"""GFocal as a whole: structures, gradients, batches, and the names built on it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ld_hub.errors import LdHubError
from ld_hub.layers.postprocess import PostprocessConfig
from ld_hub.models.gfocal import GFocal, GFocalConfig
from ld_hub.registry import MODELS
from ld_hub.structures import Targets

SMALL = {"fpn_channels": 32, "head_width": 32, "head_depth": 1, "num_classes": 3}


def build(**config: object) -> GFocal:
    torch.manual_seed(0)
    return GFocal(GFocalConfig(**{"backbone": "test_resnet", **SMALL, **config}))  # type: ignore[arg-type]


def targets(number: int, boxes: int = 2, size: tuple[int, int] = (96, 128)) -> Targets:
    box = torch.tensor([[10.0, 12, 60, 70], [40, 20, 110, 90], [5, 5, 30, 30]])[:boxes]
    sizes = torch.tensor([size] * number)
    return Targets.pad([box] * number, [torch.arange(boxes)] * number, sizes)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"backbone": "r18", "frozen_stages": 1, "norm_eval": True},
        {"backbone": "tf_efficientnet_lite0", "frozen_stages": 1},
        {"backbone": "test_convnext"},
        {"reg_max": 8, "anchor_scale": 4.0, "box_loss": "ciou", "head_depth": 0},
        {"in_chans": 1},
        {"quality": "distribution"},
    ],
)
def test_every_trainable_parameter_gets_a_gradient(config: dict) -> None:
    model = build(**config).train()
    for module in model.modules():  # timm starts the last norm of a residual block at 0, which hides its block
        if getattr(module, "weight", None) is not None and module.weight.dim() == 1:
            torch.nn.init.ones_(module.weight)
    images = torch.randn(2, config.get("in_chans", 3), 96, 128)
    output = model(images)
    truth = targets(2)
    # rows of every level take part, so that the scale of each level gets a gradient as well
    losses = model.loss(output, truth)
    (sum(losses.values()) + output.box.square().mean()).backward()
    assert set(losses) == {"loss_cls", "loss_bbox", "loss_dfl"}
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
        assert parameter.grad is None or parameter.grad.any(), name


def test_frozen_stages_and_batch_norms() -> None:
    model = build(backbone="r18", frozen_stages=1, norm_eval=True).train()
    frozen = {n.split(".")[2] for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "bn1", "layer1"}
    before = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    model(torch.randn(1, 3, 64, 64))
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
    free = build(backbone="r18", frozen_stages=1).train()
    free(torch.randn(2, 3, 64, 64))
    moved = {k.split(".")[2] for k, v in free.state_dict().items() if "running_mean" in k and v.any()}
    assert moved == {"layer2", "layer3", "layer4"}


def test_a_batch_of_one_is_a_batch_of_many() -> None:
    model = build().eval()
    images = torch.randn(3, 3, 96, 128)
    with torch.inference_mode():
        many = model(images)
        for n in range(3):
            one = model(images[n : n + 1])
            assert torch.allclose(one.cls_logits[0], many.cls_logits[n], atol=1e-5)
            assert torch.allclose(one.box[0], many.box[n], atol=1e-5)


@pytest.mark.parametrize("size", [(33, 47), (1, 1), (64, 200), (127, 129)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    model = build().eval()
    output = model(torch.randn(1, 3, *size))
    assert output.cls_logits.shape[1] == len(output.priors) == sum(h * w for h, w in output.priors.level_shapes)
    found = model.postprocess(output, torch.tensor([size]), config=PostprocessConfig(score_threshold=0.0))
    assert len(found) == 1
    boxes = found[0].boxes
    assert (boxes >= 0).all()
    assert (boxes[:, 2] <= size[1]).all()
    assert (boxes[:, 3] <= size[0]).all()


def test_images_without_objects_train() -> None:
    model = build().train()
    losses = model.loss(model(torch.randn(2, 3, 64, 64)), targets(2, boxes=0, size=(64, 64)))
    sum(losses.values()).backward()
    assert losses["loss_cls"] > 0
    assert (losses["loss_bbox"].item(), losses["loss_dfl"].item()) == (0.0, 0.0)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_the_loss_does_not_depend_on_padding_boxes_or_order() -> None:
    model = build().double()
    output = model(torch.randn(2, 3, 96, 128, dtype=torch.float64))
    truth = targets(2, boxes=3)
    flipped = Targets.pad([truth.boxes[0].flip(0)] * 2, [truth.labels[0].flip(0)] * 2, truth.image_sizes)
    wide = dataclasses.replace(
        truth,
        **{f: torch.cat([getattr(truth, f), torch.zeros_like(getattr(truth, f))], dim=1)
           for f in ("boxes", "labels", "valid", "crowd")},
    )  # fmt: skip
    first, second, third = (model.loss(output, t) for t in (truth, flipped, wide))
    for name, loss in first.items():
        assert torch.allclose(loss, second[name], rtol=1e-12)
        assert torch.equal(loss, third[name])


def test_predictions_are_float32_under_autocast() -> None:
    model = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(torch.randn(1, 3, 64, 64), features=True, towers=True)
    assert (output.cls_logits.dtype, output.box.dtype) == (torch.float32, torch.float32)
    assert output.features is not None
    assert output.features[0].dtype == torch.bfloat16
    assert output.towers is not None
    assert len(output.towers) == len(output.features) == 5


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"num_classes": 0}, ["num_classes", "0"]),
        ({"reg_max": 0}, ["reg_max"]),
        ({"anchor_scale": -1.0}, ["anchor_scale", "-1"]),
        ({"box_loss": "l1"}, ["box_loss", "l1", "giou"]),
        ({"quality": "iou"}, ["quality", "'iou'", "'none' or 'distribution'"]),
        ({"quality": "distribution", "reg_max": 2}, ["reg_max is 2", "quality", "at least 3"]),
        ({"backbone": "resnet5O"}, ["resnet5O", "resnet50"]),
        ({"backbone": "test_vit"}, ["test_vit", "strides", "resnet"]),
        ({"frozen_stages": 9}, ["frozen_stages", "9"]),
    ],
)
def test_bad_configurations_are_named(config: dict, words: list[str]) -> None:
    with pytest.raises(LdHubError) as caught:
        build(**config)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("name", [n for n in MODELS if MODELS[n].family == "gfocal"])
def test_every_name_builds_without_weights(name: str) -> None:
    entry = MODELS[name]
    with torch.device("meta"):
        model = entry.build(entry.build.config_class(**entry.config), name=name)
    assert model.spec.num_classes == 80
    if entry.distilled is not None:
        student, teacher = MODELS[entry.distilled.student], MODELS[entry.distilled.teacher]
        assert entry.config == student.config
        family, _, backbone = teacher.name.partition("_")
        assert name == f"{student.name}_{entry.distilled.recipe}_{backbone}" and name.startswith(f"{family}_")


def test_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = GFocal(GFocalConfig(**MODELS["gfocal_r50"].config))
    total, trainable = (
        sum(p.numel() for p in model.parameters() if p.requires_grad or every) / 1e6 for every in (True, False)
    )
    assert (round(total, 2), round(trainable, 2)) == (32.44, 32.22)  # LD paper, table "effect on size"
