"""ATSS, FCOS and RetinaNet as whole detectors, in all forms of their boxes."""

from __future__ import annotations

import math
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou

from ld_hub.benchmark.profile import multiply_adds, params
from ld_hub.errors import CheckpointError, LdHubError
from ld_hub.layers.coders import DeltaCoder, DistanceCoder
from ld_hub.layers.postprocess import PostprocessConfig
from ld_hub.models.atss import ATSSCriterion
from ld_hub.models.checkpoints.pretrained import load_weights
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model
from ld_hub.models.fcos import FCOSCriterion
from ld_hub.models.retinanet import RetinaNetCriterion
from ld_hub.ops.dist import reduce_counts
from ld_hub.registry import MODELS
from ld_hub.structures import DenseOutput, Rows, StepCounts, Targets
from tests.support import build

SMALL: dict[str, Any] = {"backbone": "test_resnet", "fpn_channels": 32, "head_width": 32, "head_depth": 1,
                         "num_classes": 3}  # fmt: skip
FORMS = [
    ("atss", {"boxes": "delta"}),
    ("atss", {"boxes": "bins", "reg_max": 8}),
    ("fcos", {"boxes": "relu", "tower_bias": True}),
    ("fcos", {"boxes": "exp", "centerness_on": "cls", "center_radius": 0.0}),
    ("fcos", {"boxes": "bins", "range_scale": 4.0}),
    ("retinanet", {"boxes": "delta"}),
    ("retinanet", {"boxes": "delta", "box_loss": "giou"}),
    ("retinanet", {"boxes": "bins", "box_loss": "ciou"}),
]
CRITERIA: dict[str, Any] = {"atss": ATSSCriterion, "fcos": FCOSCriterion, "retinanet": RetinaNetCriterion}


def build_model(family: str, **config: Any) -> DenseDetector:
    torch.manual_seed(0)
    if config.get("boxes") == "bins" and family == "retinanet":
        config = {"box_loss": "giou", **config}
    return create_model(family, **{**SMALL, **config})


def truth(boxes: int = 3) -> Targets:
    box = torch.tensor([[10.0, 12, 60, 70], [40, 20, 110, 90], [5, 5, 30, 30]])[:boxes]
    return Targets.pad([box, box[:1]], [torch.arange(boxes), torch.arange(boxes)[:1]], torch.tensor([[96, 128]] * 2))


@pytest.mark.parametrize(("family", "config"), FORMS)
def test_every_parameter_learns_and_the_model_comes_back(family: str, config: dict, tmp_path: Any) -> None:
    model = build_model(family, **config).train()
    for module in model.modules():  # timm starts the last norm of a residual block at 0, which hides its block
        if getattr(module, "weight", None) is not None and module.weight.dim() == 1:
            torch.nn.init.ones_(module.weight)
    images = torch.randn(2, 3, 96, 128)
    output = model(images)
    losses = model.loss(output, truth())
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    assert set(losses) == {"loss_cls", "loss_bbox"} | (set() if family == "retinanet" else {"loss_centerness"})
    (sum(losses.values()) + output.box.square().mean()).backward()  # levels without positives have scales as well
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name

    model.eval()
    again = create_model(model.save_pretrained(tmp_path / "m"))
    assert (again.config, again.postprocess_config) == (model.config, model.postprocess_config)
    assert again.spec == model.spec
    with torch.no_grad():
        assert torch.equal(model(images).box, again(images).box)


@pytest.mark.parametrize(("family", "config"), FORMS)
def test_images_without_objects_train_and_odd_sizes_predict(family: str, config: dict) -> None:
    model = build_model(family, **config).train()
    losses = model.loss(model(torch.randn(2, 3, 96, 128)), truth(boxes=0))
    sum(losses.values()).backward()
    assert losses["loss_cls"] > 0
    assert all(loss == 0 for name, loss in losses.items() if name != "loss_cls")
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    model.eval()
    for size in ((33, 47), (1, 1)):
        output = model(torch.randn(1, 3, *size))
        assert output.cls_logits.shape[1] == len(output.priors) == sum(output.priors.level_sizes)
        (found,) = model.postprocess(output, torch.tensor([size]), config=PostprocessConfig(score_threshold=0.0))
        assert (found.boxes >= 0).all() and (found.boxes <= torch.tensor(size).flip(0).repeat(2)).all()


