"""The report of untrained detectors on a few images: its numbers, its page, its files."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from ld_hub.analysis import NUMBERS, REPORT, Subject, analyze, sections
from ld_hub.analysis.exhibits import Album
from ld_hub.analysis.idea_pictures import draw_ideas
from ld_hub.analysis.ideas import gather
from ld_hub.analysis.marks import COLORS, marks_of
from ld_hub.analysis.photograph import Photograph
from ld_hub.data import load_data
from ld_hub.drawing import class_color
from ld_hub.engine.evaluate import evaluate
from ld_hub.errors import ConfigError, DataError, EvaluationError
from ld_hub.evaluation import read_ground_truth
from ld_hub.evaluation.found import Found
from ld_hub.evaluation.matching import overlaps
from ld_hub.evaluation.studies import calibration, confusion, per_image, precision_recall
from ld_hub.evaluation.tide import tide_errors
from ld_hub.preprocessing import DataConfig, load_image, resize_shape
from ld_hub.preprocessing.transforms import Preprocessor, collate
from tests.analysis.conftest import EVIL, NAMES, untrained
from tests.analysis.parsing import Page


@pytest.fixture(scope="module")
def made(scenes, tmp_path_factory):
    """Three detectors: a pair that fits, and one that sees other sizes and has no bins."""
    out = tmp_path_factory.mktemp("report")
    models = {EVIL: untrained(seed=0), "student": untrained(seed=1), "other": untrained("fcos", seed=2, size=96)}
    models["student"].data_config = DataConfig(mean=(100.0,) * 3, std=(50.0,) * 3, image_size=(64, 64))
    subjects = [Subject(name, model, f"from/{name}") for name, model in models.items()]
    stages = []

    def progress(title, steps):
        stages.append([title, steps, 0])
        return lambda stage=stages[-1]: stage.__setitem__(2, stage[2] + 1)

    options = {"score": 0.2, "batch_size": 4, "workers": 0, "progress": progress}
    analysis = analyze(subjects, scenes.set, out, teacher=EVIL, data="<data>", **options)
    return models, analysis, out, stages


def strict(text):
    def refuse(word):
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


def test_the_page_is_whole_and_needs_nothing_else(made):
    _, _, out, stages = made
    text = (out / REPORT).read_text(encoding="utf-8")
    seen = Page.read(text)
    assert "script" not in seen.elements and "link" not in seen.elements and "<script" not in text
    outside = [(n, v) for n, v in seen.attributes if n in {"src", "href"} and not v.startswith(("data:image/", "#"))]
    assert outside == [] and "://" not in text and "url(" not in text
    anchors = [value for name, value in seen.attributes if name == "id"]
    assert len(set(anchors)) == len(anchors)
    assert {v[1:] for n, v in seen.attributes if n == "href"} == set(anchors)
    assert seen.elements.count("img") == sum(1 for n, v in seen.attributes if n == "alt" and v) > 20
    for name in (EVIL, *NAMES):
        assert name in seen.text
    assert len(text) < 5_000_000
    assert all(steps == done for _, steps, done in stages) and len(stages) == 4  # two passes, scoring, drawing
    assert sorted(file.name for file in out.iterdir()) == [NUMBERS, REPORT]


def test_detectors_that_cannot_be_compared_are_named(made):
    text = Page.read((made[2] / REPORT).read_text(encoding="utf-8")).text
    assert f"other and {EVIL} cannot be compared place by place: they resize images differently" in text
    assert "other predicts edges as plain numbers" in text


def test_numbers_are_those_of_the_evaluation(made, scenes):
    models, analysis, out, _ = made
    content = strict((out / NUMBERS).read_text(encoding="utf-8"))
    assert content["teacher"] == EVIL and list(content["models"]) == list(models) == list(analysis.names)
    assert content["data"] == {"name": "<data>", "images": 6, "boxes": len(scenes.set.records.boxes)}
    ids, names = scenes.set.category_ids, scenes.set.label_names
    for name, model in models.items():
        metrics, evaluator = evaluate(model, scenes.set, batch_size=2, workers=0)
        rows, found = evaluator.results(), content["models"][name]
        seen = overlaps(evaluator.truth, Found.of(rows), ids)
        assert len(rows) > 50
        assert found["metrics"] == metrics.to_dict()
        assert found["tide"] == dataclasses.asdict(tide_errors(seen))
        assert found["precision_recall"] == precision_recall(seen, names).to_dict()
        assert found["confusion"] == confusion(seen, names, score=0.2).to_dict()
        assert found["calibration"] == calibration(seen).to_dict()
        images = per_image(seen, score=0.2)
        assert found["images"] == {str(k): v.to_dict() for k, v in images.items()}
        assert found["source"] == f"from/{name}"
    gains = content["gains"]["student"]
    one, other = (content["models"][name]["metrics"]["per_class"] for name in ("student", EVIL))
    known = [label for label in NAMES if one[label] is not None]
    assert 3 < len(known) < len(NAMES)  # a class without boxes has no gain, and comes last
    assert gains == {label: pytest.approx(one[label] - other[label]) if label in known else None for label in NAMES}
    assert list(gains)[: len(known)] == sorted(known, key=lambda label: other[label] - one[label])


def predict_by_hand(model, scenes):
    """Raw outputs of single images, with each image's size as the model sees it."""
    records = scenes.set.records
    for k, image_id in enumerate(records.image_ids.tolist()):
        batch = collate([Preprocessor(model.data_config)(load_image(records.paths[k].as_py()))])
        with torch.no_grad():
            yield image_id, k, model(batch.images), batch


