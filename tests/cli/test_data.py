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
