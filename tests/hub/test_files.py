from __future__ import annotations

import os
import stat

import pytest

from ld_hub.errors import ConfigError, MissingFileError
from ld_hub.hub import atomic_directory, atomic_file, atomic_write, describe_bytes


def names(directory) -> list[str]:
    return sorted(os.listdir(directory))


def test_atomic_write_makes_parents_and_replaces(tmp_path):
    target = tmp_path / "a" / "b.txt"
    atomic_write(target, "één")
    assert target.read_bytes() == "één".encode()
    atomic_write(target, b"\x00\x01")
    assert target.read_bytes() == b"\x00\x01"
    assert names(target.parent) == ["b.txt"]


def test_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    target = atomic_write(tmp_path / "old.txt", "old")
    with pytest.raises(RuntimeError), atomic_file(target) as beside:
        beside.write_text("half")
        raise RuntimeError("disk full")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["old.txt"]


def test_temporary_name_keeps_the_suffix_and_lies_beside(tmp_path):
    with atomic_file(tmp_path / "picture.png") as beside:
        assert beside.parent == tmp_path and beside.suffix == ".png"
        assert not (tmp_path / "picture.png").exists()
        beside.write_bytes(b"x")
    assert names(tmp_path) == ["picture.png"]


@pytest.mark.skipif(os.name != "posix", reason="file modes and symbolic links of POSIX")
def test_files_have_the_usual_mode_and_links_are_followed(tmp_path):
    before = os.umask(0o022)
    try:
        atomic_write(tmp_path / "real.txt", "1")
        with atomic_directory(tmp_path / "made") as inside:
            (inside / "f").write_text("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "real.txt").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o755
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    atomic_write(tmp_path / "link.txt", "2")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "2"


def test_new_directory_appears_whole(tmp_path):
    target = tmp_path / "model"
    with atomic_directory(target) as inside:
        (inside / "sub").mkdir()
        (inside / "sub" / "a").write_text("a")
        (inside / "b").write_text("b")
        assert not target.exists()
    assert names(tmp_path) == ["model"]
    assert (target / "sub" / "a").read_text() == "a"


def test_existing_directory_keeps_other_files(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "README.md").write_text("mine")
    (target / "config.json").write_text("old")
    with atomic_directory(target) as inside:
        (inside / "config.json").write_text("new")
        (inside / "eval").mkdir()
        (inside / "eval" / "x.json").write_text("{}")
    assert (target / "README.md").read_text() == "mine"
    assert (target / "config.json").read_text() == "new"
    assert (target / "eval" / "x.json").read_text() == "{}"
    assert names(tmp_path) == ["model"]


def test_failed_directory_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "model") as inside:
        (inside / "half").write_text("x")
        raise RuntimeError("no")
    assert names(tmp_path) == []


def test_directory_over_a_file_is_refused(tmp_path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(ConfigError, match="is a file"), atomic_directory(tmp_path / "f"):
        pass
    assert (tmp_path / "f").read_text() == "x"


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (b"\n <!DOCTYPE html><html>", "web page"),
        (b"PK\x03\x04rest", "torch.save"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b'\x40\0\0\0\0\0\0\0{"a":1}', "safetensors"),
        (b"hello", ""),
    ],
)
def test_describe_bytes(tmp_path, head, words):
    (tmp_path / "f").write_bytes(head)
    said = describe_bytes(tmp_path / "f")
    assert (words in said) if words else said == ""


def test_describe_bytes_of_nothing(tmp_path):
    with pytest.raises(MissingFileError):
        describe_bytes(tmp_path / "none")
