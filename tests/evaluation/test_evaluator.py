"""The evaluator against pycocotools, against AP worked out by hand, and in what it refuses."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ld_hub.errors import ConfigError, EvaluationError
from ld_hub.evaluation import DetectionEvaluator
from ld_hub.evaluation.metrics import STAT_NAMES
from ld_hub.structures import Detections


def pycocotools_stats(content, found, path):
    """The 12 numbers as everybody computes them: files, loadRes, summarize."""
    (path / "truth.json").write_text(json.dumps(content))
    rows = [row for image_id, detections in found.items() for row in detections.to_coco(image_id)]
    (path / "found.json").write_text(json.dumps(rows))
    truth = COCO(str(path / "truth.json"))
    run = COCOeval(truth, truth.loadRes(str(path / "found.json")), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run


@pytest.fixture(params=["pycocotools", "hotcoco"])
def backend(request):
    pytest.importorskip(request.param)
    return request.param


@pytest.mark.parametrize("seed", range(12))
def test_numbers_are_those_of_pycocotools(seed, backend, make_problem, evaluator_of, tmp_path, capsys):
    content, found = make_problem(seed)
    metrics = evaluator_of(content, found, backend=backend).compute()
    assert capsys.readouterr().out == ""  # silenced
    run = pycocotools_stats(content, found, tmp_path)
    ours = [-1.0 if metrics.stats[name] is None else metrics.stats[name] for name in STAT_NAMES]
    assert ours == run.stats.tolist()  # bit for bit
    for name, category in zip(("cat", "dog"), (5, 2), strict=True):
        expected = run.eval["precision"][:, :, sorted((5, 2, 9)).index(category), 0, 2]
        assert metrics.per_class[name] == (np.mean(expected) if (expected > -1).all() else None)
    assert metrics.per_class["bird"] is None


def one_class(truth, guesses, width=200):
    """One image, one class; truth boxes xywh, guesses (xyxy, score)."""
    content = {
        "images": [{"id": 1, "width": width, "height": width}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": k, "image_id": 1, "category_id": 1, "bbox": box} for k, box in enumerate(truth)],
    }
    evaluator = DetectionEvaluator(content, category_ids=[1], label_names=["a"])
    boxes = torch.tensor([box for box, _ in guesses], dtype=torch.float32).reshape(-1, 4)
    scores = torch.tensor([score for _, score in guesses], dtype=torch.float32)
    evaluator.update([1], [Detections(boxes, scores, torch.zeros(len(guesses), dtype=torch.int64), ("a",))])
    return evaluator.compute()


def test_ap_by_hand_false_positive_first():
    # precision is 1/2 once the object is found, at every recall level and every IoU threshold
    metrics = one_class([[10, 10, 50, 50]], [([100, 100, 150, 150], 0.9), ([10, 10, 60, 60], 0.8)])
    assert metrics["AP"] == pytest.approx(0.5)
    assert metrics["AR100"] == 1.0 and metrics["AR1"] == 0.0


def test_ap_by_hand_half_of_the_objects():
    # precision 1 up to recall 0.5: 51 of the 101 recall levels
    metrics = one_class([[10, 10, 50, 50], [100, 100, 50, 50]], [([10, 10, 60, 60], 0.9)])
    assert metrics["AP"] == pytest.approx(51 / 101)
    assert metrics["AR100"] == 0.5


def test_ap_by_hand_loose_box():
    # IoU 62 / 100: found at thresholds 0.50, 0.55, 0.60 of ten
    metrics = one_class([[0, 0, 100, 100]], [([0, 0, 100, 62], 0.9)])
    assert metrics["AP"] == pytest.approx(0.3)
    assert metrics["AP50"] == pytest.approx(1.0) and metrics["AP75"] == 0.0


def test_ap_by_hand_second_hit_is_a_false_positive():
    metrics = one_class([[10, 10, 50, 50]], [([10, 10, 60, 60], 0.9), ([10, 10, 60, 60], 0.8)])
    assert metrics["AP"] == pytest.approx(1.0)
    # 2 objects; hit, duplicate, hit: precision 1 to recall 0.5, then 2/3
    guesses = [([10, 10, 60, 60], 0.9), ([10, 10, 60, 60], 0.8), ([100, 100, 150, 150], 0.7)]
    metrics = one_class([[10, 10, 50, 50], [100, 100, 50, 50]], guesses)
    assert metrics["AP"] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_sizes_without_objects_are_none():
    metrics = one_class([[10, 10, 50, 50]], [([10, 10, 60, 60], 0.8)])  # 2500 px: medium
    assert metrics["APm"] == pytest.approx(1.0)
    assert metrics["APs"] is None and metrics["APl"] is None and metrics["ARs"] is None


def test_annotation_id_0_counts(make_problem, evaluator_of):
    # pycocotools itself would call the object with id 0 unmatched
    assert one_class([[10, 10, 50, 50]], [([10, 10, 60, 60], 0.8)])["AP"] == pytest.approx(1.0)
    content, found = make_problem(3)
    expected = evaluator_of(content, found).compute().to_dict()
    shuffled = copy.deepcopy(content)
    for number, row in enumerate(shuffled["annotations"]):
        row["id"] = number
    assert evaluator_of(shuffled, found).compute().to_dict() == expected
    for row in shuffled["annotations"]:
        del row["id"]
    assert evaluator_of(shuffled, found).compute().to_dict() == expected


def test_no_detections_are_zero_not_minus_one(make_problem, evaluator_of, backend):
    content, found = make_problem(0)
    metrics = evaluator_of(content, {image_id: d[:0] for image_id, d in found.items()}, backend=backend).compute()
    assert set(metrics.stats.values()) == {0.0}
    assert metrics.per_class == {"cat": 0.0, "dog": 0.0, "bird": None}
    assert metrics.detections == 0


@pytest.mark.parametrize("protocol", ["coco", "voc07"])
def test_no_ground_truth_is_none(make_problem, evaluator_of, backend, protocol):
    content, found = make_problem(0, annotations=False)
    metrics = evaluator_of(content, found, backend=backend, protocol=protocol).compute()
    assert set(metrics.stats.values()) == {None} and set(metrics.per_class.values()) == {None}
    assert "-1" not in metrics.table() and "–" in metrics.table()


def test_classes_without_ground_truth_are_absent_from_the_mean(make_problem, evaluator_of):
    content, found = make_problem(1)
    metrics = evaluator_of(content, found).compute()
    assert metrics["AP"] == pytest.approx((metrics.per_class["cat"] + metrics.per_class["dog"]) / 2)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), data=st.data(), protocol=st.sampled_from(["coco", "voc07", "voc12"]))
def test_order_and_ranks_do_not_matter(seed, data, protocol, make_problem, evaluator_of):
    content, found = make_problem(seed, images=5)
    expected = evaluator_of(content, found, protocol=protocol)
    order = data.draw(st.permutations(list(found)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=3)))
    ranks = []
    for start, end in zip([0, *cuts], [*cuts, len(order)], strict=True):
        rank = evaluator_of(content, protocol=protocol)
        for image_id in order[start:end]:
            rank.update([image_id], [found[image_id]])
        ranks.append(rank)
    states = [rank.state() for rank in ranks]
    for rank in ranks:
        rank.merge(states)
        assert rank.compute().to_dict() == expected.compute().to_dict()
        assert rank.results() == expected.results()


def test_annotations_from_a_file_are_those_of_its_content(make_problem, evaluator_of, tmp_path):
    content, found = make_problem(5)
    (tmp_path / "a.json").write_text(json.dumps(content))
    from_file = DetectionEvaluator(str(tmp_path / "a.json"), category_ids=(5, 2, 9), label_names=("cat", "dog", "bird"))
    from_file.update(list(found), list(found.values()))
    assert from_file.compute().to_dict() == evaluator_of(content, found).compute().to_dict()


def test_compute_twice_and_inputs_stay_as_they_were(make_problem, evaluator_of):
    content, found = make_problem(2)
    before = copy.deepcopy(content)
    evaluator = DetectionEvaluator(content, category_ids=(5, 2, 9), label_names=("cat", "dog", "bird"))
    evaluator.update(list(found), list(found.values()))
    assert evaluator.compute().to_dict() == evaluator.compute().to_dict()
    assert content == before
    fields = {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore"}
    assert all(set(row) == fields for row in evaluator.truth.annotations)  # scorers leave marks in what they get


def test_saved_detections_give_the_same_numbers(make_problem, evaluator_of, tmp_path):
    content, found = make_problem(4)
    evaluator = evaluator_of(content, found)
    path = evaluator.save_detections(tmp_path / "new" / "detections.json")
    rows = json.loads(path.read_text())
    assert set(rows[0]) == {"image_id", "category_id", "bbox", "score"}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    truth = COCO(str(tmp_path / "truth.json"))
    run = COCOeval(truth, truth.loadRes(str(path)), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    assert run.stats[0] == evaluator.compute()["AP"]


def test_coco_does_not_look_at_ignore(make_problem, evaluator_of, backend):
    content, found = make_problem(6)
    expected = evaluator_of(content, found).compute().to_dict()
    for row in content["annotations"]:
        row["ignore"] = 1
    assert evaluator_of(content, found, backend=backend).compute().to_dict() == expected


def test_what_is_not_counted_is_told(make_problem, evaluator_of):
    content, found = make_problem(0)
    image, some = next((image, d) for image, d in found.items() if len(d) > 3)
    found[image] = Detections(
        some.boxes[:1].repeat(130, 1), torch.linspace(0, 1, 130), torch.full((130,), 1), some.label_names
    )
    metrics = evaluator_of(content, found).compute()
    assert metrics.not_counted == metrics.to_dict()["not_counted"] == 30
    assert metrics.detections == sum(len(d) for d in found.values())
    assert "30 detections were not counted: COCO counts the 100 best of each class and image" in metrics.table()
    assert evaluator_of(content, found, protocol="voc07").compute().not_counted == 0
    found[image] = found[image][30:]  # the best 100
    fewer = evaluator_of(content, found).compute()
    assert fewer.stats == metrics.stats and fewer.not_counted == 0 and "not counted" not in fewer.table()


# What is refused


def bad(found, **changes):
    values = {"boxes": found.boxes, "scores": found.scores, "labels": found.labels, **changes}
    return Detections(**values, label_names=found.label_names)


def detections(boxes=((1.0, 2.0, 3.0, 4.0), (1.0, 2.0, 3.0, 4.0)), scores=(0.5, 0.4), labels=(0, 1)):
    return Detections(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels), ("cat", "dog", "bird"))


nan, inf = float("nan"), float("inf")
REFUSED = [
    (detections(boxes=[[1.0, 2.0, 3.0, 4.0], [nan, 2.0, 3.0, 4.0]]), "box that is not finite.*label 1 'dog'"),
    (detections(boxes=[[1.0, 2.0, inf, 4.0], [1.0, 2.0, 3.0, 4.0]]), "box that is not finite.*label 0 'cat'"),
    (detections(scores=(0.5, nan)), "score that is not finite.*label 1 'dog'"),
    (detections(scores=(-inf, 0.5)), "score that is not finite.*label 0 'cat'"),
    (detections(boxes=[[5.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]]), r"x2 < x1.*box \[5\.0, 2\.0, 3\.0, 4\.0\]"),
    (detections(boxes=[[1.0, 2.0, 3.0, 4.0], [1.0, 7.0, 3.0, 4.0]]), "y2 < y1.*label 1 'dog'"),
    (detections(labels=(0, 3)), "label that is no class.*label 3,"),
    (detections(labels=(-1, 0)), "label that is no class.*label -1,"),
]


@pytest.mark.parametrize("found, message", REFUSED)
def test_detections_that_cannot_be_scored_are_refused(found, message, make_problem, evaluator_of):
    content, _ = make_problem(0)
    evaluator = evaluator_of(content)
    with pytest.raises(EvaluationError, match=rf"Image id 107 has .*{message}"):
        evaluator.update([100, 107], [detections(), found])
    assert len(evaluator) == 0  # nothing was added, the good image neither


def test_sizes_given_as_corners_are_refused(make_problem, evaluator_of):
    """Somebody adds width and height to what is x2 and y2 already."""
    content, found = make_problem(0)
    for image, some in found.items():
        first = some.boxes[:, :2] + 120
        boxes = torch.cat([first, first + first + 30], dim=1)
        found[image] = Detections(boxes, some.scores, some.labels, some.label_names)
    with pytest.raises(EvaluationError, match=r"detections reach out of their image when read as x, y, width, height"):
        evaluator_of(content, found).compute()


def test_image_twice_is_refused(make_problem, evaluator_of):
    evaluator = evaluator_of(make_problem(0)[0])
    evaluator.update([100], [detections()])
    with pytest.raises(EvaluationError, match="Image id 100 is given a second time"):
        evaluator.update([100], [detections()])
    with pytest.raises(EvaluationError, match="Image id 107 is given a second time"):
        evaluator.update([107, 107], [detections(), detections()])


def test_unknown_image_is_refused(make_problem, evaluator_of):
    with pytest.raises(EvaluationError, match="Image id 1 is not among the 6 images"):
        evaluator_of(make_problem(0)[0]).update([1], [detections()])


def test_counts_of_ids_and_detections_must_agree(make_problem, evaluator_of):
    with pytest.raises(EvaluationError, match="2 image ids came with detections of 1 images"):
        evaluator_of(make_problem(0)[0]).update([100, 107], [detections()])


def test_other_class_names_are_refused(make_problem, evaluator_of):
    found = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), ("dog", "cat", "bird"))
    with pytest.raises(EvaluationError, match="Image id 100: the detections are of classes dog, cat, bird"):
        evaluator_of(make_problem(0)[0]).update([100], [found])


def test_missing_images_are_refused_unless_allowed(make_problem, evaluator_of):
    content, found = make_problem(0)
    part = {image_id: found[image_id] for image_id in list(found)[:4]}
    evaluator = evaluator_of(content, part)
    with pytest.raises(EvaluationError, match=r"2 of the 6 images .* were not scored"):
        evaluator.compute()
    partial = evaluator.compute(allow_partial=True)
    subset = {
        **content,
        "images": [row for row in content["images"] if row["id"] in part],
        "annotations": [row for row in content["annotations"] if row["image_id"] in part],
    }
    assert partial.to_dict() == evaluator_of(subset, part).compute().to_dict()
    with pytest.raises(EvaluationError, match="No image was scored"):
        evaluator_of(content).compute(allow_partial=True)


@pytest.mark.parametrize(
    "ids, names, message",
    [
        ((5, 2, 4), ("cat", "dog", "fish"), "Label 'fish' has category id 4, which .* does not know"),
        ((2, 5, 9), ("cat", "dog", "bird"), "Label 'cat' has category id 2, but in .* 2 is 'dog' and 'cat' is 5"),
        ((5, 5, 9), ("cat", "dog", "bird"), "category id 5 is given twice"),
        ((5, 2, 9), ("cat", "cat", "bird"), "label name 'cat' is given twice"),
        ((5, 2), ("cat", "dog", "bird"), "3 label names came with 2 category ids"),
        ((5, 9), ("cat", "bird"), "has boxes of dog, which the labels cat, bird lack"),
    ],
)
def test_classes_must_fit_the_annotations(ids, names, message, make_problem):
    with pytest.raises(EvaluationError, match=message):
        DetectionEvaluator(make_problem(0)[0], category_ids=ids, label_names=names)


def test_merge_refuses_what_update_would(make_problem, evaluator_of):
    content, found = make_problem(0)
    part = dict(list(found.items())[:3])
    one, other = evaluator_of(content, part), evaluator_of(content, part)
    with pytest.raises(EvaluationError, match="was scored by two ranks"):
        one.merge([one.state(), other.state()])
    with pytest.raises(EvaluationError, match="no state with this rank's own 3 images"):
        one.merge([evaluator_of(content).state()])
    assert len(one) == 3
    foreign = one.state()
    foreign["image_ids"] = foreign["image_ids"] + 1
    with pytest.raises(EvaluationError, match="is not in"):
        one.merge([foreign])


@pytest.mark.parametrize(
    "option, message",
    [
        ({"backend": "tide"}, r"Unknown evaluation backend 'tide'.*pycocotools, hotcoco"),
        ({"protocol": "voc"}, r"Unknown evaluation protocol 'voc'; choose one of coco, voc07, voc12"),
    ],
)
def test_unknown_settings(make_problem, evaluator_of, option, message):
    with pytest.raises(ConfigError, match=message):
        evaluator_of(make_problem(0)[0], **option)


def test_missing_hotcoco_says_how_to_get_it(make_problem, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "hotcoco", None)
    with pytest.raises(ConfigError, match=r"pip install 'ld_hub\[fast-eval\]'"):
        DetectionEvaluator(
            make_problem(0)[0], category_ids=(5, 2, 9), label_names=("cat", "dog", "bird"), backend="hotcoco"
        )
