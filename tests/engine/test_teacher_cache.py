"""A teacher that is asked once says what a live one says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ld_hub.data import DetectionSet, load_coco, train_loader
from ld_hub.distillation import Distiller, Recipe, TermConfig, get_recipe
from ld_hub.distillation.correspondence import as_seen
from ld_hub.distillation.distiller import fitting_recipes
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.engine.remembering import fill
from ld_hub.engine.teacher_cache import OFF_LOGIT, TeacherCache, mirror
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import CacheError, ConfigError
from ld_hub.hub import ShardStore
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model
from ld_hub.preprocessing import Preprocessor, TrainTransform, collate
from ld_hub.structures import DenseOutput, ImageBatch, Unlabeled
from tests.engine.runs import IDS, NAMES, detector, distil, equal, records, weights

FAMILIES = ["gfocal", "atss", "atss_bins", "fcos", "retinanet"]
WITHIN = 0.005  # of a term, in 8 bits
WITHIN_OF_CHOSEN = 0.02  # of GI's, whose boxes are chosen by how far the two disagree


def named(data: Path) -> DetectionSet:
    """The training images, told by the hashes of their files."""
    found = load_coco(data, "train")
    return found.with_file_hashes([found.records.find_file_hash(index) for index in range(len(found))])


def model(family: str, seed: int, sharp: bool = False) -> DenseDetector:
    """A small detector; a sharp one's scores and distributions have peaks, as a trained one's."""
    torch.manual_seed(seed)
    name = {"atss_bins": "atss_r50_bins", "gfocal": "gfocal"}.get(family, family)
    sizes: dict[str, Any] = {"fpn_channels": 16, "head_width": 16, "head_depth": 1}
    made = create_model(name, backbone="test_resnet", label_names=NAMES, category_ids=IDS, **sizes)
    made.data_config = replace(made.data_config, image_size=(64, 64))
    if sharp:
        with torch.no_grad():
            made.head.cls.weight *= 40
            made.head.box.weight *= 40
    return made


def batch_of(data: Path, student: DenseDetector, flip: float = 0.5) -> ImageBatch:
    return next(iter(train_loader(named(data), TrainTransform(student.data_config, flip), 4, workers=0)))


def cache_of(task: DistillationTask, directory: Path, bits: int) -> TeacherCache:
    each = task.distillers["teacher"]
    store = ShardStore(directory, {"bits": bits})
    return TeacherCache(task.teacher, task.model, each.teacher_scale, each.needs, store, bits)


def losses(task: DistillationTask, batch: ImageBatch) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)  # MGD draws
    return {name: value.detach() for name, value in task(batch).items()}


def every_term(student: DenseDetector, teacher: DenseDetector) -> Recipe:
    """All terms of all recipes that fit, each once."""
    terms: dict[str, TermConfig] = {}
    for name in fitting_recipes(student.spec, as_seen(teacher.spec)):
        for term, config in get_recipe(name).for_family(student.family).terms.items():
            if config not in terms.values():
                terms[f"{name}_{term}"] = config
    return Recipe("everything", terms)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_term_is_equal_in_32_bits_and_close_in_8(data, tmp_path, family):
    student, teacher = model(family, 0), model(family, 1, sharp=True)
    task = DistillationTask(student, teacher, Distiller(every_term(student, teacher)))
    names = [f"distill_{name}" for name in task.recipe.terms]
    assert len(names) >= 16 and {"distill_auto_cross_box", "distill_kd_kd", "distill_fgd_fgd"} < set(names)
    batch = batch_of(data, student)
    live = losses(task, batch)
    for bits in (32, 8):
        cache = cache_of(task, tmp_path / str(bits), bits)
        cache.store.append(cache.entries(batch))
        task.memories["teacher"] = cache
        for name, value in losses(task, batch).items():
            if bits == 32 or name not in names:
                assert torch.equal(value, live[name]), name
            else:
                within = WITHIN_OF_CHOSEN if "_gi_" in name else WITHIN
                assert value != live[name] and value.item() == pytest.approx(live[name].item(), rel=within), name


def test_maps_keep_the_precision_that_the_network_runs_in(data, tmp_path):
    task = DistillationTask(detector(), detector(seed=1), Distiller("crosskd_pkd"))
    batch = batch_of(data, task.model)
    with torch.autocast("cpu", torch.bfloat16):
        live, cache = losses(task, batch), cache_of(task, tmp_path, 32)
        cache.store.append(cache.entries(batch))
        task.memories["teacher"] = cache
        assert losses(task, batch) == live
        assert {each.dtype for each in cache.read(batch).features or ()} == {torch.bfloat16}


def alone(teacher: DenseDetector, pixels: np.ndarray[Any, Any]) -> DenseOutput:
    """What a live teacher says to one image."""
    images = collate([Preprocessor(teacher.data_config)(Image.fromarray(pixels))]).images
    with torch.no_grad():
        return teacher.eval()(images, features=True, towers=True)


@pytest.mark.parametrize("family", ["gfocal", "fcos", "retinanet"])
def test_rows_of_any_size_lie_where_they_belong_and_mirrored_ones_are_those_of_the_mirrored_image(tmp_path, family):
    """Each image on the grid of the largest, against a live teacher on it alone, flipped with NumPy."""
    random, teacher = np.random.default_rng(0), model(family, 1)
    sizes = [(64, 64), (30, 64), (64, 40), (20, 17)]  # padded to 64x64, 32x64, 64x64 and 32x32 px
    pictures = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    small = replace(teacher.data_config, image_size=(17, 64))
    samples = [
        replace(TrainTransform(small if size == (20, 17) else teacher.data_config, flip)(Image.fromarray(picture)),
                file_hash=f"{index}-{flip}", config=teacher.data_config)
        for index, (picture, size) in enumerate(zip(pictures, sizes, strict=True)) for flip in (0, 1)
    ]  # fmt: skip
    store = ShardStore(tmp_path, {})
    cache = TeacherCache(teacher, model(family, 0), 1.0, frozenset({"features", "towers"}), store, 32)
    for sample in samples:
        store.append(cache.entries(collate([sample])))
    batch = collate(samples)
    said = cache.read(batch)
    valid = said.priors.valid(batch.image_sizes)
    for index, sample in enumerate(samples):
        pixels = pictures[index // 2][:, ::-1] if index % 2 else pictures[index // 2]
        assert sample.mirrored == bool(index % 2) and sample.image_size == pixels.shape[:2]
        teacher.data_config = replace(teacher.data_config, image_size=(min(pixels.shape[:2]), 64))
        own = alone(teacher, np.ascontiguousarray(pixels))
        for mine, theirs in ((said.cls_logits, own.cls_logits), (said.box, own.box), (said.quality, own.quality)):
            assert (mine is None) == (theirs is None)
            assert mine is None or torch.equal(mine[index][valid[index]], theirs[0])
        assert (said.cls_logits[index][~valid[index]] == OFF_LOGIT).all()
        maps = [*zip(said.features, own.features, strict=True)]
        maps += [p for m, o in zip(said.towers, own.towers, strict=True) for p in zip(m, o, strict=True)]
        for mine, theirs in maps:
            height, width = theirs.shape[2:]
            assert torch.equal(mine[index, :, :height, :width], theirs[0])
            assert not mine[index, :, height:].any() and not mine[index, :, :, width:].any()
    assert not valid.all() and valid.any(dim=1).all()


def test_a_batch_is_mirrored_image_by_image():
    """Each within its own width, in NumPy."""
    draw = np.random.default_rng(0)
    pictures = [draw.integers(0, 256, (40, width, 3), dtype=np.uint8) for width in (64, 37)]
    transform = TrainTransform(replace(detector().data_config, image_size=(40, 64)), flip=0)
    samples = [replace(transform(Image.fromarray(each)), file_hash="x") for each in pictures]
    expected = collate([transform(Image.fromarray(np.ascontiguousarray(each[:, ::-1]))) for each in pictures]).images
    batch = mirror(collate(samples))
    assert torch.equal(batch.images, expected) and batch.contents == ("x-mirrored",) * 2


@pytest.mark.parametrize("options", [{"recipe": "vlr"}, {"recipe": "crosskd", "channels_last": True}])
def test_a_run_is_that_with_a_live_teacher(data, tmp_path, options):
    settings = {**options, "flip": 0.0, "steps": 3}
    distil(data, tmp_path / "live", **settings)
    distil(data, tmp_path / "cached", cache_teacher=str(tmp_path / "answers"), cache_bits=32, **settings)
    assert equal(weights(tmp_path / "live/model"), weights(tmp_path / "cached/model"))


def silent(**options: Any) -> DenseDetector:
    """A teacher whose network must not run."""
    teacher = detector(seed=1, **options)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the teacher was asked again")

    teacher.forward = refuse  # type: ignore[method-assign, assignment]
    return teacher


def test_a_complete_cache_needs_no_teacher_also_for_images_without_labels(data, tmp_path, monkeypatch):
    """Thresholds, scored targets, terms, both orientations; the place is chosen, and found again."""
    monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path / "cache"))
    settings = {"cache_teacher": "auto", "unlabeled_dataset": load_coco(data, "val"), "unlabeled": Unlabeled(batch=2)}
    _, first = distil(data, tmp_path / "first", steps=3, **settings)
    assert "32 answers of 5 KiB (8 bits), 32 of them new" in first.task.remarks[-1]  # 2 x (12 + 4)
    _, second = distil(data, tmp_path / "second", steps=3, teacher=silent(), **settings)
    assert ", 0 of them new, in " in second.task.remarks[-1] and second.task.outside == ()
    assert [path.name[:12] for path in (tmp_path / "cache/teachers").iterdir()] == ["gfocal_tiny-"]
    assert equal(weights(tmp_path / "first/model"), weights(tmp_path / "second/model"))
    assert "unlabeled_cls" in records(tmp_path / "second")[0]
    description = json.loads((tmp_path / "second/config.json").read_text())
    assert description["identity"]["cache_bits"] == 8 if "identity" in description else "cache_bits" in str(description)


def test_several_teachers_have_a_directory_each(data, tmp_path):
    teachers = {name: detector(seed=seed) for seed, name in enumerate(("a", "b"), start=1)}
    distil(data, tmp_path / "run", teacher=teachers, cache_teacher=str(tmp_path / "answers"), recipe="ld")
    assert sorted(path.name for path in (tmp_path / "answers").iterdir()) == ["a", "b"]
    one, other = (json.loads((tmp_path / f"answers/{name}/header.json").read_text())["identity"] for name in "ab")
    assert {name for name in one if one[name] != other[name]} == {"weights"}


def test_a_stopped_run_with_a_cache_is_continued_to_the_same_weights(data, tmp_path, monkeypatch):
    from ld_hub.engine.loop import Loop

    settings = {"steps": 5, "save_every": 2, "cache_teacher": str(tmp_path / "answers")}
    distil(data, tmp_path / "whole", **settings)
    update = Loop._update

    def stopping(self: Loop) -> float:
        if self.step == 3:
            raise KeyboardInterrupt
        return update(self)

    monkeypatch.setattr(Loop, "_update", stopping)
    with pytest.raises(KeyboardInterrupt):
        distil(data, tmp_path / "broken", **settings)
    monkeypatch.undo()
    with pytest.raises(ConfigError, match=r"other settings \(cache_bits: 8 there, None now\)"):
        distil(data, tmp_path / "broken", resume=True, **{**settings, "cache_teacher": None})
    distil(data, tmp_path / "broken", teacher=silent(), resume=True, **settings)
    assert equal(weights(tmp_path / "whole/model"), weights(tmp_path / "broken/model"))


def test_filling_goes_on_where_it_stopped_and_copies_are_asked_about_once(data, tmp_path):
    task = DistillationTask(detector(), detector(seed=1), Distiller("ld"))
    asked: list[int] = []
    task.teacher.register_forward_hook(lambda _, images, __: asked.append(len(images[0])))
    whole, parts = (cache_of(task, tmp_path / name, 8) for name in ("whole", "parts"))
    images, config, device = named(data), TrainConfig(workers=0, batch_size=4), torch.device("cpu")
    fill(whole, images, config, device)
    assert asked == [4] * 6
    fill(parts, images.select(range(5)), replace(config, flip=0.0), device)
    assert asked[6:] == [4, 4] and len(parts.store) == 5
    fill(parts, images.select([*range(12), *range(12)]), config, device)
    fill(parts, images, config, device)
    assert asked[8:] == [4] * 6 and parts.store.keys() == whole.store.keys() and len(parts.store) == 24
    for key in whole.store.keys():
        assert equal(whole.store.read(key), parts.store.read(key))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"teacher": 2}, "weights: "),
        ({"image_size": (32, 64)}, "image_size: 64x64 there, 32x64 now"),
        ({"cache_bits": 32}, "bits: 8 there, 32 now"),
        ({"teacher_scale": 2.0}, r"teacher_scale: 1\.0 there, 2\.0 now"),
        ({"recipe": "crosskd"}, "maps: none there, towers now"),
        ({"precision": "bf16"}, "precision: float32 there, bf16 now"),
        ({"unlabeled_dataset": True}, "images: "),
    ],
)
def test_a_cache_of_something_else_is_refused_by_name(data, tmp_path, change, named):
    settings: dict[str, Any] = {"cache_teacher": str(tmp_path / "answers"), "steps": 1, "recipe": "ld"}
    distil(data, tmp_path / "one", **settings)
    if "teacher" in change:
        change = {"teacher": detector(seed=2)}
    if "unlabeled_dataset" in change:
        change = {"unlabeled_dataset": load_coco(data, "val")}
    with pytest.raises(CacheError, match=rf"answers' is a cache of something else \(.*{named}.*Name another directory"):
        distil(data, tmp_path / "other", **{**settings, **change})


def test_an_augmentation_that_it_cannot_follow_is_refused_by_name(data, tmp_path):
    with pytest.raises(ConfigError, match="short_sides 48 64 gives an image another size each time"):
        distil(data, tmp_path / "run", cache_teacher="auto", short_sides=(48, 64))
    with pytest.raises(ConfigError, match="cache_bits is 4; expected 8 or 32"):
        distil(data, tmp_path / "run", cache_teacher="auto", cache_bits=4)


def test_a_shard_that_was_cut_off_is_named_and_made_again(data, tmp_path):
    settings = {"cache_teacher": str(tmp_path / "answers"), "steps": 2}
    distil(data, tmp_path / "one", **settings)
    (shard,) = (tmp_path / "answers").glob("shard-*")
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(CacheError, match=rf"{shard.name}' is truncated or damaged .* Delete this file"):
        distil(data, tmp_path / "two", **settings)
    shard.unlink()
    distil(data, tmp_path / "two", **settings)
    assert equal(weights(tmp_path / "one/model"), weights(tmp_path / "two/model"))


def test_images_without_an_answer_are_counted(data, tmp_path):
    task = DistillationTask(detector(), detector(seed=1), Distiller("ld"))
    cache = cache_of(task, tmp_path, 8)
    batch = batch_of(data, task.model)
    cache.store.append(dict([*cache.entries(batch).items()][:3]))
    with pytest.raises(CacheError, match=r"no entry for 1 of 4 images.*Start again"):
        cache.read(batch)
    with pytest.raises(CacheError, match=r"no entry for 4 of 4 images"):
        cache.read(replace(batch, contents=()))
