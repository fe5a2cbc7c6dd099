"""safetensors in and out, with errors that say what a bad file is.

The header of a file says the sha256 of its tensors, so that it proves itself wherever it is copied to; files of others,
which say none, are taken as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ld_hub.errors import CheckpointError, MissingFileError
from ld_hub.hub.files import atomic_file, describe_bytes

DIGEST_KEY = "ld_hub.sha256"  # of the header's metadata


def save_safetensors(
    state_dict: Mapping[str, Tensor],
    path: str | Path,
    metadata: Mapping[str, str] | None = None,
    *,
    finite: bool = True,
) -> Path:
    """Write tensors atomically, bit for bit.

    Tensors that share memory (tied weights, views) are each written in full, so that every key of the state
    dict is in the file and a strict load needs no table of ties.

    Args:
        state_dict: Tensors by name, on any device.
        path: Target file.
        metadata: Strings for the file's header; ``"format"`` and `DIGEST_KEY` are always there.
        finite: Refuse NaN and infinity, as `load_safetensors` does.

    Returns:
        `path` as a `Path`.

    Raises:
        CheckpointError: If a tensor is not finite; a model with NaN weights is of no use to anyone.
        OSError: If the disk refuses; an existing file is then as it was.
    """
    if finite:
        refuse_non_finite(state_dict, f"'{path}' was not written: ")
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    seen: set[int] = set()
    for name, tensor in own.items():
        address = tensor.untyped_storage().data_ptr()
        if address in seen:
            own[name] = tensor.clone()
        seen.add(address)
    with atomic_file(path) as beside:
        beside.touch()
        mode = beside.stat().st_mode
        try:
            save_file(own, beside, metadata={**(metadata or {}), "format": "pt", DIGEST_KEY: tensors_digest(own)})
        except SafetensorError as error:
            raise _refused_by_disk(error) from None
        beside.chmod(mode)  # safetensors lets only the owner read its file
        _sort_metadata(beside)
    return Path(path)


def _sort_metadata(path: Path) -> None:
    """Put the header's metadata in order, so that the same tensors make the same bytes: safetensors shuffles them."""
    with open(path, "r+b") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= size:
            stream.seek(8)
            stream.write(text.ljust(size))


def load_safetensors(path: str | Path, device: str = "cpu") -> dict[str, Tensor]:
    """Read all tensors of a file.

    Args:
        path: A ``.safetensors`` file.
        device: Where the tensors go.

    Returns:
        Tensors by name.

    Raises:
        MissingFileError: If there is no such file.
        CheckpointError: If it is truncated, a Git LFS pointer, a web page, a pickle or anything else that is not
            safetensors, if its tensors are not those that were written, or if one holds NaN or infinity.
    """
    _require(path)
    try:
        with safe_open(str(path), framework="pt", device=device) as file:
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}
            written = (file.metadata() or {}).get(DIGEST_KEY)
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    with ThreadPoolExecutor(1) as pool:  # hashing leaves Python alone, and costs next to nothing beside the other check
        digest = None if written is None else pool.submit(tensors_digest, tensors)
        bad = _non_finite(tensors)
    if digest is not None and digest.result() != written:
        raise CheckpointError(
            f"'{path}' is damaged: its tensors are not those that were written (another sha256). Copy or download it "
            "again; whoever changes tensors on purpose writes the file with ld_hub.hub.save_safetensors."
        )
    _refuse(bad, f"'{path}': ")
    return tensors


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Hex digits of the sha256 of names, types, shapes and values, wherever and in whatever layout these lie.

    Args:
        tensors: By name; their order does not matter.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tensor_shapes(path: str | Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Names, shapes and types in a file, from its header alone: no tensor is read.

    Args:
        path: A ``.safetensors`` file.

    Returns:
        ``{name: (shape, dtype)}`` with safetensors' type names (``"F32"``, ``"I64"``).

    Raises:
        MissingFileError: If there is no such file.
        CheckpointError: As `load_safetensors`.
    """
    _require(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            return {name: (tuple(part.get_shape()), str(part.get_dtype())) for name, part in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _require(path: str | Path) -> None:
    if not Path(path).is_file():
        raise MissingFileError(f"No weights file '{path}'.")


def _unreadable(path: str | Path, error: Exception) -> CheckpointError:
    what = describe_bytes(path)
    if what == "a safetensors file":
        what = "truncated or damaged: copy or download it again"
    elif "pickle" in what or "torch.save" in what:
        what += "; convert it with `ld-hub convert FILE DIR --model NAME`, or pass it as checkpoint_path="
    return CheckpointError(f"'{path}' cannot be read as safetensors ({error}){f'. It is {what}' if what else ''}.")


def _refused_by_disk(error: SafetensorError) -> OSError:
    """The system's error inside one of safetensors' own, which no caller expects from writing a file."""
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))


def refuse_non_finite(tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Refuse NaN and infinity.

    Args:
        tensors: By name.
        prefix: Beginning of the message.

    Raises:
        CheckpointError: Naming the tensors.
    """
    _refuse(_non_finite(tensors), prefix)


def _non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    return [name for name, tensor in tensors.items() if tensor.is_floating_point() and not _finite(tensor)]


def _refuse(bad: Sequence[str], prefix: str) -> None:
    if bad:
        shown = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        raise CheckpointError(
            f"{prefix}{len(bad)} tensor(s) hold NaN or infinity: {shown}. The run that made them diverged."
        )


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
