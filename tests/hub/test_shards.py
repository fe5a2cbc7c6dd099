"""A store keeps what was written whole, whoever was killed meanwhile, and belongs to one thing."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import time

import pytest
import torch

from ld_hub.errors import CacheError, CheckpointError
from ld_hub.hub.shards import ABANDONED_S, ShardStore

IDENTITY = {"teacher": "r101", "size": 64}
KEYS = [f"image{number:03d}" for number in range(60)]


def entry(key: str) -> dict[str, torch.Tensor]:
    """What belongs to a key; a function of it."""
    draw = torch.Generator().manual_seed(int(key[-3:]))
    return {
        "rows": torch.randint(0, 256, (5, 3), dtype=torch.uint8, generator=draw),
        "scale": torch.randn(5, generator=draw).half(),
        "none": torch.zeros(0, 4),
        "number": torch.tensor(int(key[-3:])),
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one
    )


def fill(directory, keys=KEYS, shard_bytes: int = 150) -> None:
    """Write the entries that are missing, a few per shard."""
    store = ShardStore(directory, IDENTITY)
    with store.writer(shard_bytes) as writer:
        for key in keys:
            if key not in store:
                writer.add(key, entry(key))


def test_what_was_written_is_read_again(tmp_path):
    fill(tmp_path / "store")
    store = ShardStore(tmp_path / "store", IDENTITY)
    assert store.keys() == KEYS and len(store) == 60 and KEYS[3] in store and "image060" not in store
    assert all(same(store.read(key), entry(key)) for key in reversed(KEYS))
    assert 2 < len(list((tmp_path / "store").glob("shard-*"))) < 60
    assert store.size == sum(path.stat().st_size for path in (tmp_path / "store").glob("shard-*"))
    with pytest.raises(KeyError):
        store.read("image060")


def test_a_shard_appears_whole_and_two_writers_do_not_collide(tmp_path):
    one, other = ShardStore(tmp_path, IDENTITY), ShardStore(tmp_path, IDENTITY)
    one.append({KEYS[0]: entry(KEYS[0]), KEYS[1]: entry(KEYS[1])})
    other.append({KEYS[1]: entry(KEYS[1]), KEYS[2]: entry(KEYS[2])})
    assert one.keys() == KEYS[:2] and other.keys() == KEYS[1:3]
    one.refresh()
    assert one.keys() == KEYS[:3] and all(same(one.read(key), entry(key)) for key in KEYS[:3])
    one.append({})
    assert len(list(tmp_path.glob("shard-*"))) == 2


def _stop_before_it_appears(store, written) -> None:
    """Write a shard, and wait to be killed where it would get its name."""

    def stop(*_: object) -> None:
        written.set()
        time.sleep(600)

    os.replace = stop  # in this process alone
    ShardStore(store, IDENTITY).append({"image999": entry("image999")})


def test_writers_killed_at_random_moments_leave_a_store_that_continues(tmp_path):
    """SIGKILL at 20 moments of 20 writers of one store, two at a time every other time; then to the end."""
    context, draw = multiprocessing.get_context("fork"), random.Random(0)
    store, seen = tmp_path / "store", 0
    for round_ in range(20):
        writers = [context.Process(target=fill, args=(store, KEYS)) for _ in range(1 + round_ % 2)]
        for writer in writers:
            writer.start()
        time.sleep(draw.uniform(0.0, 0.03))
        for writer in writers:
            writer.kill()  # SIGKILL; nothing where it has ended
            writer.join()
        found = ShardStore(store, IDENTITY)
        assert len(found) >= seen and all(same(found.read(key), entry(key)) for key in found.keys())
        seen = len(found)
    written = context.Event()
    last = context.Process(target=_stop_before_it_appears, args=(store, written))
    last.start()
    assert written.wait(60)
    last.kill()
    last.join()
    assert list(store.glob(".shard-*")) and "image999" not in ShardStore(store, IDENTITY)
    fill(store)
    fill(tmp_path / "whole")
    interrupted, whole = (ShardStore(tmp_path / name, IDENTITY) for name in ("store", "whole"))
    assert interrupted.keys() == whole.keys() == KEYS
    assert all(same(interrupted.read(key), whole.read(key)) for key in KEYS)


def test_an_unfinished_shard_is_passed_over_and_once_old_removed(tmp_path):
    store = ShardStore(tmp_path, IDENTITY)
    left = tmp_path / ".shard-0-1.tmp.safetensors"
    left.write_bytes(b"half")
    store.refresh()
    assert left.exists() and not len(store)
    os.utime(left, (time.time() - 2 * ABANDONED_S,) * 2)
    assert not len(ShardStore(tmp_path, IDENTITY)) and not left.exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "other bytes", "no checksums", "gone"])
def test_a_damaged_shard_is_named_with_the_way_out(tmp_path, damage):
    store = ShardStore(tmp_path, IDENTITY)
    store.append({KEYS[0]: entry(KEYS[0])})
    store.append({KEYS[1]: entry(KEYS[1])})
    (shard,) = [tmp_path / name for key, name in store._shards.items() if key == KEYS[0]]
    content = shard.read_bytes()
    if damage == "no checksums":
        shard.write_bytes(content.replace(b'"checks"', b'"others"'))
    elif damage == "other bytes":
        shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage != "gone":
        shard.write_bytes(content[: 0 if damage == "empty" else len(content) - 1])
    fresh = None
    with pytest.raises(CacheError, match=rf"'{shard}' is truncated or damaged .*Delete this file"):
        fresh = ShardStore(tmp_path, IDENTITY)
        if damage == "gone":
            shard.unlink()
            fresh._open.clear()
        fresh.read(KEYS[0])
    shard.unlink(missing_ok=True)
    assert ShardStore(tmp_path, IDENTITY).keys() == [KEYS[1]]
    fill(tmp_path, KEYS[:2])
    assert same(ShardStore(tmp_path, IDENTITY).read(KEYS[0]), entry(KEYS[0]))


def test_a_store_of_something_else_is_refused_by_name(tmp_path):
    ShardStore(tmp_path / "store", IDENTITY)
    with pytest.raises(CacheError, match=r"\(teacher: r101 there, r50 now; bits: None .*; size: 64 there"):
        ShardStore(tmp_path / "store", {"teacher": "r50", "bits": 8})
    header = tmp_path / "store/header.json"
    content = json.loads(header.read_text())
    header.write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(CacheError, match=r"format 99, and this version reads format 1\. Delete"):
        ShardStore(tmp_path / "store", IDENTITY)
    header.write_text('{"format": 1, "identity": ')
    with pytest.raises(CacheError, match=r"header\.json.*Delete"):
        ShardStore(tmp_path / "store", IDENTITY)
    header.write_text('{"format": "new", "identity": {}}')
    with pytest.raises(CacheError, match=r"'format' is 'new'; expected a whole number"):
        ShardStore(tmp_path / "store", IDENTITY)


def test_other_peoples_directories_are_left_alone(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"x")
    with pytest.raises(CacheError, match=r"is not empty and no cache"):
        ShardStore(tmp_path / "photos", IDENTITY)
    with pytest.raises(CacheError, match="is a file"):
        ShardStore(tmp_path / "photos/a.jpg", IDENTITY)
    assert os.listdir(tmp_path / "photos") == ["a.jpg"]


def test_values_that_are_no_numbers_are_not_written(tmp_path):
    store = ShardStore(tmp_path, IDENTITY)
    with pytest.raises(CheckpointError, match="NaN"):
        store.append({"a": {"x": torch.tensor([float("nan")])}})
    assert os.listdir(tmp_path) == ["header.json"] and not len(store)


def test_few_shards_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr("ld_hub.hub.shards.OPEN_SHARDS", 3)
    fill(tmp_path)
    store = ShardStore(tmp_path, IDENTITY)
    assert all(same(store.read(key), entry(key)) for key in KEYS) and len(store._open) == 3
