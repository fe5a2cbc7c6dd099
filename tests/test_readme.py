"""What README and the pages of examples/ show runs as it stands: every command that one types, every Python block.

A page's blocks run in their order in one directory, where `mine/` and the other names of data that pages use are small
data sets. A command gets flags behind its own that make it small; what is only parsed stands in `PARSED`, with the
reason. A command of a kind that is not known here fails.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import json
import re
import shlex
from pathlib import Path

import pytest
import timm
import torch
from accelerate.commands.launch import launch_command_parser

from examples.reproduce.rows import ROWS
from ld_hub.cli.main import VERBS, main
from ld_hub.distillation import RECIPES, TERMS, Recipe
from ld_hub.errors import LdHubError
from ld_hub.hub import read_config, save_safetensors
from ld_hub.launch.commands import TRAIN
from ld_hub.launch.flag_parser import parse
from ld_hub.models.factory import create_model
from ld_hub.registry import Registry
from tests.support.commands import distillation
from tests.support.hub_client import connected

hub = pytest.fixture(connected)
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = ["README.md", "examples/GUIDE.md", "examples/README.md", "examples/methods.md"]
MEASUREMENTS = sorted(str(file.relative_to(ROOT)) for file in ROOT.glob("examples/*/README.md"))
Block = tuple[str, str]  # language and text

# Behind the flags of a command; the later one wins.
_SHAPE = "--backbone test_resnet --fpn_channels 16 --head_width 16 --head_depth 1 --pretrained_backbone false"
_SHORT = "--steps 2 --schedule null --epochs null --batch_size 2 --workers 0 --short_sides 48 64 --image_size 64 64"
_TRAIN = f"{_SHAPE} {_SHORT} --warmup_steps 0 --log_every 1 --precision no"
SMALL = {
    "train": _TRAIN,
    "distill": f"{_TRAIN} --teacher_backbone test_resnet --teacher_pretrained_backbone false",
    "eval": "--workers 0 --device cpu",
    "analyze": "--workers 0 --device cpu",
    "sweep": "--workers 0 --device cpu",
    "verify": "--workers 0 --device cpu",
    "predict": "--device cpu",
    "benchmark": "--size 64 64 --repeats 1 --batch_size 1 --device cpu",
}
PLOTS = ("ld-hub analyze", "ld-hub curves")  # parsed alone where the extra `plot` is not installed
INSTEAD = {
    "--checkpoint gfocal_r18_ld_r101": "--checkpoint runs/alone/model",  # what would be downloaded
    "vit_small_patch16_dinov3.lvd1689m": "test_vit --feature_teacher_checkpoint vit.safetensors",  # likewise
    "--compare_alone --seeds 3": "--compare_alone",  # nine runs
}
PARSED = {
    "pip install -e .": "the environment of the tests is one",
    'pip install -e ".[test]"': "what CI types before the tests",
    "pytest -n auto": "what CI types to run the tests",
    "ld-hub demo": "the fixture `demo` runs it, with fewer images and steps, and the pages look at what it has made",
    "ld-hub convert FILE.pth DIR --model gfocal_r50": "a file to be downloaded; tests/cli/test_convert.py has others",
    "accelerate launch -m ld_hub.distill --config examples/reproduce/gfocal_r50_bckd_r101.yaml --data coco/": (
        "its teacher is to be downloaded; tests/examples/test_reproduce.py runs two steps of each file"
    ),
    "ld-hub app runs/r101/model runs/alone/model runs/vlr/model --images photos/": (
        "it serves a page until it is interrupted, and takes gradio; tests/app has others"
    ),
}


def blocks(page: str) -> list[Block]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    return [(language or "sh", text) for language, text in found]


def commands(text: str) -> list[str]:
    """What a block of shell lines types, one command each: without comments, loops and what loops consist of."""
    lines = text.replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines for part in re.split(r" && |; (?:do )?", line.split("  #")[0])]
    return [" ".join(part.split()) for part in parts if part and not re.match(r"(for \w+ in|done$)", part)]


def typed(pages: list[str]) -> list[str]:
    return [line for page in pages for language, text in blocks(page) if language == "sh" for line in commands(text)]


def words_of(command: str) -> list[str]:
    """Its words, with what stands for a seed, say, filled in."""
    return shlex.split(command.replace("$seed", "1"))


def launched(words: list[str]) -> tuple[str, list[str]] | None:
    """Which of the two commands of `accelerate launch` or `python -m` is typed, and its arguments."""
    if words[0] == "ld-hub" and words[1] in ("train", "distill"):
        return words[1], words[2:]
    if words[:2] == ["accelerate", "launch"] and "-m" in words:
        launch_command_parser().parse_args(words[2:])
    elif words[:2] != ["python", "-m"]:
        return None
    module = words[words.index("-m") + 1]
    return (module[len("ld_hub.") :], words[words.index("-m") + 2 :]) if module.startswith("ld_hub.") else None


def check(command: str) -> None:
    """Parse a command as what it calls would, without doing anything."""
    words = words_of(command)
    training = launched(words)
    if training is not None:
        name, arguments = training
        assert name in ("train", "distill"), command
        distillation(arguments) if name == "distill" else parse(TRAIN, arguments)
    elif words[0] == "ld-hub":
        parser = argparse.ArgumentParser()
        importlib.import_module(VERBS[words[1]].module).add_parser(parser.add_subparsers(dest="verb"))
        parser.parse_args(words[1:])
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]), command
    elif words[0] == "python" or words[0].startswith("examples/"):
        script = words[1] if words[0] == "python" else words[0]
        assert (ROOT / script).is_file(), f"{command}: there is no {script}"
    else:
        assert words[0] == "cp" or command in PARSED, f"tests/test_readme.py does not know how to run: {command}"


def run(command: str) -> None:
    """Run a command in this process, with the flags that make it small."""
    if command in PARSED or (command.startswith(PLOTS) and not importlib.util.find_spec("matplotlib")):
        return check(command)
    for words, others in INSTEAD.items():
        command = command.replace(words, others)
    words = words_of(command)
    training = launched(words)
    if training is not None:
        name, arguments = training
        flags = SMALL[name].replace("--short_sides 48 64 ", "") if "--cache_teacher" in arguments else SMALL[name]
        code = importlib.import_module(f"ld_hub.{name}").main([*arguments, *flags.split()])
    else:
        assert words[0] == "ld-hub", f"tests/test_readme.py does not know how to run: {command}"
        code = main([*words[1:], *SMALL.get(words[1], "").split()])
    assert code == 0, command


@pytest.fixture
def place(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with what the pages take for given: data sets, the demo's results, two teachers."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    links = {
        "ld_hub_demo": demo,
        "coco": demo / "data",
        "photos": demo / "data/val",
        "pool": demo / "data/train",
        "examples": ROOT / "examples",
    }
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    person_data(demo / "data", tmp_path / "mine")
    assert main(["data", "convert", "mine", "VOCdevkit", "--to", "voc"]) == 0
    for name, called in (("r101", "pedestrian"), ("x101", "person")):
        teacher = create_model(demo / "teacher")
        teacher.set_labels([called if label == "star" else label for label in teacher.label_names])
        teacher.save_pretrained(tmp_path / name)
    save_safetensors(timm.create_model("test_vit").state_dict(), tmp_path / "vit.safetensors")
    for page in PAGES:
        for recipe in [text for language, text in blocks(page) if language == "yaml"]:
            (tmp_path / "mine.yaml").write_text(recipe)
    registries: tuple[Registry, ...] = (RECIPES, TERMS)
    for registry in registries:  # what pages register stays here
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    return tmp_path


def person_data(demo_data: Path, directory: Path) -> None:
    """The demo's data with stars that are called persons, as the data sets of the pages have some."""
    (directory / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (directory / split).symlink_to(demo_data / split)
    for file in (demo_data / "annotations").glob("*.json"):
        text = file.read_text()
        assert text.count('"star"') == 1
        (directory / "annotations" / file.name).write_text(text.replace('"star"', '"person"'))


def follow(page: str) -> None:
    """Do what a page shows, from its first block to its last."""
    names: dict[str, object] = {}
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text.replace("steps=20", "steps=2, workers=0"), page, "exec"), names)
        elif language == "sh":
            for command in commands(text):
                run(command)


