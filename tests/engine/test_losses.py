from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ld_hub.errors import NonFiniteLossError
from ld_hub.optim.losses import LossWatch, gradient_shares
from ld_hub.structures import DenseOutput


def watch(*parts: dict[str, float]) -> LossWatch:
    made = LossWatch(torch.device("cpu"))
    for part in parts:
        made.add({name: torch.tensor(value) for name, value in part.items()})
    made.send()
    return made


def test_losses_are_means_over_micro_steps():
    made = watch({"loss_cls": 1.0, "distill_ld": 4.0}, {"loss_cls": 2.0, "distill_ld": 0.0})
    assert made.read(1) == {"loss_cls": 1.5, "distill_ld": 2.0}
    made.add({"loss_cls": torch.tensor(7.0)})  # nothing of the step before is left
    made.send()
    assert made.read(2) == {"loss_cls": 7.0}


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "NaN"), (float("-inf"), "infinite")])
def test_a_non_finite_loss_of_any_micro_step_is_named(value, word):
    made = watch({"loss_cls": 1.0, "loss_dfl": value}, {"loss_cls": 1.0, "loss_dfl": 1.0})
    with pytest.raises(NonFiniteLossError, match=f"^loss_dfl became {word} at step 7") as caught:
        made.read(7)
    assert "loss_cls = 1" in str(caught.value)


def output(cls: Tensor, box: Tensor) -> DenseOutput:
    return DenseOutput(cls, box, None, priors=None, coder=None)  # type: ignore[arg-type]


def test_shares_are_ratios_of_gradient_norms():
    cls, box = torch.ones(1, 2, 3, requires_grad=True), torch.ones(1, 2, 4, requires_grad=True)
    losses = {
        "loss_cls": 3 * cls.sum(),  # gradient 3 at 6 entries
        "loss_bbox": 4 * box.sum(),  # gradient 4 at 8 entries
        "distill_kd": 5 * cls.sum(),
        "distill_both": cls.sum() + 2 * box.sum(),
        "distill_feature": torch.ones(2, requires_grad=True).sum(),
    }
    base = (9 * 6 + 16 * 8) ** 0.5
    shares = {name: float(value) for name, value in gradient_shares(output(cls, box), losses).items()}
    assert shares == pytest.approx(
        {"share/distill_kd": (25 * 6) ** 0.5 / base, "share/distill_both": (6 + 4 * 8) ** 0.5 / base}
    )
    sum(losses.values()).backward()  # the graph is still there
    assert cls.grad is not None


def test_no_detection_loss_gives_no_shares():
    cls = torch.ones(1, 2, 3, requires_grad=True)
    assert gradient_shares(output(cls, cls), {"distill_kd": cls.sum()}) == {}
