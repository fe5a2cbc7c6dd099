"""GFocalV2 against a second implementation that works on probabilities, as the paper writes it (arXiv 2011.12885)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou

from ld_hub.distillation import Distiller
from ld_hub.distillation.inputs import TermInputs
from ld_hub.export.program import DetectorRows
from ld_hub.layers.postprocess import PostprocessConfig
from ld_hub.layers.towers import joint_logits
from ld_hub.models.checkpoints.convert import translate_openmmlab
from ld_hub.models.factory import create_model
from ld_hub.models.gfocal import GFocal, GFocalConfig
from ld_hub.structures import Targets
from tests.support import golden

SMALL = {"backbone": "test_resnet", "fpn_channels": 16, "head_width": 16, "head_depth": 1, "num_classes": 3,
         "anchor_scale": 4.0, "reg_max": 8}  # fmt: skip


def build(quality: str = "distribution") -> GFocal:
    """A model whose scores and distributions spread over their whole range."""
    torch.manual_seed(0)
    model = GFocal(GFocalConfig(**SMALL, quality=quality))  # type: ignore[arg-type]
    with torch.no_grad():
        for layer in (model.head.cls, model.head.box):
            torch.nn.init.normal_(layer.weight, std=0.3)
        if model.head.quality is not None:
            for layer in (model.head.quality.hidden, model.head.quality.out):
                torch.nn.init.normal_(layer.weight, std=1.0)
                torch.nn.init.normal_(layer.bias)
    return model.double()


def targets() -> Targets:
    boxes = [torch.tensor([[10.0, 12, 60, 70], [40, 20, 110, 90], [5, 5, 30, 30]]), torch.tensor([[3.0, 30, 90, 60]])]
    return Targets.pad(
        [b.double() for b in boxes], [torch.tensor([0, 1, 2]), torch.tensor([1])], torch.tensor([[96, 128]] * 2)
    )


def plain_scores(model: GFocal, images: Tensor) -> tuple[Tensor, Tensor]:
    """``(N, A, C)`` probabilities p = sigmoid(a) * I and ``(N, A, 4, R+1)`` bin logits, level by level."""
    head, scores, bins = model.head, [], []
    for level, scale in zip(model.neck(model.backbone(images)), head.scales, strict=True):
        a = head.cls(head.cls_tower(level)).permute(0, 2, 3, 1)
        box = (head.box(head.box_tower(level)) * scale.scale).permute(0, 2, 3, 1).unflatten(3, (4, -1))
        top = box.softmax(dim=4).sort(dim=4, descending=True).values[..., :4]
        statistics = torch.cat([torch.cat([top[..., s, :], top[..., s, :].mean(-1, keepdim=True)], -1)
                                for s in range(4)], -1)  # fmt: skip
        (w1, b1), (w2, b2) = ((m.weight.flatten(1), m.bias) for m in (head.quality.hidden, head.quality.out))
        quality = torch.sigmoid(torch.relu(statistics @ w1.T + b1) @ w2.T + b2)
        scores.append((a.sigmoid() * quality).flatten(1, 2))
        bins.append(box.flatten(1, 2))
    return torch.cat(scores, 1), torch.cat(bins, 1)


def plain_losses(model: GFocal, p: Tensor, bins: Tensor, truth: Targets) -> Tensor:
    """QFL on probabilities, GIoU, DFL; row by row. Which rows are positive is the assigner's business."""
    priors = model.make_priors(96, 128, "cpu", torch.float64)
    assignment = model.assign(priors, truth)
    target = torch.zeros_like(p)
    box_loss = dfl = weight_sum = p.new_zeros(())
    for n, i in assignment.positive.nonzero().tolist():
        stride, center = priors.strides[i], priors.centers[i]
        distance = (bins[n, i].softmax(-1) * torch.arange(9).double()).sum(-1)
        box = torch.cat([center / stride - distance[:2], center / stride + distance[2:]])[None]
        goal = assignment.boxes[n, i][None] / stride
        giou = generalized_box_iou(box, goal)[0, 0]
        low, high = torch.maximum(box, goal), torch.minimum(box, goal)
        inner = (high[0, 2:] - low[0, :2]).clamp(min=0).prod()
        sides = [(b[0, 2:] - b[0, :2]).prod() for b in (box, goal)]
        target[n, i, assignment.labels[n, i]] = (inner / (sum(sides) - inner)).detach()
        weight = p[n, i].max().detach()
        weight_sum, box_loss = weight_sum + weight, box_loss + weight * (1 - giou)
        y = torch.cat([center / stride - goal[0, :2], goal[0, 2:] - center / stride]).clamp(0, 8 - 0.1)
        left = y.long()
        logs = bins[n, i].log_softmax(-1)
        picked = [logs.gather(1, (left + k)[:, None])[:, 0] for k in (0, 1)]
        dfl = dfl - weight * (picked[0] * (left + 1 - y) + picked[1] * (y - left)).sum()
    samples = assignment.positive.sum(dim=1).clamp(min=1).sum()
    qfl = (F.binary_cross_entropy(p, target, reduction="none") * (target - p).abs() ** 2).sum()
    return torch.stack([qfl / samples, 2 * box_loss / weight_sum, 0.25 * dfl / 4 / weight_sum])