def test_readme(place: Path, hub: object) -> None:
    follow("README.md")
    assert (place / "found.png").is_file() and len(list((place / "pictures").glob("*.jpg"))) == 12
    assert (place / "runs/tiny/model/model.safetensors").is_file()
    assert read_config(place / "runs/gfocal_r18_vlr_r101/model")["recipe"]["name"] == "vlr"
    assert (place / "show.png").is_file()
    assert (place / "report/report.html").is_file() or not importlib.util.find_spec("matplotlib")


def test_guide(place: Path, hub: object) -> None:
    follow("examples/GUIDE.md")
    assert (place / "my_model/config.json").is_file() and (place / "mine_as_yolo/data.yaml").is_file()
    assert read_config(place / "runs/gfocal_r18_bckd_r101/model")["recipe"]["balance"] == "gradient"
    assert (place / "curves/curves.csv").is_file() or not importlib.util.find_spec("matplotlib")


def test_methods(place: Path) -> None:
    follow("examples/methods.md")
    recipe = Recipe.from_dict(read_config(place / "runs/mine/model")["recipe"])
    assert (recipe.terms["ld"].temperature, recipe.terms["gap"].kind) == (5.0, "score_gap")
    losses = json.loads((place / "runs/mine/metrics.jsonl").read_text().splitlines()[0])
    assert losses["distill_ld"] > 0 and losses["distill_gap"] >= 0