def test_score_errors_and_edges_of_single_images(made, scenes):
    models, _, out, _ = made
    content = strict((out / NUMBERS).read_text(encoding="utf-8"))
    teacher = list(predict_by_hand(models[EVIL], scenes))
    student = list(predict_by_hand(models["student"], scenes))
    gaps = [
        (mine.cls_logits.sigmoid() - theirs.cls_logits.sigmoid()).abs().mean(dim=2)[0]
        for (_, _, mine, _), (_, _, theirs, _) in zip(student, teacher, strict=True)
    ]
    levels = content["score_errors"]["student"]["levels"]
    assert list(content["score_errors"]) == ["student"] and [row["stride"] for row in levels] == [8, 16, 32, 64, 128]
    per_level = [torch.stack(parts).mean() for parts in zip(*(g.split([64, 16, 4, 1, 1]) for g in gaps), strict=True)]
    assert [row["mean"] for row in levels] == pytest.approx([float(v) for v in per_level], rel=1e-5)
    whole = torch.stack([g.split([64, 16, 4, 1, 1])[0] for g in gaps]).mean(dim=0).view(8, 8)
    wide = whole.repeat_interleave(8, 0).repeat_interleave(8, 1)  # 64 px: a place for each
    assert np.allclose(levels[0]["map"], wide.numpy(), atol=1e-5)
    assert content["edges"] and {len(edge["detectors"]) for edge in content["edges"]} == {2}
    by_id = {image_id: (k, output, batch) for image_id, k, output, batch in teacher}
    for edge in content["edges"]:
        _, output, batch = by_id[edge["image_id"]]
        found = edge["detectors"][EVIL]
        row = int((output.box[0].softmax(dim=2) - torch.tensor(found["bins"])).abs().sum(dim=(1, 2)).argmin())
        assert torch.allclose(output.box[0, row].softmax(dim=1), torch.tensor(found["bins"]), atol=1e-5)
        box = output.decode()[0, row] / batch.scale_factors[0].repeat(2)
        assert found["box"] == pytest.approx(box.tolist(), abs=1e-3)
        x, y = (output.priors.centers[row] / batch.scale_factors[0]).tolist()
        left, top, right, bottom = (d * edge["stride"] for d in edge["true_distance"])
        assert [x - left, y - top, x + right, y + bottom] == pytest.approx(edge["box"], abs=1e-3)
    assert resize_shape(64, 64, (64, 64)) == (64, 64)  # else the cells above would be others


