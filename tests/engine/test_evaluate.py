from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ld_hub.analysis.sweep import sweep
from ld_hub.engine.evaluate import evaluate
from ld_hub.errors import EvaluationError
from tests.engine.runs import detector, sets


@pytest.fixture
def eager(data):
    """An untrained detector that finds something everywhere."""
    model = detector()
    model.set_labels(*(getattr(sets(data)[1], name) for name in ("label_names", "category_ids")))
    torch.nn.init.constant_(model.head.cls.bias, 0.0)
    torch.nn.init.normal_(model.head.cls.weight, std=0.3)
    return model


def test_the_numbers_do_not_depend_on_the_batch_size(data, eager):
    evaluation = sets(data)[1]
    results = []
    for size, workers in ((1, 0), (3, 1), (8, 0)):
        metrics, evaluator = evaluate(eager, evaluation, batch_size=size, workers=workers)
        results.append((metrics.to_dict(), evaluator.results()))
    for metrics, detections in results[1:]:
        assert metrics == results[0][0]
        assert [(d["image_id"], d["category_id"]) for d in detections] == [
            (d["image_id"], d["category_id"]) for d in results[0][1]
        ]
    assert len(results[0][1]) > 20
    assert {row["category_id"] for row in results[0][1]} <= {3, 5, 9}


def test_it_leaves_the_model_and_the_random_numbers_as_they_were(data, eager):
    eager.train()
    eager.backbone.eval()
    modes = [module.training for module in eager.modules()]
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    evaluate(eager, sets(data)[1], workers=1)
    assert torch.equal(torch.rand(2), expected)
    assert [module.training for module in eager.modules()] == modes
    assert all(parameter.grad is None and parameter.requires_grad for parameter in eager.head.parameters())


def test_training_goes_on_after_evaluation(data, eager):
    """Priors kept from an evaluation are used in the next training step."""
    evaluate(eager, sets(data)[1], workers=0, batch_size=4)
    eager.train()(torch.zeros(4, 3, 64, 64)).decode().sum().backward()
    assert eager.head.box.weight.grad is not None


def test_perfect_detections_have_ap_1(data):
    from ld_hub.structures import Detections

    evaluation = sets(data)[1]
    model = detector()
    model.set_labels(evaluation.label_names, evaluation.category_ids)
    truth = evaluation.records
    seen = iter(range(len(evaluation)))

    def perfect(output, sizes, factors, config):
        found = []
        for _ in sizes:
            index = next(seen)
            rows = slice(truth.offsets[index], truth.offsets[index + 1])
            labels = torch.from_numpy(truth.labels[rows].copy())
            boxes = torch.from_numpy(truth.boxes[rows].copy())
            found.append(Detections(boxes, torch.ones(len(labels)), labels, model.label_names, model.category_ids))
        return found

    model.postprocess = perfect
    metrics, _ = evaluate(model, evaluation, workers=0)
    assert metrics.stats["AP"] == pytest.approx(1.0)


def test_the_protocol_is_that_of_the_data_unless_another_is_named(data, eager):
    evaluation = sets(data)[1]
    voc = replace(evaluation, protocol="voc12")
    named = [("coco", evaluation, None), ("voc12", voc, None), ("voc07", voc, "voc07"), ("coco", voc, "coco")]
    for expected, dataset, protocol in named:
        metrics, evaluator = evaluate(eager, dataset, workers=0, protocol=protocol)
        assert metrics.protocol == evaluator.protocol == expected
        assert (evaluator.backend == "ld_hub") == (expected != "coco")  # the rules of VOC are our own


def test_lvis_counts_300_detections_of_an_image(data, eager, tmp_path):
    evaluation = sets(data)[1]
    content = json.loads(Path(evaluation.annotation_file).read_text())
    for image in content["images"]:
        image["neg_category_ids"] = list(evaluation.category_ids)
    file = tmp_path / "lvis.json"
    file.write_text(json.dumps(content))
    eager.postprocess_config = replace(eager.postprocess_config, score_threshold=0.0, nms_iou=1.0)
    most = {}
    for protocol in ("coco", "lvis"):
        scored = replace(evaluation, annotation_file=str(file), protocol=protocol)
        metrics, evaluator = evaluate(eager, scored, workers=0)
        most[protocol] = max(Counter(row["image_id"] for row in evaluator.results()).values())
    assert most["coco"] == 100 < most["lvis"] <= 300 and set(metrics.stats) >= {"APr", "APc", "APf"}


@pytest.mark.parametrize("part", ["cls_logits", "quality"])
def test_scores_that_are_no_numbers_are_refused(data, eager, part):
    """NaN is below every threshold: without a word, AP would be that of a model that finds less."""
    forward, calls = eager.forward, []

    def breaking(images):
        output = forward(images)
        calls.append(len(images))
        values = output.cls_logits.new_zeros(output.cls_logits.shape[:2]) if part == "quality" else output.cls_logits
        if len(calls) == 2:
            values[1, 7] = float("nan")  # of one location of the second image, ids 10, 11 | 12, 13
        return replace(output, **{part: values})

    eager.forward = breaking
    expected = pytest.raises(EvaluationError, match=r"Image id 13: the model's scores are not numbers \(NaN\)")
    with expected:
        evaluate(eager, sets(data)[1], workers=0, batch_size=2)
    calls.clear()
    with expected:
        list(sweep(eager, sets(data)[1], [eager.postprocess_config], workers=0, batch_size=2))


def test_other_classes_are_refused(data, eager):
    evaluation = replace(sets(data)[1], label_names=("red", "blue", "green"))
    with pytest.raises(EvaluationError, match=r"3 classes \(red, green, blue\).*has 3 \(red, blue, green\)"):
        evaluate(eager, evaluation)
