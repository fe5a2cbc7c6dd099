"""Two ranks are one process with their images together."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState

from ld_hub.data import DetectionSet
from ld_hub.engine import DetectionTrainer, TrainConfig
from ld_hub.engine.evaluate import evaluate
from ld_hub.errors import NonFiniteLossError
from ld_hub.hub import load_safetensors, save_safetensors, tensor_shapes
from ld_hub.models.factory import create_model
from ld_hub.ops.dist import from_first_rank, leave, rank
from ld_hub.optim.averaging import average_buffers
from tests.engine.runs import QUICK, detector, distance, distil, equal, records, sets, train, weights

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")


def launch(function, *arguments) -> None:
    """Two gloo ranks, in fresh processes: forked ones would inherit the thread pools of earlier tests, and hang."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(_rank, (port, function, *arguments), nprocs=2)


def _rank(index, port, function, *arguments) -> None:
    ranks = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in {**ranks, "OMP_NUM_THREADS": 1}.items()})
    torch.set_num_threads(1)
    PartialState(cpu=True)  # `rank` answers from here on
    function(*arguments)
    leave()


def _distil_and_resume(data: Path, out: Path) -> None:
    (out / f"agreed{rank()}").write_text(str(from_first_rank(7 + rank())))
    student = detector(seed=rank(), norm_eval=True)  # DDP gives all ranks the weights of the first
    distil(data, out, student, batch_size=2, accumulation=2, steps=2, save_every=1)


def test_the_same_weights_as_one_rank(data, tmp_path):
    (tmp_path / "two").mkdir()
    launch(_distil_and_resume, data, tmp_path / "two")
    assert [(tmp_path / f"two/agreed{index}").read_text() for index in (0, 1)] == ["7", "7"]
    student = detector(norm_eval=True)
    distil(data, tmp_path / "one", student, batch_size=4, accumulation=2, steps=2)
    one, two = weights(tmp_path / "one/model"), weights(tmp_path / "two/model")
    assert distance(two, one) < 1e-5
    assert distance(dict(detector(norm_eval=True).state_dict()), one) > 1e-3
    for mine, theirs in zip(records(tmp_path / "two"), records(tmp_path / "one"), strict=True):
        for key in ("lr", "epoch", "loss", "loss_bbox", "distill_ld", "distill_ld_vlr", "distill_kd", "grad_norm"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-4), key


METHODS: dict[str, dict[str, Any]] = {
    "crossed, balanced": {"recipe": "crosskd_pkd", "balance": "gradient"},
    "adapted": {"recipe": "fine_grained", "teacher": {"fpn_channels": 24}},
    "crossed, adapted": {"recipe": "crossld", "teacher": {"fpn_channels": 24}},
    "asked once": {"recipe": "ld"},
}


def _distil_by_methods(data: Path, out: Path, batch_size: int) -> None:
    for name, options in METHODS.items():
        teacher = detector(seed=1, **options.get("teacher", {}))
        settings = {**options, "teacher": teacher, "accumulation": 2, "steps": 2, "batch_size": batch_size}
        cache = str(out / "answers") if name == "asked once" else None
        distil(data, out / name, detector(seed=rank(), norm_eval=True), cache_teacher=cache, **settings)


def test_terms_on_maps_adapters_and_balance_are_the_same_on_two_ranks(data, tmp_path):
    launch(_distil_by_methods, data, tmp_path / "two", 2)
    _distil_by_methods(data, tmp_path / "one", 4)
    for name, part in (
        ("crossed, balanced", "balance."),
        ("adapted", "distiller."),
        ("crossed, adapted", "distiller."),
    ):
        runs = [weights(tmp_path / ranks / name / "checkpoints/step_00000002") for ranks in ("two", "one")]
        mine = [{k: v for k, v in state.items() if k.startswith(part)} for state in runs]
        assert distance(*runs) < 1e-5 and distance(*mine) < 1e-5
        assert all(bool(value.any()) for value in mine[0].values())
    scales = [line["scale/distill_cross_pkd"] for line in records(tmp_path / "two/crossed, balanced")]
    assert scales[0] == 0 < scales[1]
    _require_that_each_asked_about_its_share(tmp_path)


