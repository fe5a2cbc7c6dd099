"""`ld-hub verify`: a card and an evaluation that tell the truth pass, and each kind of lie has its message."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from ld_hub.cli.main import main
from ld_hub.data import load_data
from ld_hub.distillation import make_teaching
from ld_hub.engine import TrainConfig
from ld_hub.engine.identity import Identity
from ld_hub.engine.records import RunSettings
from ld_hub.errors import EvaluationError
from ld_hub.evaluation.agreement import Tolerance, read_detections, score_detections, unmatched
from ld_hub.hub import load_safetensors, save_safetensors, sha256_of
from ld_hub.models.checkpoints.pretrained import load_pretrained
from tests.support.hub_client import connected
from tests.support.judged import judge, lively, write_data

hub = pytest.fixture(connected)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A model directory with card and evaluation, and its data."""
    root = tmp_path_factory.mktemp("published")
    model = lively(("cat", "dog: 🐕"))
    data = write_data(root / "pets", model)
    model.save_pretrained(root / "model")
    judge(root / "model", data, root / "model" / "eval")
    assert main(["card", str(root / "model")]) == 0
    return root / "model", data


@pytest.fixture
def copy(published, tmp_path):
    """A copy to be tampered with."""
    shutil.copytree(published[0], tmp_path / "model")
    return tmp_path / "model"


def verify(capsys, model, data, *words):
    capsys.readouterr()
    code = main(["verify", str(model), "--data", str(data), "--workers", "0", "--device", "cpu", *words])
    out, err = capsys.readouterr()
    failed = [line[8:] for line in out.splitlines() if line.startswith("FAILED")]
    return code, failed, out + err


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def hit(rows, data):
    """Index of a detection that is a box of the ground truth, to rounding."""
    truth = json.loads((data / "annotations/instances_val.json").read_text())["annotations"]
    places = [(row["image_id"], row["category_id"]) for row in truth]
    for k, row in enumerate(rows):
        same = [
            t["bbox"] for t, place in zip(truth, places, strict=True) if place == (row["image_id"], row["category_id"])
        ]
        if any(row["bbox"] == pytest.approx(box, abs=0.01) for box in same):
            return k
    raise AssertionError("no detection is a box")


def test_an_evaluation_in_tiles_is_recomputed_in_tiles(copy, published, capsys):
    judge(copy, published[1], copy / "eval", "--tile", "40", "--overlap", "0.25")
    evidence = json.loads((copy / "eval/metrics.json").read_text())
    assert (evidence["tile"], evidence["overlap"]) == (40, 0.25)
    assert "--tile 40 --overlap 0.25" in evidence["command"]
    assert main(["card", str(copy)]) == 0
    assert verify(capsys, copy, published[1])[:2] == (0, [])
    edit(copy / "eval/metrics.json", lambda content: content.pop("tile"))
    assert verify(capsys, copy, published[1])[0] == 1  # whole images give other detections


def test_what_is_true_passes(published, capsys):
    code, failed, out = verify(capsys, *published)
    assert (code, failed) == (0, []), out
    assert "8 of 8 comparisons agree" in out
    assert verify(capsys, *published, "--batch_size", "1")[0] == 0


def test_two_protocols(published, copy, tmp_path, capsys):
    """Each artefact is checked by its own rules, and the card has both."""
    data = tmp_path / "pets"
    shutil.copytree(published[1], data)
    edit(data / "annotations/instances_val.json", lambda content: content["annotations"][0].update(difficult=1))
    coco = judge(copy, data, copy / "eval")
    voc = judge(copy, data, copy / "eval/voc", "--protocol", "voc07")
    assert (coco["protocol"], voc["protocol"], voc["backend"]) == ("coco", "voc07", "ld_hub")
    assert "--protocol voc07" in voc["command"] and sum(voc["boxes"].values()) == sum(coco["boxes"].values()) - 1
    assert 0 < voc["stats"]["AP"] < 1 and voc["stats"]["AP"] != coco["stats"]["AP"]
    assert main(["card", str(copy)]) == 0
    text = (copy / "README.md").read_text()
    assert "PASCAL VOC 2007, 11-point AP" in text and "COCO box metrics" in text
    assert "| AP, x100 | AP | AP50 | AP55 | AP60 |" in text and "type: voc07_map_50" in text
    code, failed, out = verify(capsys, copy, data)
    assert (code, failed) == (0, []), out

    artefact = copy / "eval/voc/metrics.json"
    edit(artefact, lambda content: content["stats"].update(AP55=0.9))
    code, failed, _ = verify(capsys, copy, data)
    assert code == 1 and "eval/voc/metrics.json: its numbers are those of its detections" in failed
    assert not any(line.startswith("eval/metrics.json") for line in failed)
    edit(artefact, lambda content: content.update(protocol="voc12", stats=voc["stats"]))  # the other rule's numbers
    assert verify(capsys, copy, data)[0] == 1


