from __future__ import annotations

import math

import pytest

from ld_hub.engine.schedule import Plan
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import ConfigError

COCO = 117_266  # images of train2017 with objects


def test_published_1x_of_the_bckd_configurations():
    """SPEC 7: 8 GPUs x 2 images, lr .01, 12 epochs, decays after 8 and 11, warm-up 500 from .001."""
    plan = Plan.make(TrainConfig(schedule="1x", batch_size=2), COCO, world=8)
    per_epoch = COCO / 16
    assert plan.steps == math.ceil(12 * per_epoch)
    assert plan.peak_lr == 0.01
    assert plan.warmup == 500
    assert plan.decays == pytest.approx((8 * per_epoch, 11 * per_epoch), abs=1)
    rates = [
        plan.lr(step) for step in (0, 250, 500, plan.decays[0] - 1, plan.decays[0], plan.decays[1], plan.steps - 1)
    ]
    # mmcv's linear warm-up: lr * (1 - (1 - t / T) (1 - ratio))
    assert rates == pytest.approx([1e-5, 0.01 * (1 - 0.5 * 0.999), 0.01, 0.01, 1e-3, 1e-4, 1e-4])


def test_published_lr_of_the_ld_configurations():
    """SPEC 7: 2 GPUs x 3 images train at .00375."""
    assert Plan.make(TrainConfig(batch_size=3), COCO, world=2).peak_lr == pytest.approx(0.00375)


def test_2x_has_its_decays_after_16_and_22_epochs():
    plan = Plan.make(TrainConfig(schedule="2x", batch_size=10), 1000)
    assert (plan.steps, plan.decays) == (2400, (1600, 2200))


def test_voc_is_four_epochs_over_three_times_the_images_with_a_decay_after_the_third():
    """SPEC 7: RepeatDataset x 3, 4 epochs, step [3]; 2 GPUs x 3 images at lr .00375."""
    plan = Plan.make(TrainConfig(schedule="voc", batch_size=3), 16_551, world=2)
    per_epoch = 3 * 16_551 / 6
    assert plan.steps == math.ceil(4 * per_epoch) and plan.decays == pytest.approx((3 * per_epoch,), abs=1)
    assert plan.peak_lr == pytest.approx(0.00375)
    assert TrainConfig(schedule="voc", milestones=(0.5,)).milestones == (0.5,)  # what is given goes first
    assert TrainConfig(schedule="2x").milestones == TrainConfig().milestones == (2 / 3, 11 / 12)


def test_no_length_means_1x_and_the_default_warm_up_fits_short_runs():
    assert Plan.make(TrainConfig(batch_size=10), 1000).steps == 1200
    assert Plan.make(TrainConfig(batch_size=10), 1000).warmup == 120
    assert Plan.make(TrainConfig(batch_size=10, warmup_steps=300), 1000).warmup == 300
    with pytest.raises(ConfigError, match="warmup_steps is 5, but the run has 5 steps"):
        Plan.make(TrainConfig(steps=5, warmup_steps=5), 1000)


def test_epochs_count_images_of_all_ranks_and_micro_steps():
    plan = Plan.make(TrainConfig(epochs=3, batch_size=2, accumulation=4, eval_every_epochs=0.5), 1000, world=5)
    assert (plan.global_batch, plan.steps, plan.eval_every) == (40, 75, 12)
    assert plan.epoch(75) == 3


@pytest.mark.parametrize(("optimizer", "base"), [("sgd", 0.01), ("adamw", 1e-4)])
def test_lr_scales_with_the_images_of_a_step(optimizer, base):
    def peak(**changes):
        return Plan.make(TrainConfig(steps=9, optimizer=optimizer, **changes), 100).peak_lr

    assert peak(batch_size=4, accumulation=2) == pytest.approx(base / 2)
    assert peak(batch_size=4, lr=0.3) == pytest.approx(0.3 / 4)
    assert peak(batch_size=4, lr=0.3, scale_lr=False) == 0.3


def test_cosine_and_constant():
    cosine = Plan.make(TrainConfig(steps=100, lr=1.0, scale_lr=False, lr_schedule="cosine", warmup_steps=10), 100)
    assert [cosine.lr(t) for t in (25, 50, 99)] == pytest.approx(
        [(1 + math.cos(math.pi * t / 100)) / 2 for t in (25, 50, 99)]
    )
    assert cosine.lr(5) == pytest.approx((1 + math.cos(math.pi * 0.05)) / 2 * (1 - 0.5 * 0.999))
    constant = Plan.make(TrainConfig(steps=100, lr=1.0, scale_lr=False, lr_schedule="constant", warmup_steps=0), 100)
    assert {constant.lr(t) for t in range(100)} == {1.0}


def test_milestones_decay_and_warm_up_are_the_users():
    config = TrainConfig(
        steps=10, lr=1.0, scale_lr=False, milestones=(0.3, 0.6), lr_decay=0.5, warmup_steps=2, warmup_ratio=0.5
    )
    rates = [Plan.make(config, 100).lr(step) for step in range(10)]
    assert rates == pytest.approx([0.5, 0.75, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25])


def test_when_things_happen():
    plan = Plan.make(TrainConfig(steps=10, eval_every_steps=4, save_every=3, log_every=5), 100)
    steps = range(1, 11)
    assert [s for s in steps if plan.evaluates_after(s)] == [4, 8, 10]
    assert [s for s in steps if plan.saves_after(s)] == [3, 4, 6, 8, 9, 10]
    assert [s for s in steps if plan.logs_after(s)] == [1, 5, 10]
    assert not Plan.make(TrainConfig(steps=10), 100).evaluates_after(9)
