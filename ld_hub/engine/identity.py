"""What makes a run this run and no other: network, teacher, recipe and data, compared before it is continued."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ld_hub.checked import Scalar, Source, read_fields
from ld_hub.data import DetectionSet
from ld_hub.data.stream_set import TrainingSet
from ld_hub.distillation.teach import up_to_date
from ld_hub.errors import CheckpointError, ConfigError
from ld_hub.hub.files import sha256_of
from ld_hub.models.detector import DenseDetector
from ld_hub.models.feature_teacher import FeatureTeacher
from ld_hub.preprocessing import DataConfig
from ld_hub.structures import Teaching
from ld_hub.teachers.box_teacher import BoxTeacher

SHOWN = 6  # differences that a message names
DIGEST = 16  # hexadecimal digits of a SHA-256 that are kept


@dataclass(frozen=True)
class TeacherIdentity:
    """Who teaches.

    Attributes:
        name: Of the model.
        config: Fields of its configuration; of a teacher that only detects, its kind.
        weights_sha256: First digits of the hash of its tensors (`weights_digest`), or of its file.
    """

    name: str
    config: Mapping[str, Scalar]
    weights_sha256: str

    @classmethod
    def of(cls, teacher: DenseDetector | FeatureTeacher | BoxTeacher) -> TeacherIdentity:
        """Of one that teaches; an image encoder is what its name says."""
        if isinstance(teacher, BoxTeacher):
            return cls(teacher.name, {"kind": teacher.kind}, teacher.digest[:DIGEST])
        config = asdict(teacher.config) if isinstance(teacher, DenseDetector) else {}
        return cls(teacher.name, config, weights_digest(teacher))


@dataclass(frozen=True)
class Identity:
    """What is trained, on what and by whom: what a continued run must share, besides its settings.

    Attributes:
        model: Name of the network.
        model_config: Fields of its configuration.
        data_config: Its input.
        label_names: Its classes.
        category_ids: Their ids.
        train_annotations_sha256: First digits of the hash of the annotation file; None where there is none.
        train_images: Number of training images.
        unlabeled_images: Number of images without labels.
        unlabeled_sha256: First digits of the hash of their names and sizes; None where there are none.
        teachers: Of a distillation.
        teaching: Of a distillation: what is taught.
        cache_bits: Of the teachers' answers that were kept; None where they are asked in every step.
    """

    model: str
    model_config: Mapping[str, Scalar]
    data_config: DataConfig
    label_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    train_annotations_sha256: str | None
    train_images: int
    unlabeled_images: int = 0
    unlabeled_sha256: str | None = None
    teachers: tuple[TeacherIdentity, ...] = ()
    teaching: Teaching | None = None
    cache_bits: int | None = None

    @classmethod
    def of(
        cls,
        model: DenseDetector,
        dataset: TrainingSet,
        teachers: Sequence[DenseDetector | FeatureTeacher | BoxTeacher] = (),
        teaching: Teaching | None = None,
        unlabeled: DetectionSet | None = None,
        cache_bits: int | None = None,
    ) -> Identity:
        """Of what a trainer was given."""
        return cls(
            model=model.name,
            model_config=asdict(model.config),
            data_config=model.data_config,
            label_names=model.label_names,
            category_ids=model.category_ids,
            train_annotations_sha256=file_digest(dataset.annotation_file),
            train_images=len(dataset),
            unlabeled_images=0 if unlabeled is None else len(unlabeled),
            unlabeled_sha256=None if unlabeled is None else names_digest(unlabeled),
            teachers=tuple(TeacherIdentity.of(one) for one in teachers),
            teaching=None if teaching is None else teaching.wished(),
            cache_bits=cache_bits,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values as files have them: a single teacher's facts stand there alone, those of several in lists."""
        content = {**asdict(self), "data_config": self.data_config.to_dict()}
        del content["teachers"], content["teaching"]
        if not self.unlabeled_images:
            del content["unlabeled_images"], content["unlabeled_sha256"]
        if self.cache_bits is None:
            del content["cache_bits"]
        facts: dict[str, list[Any]] = {
            "teacher": [one.name for one in self.teachers],
            "teacher_config": [dict(one.config) for one in self.teachers],
            "teacher_weights_sha256": [one.weights_sha256 for one in self.teachers],
        }
        if len(self.teachers) == 1:
            content |= {key: values[0] for key, values in facts.items()}
        elif self.teachers:
            content |= facts
        if self.teaching is not None:
            content["recipe"] = self.teaching.to_dict()
        return dict(json.loads(json.dumps(content)))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str) -> Identity:
        """The inverse of `to_dict`, checked.

        Args:
            content: Parsed JSON.
            where: Its source, for messages.

        Raises:
            CheckpointError: Naming the field, what it is and what it should be.
        """
        source = Source(where, CheckpointError)
        parts = {"name": "teacher", "config": "teacher_config", "weights_sha256": "teacher_weights_sha256"}
        facts = {name: _listed(content.get(key)) for name, key in parts.items()}
        teachers = [dict(zip(facts, each, strict=False)) for each in zip_longest(*facts.values())]
        whole = {**content, "teachers": teachers}
        if "recipe" in content:
            recipe = content["recipe"]
            if not isinstance(recipe, Mapping):
                raise source.wrong("recipe", recipe, "an object")
            whole["teaching"] = up_to_date(Teaching.from_dict(recipe, where))
        return read_fields(cls, whole, source)


def file_digest(path: str | Path) -> str | None:
    """First digits of the SHA-256 of a file, None if there is none."""
    return sha256_of(path)[:DIGEST] if Path(path).is_file() else None


def names_digest(images: DetectionSet) -> str:
    """First digits of the SHA-256 of the names and sizes of images, wherever they lie."""
    records = images.records
    names = [Path(path).name for path in records.paths.to_pylist()]
    content = json.dumps([names, records.sizes.tolist()]).encode()
    return hashlib.sha256(content).hexdigest()[:DIGEST]


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


def _listed(value: Any) -> list[Any]:
    """A fact of the teachers: a list of each one's, or the only one's."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else text[:97] + "..."
