from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ld_hub.data import TrainBatches
from ld_hub.data.sampler import eval_batches
from ld_hub.errors import ConfigError
from ld_hub.preprocessing import padded_shape, resize_shape


def sizes(wide, tall):
    order = np.random.default_rng(0).permutation(wide + tall)
    return [(40, 60) if i < wide else (60, 40) for i in order]


def first(batches, count):
    return list(itertools.islice(iter(batches), count))


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 9), st.integers(0, 5))
def test_every_image_exactly_once_per_epoch(wide, tall, batch_size, seed):
    shapes = sizes(wide, tall) or [(1, 1)]
    epochs = 4
    # Enough batches that the first epochs are over even if each group still holds back most of a batch.
    count = (epochs * len(shapes)) // batch_size + 2 * (1 + epochs)
    items = list(itertools.chain(*first(TrainBatches(shapes, batch_size, seed=seed), count)))
    seen = Counter(items)
    assert set(seen.values()) == {1}
    for epoch in range(epochs):
        done = {index for e, index in items if e == epoch}
        assert done == set(range(len(shapes)))


@given(st.integers(12, 60), st.integers(12, 60))
def test_batches_are_of_one_orientation(wide, tall):
    shapes = sizes(wide, tall)
    for batch in first(TrainBatches(shapes, 6), 40):
        assert len({shapes[index] for _, index in batch}) == 1


def test_a_group_smaller_than_a_step_is_not_kept_apart():
    shapes = sizes(30, 3)
    batches = first(TrainBatches(shapes, 6), 11)
    assert all(len({index for _, index in batch}) == 6 for batch in batches)  # no image twice in a batch
    for epoch in (0, 1):
        assert {i for b in batches for e, i in b if e == epoch} == set(range(33))


@pytest.mark.parametrize(("world", "accumulation"), [(1, 1), (2, 1), (4, 1), (1, 4), (2, 2)])
def test_steps_are_the_same_for_any_split(world, accumulation):
    shapes = sizes(20, 13)
    whole = first(TrainBatches(shapes, 8, seed=5), 20)
    ranks = [
        first(
            TrainBatches(shapes, 8 // world // accumulation, seed=5, rank=r, world=world, accumulation=accumulation),
            20 * accumulation,
        )
        for r in range(world)
    ]
    steps = [
        [item for micro in range(accumulation) for r in range(world) for item in ranks[r][step * accumulation + micro]]
        for step in range(20)
    ]
    assert steps == whole


@given(st.integers(1, 50), st.integers(0, 30), st.integers(1, 7), st.integers(1, 3), st.integers(0, 90))
def test_resuming_continues_the_same_stream(wide, tall, batch_size, accumulation, start):
    arguments = {"batch_size": batch_size, "seed": 2, "accumulation": accumulation}
    shapes = sizes(wide, tall)
    whole = first(TrainBatches(shapes, **arguments), start + 10)
    assert first(TrainBatches(shapes, **arguments, start_batch=start), 10) == whole[start:]


def test_resuming_late_does_not_replay():
    batches = TrainBatches(sizes(3000, 2000), 16, start_batch=10_000_000)
    drawn = []
    original = batches._epoch
    batches._epoch = lambda epoch: (drawn.append(epoch), original(epoch))[1]
    batch = first(batches, 1)[0]
    assert min(drawn) >= 10_000_000 * 16 // 5000 - 2
    assert abs(batch[0][0] - 10_000_000 * 16 / 5000) < 2


def test_seeds_and_epochs_are_shuffled_differently():
    shapes = sizes(40, 0)
    orders = {
        seed: [index for _, index in itertools.chain(*first(TrainBatches(shapes, 8, seed=seed), 10))] for seed in (0, 1)
    }
    assert orders[0] != orders[1]
    assert orders[0][:40] != orders[0][40:]
    assert orders[0][:40] != sorted(orders[0][:40])


def test_batches_per_epoch():
    assert TrainBatches(sizes(30, 0), 4, world=2, accumulation=2).batches_per_epoch == pytest.approx(30 / 8)


@pytest.mark.parametrize(
    "arguments",
    [{"batch_size": 0}, {"world": 0}, {"rank": 1}, {"accumulation": 0}, {"seed": -1}, {"start_batch": -1}],
)
def test_senseless_numbers_are_refused(arguments):
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        TrainBatches([(1, 1)], **{"batch_size": 2, **arguments})
    with pytest.raises(ConfigError, match="no images"):
        TrainBatches([], 2)


@given(
    st.lists(st.tuples(st.integers(20, 200), st.integers(20, 200)), max_size=40),
    st.integers(1, 6),
    st.integers(1, 4),
)
def test_evaluation_sees_each_image_once_in_batches_of_one_shape(shapes, batch_size, world):
    parts = [eval_batches(shapes, batch_size, (64, 100), 32, rank=r, world=world) for r in range(world)]
    batches = list(itertools.chain(*parts))
    assert sorted(itertools.chain(*batches)) == list(range(len(shapes)))
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        assert len({padded_shape(*resize_shape(*shapes[i], (64, 100)), 32) for i in batch}) == 1
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
