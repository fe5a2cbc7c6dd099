from __future__ import annotations

import pytest

from ld_hub.cli.main import main


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "shapes"
    assert main(["data", "demo", str(out), "--train_images", "5", "--val_images", "3", "--image_size", "64"]) == 0
    return out


def test_demo_then_doctor(demo, capsys):
    assert main(["data", "doctor", str(demo), "--split", "val", "--check_images"]) == 0
    out = capsys.readouterr().out
    assert "images          3" in out
    assert "images opened   3" in out
    assert out.rstrip().endswith("No problems.")


def test_doctor_says_no_by_its_exit_code(demo, capsys):
    lost = demo / "train" / "000002.jpg"
    lost.rename(demo / "lost.jpg")
    try:
        arguments = ["--images", str(demo / "train"), "--annotations", str(demo / "annotations/instances_train.json")]
        assert main(["data", "doctor", *arguments]) == 1
        assert "000002.jpg" in capsys.readouterr().out
    finally:
        (demo / "lost.jpg").rename(lost)


def test_errors_are_one_line(tmp_path, capsys):
    assert main(["data", "doctor", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ld-hub: error: The data directory")
    assert error.count("\n") == 1


def test_show_draws_what_training_sees(demo, tmp_path, capsys):
    from PIL import Image

    out = tmp_path / "p.png"
    flags = ["--augment", "strong", "--mixup", "0", "--image_size", "64", "64", "--number", "6", "--per_row", "3"]
    assert main(["data", "show", str(demo), *flags, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "6 images of" in said and "mosaic 0.5" in said and "mixup" not in said
    with Image.open(out) as sheet:
        assert sheet.width > 3 * 448 and sheet.height > 2 * 448


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--mosaic", "3"], "mosaic is 3.0; it must be between 0 and 1"),
        (["--copy_paste", "3"], "copy_paste is 3.0; it must be between 0 and 1"),
        (["--copy_paste", "0.3"], "has no outlines of objects"),
        (["--number", "0"], "at least 1"),
        (["--out", "p.txt"], "no picture format"),
        (["--split", "val2"], "No annotations of the split 'val2'"),
    ],
)
def test_show_refuses_by_name(demo, tmp_path, monkeypatch, capsys, flags, said):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "show", str(demo), *flags]) == 2
    assert said in capsys.readouterr().err
