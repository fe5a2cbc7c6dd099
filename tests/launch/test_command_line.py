"""What was typed to start a run: in its directory, in its card, and without anybody's token."""

from __future__ import annotations

import shlex
import sys

import pytest

from ld_hub import train
from ld_hub.cli.main import main
from ld_hub.launch.command_line import redact, typed_command
from tests.engine.runs import write_data

ACCELERATE = {"ACCELERATE_MIXED_PRECISION": "no"}
FLAGS = ["gfocal_tiny", "--data", "my data", "--lr=0.01"]


@pytest.mark.parametrize(
    ("before", "environment", "expected"),
    [
        (["/env/bin/ld-hub", "train"], {}, "ld-hub train"),
        (["C:/env/ld-hub.exe", "distill"], {}, "ld-hub distill"),
        (["/env/ld_hub/__main__.py", "train"], {}, "ld-hub train"),
        (["/env/ld_hub/distill.py"], {}, "python -m ld_hub.distill"),
        (["/env/ld_hub/distill.py"], ACCELERATE, "accelerate launch -m ld_hub.distill"),
        (["/env/ld_hub/train.py"], {**ACCELERATE, "WORLD_SIZE": "1"}, "accelerate launch -m ld_hub.train"),
        (
            ["/env/ld_hub/train.py"],
            {"ACCELERATE_MIXED_PRECISION": "bf16", "WORLD_SIZE": "8", "RANK": "3"},
            "accelerate launch --num_processes 8 --mixed_precision bf16 -m ld_hub.train",
        ),
        (
            ["/env/ld_hub/train.py"],
            {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"},
            "torchrun --nproc_per_node 8 -m ld_hub.train",
        ),
        (["my_script.py"], {}, None),
        (["/mine/train.py"], {}, None),
        (["/env/bin/ld-hub", "demo"], {}, None),
        ([""], {}, None),
    ],
)
def test_the_ways_to_start_a_run(before, environment, expected):
    found = typed_command(FLAGS, [*before, *FLAGS], environment)
    assert found == (None if expected is None else f"{expected} gfocal_tiny --data 'my data' --lr=0.01")
    if found:
        assert shlex.split(found)[-len(FLAGS) :] == FLAGS


def test_a_call_from_python_was_not_typed():
    for typed in (
        [],
        ["/env/bin/ld-hub"],
        ["/env/ld_hub/train.py", "gfocal_r50"],
        ["/env/ld_hub/train.py", *FLAGS[1:]],
    ):
        assert typed_command(FLAGS, typed, ACCELERATE) is None


def test_secrets_are_not_written(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "odd.secret")
    words = [
        "--hub_token",
        "abc",
        "--hub_token=abc",
        "--wandb.api_key",
        "k",
        "hf_abcdefgh123",
        "x=odd.secret",
        "--lr",
        "1",
    ]
    words += ["https://me:pw@host/a?b", "s3://bucket/a@b", "--hub_model_id", "org/hf_model", "--class_map", "a=b@c"]
    assert redact(words) == [
        "--hub_token", "***", "--hub_token=***", "--wandb.api_key", "***", "***", "x=***", "--lr", "1",
        "https://***@host/a?b", "s3://bucket/a@b", "--hub_model_id", "org/hf_model", "--class_map", "a=b@c",
    ]  # fmt: skip


def test_a_typed_secret_is_not_told():
    words = ["gfocal_tiny", "--hub_token", "abc"]
    assert (
        typed_command(words, ["/env/bin/ld-hub", "train", *words], {}) == "ld-hub train gfocal_tiny --hub_token '***'"
    )


SMALL = (
    "--batch_size 2 --workers 0 --image_size 64 64 --pretrained_backbone false --fpn_channels 16 --head_width 16 "
    "--head_depth 1 --reg_max 8 --save_every 1"
).split()


def test_a_run_keeps_each_start_and_its_card_shows_them(tmp_path, monkeypatch, capsys):
    data, run = write_data(tmp_path / "data"), tmp_path / "run"
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)

    def start(*words):
        arguments = ["gfocal_tiny", "--data", str(data), "--output_dir", str(run), *SMALL, *words]
        monkeypatch.setattr(sys, "argv", ["/env/ld_hub/train.py", *arguments])
        assert train.main() == 0
        return f"python -m ld_hub.train {shlex.join(arguments)}"

    lines = [start("--steps", "1")]
    assert (run / "command.txt").read_text().splitlines() == lines
    (run / "result.json").unlink()
    lines.append(start("--steps", "1", "--resume"))
    assert (run / "command.txt").read_text().splitlines() == lines
    assert main(["card", str(run)]) == 0
    card = (run / "model/README.md").read_text()
    shown = "\n".join(lines).replace(f"{tmp_path}/", "~/")
    assert f"as typed; each line after the first continued an interrupted run):\n\n```sh\n{shown}\n```" in card
    assert "rebuilt" not in card and str(tmp_path) not in card

    (run / "command.txt").unlink()
    capsys.readouterr()
    assert main(["card", str(run)]) == 0
    card = (run / "model/README.md").read_text()
    rebuilt = "accelerate launch --num_processes 1 -m ld_hub.train gfocal_tiny --config arguments.yaml"
    assert f"rebuilt from arguments.yaml:\n\n```sh\n{rebuilt}\n```" in card


def test_a_run_from_python_has_no_command(tmp_path):
    data = write_data(tmp_path / "data")
    words = ["gfocal_tiny", "--data", str(data), "--output_dir", str(tmp_path / "run"), *SMALL, "--steps", "1"]
    assert train.main(words) == 0
    assert (tmp_path / "run/arguments.yaml").is_file() and not (tmp_path / "run/command.txt").exists()