def test_the_recipe_is_one(tmp_path: Path) -> None:
    (block,) = [text for page in PAGES for language, text in blocks(page) if language == "yaml"]
    (tmp_path / "mine.yaml").write_text(block)
    _, recipe, _ = distillation(["gfocal_r18", "--teacher", "r101", "--recipe", str(tmp_path / "mine.yaml")])
    assert recipe.name == "mine" and recipe.summary.startswith("edges in")
    assert (recipe.terms["ld_vlr"].region, recipe.terms["feature"].last_step) == ("main+vlr", 60000)


def test_every_page_is_followed() -> None:
    here = {str(file.relative_to(ROOT)) for file in (ROOT / "README.md", *ROOT.glob("examples/*.md"))}
    assert here == set(PAGES)
    assert {language for page in PAGES for language, _ in blocks(page)} == {"sh", "python", "yaml"}
    assert not blocks("examples/README.md")
    assert len([1 for language, _ in blocks("README.md") if language == "python"]) >= 2


def test_no_reason_for_parsing_alone_is_left_over() -> None:
    assert set(PARSED) <= set(typed(PAGES))
    assert all(any(words in command for command in typed(PAGES)) for words in INSTEAD)


@pytest.mark.parametrize("page", MEASUREMENTS)
def test_the_commands_of_measurements_parse(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They run for minutes to hours; their results are what the page shows."""
    monkeypatch.chdir(ROOT)
    assert typed([page])
    for command in typed([page]):
        check(command)


WRONG = [
    "ld-hub vanish", "ld-hub eval m --date d", "python -m ld_hub.distill gfocal_r18 --no 1", "python examples/none.py",
    "make all",
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_exist_fails(wrong: str) -> None:
    with pytest.raises((KeyError, SystemExit, AssertionError, LdHubError)):
        check(wrong)


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """What each verb's --help prints."""
    found = {}
    for verb in VERBS:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
            main([verb, "--help"])
        assert stop.value.code == 0
        found[verb] = out.getvalue()
    return found


@pytest.mark.parametrize("page", [*PAGES, *MEASUREMENTS])
def test_verbs_and_flags_in_the_text_exist(page: str, helps: dict[str, str]) -> None:
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`([^`]+)`", text):
        words = code.split()
        if words[0] == "ld-hub" and words[1:2] != ["VERB"]:
            assert words[1] in VERBS, code
        shown = helps[words[1]] if words[0] == "ld-hub" else "\n".join(helps.values())
        for flag in [word for word in words if word.startswith("--") and not word.startswith("--terms")]:
            assert re.search(rf"{flag}\b", shown), f"{page}: `{code}`: no verb has {flag}"


@pytest.mark.parametrize("page", [*PAGES, *MEASUREMENTS, "model_cards/README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:href|src)="([^"]+)"', text)
    missing = [to for to in targets if "://" not in to and not ((ROOT / page).parent / to.partition("#")[0]).exists()]
    assert missing == []


TABLES = [("model_cards/README.md", "models", "list"), ("examples/methods.md", "recipes", "recipes")]


@pytest.mark.parametrize(("page", "table", "verb"), TABLES)
def test_the_tables_are_what_the_commands_print(
    page: str, table: str, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = (ROOT / page).read_text().partition(f"<!-- {table}:begin -->\n")[2].partition(f"<!-- {table}:end -->")[0]
    assert main([verb, "--markdown"]) == 0
    assert shown == capsys.readouterr().out, f"put the output of `ld-hub {verb} --markdown` into {page}"


def test_the_front_page_is_short_and_its_first_screen_tells() -> None:
    lines = README.splitlines()
    assert len(lines) <= 200
    screen = "\n".join(lines[:40])
    for question in ("What do I get?", "What does it cost?", "Does it help?", "What does it not do?", "ld_hub.distill"):
        assert question in screen, question


def test_measured_and_published_numbers_of_the_front_page_are_those_of_the_examples() -> None:
    tables = "\n".join((ROOT / page).read_text() for page in MEASUREMENTS)
    measured = re.findall(r"\d+\.\d ± \d+\.\d", README)
    assert len(measured) > 5 and [number for number in measured if number not in tables] == []
    published = dict(re.findall(r"`(\w+)`\s(\d\d\.\d)(?! ±)", README))
    known = {row.recipe: str(row.ap) for row in ROWS if row.file == f"gfocal_r50_{row.recipe}_r101"}
    assert len(published) >= 4 and published == {recipe: known[recipe] for recipe in published}


def test_the_map_of_examples_has_a_line_for_each() -> None:
    shown = {file.name for file in (ROOT / "examples").iterdir() if not file.name.startswith(("_", "README"))}
    lines = [line for line in (ROOT / "examples/README.md").read_text().splitlines() if line.startswith("| [")]
    assert sorted(line.partition("[")[2].partition("]")[0] for line in lines) == sorted(shown)
