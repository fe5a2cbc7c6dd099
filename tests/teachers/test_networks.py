"""Detectors of transformers and torchvision, tiny and of random weights: what they find, and what they teach."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ld_hub.data import load_coco
from ld_hub.data.unlabeled import load_unlabeled
from ld_hub.engine import DistillationTrainer, TrainConfig
from ld_hub.errors import CheckpointError, ConfigError, UnknownNameError
from ld_hub.hub import load_safetensors, save_safetensors
from ld_hub.models.factory import create_model
from ld_hub.structures import Unlabeled
from ld_hub.teachers import load_teacher
from ld_hub.teachers import torchvision_models as torchvision_teachers
from ld_hub.teachers.photos import photos_of
from tests.engine.runs import NAMES, QUICK, detector, records
from tests.support.hub_client import connected
from tests.teachers.boxes import SIZES, photos

hub = pytest.fixture(connected)
LABELS = {0: "red", 1: "cow", 2: "green"}
SMALLEST = "ssdlite320_mobilenet_v3_large"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """DETR, YOLOS and RT-DETR of some thousand weights."""
    pytest.importorskip("transformers")
    from transformers import (
        DetrConfig,
        DetrForObjectDetection,
        DetrImageProcessor,
        ResNetConfig,
        RTDetrConfig,
        RTDetrForObjectDetection,
        RTDetrImageProcessor,
        RTDetrResNetConfig,
        YolosConfig,
        YolosForObjectDetection,
        YolosImageProcessor,
    )

    sizes: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8] * 4, "depths": [1] * 4}
    layers = {f"{part}_{what}": n for part in ("encoder", "decoder")
              for what, n in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 16))}  # fmt: skip
    labels: dict[str, Any] = {"id2label": LABELS, "label2id": {name: k for k, name in LABELS.items()}}
    detr = DetrConfig(
        backbone_config=ResNetConfig(**sizes, out_features=["stage4"]), d_model=16, num_queries=5, **layers, **labels
    )
    stages = RTDetrResNetConfig(**sizes, layer_type="basic", out_features=["stage2", "stage3", "stage4"])
    three: dict[str, Any] = {"encoder_in_channels": [8] * 3, "decoder_in_channels": [16] * 3}
    rt_detr = RTDetrConfig(
        backbone_config=stages, d_model=16, encoder_hidden_dim=16, num_queries=5, num_denoising=0,
        **three, **layers, **labels,
    )  # fmt: skip
    yolos = YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[64, 64],
        num_detection_tokens=5, **labels,
    )  # fmt: skip
    fitting, square = {"shortest_edge": 64, "longest_edge": 64}, {"height": 64, "width": 64}
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name, model, processor in (
        ("detr", DetrForObjectDetection(detr), DetrImageProcessor(size=fitting)),
        ("yolos", YolosForObjectDetection(yolos), YolosImageProcessor(size=fitting)),
        ("rt_detr", RTDetrForObjectDetection(rt_detr), RTDetrImageProcessor(size=square)),
    ):
        with torch.no_grad():
            for tensor in model.parameters():
                tensor.add_(0.2 * torch.randn_like(tensor))  # scores that differ
        model.save_pretrained(root / name)
        processor.save_pretrained(root / name)
    yield root


def by_hand(teacher: Any, image: Image.Image, focal: bool) -> list[tuple[float, int, list[float]]]:
    """Score, label and box of each query, best first: softmax without the last class, or the best of all sigmoids."""
    with torch.no_grad():
        outputs = teacher.model(**teacher.processor(images=[image], return_tensors="pt"))
    logits, boxes = outputs.logits[0].double().numpy(), outputs.pred_boxes[0].double().numpy()
    found = []
    if focal:
        odds = 1 / (1 + np.exp(-logits))
        best = np.argsort(-odds, axis=None, kind="stable")[: len(logits)]
        found = [(float(odds.flat[k]), int(k % odds.shape[1]), boxes[k // odds.shape[1]]) for k in best]
    else:
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        odds = (odds / odds.sum(axis=1, keepdims=True))[:, :-1]
        found = [(float(row.max()), int(row.argmax()), box) for row, box in zip(odds, boxes, strict=True)]
    scale = np.array([image.width, image.height] * 2)
    corners = [(s, k, (np.concatenate([b[:2] - b[2:] / 2, b[:2] + b[2:] / 2]) * scale).tolist()) for s, k, b in found]
    return sorted((row for row in corners if row[0] > 0.01), key=lambda row: -row[0])


@pytest.mark.parametrize("name", ["detr", "yolos", "rt_detr"])
def test_a_detector_of_transformers_finds_what_its_outputs_say(models: Path, tmp_path: Path, name: str) -> None:
    teacher: Any = load_teacher(models / name)
    assert (teacher.name, teacher.label_names) == (name, ("red", "cow", "green"))
    images = [photo.load() for photo in photos_of(load_unlabeled(photos(tmp_path / "pool")))]
    for image, found in zip(images, teacher.see(images), strict=True):
        order = found.scores.argsort(descending=True, stable=True)
        wanted = by_hand(teacher, image, name == "rt_detr")
        assert len(found) == len(wanted) > 0
        assert found.scores[order].tolist() == pytest.approx([row[0] for row in wanted], abs=1e-5)
        assert sorted(found.labels.tolist()) == sorted(row[1] for row in wanted)
        for k, (_, label, box) in zip(order.tolist(), wanted, strict=True):
            if len({round(row[0], 4) for row in wanted}) == len(wanted):  # the order of equal scores is any
                assert int(found.labels[k]) == label and found.boxes[k].tolist() == pytest.approx(box, abs=1e-3)


def teach(data: Path, out: Path, teacher: Any, pool: Path, **options: Any) -> DistillationTrainer:
    made = DistillationTrainer(
        detector(),
        teacher,
        unlabeled=Unlabeled(threshold=0.02, unsure=0.01, batch=3),
        unlabeled_dataset=load_unlabeled(photos(pool)),
        train_dataset=load_coco(data, "train"),
        config=TrainConfig(output_dir=str(out), **QUICK),
        **options,
    )
    made.train()
    return made


def test_a_detector_of_transformers_from_the_hub_teaches(
    data: Path, models: Path, tmp_path: Path, hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.commit("org/detr", {file.name: file.read_bytes() for file in (models / "detr").iterdir()})
    made = teach(data, tmp_path / "run", load_teacher("hf:org/detr@main"), tmp_path / "pool")
    assert records(tmp_path / "run")[0]["unlabeled_cls"] > 0
    saved = create_model(tmp_path / "run/model").teaching
    assert (saved.teachers, saved.origins) == (("org/detr",), {"org/detr": f"org/detr@{commit.oid}"})
    assert saved.kinds == {"org/detr": "detector of transformers"}
    assert made.task.looker.labels.tolist() == [0, -1, 1]  # the cow is none of the student's
    monkeypatch.setenv("LD_HUB_OFFLINE", "1")
    assert load_teacher("hf:org/detr@main").origin.endswith(commit.oid)  # from the cache
    hub.commit("org/ours", {"config.json": b'{"model_type": "ld_hub"}'})
    monkeypatch.delenv("LD_HUB_OFFLINE")
    with pytest.raises(ConfigError, match="is a detector of this library: hf-hub:org/ours"):
        load_teacher("hf:org/ours")


def test_directories_that_hold_no_whole_detector(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "yolos", tmp_path / "part")
    state = load_safetensors(tmp_path / "part/model.safetensors")
    head = [name for name in state if "class_labels_classifier" in name]
    rest = {name: tensor for name, tensor in state.items() if name not in head}
    save_safetensors(rest, tmp_path / "part/model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"leave {len(head)} tensors of the network empty .*random numbers"):
        load_teacher(tmp_path / "part")
    (tmp_path / "part/model.safetensors").unlink()
    torch.save(state, tmp_path / "part/pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"has no safetensors. Pickled weights .* are not loaded"):
        load_teacher(tmp_path / "part")
    shutil.copytree(models / "yolos", tmp_path / "blind")
    (tmp_path / "blind/preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match="is no detector that transformers can load"):
        load_teacher(tmp_path / "blind")


@pytest.fixture(scope="module")
def ssd() -> Any:
    from torchvision.models import get_model

    torch.manual_seed(0)
    return get_model(SMALLEST, weights=None, weights_backbone=None, num_classes=4).eval()


def test_a_detector_of_torchvision_teaches_with_weights_of_ones_own(data: Path, tmp_path: Path, ssd: Any) -> None:
    torch.save({"model": ssd.state_dict()}, tmp_path / "own.pth")
    save_safetensors(ssd.state_dict(), tmp_path / "own.safetensors")
    pool = photos(tmp_path / "pool")
    images = photos_of(load_unlabeled(pool))
    teacher = load_teacher(f"torchvision:{SMALLEST}", tmp_path / "own.pth")
    found = teacher.detect(images)
    assert [each.boxes.shape[0] > 0 for each in found] == [True] * len(SIZES)
    pixels = torch.from_numpy(np.array(images[1].load())).permute(2, 0, 1).float() / 255
    with torch.no_grad():
        wanted = ssd([pixels])[0]
    assert torch.equal(found[1].boxes, wanted["boxes"]) and torch.equal(found[1].labels, wanted["labels"])
    assert teacher.classes(NAMES, (1, 2, 3)) == ("__background__", *NAMES)
    with pytest.raises(ConfigError, match=r"was made for 3 classes and the background, .* the student has 2"):
        teacher.classes(("a", "b"), (1, 2))
    made = teach(data, tmp_path / "run", load_teacher(SMALLEST, tmp_path / "own.safetensors"), pool)
    assert made.task.looker.labels.tolist() == [-1, 0, 1, 2]
    assert records(tmp_path / "run")[0]["unlabeled_cls"] > 0
    saved = create_model(tmp_path / "run/model").teaching
    assert saved.kinds == {SMALLEST: "detector of torchvision"} and saved.origins[SMALLEST].startswith("sha256:")


def test_published_weights_are_fetched_once_and_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import get_model, get_model_weights

    fetched: list[str] = []

    def fetch(url: str, target: Path, *, sha256: str) -> str:
        fetched.append(f"{url} {sha256}")
        torch.save(get_model(SMALLEST, weights=None, weights_backbone=None).state_dict(), target)
        return ""

    monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("ld_hub.hub.fetch.fetch_file", fetch)
    teacher = load_teacher(f"torchvision:{SMALLEST}@COCO_V1")
    assert load_teacher(SMALLEST).digest == teacher.digest
    weights = get_model_weights(SMALLEST).COCO_V1
    assert fetched == [f"{weights.url} a79551df"]
    assert teacher.label_names == tuple(weights.meta["categories"]) and teacher.label_names[0] == "__background__"
    assert "get_state_dict" not in vars(weights)
    with pytest.raises(UnknownNameError, match=f"no weights 'VOC' of {SMALLEST}; it has COCO_V1"):
        load_teacher(f"torchvision:{SMALLEST}@VOC")
    with pytest.raises(ConfigError, match="names published weights, and teacher_checkpoint others"):
        load_teacher(f"torchvision:{SMALLEST}@COCO_V1", tmp_path / "own.pth")


def test_files_that_hold_no_such_detector(tmp_path: Path, ssd: Any) -> None:
    state = ssd.state_dict()
    save_safetensors({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="holds no detector of torchvision"):
        load_teacher(SMALLEST, tmp_path / "other.safetensors")
    lost = next(iter(state))
    save_safetensors({k: v for k, v in state.items() if k != lost}, tmp_path / "part.safetensors")
    with pytest.raises(CheckpointError, match=rf"1 tensors are missing and 0 left over \({lost}\)"):
        load_teacher(SMALLEST, tmp_path / "part.safetensors")


def test_the_number_of_classes_is_read_from_files_of_all_kinds(tmp_path: Path) -> None:
    from torchvision.models import get_model

    for name in (
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        "retinanet_resnet50_fpn",
        "fcos_resnet50_fpn",
        "ssd300_vgg16",
    ):
        with torch.device("meta"):
            state = get_model(name, weights=None, weights_backbone=None, num_classes=7).state_dict()
        assert torchvision_teachers._count(Path("x"), state) == 7, name