def test_an_artefact_without_a_protocol_is_of_coco(published, copy, capsys):
    edit(copy / "eval/metrics.json", lambda content: [content.pop(name) for name in ("protocol", "not_counted")])
    code, failed, out = verify(capsys, copy, published[1])
    assert (code, failed) == (0, []), out


def test_ap_edited_in_the_metadata(published, copy, capsys):
    card = copy / "README.md"
    ap = json.loads((copy / "eval/metrics.json").read_text())["stats"]["AP"]
    card.write_text(card.read_text().replace(f"value: {round(ap, 4)}", "value: 0.99", 1))
    code, failed, out = verify(capsys, copy, published[1])
    assert (code, failed) == (1, ["README.md: AP of the metadata"])
    assert f"the card has 0.99, the artefact {round(ap, 4)}" in out


def test_ap_edited_in_the_table(published, copy, capsys):
    card = copy / "README.md"
    ap = json.loads((copy / "eval/metrics.json").read_text())["stats"]["AP"]
    card.write_text(card.read_text().replace(f"| this model | {100 * ap:.1f}", "| this model | 99.0", 1))
    code, failed, out = verify(capsys, copy, published[1])
    assert (code, failed) == (1, ["README.md: table of AP"]), out


def test_a_detection_edited(published, copy, capsys):
    edit(copy / "eval/detections.json", lambda rows: rows[0]["bbox"].__setitem__(0, rows[0]["bbox"][0] + 30))
    code, failed, out = verify(capsys, copy, published[1])
    assert code == 1 and failed[0] == "eval/metrics.json: detections file", out
    assert "detections.json is another file" in out


def test_a_detection_edited_with_its_hash(published, copy, capsys):
    detections, artefact = copy / "eval/detections.json", copy / "eval/metrics.json"
    edit(detections, lambda rows: rows.pop(hit(rows, published[1])))
    edit(artefact, lambda content: content["detections_file"].update(sha256=sha256_of(detections)))
    code, failed, out = verify(capsys, copy, published[1])
    assert code == 1 and "eval/metrics.json: its numbers are those of its detections" in failed, out


def test_a_weight_changed(published, copy, capsys):
    file = copy / "model.safetensors"
    state = load_safetensors(file)
    state["head.cls.bias"][0] += 1e-6
    save_safetensors(state, file)
    code, failed, out = verify(capsys, copy, published[1])
    assert (code, failed) == (1, ["eval/metrics.json: weights"])
    assert "model.safetensors is another file" in out


def test_weights_that_detect_otherwise(published, copy, capsys):
    """Even if every hash and every number was made to fit, the model has to detect it again."""
    model = load_pretrained(copy)
    torch.nn.init.normal_(model.head.box.weight, std=0.2)
    model.save_pretrained(copy)
    edit(copy / "eval/metrics.json", lambda c: c["weights"].update(sha256=sha256_of(copy / "model.safetensors")))
    code, failed, out = verify(capsys, copy, published[1])
    assert code == 1
    assert failed == ["eval/metrics.json: AP recomputed", "eval/metrics.json: detections recomputed"], out
    assert "AP: the artefact has" in out and "recorded detections are not found again" in out


def test_numbers_edited_everywhere(published, copy, capsys):
    edit(copy / "eval/metrics.json", lambda content: content["stats"].update(AP=0.9))
    assert main(["card", str(copy)]) == 0
    code, failed, _ = verify(capsys, copy, published[1])
    assert code == 1
    assert failed == [
        "eval/metrics.json: its numbers are those of its detections", "eval/metrics.json: AP recomputed",
    ]  # fmt: skip


