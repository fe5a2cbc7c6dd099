"""What the benchmark measures is what it says."""

from __future__ import annotations

import copy
import dataclasses
import mmap
import sys

import pytest
import torch
from torch import Tensor

from ld_hub.benchmark.memory import Memory, MemoryWatch
from ld_hub.benchmark.steps import (
    Overhead,
    Timing,
    Workload,
    synthetic_batch,
    time_inference,
    time_training,
    trained_logits,
)
from ld_hub.models.factory import create_model
from ld_hub.structures import Targets
from tests.engine.runs import detector

WORK = Workload(batch_size=1, height=128, width=128, boxes=3, repeats=1)


def test_scores_look_trained() -> None:
    model = detector(num_classes=3).eval()
    output = model(torch.zeros(2, 3, 256, 256))
    box = torch.tensor([[100.0, 60, 164, 124]])  # 64 px: 8 strides of the first level
    labels = torch.tensor([1])
    targets = Targets.pad([box, box[:0]], [labels, labels[:0]], torch.tensor([[256, 256]] * 2))
    scores = trained_logits(output, targets).sigmoid()
    row, label = divmod(int(scores[0].argmax()), 3)
    assert label == 1
    assert output.priors.levels[row] == 0
    assert (output.priors.centers[row] - torch.tensor([132.0, 92])).abs().max() <= 4
    above = (scores > 0.05).sum(dim=(1, 2))
    assert above[0] > 40 * max(1, int(above[1]))


@pytest.mark.parametrize("family", ["gfocal", "fcos", "retinanet"])
def test_the_cut_backward_pass_gives_the_whole_gradient(family: str) -> None:
    """Of every output of the head, centerness included."""
    torch.manual_seed(0)
    model = create_model(family, backbone="test_resnet", num_classes=3, fpn_channels=16, head_width=16, head_depth=1)
    whole, found = copy.deepcopy(model).train(), dict[str, Tensor]()
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda p, n=name: found.update({n: p.grad.clone()}))
    time_training(model, None, None, dataclasses.replace(WORK, repeats=0))
    batch = synthetic_batch(WORK, whole.data_config, 3)
    torch.stack(list(whole.loss(whole(batch.images), batch.targets).values())).sum().backward()
    expected = {name: p.grad for name, p in whole.named_parameters() if p.grad is not None}
    assert expected.keys() == found.keys() >= {"head.box.weight"}
    for name, grad in expected.items():
        assert torch.allclose(found[name], grad, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("recipe", ["fine_grained", "crosskd_pkd"])
def test_recipes_on_maps_are_measured_too(recipe: str) -> None:
    names = ("gfocal_tiny", "gfocal_r10t")
    student, teacher = (create_model(name, num_classes=3) for name in names)
    timings = time_training(student, teacher, recipe, WORK)
    assert min(timing.least for timing in timings.values()) > 0
    assert list(timings)[5] == "distillation"


def test_overhead_is_what_the_networks_do_not_cost() -> None:
    seconds = {
        "data": 100, "student forward": 2, "teacher forward": 3, "assignment": 0.1, "losses": 0.2, "distillation": 0.3,
        "backward of losses": 0.4, "backward of network": 3, "optimizer": 0.5,
    }  # fmt: skip
    timings = {name: Timing(value, value / 2, Memory(0, None)) for name, value in seconds.items()}
    overhead = Overhead.of(timings)
    assert (overhead.criterion, overhead.of_student) == pytest.approx((1.0, 0.2))
    assert overhead.step == pytest.approx(9.5 / 8)
    plain = {name: timings[name] for name in timings if name not in {"teacher forward", "distillation"}}
    assert Overhead.of(plain).step == pytest.approx(6.2 / 5)


def test_inference_is_reported_per_image() -> None:
    found = time_inference(detector(num_classes=3), WORK)
    assert 0 < found.outside_network < 1
    assert found.pairs >= found.detections > 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
def _touch(size: int) -> None:
    """Write to fresh pages and give them back: a freed tensor's pages may stay resident and be used again."""
    with mmap.mmap(-1, size) as pages:
        for start in range(0, size, mmap.PAGESIZE):
            pages[start] = 1


def test_memory_of_a_part() -> None:
    watch, size = MemoryWatch(torch.device("cpu")), 1 << 26
    watch.start()
    _touch(size)
    used = watch.stop()
    assert used.growth is not None and 0.9 * size < used.growth < 1.5 * size  # the kernel counts in lumps
    watch.start()
    _touch(1 << 20)
    less = watch.stop()
    assert less.growth is not None and less.growth < size / 2
    assert less.peak <= used.peak - size / 2
