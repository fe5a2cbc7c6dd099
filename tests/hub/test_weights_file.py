from __future__ import annotations

import hashlib
import json
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ld_hub.errors import CheckpointError, MissingFileError
from ld_hub.hub import load_safetensors, save_safetensors, tensor_shapes


def header(path) -> dict:
    """Read a safetensors header by the format's own definition: 8 bytes of length, then JSON."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size])


def test_bit_equal_for_every_type_and_layout(tmp_path):
    tensors = {
        "f32": torch.tensor([1.0, -0.0, 1e-45, 3.4e38]),
        "f16": torch.tensor([0.1], dtype=torch.float16),
        "bf16": torch.tensor([0.1], dtype=torch.bfloat16),
        "f64": torch.tensor([0.1], dtype=torch.float64),
        "i64": torch.tensor(7),
        "bool": torch.tensor([True, False]),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "expanded": torch.ones(1, 2).expand(3, 2),
        "last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "empty": torch.zeros(0, 4),
    }
    path = save_safetensors(tensors, tmp_path / "m.safetensors", {"made_by": "test"})
    loaded = load_safetensors(path)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape
        assert torch.equal(loaded[name], tensor), name
    assert torch.signbit(loaded["f32"][1])
    digest = header(path)["__metadata__"].pop("ld_hub.sha256")
    assert header(path)["__metadata__"] == {"format": "pt", "ld_hub.sha256": digest, "made_by": "test"}
    expected = hashlib.sha256()
    for name in sorted(tensors):
        kind, shape = str(tensors[name].dtype), tuple(tensors[name].shape)
        expected.update(f"{name} {kind} {shape}".encode() + bytes(tensors[name].contiguous().untyped_storage()))
    assert digest == expected.hexdigest()
    assert tensor_shapes(path)["i64"] == ((), "I64")
    assert tensor_shapes(path)["transposed"] == ((3, 2), "F32")


def test_tied_tensors_are_written_under_every_name(tmp_path):
    base = torch.arange(8.0)
    path = save_safetensors({"a": base, "b": base, "half": base[4:]}, tmp_path / "m.safetensors")
    loaded = load_safetensors(path)
    assert torch.equal(loaded["a"], base) and torch.equal(loaded["b"], base) and torch.equal(loaded["half"], base[4:])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_is_neither_written_nor_read(tmp_path, value):
    from safetensors.torch import save_file

    bad = {"head.weight": torch.tensor([1.0, value]), "ok": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"head\.weight"):
        save_safetensors(bad, tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []
    save_file(bad, tmp_path / "n.safetensors")
    with pytest.raises(CheckpointError, match=r"1 tensor\(s\) hold NaN or infinity: head\.weight"):
        load_safetensors(tmp_path / "n.safetensors")


def test_truncated_file(tmp_path):
    path = save_safetensors({"a": torch.ones(100)}, tmp_path / "m.safetensors")
    path.write_bytes(path.read_bytes()[:-7])
    for read in (load_safetensors, tensor_shapes):
        with pytest.raises(CheckpointError, match="truncated"):
            read(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "Git LFS"),
        (b"<html><body>404</body></html>", "web page"),
        (b"", "empty"),
        (b"\xff" * 64, "cannot be read as safetensors"),
    ],
)
def test_other_files_are_named(tmp_path, data, words):
    (tmp_path / "m.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=words):
        load_safetensors(tmp_path / "m.safetensors")


def test_a_torch_file_is_refused_and_the_way_named(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="ld-hub convert"):
        load_safetensors(tmp_path / "m.safetensors")


def test_missing_file(tmp_path):
    with pytest.raises(MissingFileError):
        load_safetensors(tmp_path / "none.safetensors")


def test_a_file_has_the_usual_mode(tmp_path):
    (tmp_path / "plain").touch()
    save_safetensors({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_same_tensors_make_the_same_bytes(tmp_path):
    """safetensors writes its metadata in an order that changes from call to call."""
    tensors = {"b": torch.arange(3.0), "a": torch.ones(2, 2)}
    metadata = {f"key{k}": str(k) for k in range(6)}
    files = {save_safetensors(tensors, tmp_path / f"{k}.safetensors", metadata).read_bytes() for k in range(8)}
    assert len(files) == 1


def test_one_bit_anywhere_is_noticed(tmp_path):
    """Each bit of the tensors, and of the header but for its padding and the words of other metadata."""
    tensors = {"weight": torch.linspace(-1, 1, 12).reshape(3, 4), "count": torch.tensor(3)}
    path = save_safetensors(tensors, tmp_path / "m.safetensors")
    whole = path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    padding = len(whole[8 : 8 + size]) - len(whole[8 : 8 + size].rstrip())
    silent = []
    for place in range(len(whole)):
        if 8 + size - padding <= place < 8 + size:
            continue
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            try:
                loaded = load_safetensors(path)
            except (CheckpointError, MissingFileError):
                continue
            silent.append((place, bit))
            assert loaded.keys() == tensors.keys() and all(torch.equal(loaded[k], tensors[k]) for k in tensors)
    words = whole.index(b'"format":"pt"'), whole.index(b'"ld_hub.sha256"')
    harmless = range(words[0], words[1] + len('"ld_hub.sha256":"'))
    assert all(place in harmless for place, _ in silent)


def test_files_of_others_are_taken_as_they_are(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "theirs.safetensors")
    assert load_safetensors(tmp_path / "theirs.safetensors")["a"].tolist() == [1, 1]
    path = save_safetensors({"a": torch.ones(2)}, tmp_path / "ours.safetensors")
    with safe_open(path, framework="pt") as file:
        kept = file.metadata()
    save_file({"a": torch.zeros(2)}, path, metadata=kept)
    with pytest.raises(CheckpointError, match=r"damaged: its tensors are not those that were written .*save_saf"):
        load_safetensors(path)
