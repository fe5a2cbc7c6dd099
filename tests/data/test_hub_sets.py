"""Data sets of the Hub, saved ones and parquet: the same boxes and pixels as the rows they were made of."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from ld_hub.cli.main import main
from ld_hub.data import load_data
from ld_hub.errors import ConfigError, DataError, HubError, MissingFileError
from tests.hub_server import serving
from tests.support.hub_client import environment

NUMBER = datasets.Value("float64")
BOXES = datasets.List(datasets.List(NUMBER, length=4))
NAMES = ("cat", "dog")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of one's own, and no progress bars."""
    monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "arrow")
    datasets.disable_progress_bars()
    return tmp_path / "cache"


def content(seed: int, kind: str) -> bytes:
    """A picture as a file."""
    pixels = np.random.default_rng(seed).integers(0, 255, (30 + seed, 40 + seed, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def truth(count: int) -> list[tuple[bytes, list[list[float]], list[int]]]:
    """Pictures, boxes x1, y1, x2, y2, classes; the first without any."""
    boxes = [[20.0, 15.0, 30.0, 25.0], [5.5, 3.0, 38.0, 29.0]]
    return [(content(k, ("png", "jpeg")[k % 2]), boxes[: k % 3], [k % 2, 1][: k % 3]) for k in range(count)]


def rows(count: int, form: str, labels: Any) -> list[dict[str, Any]]:
    """Rows with objects in the usual schema."""
    made = []
    for image, boxes, classes in truth(count):
        shown = boxes if form == "xyxy" else [[a, b, c - a, d - b] for a, b, c, d in boxes]
        objects = {"bbox": shown, "category": [labels(k) for k in classes]}
        made.append({"image": {"bytes": image, "path": None}, "objects": objects})
    return made


def make(form: str = "coco", labels: str = "classlabel") -> datasets.DatasetDict:
    """A set of two parts."""
    category = datasets.ClassLabel(names=list(NAMES)) if labels == "classlabel" else datasets.Value("string")
    name = int if labels == "classlabel" else NAMES.__getitem__
    inner = {"bbox": BOXES, "category": datasets.List(category)}
    features = datasets.Features({"image": datasets.Image(), "objects": inner})
    parts = {"train": 5, "validation": 3}
    return datasets.DatasetDict(
        {part: datasets.Dataset.from_list(rows(n, form, name), features=features) for part, n in parts.items()}
    )


def require_truth(found, count: int) -> None:
    """The boxes, classes and pixels are those of `truth`."""
    assert found.label_names == NAMES and found.category_ids == (1, 2)
    assert len(found) == count
    for index, (image, boxes, classes) in enumerate(truth(count)):
        row = found.rows[index]
        np.testing.assert_allclose(np.reshape(row["boxes"], (-1, 4)), np.reshape(boxes, (-1, 4)), atol=1e-5)
        assert row["labels"] == classes
        assert Path(row["path"]).read_bytes() == image
        np.testing.assert_array_equal(found.records.load(index), Image.open(io.BytesIO(image)))


@pytest.mark.parametrize("form", ["coco", "xyxy"])
@pytest.mark.parametrize("labels", ["classlabel", "strings"])
def test_saved_sets_of_both_forms_and_kinds_of_classes(tmp_path, capsys, form, labels):
    make(form, labels).save_to_disk(tmp_path / "saved")
    require_truth(load_data(tmp_path / "saved", "train"), 5)
    require_truth(load_data(tmp_path / "saved", "val"), 3)
    shown = {"coco": "x, y, width, height", "xyxy": "x1, y1, x2, y2"}[form]
    assert f"boxes in 'objects.bbox' ({shown}), classes in 'objects.category'" in capsys.readouterr().err
    with pytest.raises(MissingFileError, match=r"no part 'test'.*It has train, validation"):
        load_data(tmp_path / "saved", "test")


def test_parquet_files_with_other_names_of_columns(tmp_path):
    names = {"bbox": "rect", "category": "what"}
    data = make("xyxy", "strings").map(
        lambda row: {"things": {names[key]: value for key, value in row["objects"].items()}},
        remove_columns="objects",
    )
    (tmp_path / "sub/data").mkdir(parents=True)
    for part in data:
        data[part].to_parquet(tmp_path / f"sub/data/{part}-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"no column of the part 'bbox'.*--columns bbox=COLUMN"):
        load_data(tmp_path / "sub", "train")
    columns = "objects=things,bbox=rect,category=what"
    require_truth(load_data(tmp_path / "sub", "train", columns=columns), 5)
    with pytest.raises(ConfigError, match="--columns is"):
        load_data(tmp_path / "sub", "train", columns="boxes=rect")


def test_a_broken_image_and_a_row_of_unequal_lists_are_named(tmp_path):
    bad = rows(4, "coco", int)
    bad[1]["image"]["bytes"] = b"nothing"
    bad[2]["objects"]["category"] = [0]
    inner = {"bbox": BOXES, "category": datasets.List(datasets.ClassLabel(names=list(NAMES)))}
    features = datasets.Features({"image": datasets.Image(), "objects": inner})
    datasets.Dataset.from_list(bad, features=features).save_to_disk(tmp_path / "bad")
    with pytest.raises(DataError, match=r"row 1: .*and 1 other kinds"):
        load_data(tmp_path / "bad", "train")


def test_a_set_of_the_hub(tmp_path):
    """In a process of its own: `datasets` reads the server's address when it is imported."""
    files = {}
    for part, table in make().items():
        table.to_parquet(tmp_path / "part.parquet")
        files[f"data/{part}-00000-of-00001.parquet"] = (tmp_path / "part.parquet").read_bytes()
    script = (
        "import json, sys\nfrom ld_hub.data import load_data\nfrom ld_hub.errors import LdHubError\n"
        "for name in sys.argv[1:]:\n    try:\n        found = load_data(name, 'val')\n"
        "        print(json.dumps([found.rows[:]['path'], found.rows[:]['boxes'], found.source]))\n"
        "    except LdHubError as error:\n        print(json.dumps(str(error)))\n"
    )
    with serving() as hub:
        commit = hub.commit("org/pets", files, kind="datasets")
        names = [f"hf:org/pets@{commit.oid}", "hf:org/none", "hf:org/pets@main:none"]
        process = environment(hub, tmp_path / "home", LD_HUB_CACHE=str(tmp_path / "cache"))
        done = subprocess.run(
            [sys.executable, "-c", script, *names], env=process, capture_output=True, text=True, check=True
        )
    (paths, boxes, source), none, config = (json.loads(line) for line in done.stdout.splitlines())
    assert [Path(path).read_bytes() for path in paths] == [image for image, _, _ in truth(3)]
    assert boxes == [boxes for _, boxes, _ in truth(3)]
    assert f"{names[0]}, validation" in source
    assert "The data set 'hf:org/none' cannot be had" in none
    assert "The data set 'hf:org/pets@main:none' cannot be had" in config


def test_a_hub_that_is_away_and_a_name_that_is_none(monkeypatch, capsys):
    monkeypatch.setattr("ld_hub.data.hub_places.unreachable", lambda: "refused")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(HubError, match=r"'hf:org/away' cannot be had: the Hub cannot be reached \(refused\)"):
        load_data("hf:org/away", "train")
    assert main(["train", "gfocal_r18", "--data", "hf:org/a/b"]) == 2
    assert "'hf:org/a/b' is no data set of the Hub" in capsys.readouterr().err