@pytest.mark.parametrize("split", [[[0, 1], [2, 3]], [[0], [1, 2, 3]], [[1], [0, 2], [3]]])
@pytest.mark.parametrize("family", CRITERIA)
def test_losses_do_not_depend_on_the_split_of_a_batch(family: str, split: list[list[int]]) -> None:
    """All normalisers depend on targets alone, so accumulation is exact, images without objects included."""
    output, targets = build.output(4, 20, family=family), build.targets(4, seed=0)
    assert not targets.usable[0].any()
    criterion = CRITERIA[family](output.coder)

    def losses(part: tuple[DenseOutput, Targets], counts: StepCounts | None) -> dict[str, Tensor]:
        return criterion(part[0], build.assign(part[0].priors, part[1]), counts)  # type: ignore[no-any-return]

    whole = losses((output, targets), None)
    parts = build.parts_of(output, targets, split)
    counts = reduce_counts([StepCounts.local(build.assign(o.priors, t)) for o, t in parts])
    pieces = [losses(part, counts) for part in parts]
    for name, expected in whole.items():
        assert torch.allclose(sum(p[name] for p in pieces) / len(parts), expected, rtol=1e-12), name


def test_atss_losses_by_hand() -> None:
    """Focal loss, GIoU and centerness BCE of a batch, row by row."""
    output, targets = build.output(2, 3, family="atss"), build.targets(2, seed=3)
    assignment = build.assign(output.priors, targets)
    found = ATSSCriterion(output.coder)(output, assignment)
    boxes = output.decode().detach()
    cls = box = quality = weight = 0.0
    for n in range(2):
        for a in range(len(output.priors)):
            p = output.cls_logits[n, a].detach().sigmoid()
            label = int(assignment.labels[n, a])
            for c in range(5):
                cls -= float(0.25 * (1 - p[c]) ** 2 * p[c].log() if c == label
                             else 0.75 * p[c] ** 2 * (1 - p[c]).log())  # fmt: skip
            if label == 5:
                continue
            (x, y), (x1, y1, x2, y2) = output.priors.centers[a].tolist(), assignment.boxes[n, a].tolist()
            left, top, right, bottom = x - x1, y - y1, x2 - x, y2 - y
            target = math.sqrt(min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom))
            s = output.priors.strides[a]
            giou = generalized_box_iou(boxes[n, a][None] / s, assignment.boxes[n, a][None] / s).item()
            box, weight = box + target * (1 - giou), weight + target
            logit = output.quality[n, a].detach()
            quality += float(F.binary_cross_entropy(logit.sigmoid(), torch.tensor(target).double()))
    samples = float(assignment.positive.sum(dim=1).clamp(min=1).sum())
    assert math.isclose(found["loss_cls"].item(), cls / samples, rel_tol=1e-9)
    assert math.isclose(found["loss_bbox"].item(), 2 * box / weight, rel_tol=1e-5)
    assert math.isclose(found["loss_centerness"].item(), quality / samples, rel_tol=1e-6)


def test_delta_coder_is_its_own_inverse_and_distances_by_hand() -> None:
    priors = build.grid("retinanet")
    rows = torch.randint(0, len(priors), (50,), generator=torch.Generator().manual_seed(0))
    corner = torch.rand(50, 2, dtype=torch.float64) * 60
    boxes = torch.cat([corner, corner + 5 + torch.rand(50, 2, dtype=torch.float64) * 40], dim=1)
    for stds in ((1.0,) * 4, (0.1, 0.1, 0.2, 0.2)):
        coder = DeltaCoder(stds)
        assert torch.allclose(coder.decode_rows(coder.encode_rows(boxes, priors, rows), priors, rows), boxes)
    assert torch.allclose(coder.decode(torch.zeros(1, len(priors), 4).double(), priors)[0], priors.anchors)
    wild = coder.decode(torch.full((1, len(priors), 4), 1e4, dtype=torch.float64), priors)
    assert wild.isfinite().all()
    points = build.grid("fcos")
    raw = torch.tensor([[-1.0, 2.0, 0.5, 0.0]]).double()
    x, y = points.centers[3].tolist()
    row = torch.tensor([3])
    assert DistanceCoder("relu").decode_rows(raw, points, row).tolist() == [[x, y - 16, x + 4, y]]
    expected = [x - math.exp(-1), y - math.exp(2), x + math.exp(0.5), y + 1]
    assert DistanceCoder("exp").decode_rows(raw, points, row)[0].tolist() == pytest.approx(expected)


def test_fcos_padding_counts_in_the_published_reading_only() -> None:
    output = build.output(1, 3, family="fcos")
    targets = Targets.pad([torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)], torch.tensor([[64, 64]]))
    assignment = build.assign(output.priors, targets)
    sound = FCOSCriterion(output.coder)(output, assignment)["loss_cls"]
    published = FCOSCriterion.published(output.coder, "ld")(output, assignment)["loss_cls"]
    assert 0 < sound < published


