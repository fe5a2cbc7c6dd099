"""What makes a run this run and no other: network, teacher, recipe and data, compared before it is continued."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ld_hub.data import DetectionSet
from ld_hub.errors import ConfigError
from ld_hub.models.detector import DenseDetector

SHOWN = 6  # differences that a message names
DIGEST = 16  # hexadecimal digits of a SHA-256 that are kept


def describe_model(model: DenseDetector) -> dict[str, Any]:
    """Name, structure, input and classes of a detector, as JSON values."""
    values = {
        "model": model.name,
        "model_config": vars(model.config),
        "data_config": model.data_config.to_dict(),
        "label_names": model.label_names,
        "category_ids": model.category_ids,
    }
    return plain(values)


def describe_data(dataset: DetectionSet) -> dict[str, Any]:
    """File, content and number of the training images."""
    return {
        "train_annotations_sha256": file_digest(dataset.annotation_file),
        "train_images": len(dataset),
    }


def describe_teachers(teachers: Sequence[DenseDetector]) -> dict[str, Any]:
    """Name, structure and weights of a teacher; of several, a list of each."""
    found: dict[str, list[Any]] = {
        "teacher": [teacher.name for teacher in teachers],
        "teacher_config": [plain(vars(teacher.config)) for teacher in teachers],
        "teacher_weights_sha256": [weights_digest(teacher) for teacher in teachers],
    }
    return found if len(teachers) > 1 else {key: values[0] for key, values in found.items()}


def file_digest(path: str | Path) -> str | None:
    """First digits of the SHA-256 of a file, None if there is none."""
    if not Path(path).is_file():
        return None
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:DIGEST]


def weights_digest(model: nn.Module) -> str:
    """First digits of the SHA-256 of a model's parameters and buffers, wherever and in whatever layout they lie."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:DIGEST]


def differences(old: Any, new: Any, name: str = "") -> dict[str, tuple[Any, Any]]:
    """What differs between two nested JSON values.

    Args:
        old: The one.
        new: The other.
        name: Of both, the start of the names below them.

    Returns:
        ``{name: (old value, new value)}``, names as in ``recipe.terms.ld.weight`` and ``label_names[3]``.
    """
    found: dict[str, tuple[Any, Any]] = {}
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*new, *(key for key in old if key not in new)]:
            found |= differences(old.get(key), new.get(key), f"{name}.{key}" if name else str(key))
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            found |= differences(one, other, f"{name}[{index}]")
        return found
    return found if old == new else {name: (old, new)}


def require_same(changed: Mapping[str, tuple[Any, Any]], path: str) -> None:
    """Refuse to continue another run.

    Args:
        changed: What differs, as of `differences`.
        path: Of the run or checkpoint, for the message.

    Raises:
        ConfigError: If anything does; names it.
    """
    if not changed:
        return
    parts = [f"{name}: {_short(old)} there, {_short(new)} now" for name, (old, new) in changed.items()]
    more = f"; and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
    raise ConfigError(
        f"resume: '{path}' belongs to a run with other settings ({'; '.join(parts[:SHOWN])}{more}). Resume with the "
        "same ones, or start a new run in another output_dir from its model (--checkpoint RUN/model)."
    )


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON gives them back."""
    return dict(json.loads(json.dumps(dict(values), default=str)))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else text[:97] + "..."
