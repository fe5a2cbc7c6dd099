"""`ld_hub.distill --feature_teacher`: from words to a run, its facts, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from ld_hub.cli.main import main as ld_hub_command
from ld_hub.hub import save_safetensors
from ld_hub.models.checkpoints.pretrained import save_pretrained
from ld_hub.models.factory import create_model
from ld_hub.publishing.cards import model_card
from tests.cli.test_train import data, offline, run_distill  # noqa: F401  # fixtures
from tests.engine.runs import detector, records


@pytest.fixture
def eyes(tmp_path: Path) -> list[object]:
    """Flags of an encoder whose weights lie in a file."""
    torch.manual_seed(0)
    file = save_safetensors(timm.create_model("test_vit").state_dict(), tmp_path / "vit.safetensors")
    return ["--feature_teacher", "test_vit", "--feature_teacher_checkpoint", file]


def test_alone(data, tmp_path, eyes, capsys):  # noqa: F811
    flags = [*eyes, "--unlabeled", data / "train", "--terms.cosine.weight", 2]
    assert run_distill(data, tmp_path / "run", *flags, name="gfocal_tiny") == 0
    said = capsys.readouterr().out
    assert "8 by 16, 16 by 16, 32 by 16, 64 by 16, 128 by 16 px" in said and "test_vit (features): " in said
    line = records(tmp_path / "run")[0]
    assert 0 < line["distill_cosine"] < 2 * 2 * 5 and line["unlabeled_cosine"] > 0
    model = create_model(tmp_path / "run/model")
    digits = model.teaching.feature_teacher.weights_sha256
    text = model_card(model, run=tmp_path / "run")
    assert "Distilled from `test_vit` (image encoder) by the recipe `cosine`." in text
    assert f"Sha256 of the teacher's tensors: `{digits}`" in text and "teacher:test_vit" in text
    assert ld_hub_command(["info", str(tmp_path / "run/model")]) == 0
    said = capsys.readouterr().out
    assert f"test_vit (image encoder, sha256 {digits}...)" in said and "recipe         cosine: " in said


def test_beside_a_teacher(data, tmp_path, eyes, capsys):  # noqa: F811
    teacher = save_pretrained(detector(seed=1), tmp_path / "teacher")
    flags = ["--teacher", teacher, *eyes, "--feature_teacher_weight", 0.5]
    assert run_distill(data, tmp_path / "run", *flags) == 0
    line = records(tmp_path / "run")[0]
    assert line["distill_ld_vlr@gfocal_tiny"] > 0 and line["distill_cosine@test_vit"] > 0
    model = create_model(tmp_path / "run/model")
    assert model.teaching.teacher_weights == {"gfocal_tiny": 1.0, "test_vit": 0.5}
    text = model_card(model, run=tmp_path / "run")
    assert "Distilled from `gfocal_tiny`, `test_vit` (image encoder) by the recipe `vlr`." in text
    assert "| `cosine@test_vit` | cosine |" in text
    assert ld_hub_command(["info", str(tmp_path / "run/model")]) == 0
    assert "teacher        gfocal_tiny, test_vit (image encoder" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--feature_teacher test_vti", "Unknown feature teacher 'test_vti'. Close matches: test_vit"),
        ("--feature_teacher test_vit", "LD_HUB_OFFLINE forbids the network"),
        ("--feature_teacher test_vit --feature_teacher_checkpoint no.safetensors", "no file 'no.safetensors'"),
        ("--feature_teacher test_vit --recipe vlr", "Recipes that fit this pair: cankd, cosine"),
        ("--feature_teacher test_vit --train_teacher", "--train_teacher is about a teacher that is not there"),
        ("--feature_teacher test_vit --feature_teacher_weight 2", "--terms.TERM.weight weighs"),
        ("--feature_teacher test_vit --class_map a=b", "--class_map is about a teacher that is not there"),
        ("--recipe cosine", "say who teaches, --teacher NAME or --teacher DIR, or an image encoder"),
        ("--recipe vlr --teacher gfocal_r50 --feature_teacher_weight 2", "give --feature_teacher NAME"),
        ("--unlabeled {data}/train --unlabeled_threshold 0.5 --feature_teacher test_vit", "alone has none"),
    ],
)
def test_what_is_refused_in_one_line(data, tmp_path, eyes, capsys, monkeypatch, flags, message):  # noqa: F811
    monkeypatch.setenv("LD_HUB_OFFLINE", "1")
    words = flags.format(data=data).split()
    if "OFFLINE" not in message and "test_vit" in words and "no.safetensors" not in words:
        words += map(str, eyes[2:])
    assert run_distill(data, tmp_path / "run", *words, name="gfocal_tiny") == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("ld_hub.distill: error: ") and said.count("\n") == 1
    assert not (tmp_path / "run/config.json").exists()
