from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ld_hub.engine.devices import make_accelerator
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import ConfigError

SCRIPT = """
import json, os, sys
from pathlib import Path
from ld_hub.engine.train_config import TrainConfig
from ld_hub.engine.devices import make_accelerator
found = make_accelerator(TrainConfig(), Path(sys.argv[1]))
said = [found.num_processes, found.process_index, found.device.type]
(Path(sys.argv[1]) / os.environ["RANK"]).write_text(json.dumps(said))
found.end_training()
"""


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_torchrun_without_a_gpu_makes_one_run_of_its_processes(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    hidden = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    hidden |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    hidden["PYTHONPATH"] = str(Path(__file__).parents[2])
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = [*launch, str(tmp_path / "script.py"), str(tmp_path)]
    done = subprocess.run(words, env=hidden, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [json.loads((tmp_path / name).read_text()) for name in "01"] == [[2, 0, "cpu"], [2, 1, "cpu"]]


def test_processes_that_do_not_know_each_other_are_refused(tmp_path, monkeypatch):
    make_accelerator(TrainConfig(), tmp_path)  # a process alone, as accelerate sees it from here on
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="WORLD_SIZE says that 3 processes were launched, but accelerate set up 1 "):
        make_accelerator(TrainConfig(), tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert make_accelerator(TrainConfig(), tmp_path).num_processes == 1
