"""Cards: facts of a model, its run and its evaluations, and nothing besides."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from ld_hub.cli.main import main
from ld_hub.cli.verb_card import every_card, published_card
from ld_hub.data import load_coco
from ld_hub.distillation import get_recipe, make_teaching
from ld_hub.engine import DistillationTrainer, TrainConfig
from ld_hub.engine.identity import weights_digest
from ld_hub.errors import CheckpointError, EvaluationError
from ld_hub.hub.card_file import read_metadata
from ld_hub.hub.evidence import Evidence
from ld_hub.models.factory import create_model
from ld_hub.models.label_names import default_labels
from ld_hub.models.names import available
from ld_hub.publishing.cards import model_card, recipe_section
from ld_hub.publishing.citations import bibtex
from ld_hub.publishing.facts import backbone_repo, saved_hash
from ld_hub.publishing.tag_cards import registered_tags
from ld_hub.registry import MODELS
from ld_hub.structures import Teaching
from tests.support.judged import STRANGE, judge, lively, write_data

CARDS = Path(__file__).parents[2] / "model_cards"


def artefacts(contents):
    """The contents of files, read."""
    return [Evidence.from_dict(content) for content in contents]


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """A distillation of one step, with evaluations of student, teacher and the same model untaught."""
    root = tmp_path_factory.mktemp("story")
    teacher, alone, student = lively(seed=1, head_depth=2), lively(seed=2), lively(seed=3)
    data = write_data(root / "my data", student)
    (data / "train").symlink_to(data / "val")
    (data / "annotations" / "instances_train.json").write_bytes((data / "annotations/instances_val.json").read_bytes())
    run = root / "run"
    config = TrainConfig(output_dir=str(run), steps=1, batch_size=2, workers=0, lr=1e-5, warmup_steps=0)
    text = f"name: gfocal_tiny\ndata: {data}\npretrained_backbone: false\nteacher: hf-hub:org/teacher@abc123\n"
    trainer = DistillationTrainer(
        student, teacher, "vlr", train_dataset=load_coco(data, "train"), config=config,
        attachments={"arguments.yaml": text},
    )  # fmt: skip
    trainer.train()
    evaluations = [judge(run / "model", data, run / "model" / "eval")]
    for name, model in (("teacher", teacher), ("alone", alone)):
        model.save_pretrained(root / name)
        evaluations.append(judge(root / name, data, run / "model" / "eval" / name))
    return create_model(run / "model"), run, evaluations


def test_a_card_holds_what_was_measured(story):
    model, run, evaluations = story
    text = model_card(model, repo_id="me/ducks", license="mit", evaluations=artefacts(evaluations), run=run)
    data = ModelCard(text).data
    stats = evaluations[0]["stats"]
    kinds = {"map": "AP", "map_50": "AP50", "map_75": "AP75", "map_small": "APs", "map_medium": "APm"}
    expected = {kind: round(stats[name], 4) for kind, name in kinds.items() if stats[name] is not None}
    assert 0 < stats["AP"] < 1 and stats["APl"] is None
    assert {r.metric_type: r.metric_value for r in data.eval_results} == expected
    assert (data.license, data.datasets, data.base_model) == ("mit", ["my-data"], None)
    assert data.tags == ["gfocal", "distillation", "recipe:vlr", "teacher:gfocal_tiny"]
    for title, content in zip(("this model", "teacher: ", "without distillation: "), evaluations, strict=True):
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {title}"))
        assert line.split("|")[2].strip() == f"{100 * content['stats']['AP']:.1f}"
    assert 'create_model("hf-hub:me/ducks", pretrained=True)' in text
    assert "https://huggingface.co/org/teacher/tree/abc123" in text
    assert evaluations[1]["weights"]["tensors"] in text
    assert "-m ld_hub.distill gfocal_tiny --config arguments.yaml" in text and "teacher: hf-hub:org/teacher" in text
    assert "@inproceedings{zheng2022ld" in text and "@inproceedings{li2020gfl" in text
    assert "no large (above 96² px) objects" in text
    assert not re.search(r"N/A|None|\bnan\b|speed", text)


def test_the_recipe_and_the_training_stand_in_tables(story):
    """Each term's row against what the trainer recorded; a setting that is off has no cell."""
    model, run, _ = story
    rows = {}
    for line in model_card(model, run=run).splitlines():
        cells = [cell.strip().replace("\\", "").strip("`") for cell in line.strip("|").split("|")]
        rows[cells[0]] = cells[1:]
    terms = model.teaching.terms
    assert set(terms) == {"kd", "ld", "ld_vlr"}
    for name, term in terms.items():
        kind, region, weight, temperature, settings = rows[name]
        assert (kind, region) == (term["kind"], term["region"])
        assert (float(weight), float(temperature)) == (term["weight"], term["temperature"])
        assert f"kl_divisor={term['kl_divisor']}" in settings and not re.search("None|False|levels", settings)
    assert rows["term"] == ["kind", "region", "weight", "temperature", "settings"]  # no first or last step
    assert rows["steps"] == ["1 of 2 images"] and rows["images"] == ["4"] and "precision" not in rows
    settings = json.loads((run / "config.json").read_text())
    assert settings["train_annotations_sha256"] in rows["annotations"][0]


