"""What several rooms' tests share."""

from __future__ import annotations

import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has a core; read when torch is loaded, below
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from ld_hub.cli.main import main


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest demo that exercises every part; its directory has the name that README uses."""
    out = tmp_path_factory.mktemp("demo") / "ld_hub_demo"
    torch.set_num_threads(1)
    sizes = {
        "train_images": 24,
        "val_images": 12,
        "labels": 8,
        "teacher_steps": 30,
        "student_steps": 30,
        "batch_size": 4,
        "workers": 0,
    }
    words = [word for key, value in {**sizes, "workers": 0}.items() for word in (f"--{key}", str(value))]
    assert main(["demo", "--out", str(out), "--seed", "3", *words]) == 0
    return out
