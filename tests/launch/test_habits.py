"""Flags of other trainers say what this library's own say."""

from __future__ import annotations

import argparse

import pytest

from ld_hub.cli.main import main
from ld_hub.launch.commands import DISTILL, TRAIN
from ld_hub.launch.flag_parser import make_parser, parse
from ld_hub.launch.habits import SAME, SQUARE, SWITCHES, in_our_words

PAIRS = [
    ("--per_device_train_batch_size 4 --gradient_accumulation_steps=2", "--batch_size 4 --accumulation 2"),
    ("--learning_rate 5e-5 --max_steps 30", "--lr 5e-5 --scale_lr false --steps 30"),
    ("--num_train_epochs 3 --bf16 --report_to wandb", "--epochs 3 --precision bf16 --tracker wandb"),
    ("--fp16 True --bf16 false", "--precision fp16"),
    ("--gradient_checkpointing --eval_steps 5", "--grad_checkpointing true --eval_every_steps 5"),
    ("-b 8 -j 3 --opt adamw --clip-grad 1.0 --model-ema", "--batch_size 8 --workers 3 --optimizer adamw "
     "--clip_grad_norm 1.0 --ema on"),
    ("--batch-size 8 --weight-decay=0.1", "--batch_size 8 --weight_decay 0.1"),
    ("--imgsz 640 --batch 16", "--image_size 640 640 --batch_size 16"),
    ("--output_dir a-b --data-dir x-y", "--output_dir a-b --data x-y"),
    ("--resume_from_checkpoint true", "--resume true"),
]  # fmt: skip


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
def test_both_say_the_same(theirs, ours):
    given, expected = (
        parse(TRAIN, ["gfocal_r50", *words]).values for words in (in_our_words(theirs.split()), ours.split())
    )
    assert given == expected != parse(TRAIN, ["gfocal_r50"]).values


def test_what_was_replaced_is_said_once_and_our_own_words_stay():
    told = []
    own = ["gfocal_r50", "--lr", "-1", "--data", "--x-y.z", "--terms.ld.weight=2", "file-name"]
    assert in_our_words(own, told.append) == ["gfocal_r50", "--lr", "-1", "--data", "--x_y.z", *own[5:]]
    assert told == []
    in_our_words(["--bf16", "--max_steps", "3", "--batch-size", "2"], told.append)
    assert told == ["flags of other trainers, in ours: --bf16 is --precision bf16; --max_steps 3 is --steps 3"]


@pytest.mark.parametrize("command", [TRAIN, DISTILL])
def test_no_own_flag_is_hidden_and_every_one_that_stands_for_another_is_there(command):
    known = {word for action in make_parser(command)._actions for word in action.option_strings}
    assert isinstance(make_parser(command), argparse.ArgumentParser) and "--batch_size" in known
    others = (*SAME, *SQUARE, *SWITCHES)
    assert not known & {f"{dashes}{name}" for name in others for dashes in ("-", "--")}
    named = {f"--{ours[0]}" for ours in SAME.values()} | {flag for flag, _ in SWITCHES.values()} | {"--image_size"}
    assert named <= known and {word for ours in SAME.values() for word in ours[1:] if word.startswith("--")} <= known


def test_a_flag_that_is_missing_its_value_is_named_in_our_words(capsys):
    assert main(["train", "gfocal_r50", "--data", "nowhere", "--max_steps"]) == 2
    assert "--steps" in capsys.readouterr().err