def test_scores_losses_and_gradients_are_those_of_the_paper() -> None:
    model, truth = build().train(), targets()
    images = torch.randn(2, 3, 96, 128, dtype=torch.float64)
    parameters = [p for p in model.head.parameters()]
    output = model(images)
    p, bins = plain_scores(model, images)
    torch.testing.assert_close(output.cls_logits.sigmoid(), p, rtol=1e-10, atol=0)
    assert p.min() < 0.01 and p.max() > 0.5

    losses = model.loss(output, truth)
    found = torch.stack([losses[name] for name in ("loss_cls", "loss_bbox", "loss_dfl")])
    expected = plain_losses(model, p, bins, truth)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)  # torchvision's GIoU has another epsilon
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=0)
    for mine, theirs in ((found[0], expected[0]), (found.sum(), expected.sum())):
        one, other = (torch.autograd.grad(x, parameters, retain_graph=True, allow_unused=True) for x in (mine, theirs))
        for a, b in zip(one, other, strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                assert (a - b).norm() <= 1e-6 * b.norm() + 1e-12
    quality = torch.autograd.grad(found[0], list(model.head.quality.parameters()), retain_graph=True)
    assert all(g.any() for g in quality)
    assert torch.autograd.grad(found[0], model.head.box.weight)[0].any()  # the class loss reaches the distributions


def test_the_joint_logit_stays_exact_where_the_product_does_not() -> None:
    values = torch.tensor([-200.0, -50, -1, 0, 3, 50, 200], dtype=torch.float64)
    a, b = (v.flatten() for v in torch.meshgrid(values, values, indexing="ij"))
    for dtype, tolerance in ((torch.float64, 1e-14), (torch.float32, 1e-6)):
        x, y = a.to(dtype).requires_grad_(), b.to(dtype).requires_grad_()
        joint = joint_logits(x, y)
        expected = -torch.logsumexp(torch.stack([-a, -b, -(a + b)]), dim=0)
        torch.testing.assert_close(joint.double(), expected, rtol=tolerance, atol=tolerance)
        gradient = torch.autograd.grad(joint.sum(), [x, y])
        # dL/da = (1 - sigmoid(a)) / (1 - sigmoid(a) sigmoid(b)), and the same with a and b exchanged
        odds = torch.stack([-a, -b, -(a + b)]).softmax(dim=0)
        for found, own in zip(gradient, (odds[0], odds[1]), strict=True):
            torch.testing.assert_close(found.double(), own + odds[2], rtol=tolerance, atol=tolerance)
    assert joint_logits(a.bfloat16(), b.bfloat16()).dtype == torch.float32


def test_without_quality_nothing_has_changed() -> None:
    model, second = build("none").eval(), build().eval()
    assert set(second.state_dict()) - set(model.state_dict()) == {
        f"head.quality.{layer}.{kind}" for layer in ("hidden", "out") for kind in ("weight", "bias")
    }
    assert [tuple(p.shape) for p in second.head.quality.parameters()] == [(64, 20, 1, 1), (64,), (1, 64, 1, 1), (1,)]
    second.load_state_dict({**second.state_dict(), **model.state_dict()})
    images = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        first, other = model(images), second(images)
    assert torch.equal(first.box, other.box)
    assert (first.cls_logits > other.cls_logits).all()  # a quality below 1 only lowers scores


def test_detections_have_the_joint_score() -> None:
    model = build().eval()
    images = torch.randn(1, 3, 96, 128, dtype=torch.float64)
    with torch.no_grad():
        p, _ = plain_scores(model, images)
        everything = PostprocessConfig(score_threshold=0.0, nms_iou=1.0, max_detections=10_000)
        (found,) = model.postprocess(model(images), torch.tensor([[96, 128]]), config=everything)
    torch.testing.assert_close(found.scores, p.flatten().sort(descending=True).values, rtol=1e-9, atol=0)


def test_it_saves_exports_and_compiles(tmp_path) -> None:
    model = create_model("gfocalv2", **SMALL).eval()
    assert model.config.quality == "distribution"
    again = create_model(model.save_pretrained(tmp_path / "m"))
    images = torch.randn(1, 3, 64, 96)
    rows, sizes = DetectorRows(again), torch.tensor([[64, 96]])
    program = torch.export.export(rows, (torch.zeros(1, 3, 64, 96), sizes)).module()
    compiled = torch.compile(rows, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        expected = model(images)
        boxes = expected.decode().clamp(min=0).minimum(torch.tensor([96, 64, 96, 64]))
        for found in (rows(images, sizes), program(images, sizes), compiled(images, sizes)):
            torch.testing.assert_close(found[0], boxes)
            torch.testing.assert_close(found[1].logit(), expected.cls_logits)


@pytest.mark.parametrize("teacher_quality", ["none", "distribution"])
def test_it_is_distilled_like_the_first_version(teacher_quality: str) -> None:
    """A term sees joint logits of both versions; equal models have nothing to teach each other."""
    student, teacher = build().eval(), build(teacher_quality).eval()  # the same batch statistics
    images, truth = torch.randn(2, 3, 96, 128, dtype=torch.float64), targets()
    output = student(images)
    with torch.no_grad():
        taught = teacher(images).detach()
    distiller = Distiller("vlr")
    distiller.setup(student.spec, teacher.spec)
    terms = distiller.double()(TermInputs(output, taught, student.assign(output.priors, truth), truth))
    sum(terms.values()).backward()
    if teacher_quality == "none":
        assert any(p.grad.any() for p in student.head.quality.parameters())
    else:
        assert all(p.grad is None or p.grad.abs().max() < 1e-9 for p in student.parameters())


def test_published_sizes_of_the_quality_branch() -> None:
    with torch.device("meta"):
        first, second = (create_model(name) for name in ("gfocal_r50", "gfocalv2_r50"))
    added = sum(p.numel() for p in second.parameters()) - sum(p.numel() for p in first.parameters())
    assert added == (20 * 64 + 64) + (64 + 1)
    assert second.spec.family == "gfocal" and second.name == "gfocalv2_r50"


def test_files_of_its_authors_are_read() -> None:
    """The first version's key list and the four tensors that the second one's head adds."""
    info, _ = golden.load("keys_LD_gfl_r50")
    shapes = {name: item["shape"] for name, item in info["keys"].items()}
    shapes |= {"bbox_head.reg_conf.0.weight": [64, 20, 1, 1], "bbox_head.reg_conf.0.bias": [64]}
    shapes |= {"bbox_head.reg_conf.2.weight": [1, 64, 1, 1], "bbox_head.reg_conf.2.bias": [1]}
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    state["bbox_head.integral.project"] = torch.arange(17.0)
    with torch.device("meta"):
        first, second = (create_model(name) for name in ("gfocal_r50", "gfocalv2_r50"))
    _, report = translate_openmmlab(second, state)
    assert report.ok, report.table()
    assert len(report.matched) == info["num_keys"] - 1 + 4
    _, report = translate_openmmlab(first, state)
    assert [name.rpartition(".")[0] for name in report.unexpected[::2]] == ["head.quality.hidden", "head.quality.out"]