def test_licences_are_of_the_weights_and_of_the_backbone_that_was_the_start(story, tmp_path):
    _, run, _ = story
    (tmp_path / "config.json").write_text((run / "config.json").read_text())
    (tmp_path / "arguments.yaml").write_text("pretrained_backbone: true\n")
    model = lively(("cat",))
    model.config = replace(model.config, backbone="r18")
    text = model_card(model, license="mit", run=tmp_path)
    assert read_metadata(text)["base_model"] == "timm/resnet18.tv_in1k"
    start = "The backbone started from [timm/resnet18.tv_in1k](https://huggingface.co/timm/resnet18.tv_in1k)"
    assert f"## Licences\n\nThese weights: mit. {start} (bsd-3-clause)." in text
    (tmp_path / "arguments.yaml").write_text("pretrained_backbone: true\ncheckpoint: other/model\n")
    text = model_card(model, run=tmp_path)
    assert "base_model" not in read_metadata(text) and "## Licences" not in text


@pytest.mark.parametrize(("precision", "shown"), [("no", "float32"), ("bf16", "bf16")])
def test_precision_in_words_of_tensors(story, tmp_path, precision, shown):
    settings = json.loads((story[1] / "config.json").read_text())
    settings["config"]["precision"] = precision
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert f"| precision | {shown} |" in model_card(lively(("cat",)), run=tmp_path)


def test_published_figures_stand_apart_with_their_source():
    """A model of a published name: the paper's AP is named as another's, and is not in the metadata."""
    model, other = lively(default_labels(80)[0]), lively()
    model.name = other.name = "gfocal_r18_vlr_r101"
    (full,) = (name for name in registered_tags() if name.startswith("gfocal_r18_vlr_r101."))
    cfg = MODELS[model.name].pretrained[full.partition(".")[2]]
    assert "## Average precision" not in model_card(other)  # of other classes: nothing to set beside
    text = model_card(model)
    part = text[text.index("## Average precision") :].partition("\n## ")[0]
    assert "Published for weights of this name, which are not these; not measured here:" in part
    assert f"| this name | `{full}` | {cfg.ap:.1f} | {cfg.metric} |" in part and f"([paper]({cfg.paper}))" in part
    assert "model-index" not in read_metadata(text) and text.count(f"{cfg.ap:.1f} |") == 1