# paper table "effect on size, FLOPs, FPS": trainable parameters in M, multiply-adds in G
TABLE = {
    "retinanet_r50": (37.74, 239.32),
    "retinanet_r50_bins": (39.07, 267.64),
    "fcos_r50_caffe": (32.02, 200.50),
    "fcos_r50_caffe_bins": (32.17, 203.60),
    "atss_r50": (32.07, 205.21),
    "atss_r50_bins": (32.22, 208.36),
}


@pytest.mark.parametrize("name", TABLE)
def test_published_sizes(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    size, cost = TABLE[name]
    assert round(params(model).trainable / 1e6, 2) == size
    assert abs(sum(multiply_adds(model, (800, 1280)).values()) / 1e9 - cost) < 0.01


@pytest.mark.parametrize("name", [n for n in MODELS if MODELS[n].family != "gfocal"])
def test_every_name_builds_without_weights(name: str) -> None:
    entry = MODELS[name]
    with torch.device("meta"):
        model = create_model(name)
    assert model.spec.anchors_per_cell == (9 if entry.family == "retinanet" else 1)
    if entry.distilled is not None:
        student, teacher = MODELS[entry.distilled.student], MODELS[entry.distilled.teacher]
        assert entry.config == student.config
        assert name == f"{entry.family}_r50_{entry.distilled.recipe}_r101"
        assert "r101" in teacher.name
        of_bins = entry.distilled.recipe in {"ld", "vlr"}  # CrossKD's published students have the original boxes
        assert model.spec.reg_max == (16 if of_bins else None)


@pytest.mark.parametrize("family", CRITERIA)
def test_weights_for_other_classes_are_told_as_such(family: str, tmp_path: Any) -> None:
    path = build_model(family, num_classes=5).save_pretrained(tmp_path / "m") / "model.safetensors"
    with pytest.raises(CheckpointError, match="weights for 5 classes, the model has 3"):
        load_weights(build_model(family), path)
    with pytest.raises(CheckpointError, match=r"head\.box\.weight"):
        load_weights(build_model(family, num_classes=5, boxes="bins"), path)


def test_caffe_backbones() -> None:
    model = create_model("fcos_r50_caffe", fpn_channels=32, head_width=32, head_depth=0).train()
    body = model.backbone.body
    assert [body.layer2[0].conv1.stride, body.layer2[0].conv2.stride] == [(2, 2), (1, 1)]
    norms = [m for m in model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 53
    assert not any(m.training or m.weight.requires_grad for m in norms)
    assert body.layer2[0].conv1.weight.requires_grad and not body.layer1[0].conv1.weight.requires_grad
    assert (model.data_config.channel_order, model.data_config.std) == ("bgr", (1.0, 1.0, 1.0))
    with pytest.raises(CheckpointError, match="backbone_checkpoint"):
        create_model("fcos_r50_caffe", pretrained_backbone=True)


@pytest.mark.parametrize(
    ("family", "config", "words"),
    [
        ("atss", {"boxes": "distances"}, ["boxes", "'distances'", "'delta' or 'bins'"]),
        ("atss", {"anchor_scale": 0}, ["anchor_scale"]),
        ("fcos", {"center_radius": -1}, ["center_radius", "-1"]),
        ("fcos", {"centerness_on": "reg"}, ["centerness_on", "'reg'"]),
        ("fcos", {"range_scale": 0}, ["range_scale"]),
        ("retinanet", {"boxes": "bins"}, ["l1", "boxes", "delta"]),
        ("retinanet", {"reg_max": 0}, ["reg_max", "0"]),
    ],
)
def test_bad_configurations_are_named(family: str, config: dict, words: list[str]) -> None:
    with pytest.raises(LdHubError) as caught:
        create_model(family, **{**SMALL, **config})
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("boxes", [3, 0])
@pytest.mark.parametrize(("family", "config"), FORMS)
def test_rows_of_fixed_number_give_the_same(family: str, config: dict, boxes: int) -> None:
    """On a GPU all rows take part, those that are not positive with weight 0: no NaN may come from them."""
    model = build_model(family, **config).double()
    output = model(torch.randn(2, 3, 96, 128, dtype=torch.float64))

    def run() -> tuple[dict[str, Tensor], list[Tensor]]:
        losses = model.loss(output, truth(boxes))
        total = torch.stack(list(losses.values())).sum()
        return losses, list(torch.autograd.grad(total, [output.cls_logits, output.box], retain_graph=True))

    exact, exact_grads = run()
    with mock.patch("torch.compiler.is_compiling", return_value=True):
        assert Rows.find(torch.zeros(2, 5, dtype=torch.bool)).dense
        fixed, fixed_grads = run()
    for name, loss in exact.items():
        assert torch.allclose(loss, fixed[name], rtol=1e-12, atol=0), name
    for mine, expected in zip(fixed_grads, exact_grads, strict=True):
        assert torch.allclose(mine, expected, rtol=1e-9, atol=1e-15)
