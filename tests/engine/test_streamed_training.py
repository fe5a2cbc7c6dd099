"""Training on a stream: a run that was stopped goes on at the same image, also on two ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ld_hub.data import load_stream
from ld_hub.engine import DetectionTrainer, DistillationTrainer, TrainConfig
from ld_hub.engine.checkpoint import RunDirectory
from ld_hub.errors import CheckpointError, ConfigError
from ld_hub.models.factory import create_model
from tests.engine.runs import QUICK, SMALL, equal, records, stop_before_step, weights
from tests.engine.test_distributed import launch
from tests.support.parquet_sets import write

OPTIONS: dict[str, Any] = {"steps": 6, "batch_size": 3, "accumulation": 2, "save_every": 2, "log_every": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("stream") / "set", [5, 9, 6])


def run(place: Path, out: Path, **changes: Any) -> dict[str, torch.Tensor]:
    stream = load_stream(place, columns="form=coco", buffer=4)
    torch.manual_seed(0)
    labels = {"label_names": stream.label_names, "category_ids": stream.category_ids}
    model = create_model("gfocal_tiny", **labels, **SMALL)
    model.data_config = type(model.data_config)(image_size=(32, 64))
    config = TrainConfig(output_dir=str(out), **{**QUICK, **OPTIONS, **changes})
    DetectionTrainer(model, train_dataset=stream, config=config).train()
    return dict(model.state_dict())


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 2, "filter_empty": True, "mosaic": 0.5, "mixup": 0.5}])
def test_a_stopped_run_goes_on_at_the_same_image(place, tmp_path, monkeypatch, options):
    whole = run(place, tmp_path / "whole", **options)
    stop_before_step(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        run(place, tmp_path / "broken", **options)
    monkeypatch.undo()
    assert equal(run(place, tmp_path / "broken", resume=True, **options), whole)
    lines = [[line["loss"] for line in records(tmp_path / name)] for name in ("whole", "broken")]
    assert lines[0] == lines[1]
    assert records(tmp_path / "whole")[-1]["epoch"] == pytest.approx(36 / 20, abs=1e-3)


def _stop_and_go_on(place: Path, out: Path) -> None:
    run(place, out / "whole", batch_size=2)
    with pytest.MonkeyPatch.context() as patch:
        stop_before_step(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            run(place, out / "broken", batch_size=2)
    run(place, out / "broken", batch_size=2, resume=True)


def test_places_of_all_ranks_are_kept(place, tmp_path):
    launch(_stop_and_go_on, place, tmp_path)
    assert equal(weights(tmp_path / "whole/model"), weights(tmp_path / "broken/model"))
    found = RunDirectory(tmp_path / "broken").find(True)
    assert found is not None
    held = json.loads((found / "state.json").read_text())["places"]
    assert [(each["rank"], each["world"], each["batches"]) for each in held] == [(0, 2, 12), (1, 2, 12)]
    with pytest.raises(CheckpointError, match="places of 2 processes in the stream, and there are 1 now"):
        run(place, tmp_path / "whole", batch_size=4, resume=True)


def test_what_needs_files_is_refused(place, tmp_path):
    for options, what in (({"tile": 32}, "tile"), ({"auto_batch": True}, "auto_batch")):
        with pytest.raises(ConfigError, match=f"{what} needs training images that are files: leave --streaming"):
            run(place, tmp_path / "run", **options)
    stream = load_stream(place, columns="form=coco")
    labels = {"label_names": stream.label_names, "category_ids": stream.category_ids}
    student, teacher = (create_model("gfocal_tiny", **labels, **SMALL) for _ in range(2))
    settings = {"train_dataset": stream, "config": TrainConfig(output_dir=str(tmp_path / "run"), **QUICK)}
    with pytest.raises(ConfigError, match="cache_teacher needs training images that are files"):
        DistillationTrainer(student, teacher, cache_teacher="auto", **settings).train()
