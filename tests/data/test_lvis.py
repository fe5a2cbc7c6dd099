"""LVIS' files: images by COCO's addresses, and the protocol that goes with them."""

from __future__ import annotations

import json
from pathlib import Path

from ld_hub.data import load_data
from ld_hub.evaluation import read_ground_truth
from tests.support.directories import picture


def lvis(root: Path, *, name: str | None = None) -> Path:
    """LVIS' validation images lie in both of COCO's directories."""
    (root / "annotations").mkdir(parents=True)
    lists = {"neg_category_ids": [2], "not_exhaustive_category_ids": []}
    images = []
    for number, folder in ((9, "val2017"), (25, "train2017")):
        picture(root / folder / f"{number:012d}.jpg")
        address = f"http://images.cocodataset.org/{folder}/{number:012d}.jpg"
        own = {"coco_url": address} if name is None else {"coco_url": address, "file_name": name}
        images.append({"id": number, "width": 60, "height": 40, **own, **lists})
    categories = [{"id": 1, "name": "aerosol_can", "frequency": "r"}, {"id": 2, "name": "bun", "frequency": "f"}]
    box = {"id": 1, "image_id": 9, "category_id": 1, "bbox": [1, 2, 30, 20], "area": 400}
    file = root / "annotations" / "lvis_v1_val.json"
    file.write_text(json.dumps({"images": images, "categories": categories, "annotations": [box]}))
    return file


def test_images_are_found_by_their_addresses_and_scored_by_lvis_rules(tmp_path: Path) -> None:
    file = lvis(tmp_path)
    data = load_data(tmp_path, "val")
    assert data.protocol == "lvis" and data.annotation_file == str(file)
    places = ["val2017/000000000009.jpg", "train2017/000000000025.jpg"]
    assert data.rows["path"][:] == [str(tmp_path / place) for place in places]
    assert data.rows[0]["boxes"] == [[1, 2, 31, 22]]
    named = load_data(images=tmp_path / "val2017", annotations=file)
    assert named.protocol == "lvis" and named.rows["path"][:] == data.rows["path"][:]
    truth = read_ground_truth(file)
    assert truth.images[1]["neg_category_ids"] == [2] and truth.categories[0]["frequency"] == "r"


def test_a_file_name_goes_before_the_address(tmp_path: Path) -> None:
    lvis(tmp_path, name="val2017/000000000009.jpg")
    assert load_data(tmp_path, "val").rows[1]["path"] == str(tmp_path / "val2017/000000000009.jpg")


def test_other_files_are_scored_by_cocos_rules(tmp_path: Path) -> None:
    file = lvis(tmp_path)
    content = json.loads(file.read_text())
    for image in content["images"]:
        del image["neg_category_ids"]
    file.write_text(json.dumps(content))
    assert load_data(tmp_path, "val").protocol == "coco"