def test_other_data(published, copy, tmp_path, capsys):
    shutil.copytree(published[1], tmp_path / "pets")
    edit(tmp_path / "pets/annotations/instances_val.json", lambda content: content["annotations"].pop())
    code, failed, out = verify(capsys, copy, tmp_path / "pets")
    assert (code, failed) == (1, ["eval/metrics.json: annotations"]), out
    assert verify(capsys, copy, tmp_path / "nowhere")[:2] == (1, ["eval/metrics.json: annotations"])


def test_missing_parts_and_damaged_ones(published, copy, capsys):
    data = published[1]
    (copy / "README.md").rename(copy / "other.md")
    code, failed, out = verify(capsys, copy, data)
    assert (code, failed) == (1, ["README.md: AP of the metadata"]) and "there is no README.md" in out
    (copy / "other.md").rename(copy / "README.md")
    (copy / "eval/detections.json").unlink()
    assert verify(capsys, copy, data)[:2] == (1, ["eval/metrics.json: detections file"])
    edit(copy / "eval/metrics.json", lambda content: content.update(images="many"))
    code, failed, out = verify(capsys, copy, data)
    assert code == 1 and "'images' is 'many'" in out and "there is nothing to check AP by" in out
    (copy / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    code, failed, out = verify(capsys, copy, data)
    assert (code, failed) == (1, ["the model loads"]) and "Git LFS pointer" in out


def test_wrong_calls(published, capsys):
    assert main(["verify", str(published[0])]) == 2
    assert "Say where the data is" in capsys.readouterr().err
    assert verify(capsys, published[0], published[1], "--tolerance", "0")[0] == 2


def test_a_repository(hub, published, tmp_path, capsys):
    model, data = published
    detector = load_pretrained(model)
    commit = detector.push_to_hub("org/pets", eval_results=model / "eval")
    code, failed, out = verify(capsys, "org/pets", data)
    assert (code, failed) == (0, []), out
    assert verify(capsys, f"hf-hub:org/pets@{commit.oid}", data)[0] == 0
    facts = judge("hf-hub:org/pets", data, tmp_path)["model"]
    assert (facts["name"], facts["commit"]) == ("hf-hub:org/pets", commit.oid)
    assert not hub.unknown
    code, _, out = verify(capsys, "org/nothing", data)
    assert code == 2 and "No Hub repository" in out


def test_a_model_that_is_not_of_the_run_beside_it(hub, published, capsys, tmp_path):
    """The settings of the run are published with the model: network and teaching have to be the same in both."""
    model, data = published
    detector = load_pretrained(model)
    detector.teaching = make_teaching("vlr", class_map={"cat": "felis"})
    detector.teaching = replace(detector.teaching, teachers=("gfocal_r50",), origins={"gfocal_r50": "org/r50@0123"})
    made = Identity.of(detector, load_data(data, "val"), (), detector.teaching)
    settings = RunSettings(TrainConfig(steps=3), made, 3, 2, 0.01, "instances_train.json")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(settings.to_dict()))
    detector.push_to_hub("org/taught", eval_results=model / "eval", run=run)
    code, failed, out = verify(capsys, "org/taught", data)
    assert (code, failed) == (0, []) and "training/config.json: the model is of this run" in out

    detector.teaching = replace(detector.teaching, terms={**detector.teaching.terms, "ld": {"weight": 9.0}})
    detector.push_to_hub("org/taught", eval_results=model / "eval", run=run)
    code, failed, out = verify(capsys, "org/taught", data)
    assert (code, failed) == (1, ["training/config.json: the model is of this run"]), out
    assert "recipe.terms.ld.weight: the run has 0.25, the model 9.0" in out