def test_strange_labels_are_shown_as_they_are(story):
    model, run, evaluations = story
    text = model_card(model, evaluations=artefacts(evaluations), run=run)
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text.split("---\n", 2)[2])
    tags = set(re.findall(r"<(\w+)", html))
    assert tags <= {"h1", "h2", "p", "pre", "code", "table", "thead", "tbody", "tr", "th", "td", "details", "summary",
                    "ul", "li", "a"}, tags  # fmt: skip
    assert set(re.findall(r'href="([^"]*)"', html)) == {"https://huggingface.co/org/teacher/tree/abc123"}
    assert "<td>&quot;&lt;/td&gt;&lt;script&gt;alert(1)&lt;/script&gt;</td>" in html
    for name in STRANGE[1:3]:
        assert f"<td>{name}</td>" in html
    assert "<td>قطة \\u202e cat</td>" in html and "\u202e" not in text


def test_what_is_not_known_is_absent():
    model = lively(("cat",))
    text = model_card(model)
    assert read_metadata(text) == {"library_name": "ld_hub", "pipeline_tag": "object-detection", "tags": ["gfocal"]}
    titles = re.findall(r"^## (.*)", text, re.MULTILINE)
    assert titles == ["Use", "Size", "Citation"]


def test_only_what_eval_wrote_about_these_weights_enters(story):
    model, run, evaluations = story
    own, teacher, alone = evaluations
    with pytest.raises(EvaluationError, match="Only what `ld-hub eval` writes"):
        model_card(model, evaluations=artefacts([{"stats": {"AP": 0.9}}]), run=run)
    with pytest.raises(EvaluationError, match="of other weights"):
        model_card(lively(seed=9), evaluations=artefacts([own]))
    stranger = {**teacher, "weights": {**teacher["weights"], "tensors": "0" * 16}}
    with pytest.raises(EvaluationError, match="of other weights"):
        model_card(model, evaluations=artefacts([own, stranger]), run=run)
    other = {**teacher, "data": {**teacher["data"], "sha256": "0" * 64}}
    text = model_card(model, evaluations=artefacts([own, other]), run=run)
    assert "| teacher" not in text and "| this model" in text
    assert "## Average precision" not in model_card(model, evaluations=artefacts([teacher, alone]), run=run)


def test_hashes_of_an_evaluation(story):
    model, _, evaluations = story
    assert evaluations[0]["weights"]["sha256"] == saved_hash(model)
    assert evaluations[0]["weights"]["tensors"] == weights_digest(model)


def test_speed_and_pictures_are_shown_where_they_are(story, tmp_path):
    model, run, _ = story
    copy = tmp_path / "run"
    copy.mkdir()
    (copy / "config.json").write_text((run / "config.json").read_text())
    work = {"batch_size": 2, "width": 64, "height": 32}
    speed = {"hardware": "Toaster | 9", "workload": work, "inference": {"images_per_second": 12.34}}
    (copy / "benchmark.json").write_text(json.dumps(speed))
    (tmp_path / "curves.png").write_bytes(b"")
    text = model_card(model, run=copy, folder=tmp_path)
    assert "12.3 images/s (2 images of 64x32; Toaster &#124; 9)" in text
    assert "(curves.png)" in text and "detections.jpg" not in text
    (copy / "config.json").write_text("[")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        model_card(model, run=copy)


def test_the_command_renews_a_card(story, tmp_path, capsys):
    _, run, evaluations = story
    assert main(["card", str(run), "--out", str(tmp_path / "README.md")]) == 0
    first = (tmp_path / "README.md").read_text()
    assert f"value: {round(evaluations[0]['stats']['AP'], 4)}" in first
    (tmp_path / "README.md").write_text(first.replace("# gfocal", "# Ducks\n\nmine gfocal") + "\nbye\n")
    assert main(["card", str(run), "--out", str(tmp_path / "README.md"), "--license", "mit"]) == 0
    again = (tmp_path / "README.md").read_text()
    assert "# Ducks\n\nmine" in again and again.endswith("bye\n") and "license: mit" in again
    assert main(["card"]) == 2 and main(["card", str(run), "--all"]) == 2
    assert "Name a model" in capsys.readouterr().err