def test_the_ideas_are_shown_on_the_image_of_fewest_boxes(made, scenes):
    models, _, out, _ = made
    text = (out / REPORT).read_text(encoding="utf-8")
    part = text[text.index('id="ideas"') :].partition("</section>")[0]
    (data,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', part)
    records = scenes.set.records
    counts = (records.offsets[1:] - records.offsets[:-1]).tolist()
    row = min((k for k, count in enumerate(counts) if count), key=lambda k: counts[k])
    boxes = slice(int(records.offsets[row]), int(records.offsets[row + 1]))
    labels = records.labels[boxes].tolist()
    names = tuple(NAMES[label] for label in labels)
    seen = Photograph(records.load(row), records.boxes[boxes], tuple(labels), names, "Objects: the true boxes.")
    whole = gather(seen, models["student"], models[EVIL], names=("student", EVIL))
    regions = [region for region in whole.regions if region.name in {"main", "vlr", "inside_gt", "gi"}]
    expected = draw_ideas(dataclasses.replace(whole, regions=regions))
    found = Image.open(io.BytesIO(base64.b64decode(data)))
    assert found.size == expected.size
    assert np.abs(np.asarray(found, float) - np.asarray(expected, float)).mean() < 3  # a JPEG
    assert f"image {int(records.image_ids[row])} (" in part and f"student and {EVIL} on " in html.unescape(part)


def test_crowded_detections_are_those_of_the_model(made, scenes):
    models, _, out, _ = made
    content = strict((out / NUMBERS).read_text(encoding="utf-8"))
    for name, model in models.items():
        for nms in (0.6, 0.95):
            total = 0
            for _, _, output, batch in predict_by_hand(model, scenes):
                settings = type(model.postprocess_config)(score_threshold=0.2, nms_iou=nms, max_detections=1000)
                found = model.postprocess(output, batch.image_sizes, batch.scale_factors, config=settings)[0]
                total += int((found.scores > 0.2).sum())
            assert content["models"][name]["nms"][f"{nms:g}"]["detections"] == total > 0
        few, many = (content["models"][name]["nms"][key]["detections"] for key in ("0.6", "0.95"))
        assert few < many


def test_marks_agree_with_the_counts(made, scenes):
    _, analysis, _, _ = made
    truth = read_ground_truth(scenes.set.annotation_file)
    for name in analysis.names:
        for image_id, counts in analysis.judged[name].images.items():
            kinds = [mark.kind for mark in marks_of(
                image_id, truth, analysis.judged[name].rows, scenes.set.category_ids, score=0.2
            )]  # fmt: skip
            found = tuple(kinds.count(kind) for kind in ("right", "missed", "false"))
            assert found == (counts.found, counts.missed, counts.false)


def test_one_detector_alone(scenes, tmp_path):
    voc = dataclasses.replace(scenes.set, protocol="voc07")
    analyze([Subject("alone", untrained("atss", seed=3))], voc, tmp_path, workers=0)
    seen = Page.read((tmp_path / REPORT).read_text(encoding="utf-8"))
    content = strict((tmp_path / NUMBERS).read_text(encoding="utf-8"))
    assert content["models"]["alone"]["metrics"]["stats"].keys() >= {"AP", "AP50", "AP75", "AP95"}
    assert content["gains"] == {} and content["score_errors"] == {} and content["edges"] == []
    assert set(content["pictures"]) == {"best", "worst"} and content["models"]["alone"]["entropy"] is None
    assert "scores" not in [value for name, value in seen.attributes if name == "id"]
    assert "−" not in seen.text  # no differences


def test_pictures_of_many_boxes_name_some(made, monkeypatch):
    """True boxes: the first ones. Detections: false ones of the best scores, and missed ones; right ones never."""
    _, analysis, _, _ = made
    monkeypatch.setattr("ld_hub.analysis.exhibits.NAMED", 2)
    given = {}
    monkeypatch.setattr(
        "ld_hub.analysis.pictures.with_boxes",
        lambda image, boxes, labels, alt, *, texts, colors=None: given.update(texts=texts, colors=colors),
    )
    album = Album(analysis)
    image_id = max(analysis.judged[EVIL].images, key=lambda one: analysis.judged[EVIL].images[one].missed)
    counts = analysis.judged[EVIL].images[image_id]
    assert counts.missed > 1 and counts.false > 1
    album.truth(image_id, None)
    assert all(given["texts"][:2]) and not any(given["texts"][2:]) and len(given["texts"]) > 2
    album.found(EVIL, image_id, None)
    named = [color for color, text in zip(given["colors"], given["texts"], strict=True) if text]
    assert named == [COLORS["false"], COLORS["missed"]]


def test_the_classes_of_crowded_pictures_are_named_by_colour(made):
    text = (made[2] / REPORT).read_text(encoding="utf-8")
    part = text[text.index('id="nms"') :].partition("</section>")[0]
    for label, name in enumerate(NAMES):
        color = html.escape(str(class_color(label)))
        assert f'background:rgb{color}"></i>{html.escape(name, quote=True)}</span>' in part


def test_classes_without_boxes_are_one_line(made):
    _, analysis, out, _ = made
    boxes = analysis.judged["student"].metrics.boxes
    unseen = [name for name in NAMES if not boxes[name]]
    assert unseen
    text = (out / REPORT).read_text(encoding="utf-8")
    assert f"No boxes, so no AP (–): {html.escape(', '.join(unseen))}." in text
    classes = text[text.index("<h3>By class") :].partition("</table>")[0]
    assert {name for name in NAMES if f"<td>{html.escape(name, quote=True)}</td>" in classes} == set(NAMES) - set(
        unseen
    )


def test_images_without_any_object_are_refused_before_the_pass(scenes, tmp_path):
    content = json.loads((scenes.root / "annotations" / "instances_val.json").read_text(encoding="utf-8"))
    (tmp_path / "bare.json").write_text(json.dumps({**content, "annotations": []}), encoding="utf-8")
    bare = load_data(None, "val", images=scenes.root / "val", annotations=tmp_path / "bare.json")
    with pytest.raises(EvaluationError, match=r"bare\.json' has no box to be found on these 6 images"):
        analyze([Subject("one", None)], bare, tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


def test_many_classes_get_a_list_of_mistakes(made, monkeypatch):
    _, analysis, _, _ = made
    monkeypatch.setattr("ld_hub.analysis.sections.MATRIX_CLASSES", 3)
    section = sections.confusion(analysis)
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(\d+)</td><td>([\d.]+)</td></tr>", section.html())
    words = [*NAMES, "background"]
    expected = []
    for one in analysis.judged.values():
        counts = one.confusion.counts
        wrong = [(int(counts[t, p]), t, p) for t in range(7) for p in range(7) if t != p and counts[t, p]]
        for count, t, p in sorted(wrong, key=lambda item: (-item[0], item[1], item[2]))[: sections.LISTED]:
            expected.append((words[t], words[p], str(count), f"{100 * count / counts[t].sum():.1f}"))
    assert [tuple(html.unescape(cell) for cell in row) for row in rows] == expected


def test_the_same_numbers_make_the_same_files(scenes, tmp_path):
    texts = []
    for batch_size in (1, 6):
        out = tmp_path / str(batch_size)
        analyze([Subject("one", untrained(seed=4))], scenes.set.select([0, 3]), out, workers=0, batch_size=batch_size)
        texts.append([re.sub(rb"\d\.\d{5,}(e-\d+)?", b"", (out / name).read_bytes()) for name in (REPORT, NUMBERS)])
    assert texts[0][1] == texts[1][1]
    assert len(texts[0][0]) == pytest.approx(len(texts[1][0]), rel=1e-3)


def test_refusals_come_before_anything_is_written(scenes, tmp_path, monkeypatch):
    one, other = Subject("one", untrained()), Subject("other", untrained(seed=1))
    for subjects, teacher in (([one, Subject("one", other.model)], None), ([one], "other"), ([], None)):
        with pytest.raises(ConfigError, match="name of its own"):
            analyze(subjects, scenes.set, tmp_path / "out", teacher=teacher, workers=0)
    gone = scenes.set.select([1])
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 no picture")
    row = {**gone.rows[0], "path": str(broken)}
    damaged = type(gone)(gone.rows.from_list([row]), gone.label_names, gone.category_ids, gone.annotation_file)
    grad = torch.is_grad_enabled()
    with pytest.raises(DataError, match=r"broken\.jpg"):
        analyze([one], damaged, tmp_path / "out", workers=0)
    assert torch.is_grad_enabled() == grad
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install .ld_hub\[plot\]"):
        analyze([one], scenes.set, tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()
