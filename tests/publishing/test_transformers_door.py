"""A published detector through transformers' pipeline and Auto classes finds what it finds through ours."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from ld_hub.models.factory import create_model
from ld_hub.preprocessing import DataConfig
from tests.support.hub_client import connected, environment

pytest.importorskip("transformers")

hub = pytest.fixture(connected)
REPO = "org/small"

# in a process of its own: what is registered stays so, and other tests ask what is said where nothing is
_CHILD = """
import json, sys
import torch
import ld_hub.transformers
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModelForObjectDetection, pipeline
name, *photos = sys.argv[1:]
images = [Image.open(photo) for photo in photos]
detect = pipeline("object-detection", model=name, trust_remote_code=False)
found = detect(images, threshold=0.0)
model, processor = AutoModelForObjectDetection.from_pretrained(name), AutoImageProcessor.from_pretrained(name)
exact, half = [], []
for image in images:
    with torch.no_grad():
        output = model(**processor(images=image, return_tensors="pt"))
    size = [(image.height, image.width)]
    exact += processor.post_process_object_detection(output, 0.0, size)
    half += processor.post_process_object_detection(output, 0.5, size)
half_precision = AutoModelForObjectDetection.from_pretrained(name, dtype="bfloat16")
try:
    model(torch.zeros(1, 3, 64, 64), labels=[{}])
except ld_hub.LdHubError as error:
    refused = str(error)
saved = name.replace("/", "_")
model.save_pretrained(saved)
local = pipeline("object-detection", model=f"./{saved}")(images, threshold=0.0)  # a directory, without the Hub
print(json.dumps({
    "pipeline": found, "local": local, "exact": [{k: v.tolist() for k, v in one.items()} for one in exact],
    "half": [one["scores"].tolist() for one in half], "names": AutoConfig.from_pretrained(name).id2label,
    "refused": refused, "dtype": str(next(half_precision.parameters()).dtype),
    "shapes": [list(output.logits.shape), list(output.pred_boxes.shape)],
}))
"""


def test_the_same_boxes_as_ours(hub, tmp_path):
    torch.manual_seed(0)
    labels = {"label_names": ["cat", "dog"], "category_ids": [7, 3]}
    model = create_model("gfocal_tiny", **labels, fpn_channels=16, head_width=16, head_depth=1).eval()
    torch.nn.init.normal_(model.get_classifier().weight, std=0.3)
    model.data_config = DataConfig(image_size=(160, 240))
    model.push_to_hub(REPO)
    photos = []
    for k, (height, width) in enumerate([(50, 70), (90, 40)]):
        pixels = np.random.default_rng(k).integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
        photos.append(str(tmp_path / f"{k}.png"))
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, REPO, *photos],
        env=environment(hub, tmp_path / "home"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "not supported" not in done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["names"] == {"0": "cat", "1": "dog"}
    assert said["dtype"] == "torch.bfloat16"
    assert said["local"] == said["pipeline"]
    assert "trained by `ld-hub train`" in said["refused"]
    assert said["shapes"][0][:2] == said["shapes"][1][:2] and said["shapes"][0][2] == 2
    for photo, rounded, exact, scores in zip(photos, said["pipeline"], said["exact"], said["half"], strict=True):
        ours = model.predict(photo, threshold=0.0)
        assert len(ours) > 5
        assert [one["label"] for one in rounded] == [model.label_names[k] for k in ours.labels.tolist()]
        np.testing.assert_allclose([one["score"] for one in rounded], ours.scores, atol=1e-5)
        boxes = [[one["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")] for one in rounded]
        assert (np.abs(np.array(boxes) - ours.boxes.numpy()) <= 1).all()  # px; the pipeline cuts fractions off
        np.testing.assert_allclose(exact["boxes"], ours.boxes, atol=1e-3)
        assert exact["labels"] == ours.labels.tolist()
        assert len(scores) == int((ours.scores > 0.5).sum())
    again = create_model(tmp_path / REPO.replace("/", "_"))
    assert torch.equal(again.predict(photos[0]).boxes, model.predict(photos[0]).boxes)
