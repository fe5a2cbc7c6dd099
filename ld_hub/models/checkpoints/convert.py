"""Reading the checkpoints that exist: OpenMMLab, LD and BCKD ``.pth`` files, into our names, strictly.

The only place that calls ``torch.load``, always with ``weights_only=True``: a file that wants to run code is refused.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ld_hub.errors import CheckpointError, MissingFileError
from ld_hub.hub import WEIGHTS_NAME, describe_bytes, load_safetensors, refuse_non_finite
from ld_hub.models.checkpoints.differences import LoadReport, compare
from ld_hub.models.checkpoints.key_maps import key_map
from ld_hub.models.checkpoints.pretrained import load_matched, load_weights, require_kinds
from ld_hub.models.short_names import with_offsets


@dataclass(frozen=True)
class OpenMMLabCheckpoint:
    """The student's tensors of a ``.pth`` file, under the file's own names without wrappers' prefixes.

    Attributes:
        path: The file.
        state: Tensors by name.
        dropped: ``(name, reason)`` of what is not the student's.
        label_names: Class names the file's meta data gives, or None.
    """

    path: Path
    state: dict[str, Tensor]
    dropped: tuple[tuple[str, str], ...]
    label_names: tuple[str, ...] | None


def load_checkpoint(model: nn.Module, path: str | Path, *, new_classes: bool = False) -> LoadReport:
    """Load the weights of a whole detector, strictly.

    Args:
        model: A detector; stays as it is if the file does not fit.
        path: Ours (``.safetensors``, a directory with ``model.safetensors``, or a ``.pth`` file that
            ``torch.save(model.state_dict(), path)`` wrote), or an OpenMMLab, LD or BCKD ``.pth`` file. The weights of
            a ``.pth`` file may lie under ``state_dict`` or ``model`` or at the top, with or without a ``module.``
            prefix, with or without the teacher's; optimizer state and meta data are ignored.
        new_classes: Whether the file may be of another number of classes. The class predictor then stays as it is, to
            be trained (fine-tuning), and a warning says what was kept.

    Returns:
        What was matched, and what was dropped with its reason.

    Raises:
        MissingFileError: If there is no such file.
        CheckpointError: If the file cannot be read, wants to run code, or does not fit the model exactly.
    """
    path = Path(path)
    if path.is_dir():
        path = path / WEIGHTS_NAME
    if path.suffix == ".safetensors":
        return load_weights(model, path, new_classes=new_classes)
    checkpoint = read_openmmlab(path)
    return load_openmmlab_state(
        model, checkpoint.state, source=str(path), dropped=checkpoint.dropped, new_classes=new_classes
    )


def load_openmmlab_state(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str = "the state dict",
    dropped: tuple[tuple[str, str], ...] = (),
    new_classes: bool = False,
) -> LoadReport:
    """Load tensors that bear OpenMMLab's names, strictly; see `load_checkpoint`.

    Deformable convolutions become of the version that the file has, and so does ``model.config.backbone``.

    Args:
        model: A detector; stays as it is if the tensors do not fit.
        state: The student's tensors, without wrappers' prefixes.
        source: Where they come from, for messages.
        dropped: ``(name, reason)`` of what was left out before, for the report.
        new_classes: See `load_checkpoint`.

    Raises:
        CheckpointError: If anything is missing, left over, of another shape or kind, or not finite.
    """
    offsets = _offset_channels(model, state, source)
    renamed, report = translate_openmmlab(model, state, source=source, dropped=dropped)
    config: Any = model.config
    report = report.require(config.num_classes, new_classes=new_classes)
    require_kinds(source, renamed, model.state_dict())
    refuse_non_finite(renamed, f"'{source}': ")
    if offsets is not None:
        backbone: Any = model.backbone
        model.config = replace(config, backbone=backbone.use_offsets(offsets))
    load_matched(model, renamed, report)
    return report


def translate_openmmlab(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str = "the state dict",
    dropped: tuple[tuple[str, str], ...] = (),
) -> tuple[dict[str, Tensor], LoadReport]:
    """Translate names, without loading.

    Args:
        model: Says which names and shapes are expected; may lie on the meta device.
        state: Tensors under OpenMMLab's names; under our own, they stay as they are.
        source: Where they come from, for messages.
        dropped: What was left out before, for the report.

    Returns:
        Tensors under our names, and the comparison with the model, its deformable convolutions as in the file.

    Raises:
        ConfigError: If the model's family has no key map.
        CheckpointError: If a stored constant (the bins) differs from the model's.
    """
    own = _expected(model, state)
    if not own.keys().isdisjoint(state):  # no name of theirs is one of ours
        return dict(state), compare(source, {name: tuple(tensor.shape) for name, tensor in state.items()}, own, dropped)
    config: Any = model.config
    names = key_map(str(model.family), getattr(config, "backbone", ""))
    renamed: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, tensor in state.items():
        constant, reason, ours = names.constant(name), names.reason(name), names.ours(name)
        if constant is not None:
            _check_constant(source, name, tensor, constant(config))
            dropped += ((name, "constants, checked"),)
        elif reason is not None:
            dropped += ((name, reason),)
        elif ours is None or ours in renamed:
            unknown.append(name)
        else:
            renamed[ours] = names.arranged(name, tensor)
    shapes = {name: tuple(tensor.shape) for name, tensor in renamed.items()}
    return renamed, compare(source, shapes, own, dropped, tuple(unknown))


def read_openmmlab(path: str | Path) -> OpenMMLabCheckpoint:
    """Read a ``.pth`` file without running any code from it.

    Args:
        path: The file.

    Returns:
        The student's tensors; the teacher's and averaged copies are dropped and named.

    Raises:
        MissingFileError: If there is no such file.
        CheckpointError: If it is not a PyTorch file, is truncated, wants to run code, or holds no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"No checkpoint file '{path}'.")
    content = _load(path)
    state = _state_dict(path, content)
    names, dropped = _students(state)
    tensors = {name: state[original] for name, original in names.items()}
    return OpenMMLabCheckpoint(path, tensors, tuple(dropped), _label_names(content))


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` or ``.pth`` file of whatever model, under their own names.

    Args:
        path: The file; no code in it is run.

    Raises:
        MissingFileError: If there is no such file.
        CheckpointError: If it cannot be read, or holds no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"No checkpoint file '{path}'.")
    return load_safetensors(path) if path.suffix == ".safetensors" else _state_dict(path, _load(path))


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted is None:
            raise CheckpointError(_not_readable(path, error)) from None
        raise CheckpointError(
            f"'{path}' holds an object of {wanted.group(1)}, and reading it would run code from the file, which "
            "ld_hub never does. Where the library that wrote it is installed and the file is trusted, open it there, "
            "save its weights alone (torch.save({'state_dict': model.state_dict()}, 'weights.pth')), and convert that."
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(_not_readable(path, error)) from None


def _not_readable(path: Path, error: Exception) -> str:
    what = describe_bytes(path)
    if "torch.save" in what or "pickle" in what or not what:
        what = "truncated, damaged, or not a PyTorch checkpoint: download it again and compare its size"
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "weights_only" in reason:  # torch's advice is to run the code in the file
        reason = type(error).__name__
    return f"'{path}' cannot be read as a PyTorch checkpoint ({reason[:200]}). It is {what}."


def _state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    """The dictionary of tensors, wherever the file keeps it."""
    found = content
    for _ in range(2):
        for key in ("state_dict", "model"):
            if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
                found = found[key]
                break
    if not isinstance(found, Mapping) or not found:
        raise CheckpointError(f"'{path}' holds {type(found).__name__}; expected a dictionary of weights.")
    bad = [str(key) for key, value in found.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if bad:
        keys = ", ".join(map(str, list(found)[:8]))
        raise CheckpointError(
            f"'{path}' has no state dict where one was looked for (state_dict, model, top level): '{bad[0]}' is not a "
            f"tensor. Its keys: {keys}."
        )
    empty = [name for name, tensor in found.items() if tensor.is_meta or tensor.layout is not torch.strided]
    if empty:
        raise CheckpointError(
            f"'{path}': '{empty[0]}' is a {'meta' if found[empty[0]].is_meta else 'sparse'} tensor; expected dense "
            "ones with content, as torch.save(model.state_dict(), FILE) writes them."
        )
    return dict(found)


_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.|student\.|student_model\.)+")
_NOT_THE_STUDENT = (
    (re.compile(r"teacher(_model)?\."), "the teacher's"),
    (re.compile(r"ema_"), "copies for weight averaging"),
)


def _students(state: dict[str, Tensor]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """``{name without wrappers: name in the file}`` and what is not the student's."""
    names: dict[str, str] = {}
    dropped = []
    for original in state:
        name = _WRAPPERS.sub("", original)
        reason = next((reason for pattern, reason in _NOT_THE_STUDENT if pattern.match(name)), None)
        if reason is None:
            names[name] = original
        else:
            dropped.append((original, reason))
    return names, dropped


def _label_names(content: Any) -> tuple[str, ...] | None:
    """Class names from OpenMMLab's meta data (2.x: CLASSES; 3.x: dataset_meta.classes)."""
    meta = content.get("meta") if isinstance(content, Mapping) else None
    places = [meta, meta.get("dataset_meta") if isinstance(meta, Mapping) else None]
    for place in places:
        for key in ("CLASSES", "classes"):
            names = place.get(key) if isinstance(place, Mapping) else None
            if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
                return tuple(names)
    return None


def _in_offsets(name: str) -> bool:
    return ".conv_offset." in name


def _file_offsets(state: Mapping[str, Tensor]) -> list[int]:
    """The different numbers of channels that the offset convolutions of a file predict; one, if all is well."""
    return sorted({int(t.shape[0]) for name, t in state.items() if _in_offsets(name) and t.ndim})


def _offset_channels(model: Any, state: Mapping[str, Tensor], source: str) -> int | None:
    """What the file's deformable convolutions predict, 18 or 27; None if neither it nor the model has any."""
    found = _file_offsets(state)
    backbone = getattr(model, "backbone", None)
    have = getattr(backbone, "offset_channels", None)
    if backbone is None or (have is None and not found):
        return None
    if have is None:
        raise CheckpointError(
            f"'{source}' is of a backbone with deformable convolutions (conv_offset); the model's, '{backbone.name}', "
            "has none. Create the model with backbone='r101_dcn' or 'x101_32x4d_dcn'."
        )
    if not found:
        raise CheckpointError(
            f"'{source}' has no offset convolutions (conv_offset), the model's backbone, '{backbone.name}', has. "
            f"Create the model with the plain backbone, '{backbone.name.rpartition('_')[0]}'."
        )
    if len(found) > 1 or with_offsets(backbone.name, found[0]) is None:
        raise CheckpointError(
            f"'{source}': its offset convolutions predict {' and '.join(map(str, found))} channels; expected 18 "
            "(deformable convolution version 1) or 27 (version 2) in all of them, i.e. one group of offsets."
        )
    return found[0]


def _expected(model: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's tensors, with the deformable convolutions that `load_openmmlab_state` would give it."""
    own: dict[str, Tensor] = model.state_dict()
    found = _file_offsets(state)
    if len(found) != 1 or with_offsets(str(getattr(model.config, "backbone", "")), found[0]) is None:
        return own
    return {
        name: tensor.new_empty((found[0], *tensor.shape[1:]), device="meta") if _in_offsets(name) else tensor
        for name, tensor in own.items()
    }


def _check_constant(source: str, name: str, found: Tensor, expected: Tensor) -> None:
    if found.shape != expected.shape:
        hint = ""
        if name.endswith("integral.project") and found.ndim:
            hint = f" For a file with {len(found)} bins create the model with reg_max=(bins - 1)."
        raise CheckpointError(
            f"'{source}': '{name}' has the shape {list(found.shape)}, the model expects {list(expected.shape)}.{hint}"
        )
    if not torch.equal(found.to(expected.dtype), expected):
        first = [tensor.flatten()[:20].tolist() for tensor in (found, expected)]
        raise CheckpointError(f"'{source}': '{name}' is {first[0]}, expected {first[1]} (first values).")