def test_model_cards_are_in_step_with_the_registry():
    cards = every_card()
    found = {file.name: file.read_text() for file in CARDS.iterdir()}
    assert set(found) == set(cards), "run `ld-hub card --all`, and remove cards of tags that are gone"
    assert [name for name in cards if found[name] != cards[name]] == [], "run `ld-hub card --all`"
    assert len(found) == 1 + sum(len(MODELS[name].pretrained) for name in MODELS)


@pytest.mark.parametrize("full", registered_tags())
def test_each_card_says_whose_its_numbers_are(full):
    text = (CARDS / f"{full}.md").read_text()
    name, _, tag = full.partition(".")
    cfg = MODELS[name].pretrained[tag]
    data = ModelCard(text).data
    assert data.eval_results is None and data.library_name == "ld_hub"
    assert "As published; this library has not measured it." in text
    assert f"| these weights | `{full}` | {cfg.ap:.1f} |" in text and cfg.source in text
    assert cfg.note[1:] in text.replace("&#95;", "_").replace("\\", "")
    assert ("file not run" in text) == available(cfg)
    assert (data.license or "") == cfg.license.lower()


def test_rows_of_a_published_card():
    text = published_card("gfocal_r50_ld_r101.mmdet_1x_coco")
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in text.splitlines() if line.startswith("| ")]
    assert ["these weights", "`gfocal_r50_ld_r101.mmdet_1x_coco`", "41.0"] in rows
    assert ["teacher", "`gfocal_r101.mmdet_ms2x_coco`", "44.7"] in rows
    assert ["without distillation", "`gfocal_r50.mmdet_1x_coco`", "40.2"] in rows  # 42.9 is of another schedule
    assert read_metadata(text)["base_model"] == "timm/resnet50.tv_in1k"


def test_backbones_and_papers():
    assert backbone_repo("r18") == "timm/resnet18.tv_in1k"
    assert backbone_repo("r50_caffe") is None
    assert backbone_repo("convnext_tiny") == "timm/convnext_tiny.in12k_ft_in1k"
    entries = bibtex(["https://arxiv.org/abs/2102.12252", "2102.12252", "https://arxiv.org/abs/1503.02531", "no"])
    assert entries.count("@") == 2 and "journal = {arXiv:1503.02531}" in entries


def test_a_teacher_from_the_hub_is_named_with_its_commit(story):
    model, run, evaluations = story
    commit = "0123456789abcdef0123456789abcdef01234567"
    model = copy.copy(model)
    model.teaching = replace(model.teaching, origins={"gfocal_tiny": f"org/teacher@{commit}"})
    text = model_card(model, repo_id="me/ducks", license="mit", evaluations=artefacts(evaluations), run=run)
    assert f"[org/teacher](https://huggingface.co/org/teacher/tree/{commit}), commit `{commit}`" in text
    model.teaching = replace(model.teaching, origins={"gfocal_tiny": 'evil"</td><b>@y'})
    shown = model_card(model, repo_id="me/ducks", license="mit", evaluations=artefacts(evaluations), run=run)
    assert "evil" not in shown and "Distilled from" in shown
    for strange in ("org/teacher", {"gfocal_tiny": None}):  # no card is reached with these
        with pytest.raises(CheckpointError, match="origins"):
            Teaching.from_dict({**model.teaching.to_dict(), "teacher_origin": strange})


def test_shares_of_a_run_stand_in_percent():
    recipe = get_recipe("ld").with_terms(
        ld={"first_step": 0.25, "last_step": 1.0, "decay": "cosine", "decay_from": 0.5}
    )
    row = next(line for line in recipe_section(make_teaching(recipe)).splitlines() if line.startswith("| `ld` |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[5:7] == ["25%", "end"] and r"decay=cosine, decay\_from=0.5" in cells[7]
