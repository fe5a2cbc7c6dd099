"""Streams: each image once per epoch whatever the ranks and workers, the same boxes as read from disk, found again."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ld_hub.checked import Source, read_fields
from ld_hub.data import load_data, load_stream
from ld_hub.data.stream_loader import row_boxes, stream_loader
from ld_hub.data.stream_order import StreamBatches, StreamPlace, StreamRow, arrange, place_of
from ld_hub.data.stream_set import StreamSet
from ld_hub.errors import CheckpointError, ConfigError, DataError, MissingFileError
from ld_hub.preprocessing import DataConfig, train_transform
from ld_hub.preprocessing.augmentation import Augmentation
from tests.hub_server import serving
from tests.support.hub_client import environment
from tests.support.parquet_sets import objects, picture, write

COCO = "form=coco"  # boxes beyond their images look like the other one
SIZE = 16  # px; images are smaller, so that a pixel says which image it is
CONFIG = DataConfig(image_size=(SIZE, 2 * SIZE), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

pytestmark = pytest.mark.filterwarnings("ignore:.*boxes cannot be trained on")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of one's own, and no progress bars."""
    monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "arrow")
    datasets.disable_progress_bars()


def batches(stream: StreamSet, size: int, rank: int = 0, world: int = 1, start: StreamPlace | None = None):
    return StreamBatches(stream, size, seed=5, start=start or StreamPlace(world=world, rank=rank))


def epochs(found: StreamBatches, count: int) -> list[list[int]]:
    """Numbers of the images of the first epochs, in their order."""
    seen: list[list[int]] = [[] for _ in range(count)]
    for row in itertools.chain.from_iterable(found):
        if row.epoch >= count + 1:  # a batch may hold rows of two epochs, a block never
            return seen
        if row.epoch < count:
            seen[row.epoch].append(int(row.content["image_id"]))
    return seen  # pragma: no cover


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("files", [[7, 1, 12, 3], [23], [3, 9, 4, 2, 8, 1, 5, 6]])
@pytest.mark.parametrize("buffer", [1, 6, 1000])
def test_each_image_once_per_epoch_on_any_number_of_ranks(tmp_path, world, files, buffer):
    stream = load_stream(write(tmp_path / "set", files), columns=COCO, buffer=buffer)
    assert len(stream) == sum(files)
    ranks = [epochs(batches(stream, 3, rank, world), 3) for rank in range(world)]
    for epoch in range(3):
        assert sorted(itertools.chain.from_iterable(rank[epoch] for rank in ranks)) == list(range(sum(files)))
    if buffer > 1 or len(files) > 1:
        assert len({repr([rank[epoch] for rank in ranks]) for epoch in range(3)}) == 3  # each in another order


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_batches_are_those_of_data_on_disk(tmp_path, world, workers):
    """The same multiset of images, boxes and labels per epoch; the order is the same for any number of workers."""
    place = write(tmp_path / "set", [5, 9, 6])
    stream, disk = load_stream(place, columns=COCO, buffer=7), load_data(place, "train", columns=COCO)
    assert (stream.label_names, stream.category_ids) == (disk.label_names, disk.category_ids)
    transform = train_transform(CONFIG, Augmentation(flip=0.0), 0)
    expected, records = Counter(), disk.records
    for index in range(len(disk)):
        rows = slice(records.offsets[index], records.offsets[index + 1])
        sample = transform(
            records.load(index),
            *(torch.from_numpy(each[rows].copy()) for each in (records.boxes, records.labels, records.crowd)),
            key=(0, 0),
        )
        boxes = sample.boxes.numpy().round(3).tolist()
        expected[repr((int(sample.image[0, 0, 0]), boxes, sample.labels.tolist()))] += 1
    found = Counter()
    for rank in range(world):
        order = batches(stream, 2, rank, world)
        loader = stream_loader(stream, batches(stream, 2, rank, world), transform, workers=workers)
        for rows, batch in zip(order, loader, strict=False):  # both have no end
            if all(row.epoch > 0 for row in rows):
                break
            assert [row.key for row in rows] == list(batch.image_ids)
            boxes, labels, valid = batch.targets.boxes, batch.targets.labels, batch.targets.valid
            for k, row in enumerate(rows):
                if row.epoch == 0:
                    held = boxes[k][valid[k]].numpy().round(3).tolist()
                    colour = round(float(batch.images[k, 0, 0, 0]))
                    found[repr((colour, held, labels[k][valid[k]].tolist()))] += 1
    assert found == expected


