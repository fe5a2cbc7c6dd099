"""Image encoders as teachers: the loss against NumPy, runs, and what is kept of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ld_hub.data import load_coco
from ld_hub.data.unlabeled import load_unlabeled
from ld_hub.distillation import Committee, Distiller, list_recipes
from ld_hub.distillation.distiller import fitting_recipes
from ld_hub.engine import DistillationTrainer, TrainConfig
from ld_hub.engine.assembly import gather
from ld_hub.engine.compare import Asked
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.errors import ConfigError
from ld_hub.hub.config_file import parse_json
from ld_hub.models.factory import create_model
from ld_hub.models.feature_teacher import FeatureTeacher, create_feature_teacher
from ld_hub.structures import EncoderSpec, ImageBatch, Targets, Unlabeled
from tests.engine.runs import QUICK, detector, equal, records, weights
from tests.engine.test_tasks import batch


def encoder(name: str = "test_vit", seed: int = 7) -> FeatureTeacher:
    torch.manual_seed(seed)
    made = create_feature_teacher(name, pretrained=False)
    made.train()(torch.randn(4, 3, 64, 64))  # statistics for batch norms: random layers alone give maps of zeros
    return made.eval()


def two_sizes() -> ImageBatch:
    """Images of 64 x 96 and 40 x 70 px; the second's cells behind 64 x 96 px, its own padded size, do not exist."""
    random, sizes = torch.Generator().manual_seed(3), torch.tensor([[64, 128], [40, 70]])
    images = torch.zeros(2, 3, 64, 128)
    for image, (height, width) in zip(images, sizes.tolist(), strict=True):
        image[:, :height, :width] = torch.randn(3, height, width, generator=random)
    boxes = [torch.tensor([[8.0, 8, 40, 38]]), torch.tensor([[4.0, 4, 30, 30]])]
    targets = Targets.pad(boxes, [torch.zeros(1, dtype=torch.int64)] * 2, sizes)
    return ImageBatch(images, sizes, torch.ones(2, 2), sizes, targets, (0, 1))


def read_at(values: np.ndarray, y: float, x: float) -> np.ndarray:
    """``(F, H, W)`` between the middles of four cells, in cells from the corner."""
    place = [min(max(p - 0.5, 0.0), size - 1.0) for p, size in zip((y, x), values.shape[1:], strict=True)]
    total = np.zeros(len(values))
    for i in range(values.shape[1]):
        for j in range(values.shape[2]):
            share = max(0.0, 1 - abs(place[0] - i)) * max(0.0, 1 - abs(place[1] - j))
            total += share * values[:, i, j]
    return total


def cosine_in_loops(made: DistillationTask, data: ImageBatch, strides: tuple[int, ...], name: str) -> float:
    """Sum over levels of the mean over an image's cells of 1 - cos, mean over images, cell by cell."""
    mine, theirs = made.student.data_config, made.teachers[name].data_config
    pixels = data.images * torch.tensor(mine.std)[:, None, None] + torch.tensor(mine.mean)[:, None, None]
    seen = (pixels - torch.tensor(theirs.mean)[:, None, None]) / torch.tensor(theirs.std)[:, None, None]
    for image, (height, width) in zip(seen, data.image_sizes.tolist(), strict=True):
        image[:, height:], image[:, :, width:] = 0, 0
    with torch.no_grad():
        maps = [m.double().numpy() for m in made.teachers[name](seen)]
        student = [m.double().numpy() for m in made.student(data.images, features=True).features]
    adapters, total = made.distillers[name].terms["cosine"].adapters, 0.0
    for level, (features, stride) in enumerate(zip(student, (8, 16, 32, 64, 128), strict=True)):
        k = min(range(len(strides)), key=lambda k: abs(math.log(strides[k] / stride)))
        weight, bias = (p.detach().double().numpy() for p in adapters[level].parameters())
        for image, size in enumerate(data.image_sizes.tolist()):
            rows, columns = (math.ceil(math.ceil(side / 32) * 32 / stride) for side in size)
            far = []
            for i in range(rows):
                for j in range(columns):
                    s = weight @ features[image, :, i, j] + bias
                    t = read_at(maps[k][image], (i + 0.5) * stride / strides[k], (j + 0.5) * stride / strides[k])
                    far.append(1 - s @ t / np.linalg.norm(s) / np.linalg.norm(t))
            total += np.mean(far)
    return total / len(data.image_sizes)


@pytest.mark.parametrize(("name", "strides"), [("test_vit", (16,)), ("test_resnet", (2, 4, 8, 16, 32))])
def test_the_loss_is_that_of_numpy(name: str, strides: tuple[int, ...]) -> None:
    made = DistillationTask(detector(), encoder(name), Distiller("cosine")).train()
    losses = made(two_sizes())
    expected = cosine_in_loops(made, two_sizes(), strides, "teacher")
    assert losses["distill_cosine"].item() == pytest.approx(expected, rel=1e-5)
    assert set(losses) > {"loss_cls", "loss_bbox", "loss_dfl"}
    losses["distill_cosine"].backward()
    assert all(p.grad is not None and p.grad.any() for p in made.distiller.parameters())
    assert any(p.grad is not None and p.grad.any() for p in made.student.neck.parameters())


