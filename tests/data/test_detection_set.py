from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ld_hub.data import load_coco
from ld_hub.errors import DataError


def test_records_equal_the_rows(coco):
    dataset = load_coco(coco.root)
    records = dataset.records
    for i, row in enumerate(dataset.rows):
        own = slice(records.offsets[i], records.offsets[i + 1])
        assert records.image_ids[i] == row["image_id"]
        assert records.paths[i].as_py() == row["path"]
        assert records.sizes[i].tolist() == [row["height"], row["width"]]
        assert records.boxes[own].tolist() == row["boxes"]
        assert records.labels[own].tolist() == row["labels"]
        assert records.crowd[own].tolist() == row["crowd"]


def test_records_of_a_selection(coco):
    dataset = load_coco(coco.root)
    part = dataset.select([3, 0])
    assert len(part) == 2
    assert part.records.image_ids.tolist() == [79, 100]
    assert np.diff(part.records.offsets).tolist() == [1, 2]
    shuffled = replace(dataset, rows=dataset.rows.filter(lambda row: row["width"] > 40).shuffle(seed=1))
    assert shuffled.records.image_ids.tolist() == shuffled.rows["image_id"][:]
    assert (shuffled.records.sizes[:, 1] > 40).all()


def test_without_empty_drops_images_without_usable_boxes(coco):
    coco.content["annotations"][3]["iscrowd"] = 1  # image 86 is left with crowds alone
    coco.write()
    assert load_coco(coco.root).without_empty().records.image_ids.tolist() == [100, 93, 79]


def test_a_dataset_can_be_sent_to_another_process(coco):
    dataset = load_coco(coco.root)
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.rows.to_list() == dataset.rows.to_list()
    assert copy.label_names == dataset.label_names


def test_load_checks_the_declared_size(coco):
    records = load_coco(coco.root).records
    assert records.load(0).size == (60, 40)
    Image.new("RGB", (61, 40)).save(coco.images / "0.png")
    with pytest.raises(DataError, match=r"0\.png: the file is 61x40 px.*declare 60x40"):
        records.load(0)
