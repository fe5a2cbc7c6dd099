"""Where ranks could decide differently, the first one decides, or the smallest counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ld_hub.engine import DetectionTrainer, TrainConfig
from ld_hub.ops.dist import rank, world_size
from tests.engine.runs import QUICK, detector, records, sets
from tests.engine.test_distributed import launch

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")


def _run(data: Path, out: Path, **changes: object) -> None:
    training, evaluation = sets(data)
    config = TrainConfig(output_dir=str(out), **{**QUICK, "batch_size": 2, "eval_batch_size": 2, **changes})
    trainer = DetectionTrainer(detector(), train_dataset=training, eval_dataset=evaluation, config=config)
    result = trainer.train()
    found = {"steps": result.steps, "batch": trainer.config.batch_size, "world": world_size()}
    (out / f"rank{rank()}.json").write_text(json.dumps(found))


def _all(data: Path, out: Path) -> None:
    """The second rank has a slower clock and less memory than the first."""
    from ld_hub.engine import batch_trial
    from tests.engine.test_time_budget_runs import FakeTime

    with pytest.MonkeyPatch.context() as patch:
        FakeTime().install(patch, step=1.0 + rank())
        _run(data, out / "time", steps=None, time_budget="9s")
    _run(data, out / "patience", steps=20, eval_every_steps=2, patience=2, lr=1e-9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_trial, "STEPS_PER_PASS", 1)
        patch.setattr(batch_trial._Trial, "_count", lambda self, images, without: float(images + without))
        room = (5 - 2 * rank()) / batch_trial.PART
        patch.setattr(batch_trial, "free_memory", lambda: room)
        _run(data, out / "batch", auto_batch=True)


def test_length_end_and_batch_are_the_same_on_every_rank(data, tmp_path):
    launch(_all, data, tmp_path)
    found = {name: [json.loads((tmp_path / name / f"rank{index}.json").read_text()) for index in (0, 1)]
             for name in ("time", "patience", "batch")}  # fmt: skip
    # 9 s, less a third of one for the evaluation; the second one's clock says 4 steps
    assert found["time"] == [{"steps": 8, "batch": 2, "world": 2}] * 2
    assert found["patience"] == [{"steps": 6, "batch": 2, "world": 2}] * 2  # AP 0 after steps 2, 4 and 6
    assert found["batch"] == [{"steps": 2, "batch": 3, "world": 2}] * 2
    assert [line["step"] for line in records(tmp_path / "patience", "eval/AP")] == [2, 4, 6]