@pytest.mark.parametrize(("world", "files"), [(1, [4, 11, 2]), (2, [4, 11, 2]), (2, [6, 3, 7, 5])])
def test_a_stream_goes_on_at_the_same_image(tmp_path, world, files):
    stream = load_stream(write(tmp_path / "set", files), columns=COCO, buffer=5)
    for rank in range(world):
        whole = batches(stream, 3, rank, world)
        order = [[row.key for row in batch] for batch in itertools.islice(whole, 16)]
        for done in range(16):
            again = batches(stream, 3, rank, world)
            list(itertools.islice(again, done + 2 if done % 2 else done))  # a loader is ahead of what is done
            text = json.dumps(asdict(again.place(done)))
            place = read_fields(StreamPlace, json.loads(text), Source("state.json", CheckpointError))
            rest = batches(stream, 3, start=place)
            assert [[row.key for row in batch] for batch in itertools.islice(rest, 16 - done)] == order[done:]


def test_images_without_boxes_are_passed_over(tmp_path):
    stream = load_stream(write(tmp_path / "set", [9, 8]), buffer=4).without_empty()
    (seen,) = epochs(batches(stream, 2), 1)
    assert sorted(seen) == [number for number in range(17) if objects(number)[0]]
    again = batches(stream, 2)
    order = [[row.key for row in batch] for batch in itertools.islice(again, 9)]
    rest = batches(stream, 2, start=again.place(4))
    assert [[row.key for row in batch] for batch in itertools.islice(rest, 5)] == order[4:]


def test_orientations_are_kept_apart():
    random = np.random.default_rng(0)
    for count, size, head in itertools.product((1, 7, 40), (1, 4), (0, 3)):
        wide = random.random(count) < 0.5
        order = arrange(wide, head, size, random)
        assert sorted(order.tolist()) == list(range(count))
        mixed = [wide[order[k : k + size]] for k in range(head, count, size)]
        assert sum(0 < batch.sum() < len(batch) for batch in mixed) <= 2  # those that are left over


@pytest.mark.parametrize("form", ["coco", "xyxy"])
@pytest.mark.parametrize("kind", ["class", "text"])
def test_forms_and_classes_are_those_of_data_on_disk(tmp_path, capsys, form, kind):
    place = write(tmp_path / "set", [12], form, kind=kind)
    stream, disk = load_stream(place, columns=f"form={form}"), load_data(place, "train", columns=f"form={form}")
    assert stream.label_names == disk.label_names == ("cat", "dog")
    assert "streamed from one file, 12 images" in capsys.readouterr().err
    for index, row in enumerate(
        itertools.chain.from_iterable(itertools.islice(batches(replace(stream, buffer=1), 1), 12))
    ):
        rows = slice(disk.records.offsets[index], disk.records.offsets[index + 1])
        size = Image.open(io.BytesIO(row.content["image"]["bytes"])).size
        boxes, labels, crowd = row_boxes(stream, row, size)
        np.testing.assert_array_equal(boxes.numpy(), disk.records.boxes[rows])
        np.testing.assert_array_equal(labels.numpy(), disk.records.labels[rows])
        assert not crowd.any()


def test_saved_sets_are_streamed(tmp_path):
    held = {"bbox": [[1.0, 1.0, 5.0, 5.0]], "category": [0]}
    rows = [{"image": {"bytes": picture(k), "path": None}, "objects": held} for k in range(9)]
    inner = {
        "bbox": datasets.List(datasets.List(datasets.Value("float64"))),
        "category": datasets.List(datasets.ClassLabel(names=["a"])),
    }
    features = datasets.Features({"image": datasets.Image(), "objects": inner})
    datasets.Dataset.from_list(rows, features=features).save_to_disk(tmp_path / "saved")
    stream = load_stream(tmp_path / "saved", buffer=3)
    keys = [row.key for row in itertools.chain.from_iterable(itertools.islice(batches(stream, 3), 3))]
    assert len({*keys}) == 9


def test_a_broken_image_is_named_or_left_out(tmp_path):
    stream = load_stream(write(tmp_path / "set", [6], broken=4), buffer=1)
    transform = train_transform(CONFIG, Augmentation(flip=0.0), 0)

    def read(workers: int, skip: bool) -> list[int]:
        loader = stream_loader(stream, batches(stream, 3), transform, workers=workers, skip_broken=skip)
        return [len(batch.images) for batch in itertools.islice(loader, 2)]

    for workers in (0, 1):
        with pytest.raises(DataError, match=r"train: 4: .*not an image"):
            read(workers, skip=False)
    with pytest.warns(UserWarning, match=r"train: 4: .*It is left out"):
        assert read(0, skip=True) == [3, 2]