def test_counterparts():
    """Against a plain count: a row has a counterpart if all edges and the score are near."""
    row = {"image_id": 1, "category_id": 2, "bbox": [10.0, 10.0, 20.0, 20.0], "score": 0.5}
    near = {**row, "bbox": [10.9, 9.1, 20.0, 20.0], "score": 0.509}
    far = [
        {**row, "bbox": [11.5, 10.0, 20.0, 20.0]},
        {**row, "bbox": [10.5, 10.0, 20.8, 20.0]},  # the right edge is 1.3 px away
        {**row, "score": 0.52},
        {**row, "category_id": 3},
        {**row, "image_id": 2},
    ]
    allowed = Tolerance(detections=0.0)
    assert unmatched([row], [near], allowed) == []
    for other in far:
        assert unmatched([row], [other], allowed)[0].startswith("1 of 1 recorded detections are not found again, 1 are")
    assert unmatched([row] * 100, [*[row] * 99, far[0]], Tolerance()) == []
    assert unmatched([row], [], allowed) and unmatched([], [row], allowed) and not unmatched([], [], allowed)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "null",
        "[",
        "[1]",
        '[{"image_id": 1}]',
        '[{"image_id": "1", "category_id": 3, "bbox": [1, 2, 3, 4], "score": 1}]',
        '[{"image_id": 10, "category_id": 3, "bbox": [1, 2, 3, NaN], "score": 1}]',
        '[{"image_id": 10, "category_id": 3, "bbox": [1, 2, 3], "score": 1}]',
        '[{"image_id": 10, "category_id": 3, "bbox": [1, 2, 3, -4], "score": 1}]',
    ],
)
def test_files_that_are_no_results(tmp_path, text):
    file = tmp_path / "detections.json"
    file.write_text(text)
    with pytest.raises(EvaluationError, match="not a COCO results file"):
        read_detections(file)


def test_detections_of_unknown_images(published):
    row = {"image_id": 999, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 1.0}
    with pytest.raises(EvaluationError, match="image 999"):
        score_detections([row], published[1] / "annotations/instances_val.json", [3, 4], ["cat", "dog: 🐕"])


@pytest.fixture
def two(published, copy, tmp_path, capsys):
    """A model with evaluations on two data sets, and the second one."""
    model = load_pretrained(copy)
    other = write_data(tmp_path / "more pets", model, count=3)
    judge(copy, other, copy / "eval" / "second")
    assert main(["card", str(copy)]) == 0
    return copy, published[1], other


def test_the_data_says_which_evaluation_is_meant(two, capsys):
    model, first, second = two
    for data, done, left in (
        (first, "eval/metrics.json", "eval/second"),
        (second, "eval/second/metrics.json", "eval/m"),
    ):
        code, failed, out = verify(capsys, model, data)
        assert (code, failed) == (0, []), out
        assert f"{done}: AP recomputed" in out and f"skipped {left}" in out
        assert "8 of 8 comparisons agree. Evaluations of other data, not recomputed: 1." in out
    edit(model / "eval/second/metrics.json", lambda content: content["stats"].update(AP=0.9))
    assert verify(capsys, model, second)[1][0] == "eval/second/metrics.json: its numbers are those of its detections"
    code, failed, out = verify(capsys, model, first)  # the card of both is checked with either
    assert code == 1 and failed == ["README.md: AP of the metadata", "README.md: table of AP"], out


def test_data_of_no_evaluation_fails_all(two, tmp_path, capsys):
    model, first, _ = two
    shutil.copytree(first, tmp_path / "third")
    edit(tmp_path / "third/annotations/instances_val.json", lambda content: content["annotations"].pop())
    code, failed, _ = verify(capsys, model, tmp_path / "third")
    assert (code, failed) == (1, ["eval/metrics.json: annotations", "eval/second/metrics.json: annotations"])


def test_an_evaluation_can_be_named(two, tmp_path, capsys):
    model, first, second = two
    shutil.copytree(model / "eval/second", tmp_path / "elsewhere")
    for name in ("second", "more pets", "more pets/val", str(model / "eval/second/metrics.json")):
        code, failed, out = verify(capsys, model, second, "--evaluation", name)
        assert (code, failed) == (0, []) and "skipped eval/metrics.json: of pets, val" in out, out
    assert verify(capsys, model, second, "--evaluation", str(tmp_path / "elsewhere/metrics.json"))[0] == 0
    assert verify(capsys, model, first, "--evaluation", "second")[:2] == (1, ["eval/second/metrics.json: annotations"])
    code, _, out = verify(capsys, model, first, "--evaluation", "none")
    assert code == 2
    assert "'none' is no evaluation in" in out and "metrics.json (pets/val), second/metrics.json (more pets/val)" in out
    shutil.copytree(model / "eval/second", model / "eval/third")
    code, _, out = verify(capsys, model, second, "--evaluation", "more pets")
    assert code == 2 and "'more pets' is the name of 2 evaluations" in out
