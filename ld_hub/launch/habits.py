"""Flags as other trainers call them, where they mean the same: transformers' Trainer, timm's train.py, YOLO's tools."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

# Of a flag with a value: the name of ours, and what else belongs to it.
SAME: dict[str, tuple[str, ...]] = {
    "per_device_train_batch_size": ("batch_size",),
    "per_device_eval_batch_size": ("eval_batch_size",),
    "gradient_accumulation_steps": ("accumulation",),
    "num_train_epochs": ("epochs",),
    "max_steps": ("steps",),
    "learning_rate": ("lr", "--scale_lr", "false"),  # there it is taken as it is
    "lr_scheduler_type": ("lr_schedule",),
    "max_grad_norm": ("clip_grad_norm",),
    "logging_steps": ("log_every",),
    "save_steps": ("save_every",),
    "eval_steps": ("eval_every_steps",),
    "dataloader_num_workers": ("workers",),
    "report_to": ("tracker",),
    "resume_from_checkpoint": ("resume",),
    "b": ("batch_size",),
    "j": ("workers",),
    "opt": ("optimizer",),
    "sched": ("lr_schedule",),
    "clip_grad": ("clip_grad_norm",),
    "grad_accum_steps": ("accumulation",),
    "log_interval": ("log_every",),
    "model_ema_decay": ("ema_decay",),
    "data_dir": ("data",),
    "output": ("output_dir",),
    "work_dir": ("output_dir",),
    "num_workers": ("workers",),
    "load_from": ("finetune_from",),
    "batch": ("batch_size",),
}
SQUARE = ("imgsz", "img_size")  # one side: the longer one of an image, as ours where both limits are that
SWITCHES: dict[str, tuple[str, str]] = {  # true or false, or nothing behind them
    "gradient_checkpointing": ("--grad_checkpointing", "true"),
    "bf16": ("--precision", "bf16"),
    "fp16": ("--precision", "fp16"),
    "model_ema": ("--ema", "on"),
}


def in_our_words(argv: Sequence[str], say: Callable[[str], None] = lambda text: None) -> list[str]:
    """The arguments with flags of other trainers, and dashes within flags, replaced by this library's.

    Args:
        argv: Arguments after the program's name.
        say: Is told once what was replaced, dashes aside.
    """
    words, told = list(argv), []
    ours: list[str] = []
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        short = name.startswith("-") and not name.startswith("--") and name.lstrip("-") in SAME
        if not (name.startswith("--") or short):
            ours.append(word)
            continue
        key = name.lstrip("-").replace("-", "_")
        typed = [word]
        if not equals and key in (*SAME, *SQUARE, *SWITCHES) and words and not words[0].startswith("--"):
            if key not in SWITCHES or words[0].lower() in ("true", "false"):
                typed.append(value := words.pop(0))
        found = _ours(key, value)
        if found is None:
            ours.append(f"--{key}{equals}{value}")
            continue
        ours += found
        told.append(f"{shlex.join(typed)} is {shlex.join(found) or 'the default'}")
    if told:
        say(f"flags of other trainers, in ours: {'; '.join(told)}")
    return ours


def _ours(key: str, value: str) -> list[str] | None:
    """The words that say the same; None where the flag is no other trainer's."""
    if key in SWITCHES:
        return [] if value.lower() == "false" else list(SWITCHES[key])
    if key in SQUARE:
        return ["--image_size", value, value]
    if key not in SAME:
        return None
    name, *more = SAME[key]
    return [f"--{name}", *([value] if value else []), *more]