def test_rows_that_make_no_sense_are_named(tmp_path):
    stream = load_stream(write(tmp_path / "set", [6]))
    good = next(iter(batches(stream, 1)))[0]

    def changed(**held: Any) -> StreamRow:
        return replace(good, content={**good.content, "objects": held})

    with pytest.raises(DataError, match="class 7 is not among the 2"):
        row_boxes(stream, changed(bbox=[[1, 1, 2, 2]], category=[7]), (20, 30))
    with pytest.raises(DataError, match="a box has a side that is no number"):
        row_boxes(stream, changed(bbox=[[1, 1, float("nan"), 2]], category=[1]), (20, 30))
    with pytest.raises(DataError, match="1 boxes and 0 classes"):
        row_boxes(stream, changed(bbox=[[1, 1, 2, 2]], category=[]), (20, 30))


def test_what_cannot_be_streamed_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"is not streamed: that is for hf:ORG/NAME .* leave --streaming out"):
        load_stream(tmp_path)
    place = write(tmp_path / "set", [3])
    with pytest.raises(ConfigError, match=r"shuffle_buffer .* at least 1, got 0"):
        load_stream(place, buffer=0)
    with pytest.raises(MissingFileError, match="has no part 'val'"):
        load_stream(place, "val")
    with pytest.raises(CheckpointError, match="places of 2 processes in the stream, and there are 1 now"):
        place_of((StreamPlace(), StreamPlace()), 0, 1, "step_1")
    with pytest.raises(CheckpointError, match="did not stream its data"):
        place_of((), 0, 1, "step_1")
    many = load_stream(place)
    with pytest.raises(DataError, match="has no images for rank 3 of 4"):
        next(iter(batches(many, 1, 3, 4)))


def test_a_stream_of_the_hub(tmp_path):
    """In processes of their own: `datasets` reads the server's address when it is imported."""
    place = write(tmp_path / "set", [7, 8, 6])
    files = {f"data/{file.name}": file.read_bytes() for file in (place / "data").iterdir()}
    files["data/validation-00000-of-00001.parquet"] = files["data/train-00000-of-00003.parquet"]
    start = "import itertools, sys\nfrom ld_hub.data import load_data, load_stream\n"
    ordered = "from ld_hub.data.stream_order import StreamBatches\nrows = itertools.chain(*itertools.islice("
    ordered += "StreamBatches(load_stream(sys.argv[1], columns='form=coco', buffer=8), 3), 7))\n"
    train = f"{start}{ordered}print(sorted(row.content['image_id'] for row in rows))"
    val = f"{start}print(len(load_data(sys.argv[1], 'val', columns='form=coco', streaming=True)))"
    with serving() as hub:
        commit = hub.commit("org/pets", files, kind="datasets")
        process = environment(hub, tmp_path / "home", LD_HUB_CACHE=str(tmp_path / "cache"))

        def said(script: str) -> str:
            words = [sys.executable, "-c", script, f"hf:org/pets@{commit.oid}"]
            return subprocess.run(words, env=process, capture_output=True, text=True, check=True).stdout.strip()

        assert said(val) == "7"
        assert not any("train-00001" in where for _, where, _ in hub.seen)  # training images are not fetched
        assert said(train) == str(list(range(21)))


def test_images_of_files_are_read_where_they_lie(tmp_path):
    """Rows may hold paths in place of bytes; both ways of reading give the same images."""
    held = {"bbox": [[1.0, 1.0, 5.0, 5.0]], "category": [0]}
    for k in range(4):
        (tmp_path / f"{k}.png").write_bytes(picture(k))
    rows = [{"image": {"bytes": None, "path": str(tmp_path / f"{k}.png")}, "objects": held} for k in range(4)]
    boxes = datasets.List(datasets.List(datasets.Value("float64")))
    inner = {"bbox": boxes, "category": datasets.List(datasets.ClassLabel(names=["a"]))}
    features = datasets.Features({"image": datasets.Image(), "objects": inner})
    (tmp_path / "set").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=features.arrow_schema), tmp_path / "set/train.parquet")
    stream, disk = load_stream(tmp_path / "set"), load_data(tmp_path / "set", "train", streaming=True)
    assert [Path(path).read_bytes() for path in disk.rows[:]["path"]] == [picture(k) for k in range(4)]
    transform = train_transform(CONFIG, Augmentation(flip=0.0), 0)
    batch = next(iter(stream_loader(stream, batches(stream, 4), transform, workers=0)))
    assert sorted(round(float(image[0, 0, 0])) for image in batch.images) == [0, 1, 2, 3]
    (tmp_path / "2.png").unlink()
    with pytest.raises(DataError, match=r"2\.png: .*2\.png cannot be read"):
        next(iter(stream_loader(stream, batches(stream, 4), transform, workers=0)))
