"""The verb show, from arguments to a picture and messages."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from ld_hub.analysis.idea_pictures import STUDENT, TEACHER, WIDTH
from ld_hub.cli import verb_show
from ld_hub.cli.main import main
from ld_hub.demo import make_demo_dataset
from ld_hub.demo.scene import CLASSES
from tests.analysis.conftest import untrained


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Demo data, and directories of a student, a teacher, a detector of points and one that is sure of nothing."""
    root = tmp_path_factory.mktemp("show")
    make_demo_dataset(root / "data", train_images=2, val_images=3, image_size=64, seed=5)
    for name, family, seed in (("student", "gfocal", 0), ("teacher", "gfocal", 1), ("points", "fcos", 2)):
        model = untrained(family, seed=seed)
        model.set_labels(CLASSES, range(1, 7))
        model.save_pretrained(root / name)
    model = untrained(seed=3)
    model.head.cls.bias.data.fill_(-1000.0)
    model.save_pretrained(root / "blind")
    return root


@pytest.fixture
def show(place, tmp_path, capsys, monkeypatch):
    """Runs the verb in an empty directory; returns code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, model="student", image="data/val/000001.jpg"):
        words = [str(place / model), str(place / image), "--device", "cpu", *map(str, arguments)]
        code = main(["show", *words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def has(picture: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((picture == color).all(axis=2).sum() > 100)


def test_student_and_teacher_on_an_image_of_the_data(show, place, tmp_path):
    before = sorted(place.rglob("*"))
    code, out, err = show("--teacher", place / "teacher", "--data", place / "data")
    assert code == 0, err
    assert [path.name for path in tmp_path.iterdir()] == ["show.png"] and sorted(place.rglob("*")) == before
    with Image.open(tmp_path / "show.png") as opened:
        assert opened.format == "PNG" and opened.width == WIDTH
        picture = np.asarray(opened.convert("RGB"))
    assert has(picture, STUDENT) and has(picture, TEACHER)
    assert "Objects: the boxes of data." in out and "the picture is show.png" in out and "Without" not in out
    again = tmp_path / "again.png"
    assert show("--teacher", place / "teacher", "--data", place / "data", "--split", "val", "--out", again)[0] == 0
    assert again.read_bytes() == (tmp_path / "show.png").read_bytes()  # the same every time
    whole = picture.shape[0]
    code, _, err = show("--boxes", "5,5,40,40,star", "--regions", "main,vlr", "inside_gt", "--out", "sub/few.jpg")
    assert code == 0, err
    with Image.open(tmp_path / "sub" / "few.jpg") as opened:
        assert opened.format == "JPEG" and opened.height < whole - 3 * 200  # three regions instead of ten


def test_own_detections_and_regions_without_a_teacher(show, tmp_path):
    code, out, err = show("--score", "0.4")
    assert code == 0, err
    assert "the objects are the model's own detections with a score above 0.4" in out
    assert "Without confident, gi, gi_batch. Such a region compares with a teacher, and there is none" in out
    assert (tmp_path / "show.png").is_file()


def test_a_family_of_points_has_neither_vlr_nor_bins(show, tmp_path):
    code, out, err = show("--boxes", "5,5,40,40", "30,20,60,60,star", "--object", 2, model="points")
    assert code == 0, err
    assert "Without vlr, main+vlr, fine_grained. Such a region needs anchors" in out and "2 objects" in out
    assert (tmp_path / "show.png").is_file()


BOX = ["--boxes", "5,5,40,40"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--teacher", "gfl_r50", *BOX], "Unknown model 'gfl_r50'. Did you mean 'gfocal_r50'?"),
        (["--teacher", "no/such/place", *BOX], "'no/such/place' is neither a registered model nor a directory"),
        ([*BOX, "--regions", "main,vrl"], "Unknown region 'vrl'. Close matches: vlr"),
        ([*BOX, "--regions", "gi"], "The region 'gi' compares with a teacher"),
        (["--boxes"], "--boxes: no box follows"),
        (["--boxes", "1,2,3"], "The box '1,2,3' is not x1,y1,x2,y2"),
        (["--boxes", "5,5,5,9"], "The box '5,5,5,9' has no area"),
        (["--boxes", "90,5,95,9"], "lies off the image, which is 64x64 px"),
        ([*BOX, "--object", 2], "There is no object 2: the photograph has the object 1 only"),
        ([*BOX, "--object", 0], "--object 0: objects are numbered from 1"),
        ([*BOX, "--score", 1], "--score 1: expected"),
        ([*BOX, "--out", "show.xyz"], "'.xyz' is no picture format"),
        ([*BOX, "--out", "."], "--out . is a directory; name a file"),
        ([*BOX, "--device", "tpu9"], "Device 'tpu9'"),
        ([*BOX, "--data", "."], "--data and --boxes both say where the objects are"),
        (["--data", "nowhere"], "--data nowhere: there is no such place"),
        (["--data", "."], "No annotations of the split 'val'"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(show, tmp_path, arguments, said):
    code, out, err = show(*arguments)
    assert (code, out) == (2, "") and said in err and len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_wrong_models_images_and_data(show, place, tmp_path):
    text, other = tmp_path / "text.jpg", tmp_path / "other.jpg"
    text.write_text("no picture")
    shutil.copy(place / "data/val/000001.jpg", other)
    for options, arguments, said in (
        ({"image": "nothing.jpg"}, BOX, "No image file"),
        ({"image": "data"}, BOX, "No image file"),
        ({"image": text}, BOX, "text.jpg: not an image"),
        ({"image": other}, ["--data", place / "data"], "'other.jpg' is not among the images of"),
        ({"model": "stundet"}, BOX, "stundet"),
        ({"model": "data"}, BOX, "config.json"),
        ({"model": "blind"}, [], "finds nothing with a score above 0.3"),
    ):
        code, out, err = show(*arguments, **options)
        assert (code, out) == (2, "") and said in err and len(err.splitlines()) == 1, err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.jpg", "text.jpg"]


def test_help_teaches_by_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["show", "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and "ld-hub show ld_hub_demo/student_vlr" in text and "draw_ideas(gather(" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_the_python_of_the_help_runs(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = verb_show._EPILOG.partition("in Python:\n")[2]
    names = {"image": Image.new("RGB", (200, 260)), "student": untrained(seed=0), "teacher": untrained(seed=1)}
    exec(compile(textwrap.dedent(code), "help", "exec"), names)
    with Image.open("ideas.png") as opened:
        assert opened.width == WIDTH and names["seen"].names == ("dog",)


def test_faults_that_need_no_model_are_found_without_torch(tmp_path):
    """What is wrong with a path or a flag is said at once."""
    code = (
        "import sys\n"
        "from ld_hub.cli import verb_show\n"
        "from types import SimpleNamespace as Names\n"
        "args = dict(out='a.png', image='nothing.jpg', data=None, boxes=None, object=None, score=0.3)\n"
        "before = set(sys.modules)\n"
        "try:\n    verb_show._check(Names(**args), [])\n"
        "except FileNotFoundError:\n    print(sorted({m.split('.')[0] for m in set(sys.modules) - before}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "PIL" in done.stdout and "torch" not in done.stdout and "timm" not in done.stdout