def test_patches_of_14_px_and_enlarged_images() -> None:
    """The strides of the maps are those in px of the student's images."""
    body = nn.Conv2d(3, 4, 14, stride=14)
    mine = FeatureTeacher(_List(body), name="mine", strides=(14,), channels=(4,), size_multiple=14)
    made = DistillationTask(detector(), mine, Distiller("cosine")).train()
    assert made(two_sizes())["distill_cosine"].item() == pytest.approx(
        cosine_in_loops(made, two_sizes(), (14,), "teacher"), rel=1e-5
    )
    large = DistillationTask(detector(), mine, Distiller("cosine", teacher_scale=2)).train()
    (said,) = large.teach(two_sizes()).values()
    assert said.strides == (7.0,) and said.maps[0].shape == (2, 4, 10, 19)


class _List(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [self.body(images)]


def test_an_encoder_is_no_part_of_the_task_and_frozen() -> None:
    teacher = encoder("test_resnet")  # with batch norms
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    made = DistillationTask(detector(), teacher, Distiller("cosine")).train()
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    made(batch())["distill_cosine"].backward()
    assert equal(before, teacher.state_dict()) and made.outside == (teacher,)
    assert not any(isinstance(module, FeatureTeacher) for module in made.modules())


def test_recipes_on_maps_fit_and_others_are_refused_with_their_names() -> None:
    spec = EncoderSpec("some_vit", (16,), (64,))
    fitting = fitting_recipes(detector().spec, spec)
    assert {"cankd", "cosine", "fgd", "mgd", "pkd"} <= set(fitting)
    teacher = encoder()
    for recipe in list_recipes():
        if recipe in fitting:
            losses = DistillationTask(detector(), teacher, Distiller(recipe)).train()(batch())
            terms = [value for name, value in losses.items() if name.startswith("distill_")]
            assert terms and all(torch.isfinite(value) and value > 0 for value in terms)
        else:
            with pytest.raises(ConfigError, match=r"'test_vit' is an image encoder.*Recipes that fit.*cosine"):
                DistillationTask(detector(), teacher, Distiller(recipe))


def test_beside_a_detector_both_teach() -> None:
    teachers = {"big": detector(seed=1), "eyes": encoder()}
    committee = Committee({"big": Distiller("vlr"), "eyes": Distiller("cosine")}, {"eyes": 0.5})
    made = DistillationTask(detector(), teachers, committee).train()
    losses = made(two_sizes())
    alone = DistillationTask(detector(), teachers["big"], Distiller("vlr")).train()(two_sizes())
    assert losses["distill_ld@big"].item() == pytest.approx(alone["distill_ld"].item(), rel=1e-5)
    half = cosine_in_loops(made, two_sizes(), (16,), "eyes") / 2
    assert losses["distill_cosine@eyes"].item() == pytest.approx(half, rel=1e-5)
    teaching = made.teaching
    assert teaching.recipe == "vlr" and teaching.teachers == ("gfocal_tiny", "test_vit")
    assert teaching.detectors == ("gfocal_tiny",) and teaching.feature_teacher is not None
    assert teaching.feature_teacher.terms["cosine"]["kind"] == "cosine"
    with pytest.raises(ConfigError, match="2 image encoders"):
        both = Committee({"a": Distiller("cosine"), "b": Distiller("cosine")})
        DistillationTask(detector(), {"a": encoder(), "b": encoder()}, both)


def test_students_of_one_loop_share_an_encoder() -> None:
    teacher = encoder()
    one, two = (DistillationTask(detector(), teacher, Distiller(recipe)) for recipe in ("cosine", "pkd"))
    asked = Asked(batch(), [one, two])
    (first, _), (second, _) = asked.answers(one), asked.answers(two)
    assert first["teacher"] is second["teacher"]


def run(data: Path, out: Path, **changes: Any) -> DistillationTrainer:
    options = {key: changes.pop(key) for key in list(changes) if key not in TrainConfig.__dataclass_fields__}
    options = {"feature_teacher": encoder(), "train_dataset": load_coco(data, "train"), **options}
    config = TrainConfig(output_dir=str(out), **{**QUICK, **changes})
    trainer = DistillationTrainer(options.pop("student", None) or detector(), config=config, **options)
    trainer.train()
    return trainer


def test_a_run_continues_and_keeps_no_adapters(data: Path, tmp_path: Path) -> None:
    whole = run(data, tmp_path / "run", save_every=1)
    before = weights(tmp_path / "run/model")
    for path in (tmp_path / "run/result.json", tmp_path / "run/checkpoints/step_00000002/state.json"):
        path.unlink()  # as if killed after step 1
    run(data, tmp_path / "run", save_every=1, resume=True)
    assert equal(weights(tmp_path / "run/model"), before)
    assert [line["step"] for line in records(tmp_path / "run", "distill_cosine")] == [1, 2]
    assert before.keys() == detector().state_dict().keys()
    assert equal(encoder().state_dict(), whole.task.outside[0].state_dict())


def test_who_taught_is_kept_and_another_one_is_refused(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", steps=1)
    teaching = create_model(tmp_path / "run/model").teaching
    assert teaching is not None and (teaching.recipe, teaching.teachers) == ("cosine", ("test_vit",))
    assert teaching.feature_teacher is not None and teaching.feature_teacher.name == "test_vit"
    assert parse_json(tmp_path / "run/config.json", "")["teacher"] == "test_vit"
    with pytest.raises(ConfigError, match="teacher_weights_sha256"):
        run(data, tmp_path / "run", steps=1, resume=True, feature_teacher=encoder(seed=8))
    config = TrainConfig(output_dir=str(tmp_path / "again"), **QUICK)
    given = {"feature_teacher": encoder(), "teaching": teaching, "config": config}
    again = DistillationTrainer(detector(), train_dataset=load_coco(data, "train"), **given)
    assert again.task.teaching == teaching


def test_beside_a_detector_in_a_run(data: Path, tmp_path: Path) -> None:
    teacher, weight = detector(seed=1), {"test_vit": 0.25}
    trainer = run(data, tmp_path / "run", teacher=teacher, recipe="vlr", teacher_weights=weight, balance="gradient")
    line = records(tmp_path / "run")[0]
    assert {"distill_ld@gfocal_tiny", "distill_cosine@test_vit"} <= set(line)
    assert line["share/distill_cosine@test_vit"] == pytest.approx(0.25 * line["share/distill_ld@gfocal_tiny"], rel=0.02)
    assert "test_vit: cosine: 'test_vit' is an image encoder" in "\n".join(trainer.task.remarks)
    teaching = create_model(tmp_path / "run/model").teaching
    assert teaching is not None and teaching.teacher_weights == {"gfocal_tiny": 1.0, "test_vit": 0.25}


def test_images_without_labels_need_no_boxes(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = load_unlabeled(data / "train")
    trainer = run(data, tmp_path / "run", unlabeled_dataset=pool, unlabeled=Unlabeled(batch=3))
    assert "12 images without labels. A feature teacher finds no boxes" in capsys.readouterr().out
    line = records(tmp_path / "run")[0]
    assert {name for name in line if name.startswith("unlabeled_")} == {"unlabeled_cosine"}
    assert line["unlabeled_cosine"] > 0 and line["distill_cosine"] > 0
    assert trainer.task.unlabeled is not None and not trainer.task.unlabeled.targets
    none = {"train_dataset": None, "unlabeled_dataset": pool}
    run(data, tmp_path / "none", eval_dataset=load_coco(data, "val"), steps=1, **none)
    (first, *_) = records(tmp_path / "none")
    assert first["loss"] == pytest.approx(first["unlabeled_cosine"])
    for given in (Unlabeled(threshold=0.5), Unlabeled(regions="confident")):
        with pytest.raises(ConfigError, match="a feature teacher alone has none"):
            run(data, tmp_path / "wrong", unlabeled_dataset=pool, unlabeled=given)


def test_the_loss_on_images_without_labels_is_that_of_numpy() -> None:
    made = DistillationTask(detector(), encoder(), Distiller("cosine"), unlabeled=Unlabeled(targets=False)).train()
    lesson = made.look(two_sizes())
    assert not lesson.targets.usable.any() and not lesson.assignment.positive.any()
    losses = made(None, lesson=lesson)
    expected = cosine_in_loops(made, two_sizes(), (16,), "teacher")
    assert list(losses) == ["unlabeled_cosine"]
    assert losses["unlabeled_cosine"].item() == pytest.approx(expected, rel=1e-5)


def test_nobody_teaches() -> None:
    with pytest.raises(ConfigError, match="Nobody teaches: give a teacher, a feature_teacher, or both"):
        gather(detector(), None, None)


def test_a_cache_keeps_the_detector_and_asks_the_encoder(data: Path, tmp_path: Path) -> None:
    options = {"teacher": detector(seed=1), "recipe": "vlr", "steps": 1, "flip": 0.0}
    run(data, tmp_path / "live", **options)
    trainer = run(data, tmp_path / "kept", **options, cache_teacher=str(tmp_path / "cache"), cache_bits=32)
    assert trainer.task.outside == (trainer.task.teachers["test_vit"],)  # what still runs
    live, kept = (records(tmp_path / name)[0] for name in ("live", "kept"))
    for name in ("distill_ld@gfocal_tiny", "distill_cosine@test_vit"):
        assert kept[name] == pytest.approx(live[name], rel=1e-5)
    with pytest.raises(ConfigError, match=r"cache_teacher .* only an image encoder teaches"):
        run(data, tmp_path / "alone", flip=0.0, cache_teacher=str(tmp_path / "other"))


def test_a_teacher_that_only_detects_teaches_alone() -> None:
    def nothing(photos: list[Any]) -> list[Any]:
        return []

    with pytest.raises(ConfigError, match="only detects, and teaches alone"):
        gather(detector(), nothing, encoder())