def _require_that_each_asked_about_its_share(directory: Path) -> None:
    """A shard of each rank, which together hold what one rank wrote, and nothing twice."""
    shards = {ranks: list((directory / ranks / "answers").glob("shard-*")) for ranks in ("two", "one")}
    keys = {ranks: [{name.partition("/")[0] for name in tensor_shapes(shard)} for shard in found]
            for ranks, found in shards.items()}  # fmt: skip
    (one,) = keys["one"]
    first, second = keys["two"]
    assert len(one) == 24 and first | second == one and not first & second
    runs = [weights(directory / ranks / "asked once/checkpoints/step_00000002") for ranks in ("two", "one")]
    assert distance(*runs) < 1e-5


def _break_on_the_second_rank(data: Path, out: Path) -> None:
    model = detector()
    if rank() == 1:
        criterion = model.criterion
        model.criterion = lambda *a, **k: {name: value * float("inf") for name, value in criterion(*a, **k).items()}
    try:
        train(data, out, model)
    except NonFiniteLossError as error:
        (out / f"rank{rank()}").write_text(str(error))


def test_all_ranks_stop_when_one_has_a_non_finite_loss(data, tmp_path):
    launch(_break_on_the_second_rank, data, tmp_path)
    messages = [(tmp_path / f"rank{index}").read_text() for index in (0, 1)]
    assert messages[0] == messages[1]
    assert messages[0].startswith("loss_cls and loss_bbox and loss_dfl became infinite at step 1")


def _evaluate(data: Path, out: Path) -> None:
    training, evaluation = sets(data)
    model = detector()
    model.set_labels(training.label_names, training.category_ids)
    model = _eager(model)
    content = {}
    for images in (1, 3, 4):  # one image leaves the second rank with nothing, three with less than the first
        part = evaluation.select(range(images))
        truth = _boxes_of(part, out / f"{images}_{rank()}.json")
        for protocol in ("coco", "voc07"):
            metrics, evaluator = evaluate(model, truth, batch_size=2, workers=0, protocol=protocol)
            content[f"{protocol} {images}"] = {"metrics": metrics.to_dict(), "detections": evaluator.results()}
    (out / f"rank{rank()}.json").write_text(json.dumps(content))


def _boxes_of(dataset: DetectionSet, path: Path) -> DetectionSet:
    """The same with an annotation file of its images only."""
    content = json.loads(Path(dataset.annotation_file).read_text())
    ids = set(dataset.records.image_ids.tolist())
    content["images"] = [row for row in content["images"] if row["id"] in ids]
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] in ids]
    path.write_text(json.dumps(content))
    return replace(dataset, annotation_file=str(path))


def _eager(model):
    """Let an untrained detector find something."""
    torch.nn.init.constant_(model.head.cls.bias, 0.0)
    torch.nn.init.normal_(model.head.cls.weight, std=0.3)
    return model


def test_evaluation_is_the_same_on_every_rank_and_in_one_process(data, tmp_path):
    launch(_evaluate, data, tmp_path)
    ranks = [json.loads((tmp_path / f"rank{index}.json").read_text()) for index in (0, 1)]
    _evaluate(data, tmp_path)  # this process is rank 0
    alone = json.loads((tmp_path / "rank0.json").read_text())
    assert len(alone["coco 4"]["detections"]) > 20 and len(alone) == 6
    assert ranks[0] == ranks[1] == alone
    assert {alone["voc07 3"]["metrics"][name] for name in ("protocol", "images")} == {"voc07", 3}


def _train_and_evaluate(data: Path, out: Path) -> None:
    training, evaluation = sets(data)
    config = TrainConfig(output_dir=str(out), **{**QUICK, "batch_size": 2})
    result = DetectionTrainer(detector(), train_dataset=training, eval_dataset=evaluation, config=config).train()
    (out / f"rank{rank()}").write_text(str(result.metrics))


def test_files_are_written_once_and_results_are_on_every_rank(data, tmp_path):
    launch(_train_and_evaluate, data, tmp_path / "run")
    assert [record["step"] for record in records(tmp_path / "run")] == [1, 2]
    assert (tmp_path / "run/rank0").read_text() == (tmp_path / "run/rank1").read_text() != "None"
    state = json.loads((tmp_path / "run/checkpoints/step_00000002/state.json").read_text())
    first, second = state["random"]
    assert first["torch"] != second["torch"]  # each rank draws its own numbers, and finds them again on resume


def _train_with_batch_norms(data: Path, out: Path, decay: float | None, resume: bool = False) -> None:
    """Statistics of trained batch norms differ from rank to rank; what is evaluated is written down."""
    import ld_hub.engine.loop as room

    evaluate_now = room.evaluate

    def spy(model, dataset, **options):
        save_safetensors(dict(model.state_dict()), out / f"seen{rank()}.safetensors")
        metrics, evaluator = evaluate_now(model, dataset, **options)
        (out / f"found{rank()}.json").write_text(json.dumps(evaluator.results()))
        return metrics, evaluator

    room.evaluate = spy
    training, evaluation = sets(data)
    start = str(out.parent / "whole/checkpoints/step_00000002") if resume else False
    ema = {"ema": "off" if decay is None else "on", "ema_decay": decay}
    settings = {**QUICK, "steps": 4, "batch_size": 2, "save_every": 2, "lr": 1e-3, **ema}
    config = TrainConfig(output_dir=str(out), **settings, resume=start)
    model = _eager(detector(seed=5 if resume else 0))
    with torch.no_grad():
        model.head.box.bias.view(4, -1)[:, 1:3] += 6.0  # boxes of about the objects' size
    DetectionTrainer(model, train_dataset=training, eval_dataset=evaluation, config=config).train()


@pytest.mark.parametrize("decay", [None, 0.9])
def test_the_model_that_is_evaluated_is_the_one_that_is_saved(data, tmp_path, decay):
    out = tmp_path / "whole"
    launch(_train_with_batch_norms, data, out, decay)
    seen = [load_safetensors(out / f"seen{index}.safetensors") for index in (0, 1)]
    assert equal(seen[0], seen[1])
    assert equal(seen[0], weights(out / "model")) and equal(seen[0], weights(out / "best"))
    running = [value for name, value in seen[0].items() if name.endswith("running_mean")]
    assert len(running) > 3 and all(bool(value.any()) for value in running)
    metrics, evaluator = evaluate(create_model(out / "model"), sets(data)[1], workers=0)
    assert evaluator.results() == json.loads((out / "found0.json").read_text()) != []
    assert metrics.to_dict() == json.loads((out / "result.json").read_text())["metrics"]
    assert metrics.stats["AP50"] > 0

    launch(_train_with_batch_norms, data, tmp_path / "broken", decay, True)  # and a continued run still is the same
    for name in ("model", "checkpoints/step_00000004"):
        assert equal(weights(tmp_path / "broken" / name), weights(out / name))


def _average(out: Path) -> None:
    norm = torch.nn.BatchNorm1d(2)
    norm.running_mean.copy_(torch.tensor([0.1, 1.0 + 2 * rank()]))
    norm.num_batches_tracked.fill_(7 + rank())
    average_buffers([norm])
    values = [norm.running_mean.tolist(), norm.running_var.tolist(), norm.num_batches_tracked.item()]
    (out / f"rank{rank()}").write_text(json.dumps(values))


def test_buffers_become_their_mean(tmp_path):
    launch(_average, tmp_path)
    same = torch.tensor(0.1).item()  # keeps its bits
    for index in (0, 1):
        means, variances, batches = json.loads((tmp_path / f"rank{index}").read_text())
        assert (means, variances, batches) == ([same, 2.0], [1.0, 1.0], 7 + index)
