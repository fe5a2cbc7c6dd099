"""The structure of a detector as data: what every family's configuration has, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args, get_origin, get_type_hints

from ld_hub.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ld_hub.layers.postprocess import PostprocessConfig
    from ld_hub.preprocessing import DataConfig

STRIDES = (8, 16, 32, 64, 128)
LevelShapes = tuple[tuple[int, int], ...]  # height and width in cells of each level

_LIMITS = {  # whole numbers: least and most; not every family has all of them
    "num_classes": (1, 100_000),
    "in_chans": (1, 64),
    "frozen_stages": (0, 4),
    "fpn_channels": (1, 8192),
    "head_width": (1, 8192),
    "head_depth": (0, 64),
    "reg_max": (1, 256),
}


@dataclass(frozen=True)
class DetectorConfig:
    """Structure of a detector; what every family has.

    Attributes:
        backbone: Short name (``r50``) or any timm model with features at strides 8, 16, 32.
        num_classes: C.
        in_chans: Input channels.
        frozen_stages: Stages of the backbone that stay as they are, stem included.
        norm_eval: Whether the backbone's batch norms keep their running statistics in training.
        fpn_channels: F, width of the pyramid.
        head_width: Channels of the head's towers.
        head_depth: Convolutions per tower.

    Raises:
        ConfigError: If a field has a value that cannot work.
    """

    backbone: str = "r50"
    num_classes: int = 80
    in_chans: int = 3
    frozen_stages: int = 0
    norm_eval: bool = False
    fpn_channels: int = 256
    head_width: int = 256
    head_depth: int = 4

    def __post_init__(self) -> None:
        for name, (least, most) in _LIMITS.items():
            if hasattr(self, name):
                object.__setattr__(self, name, whole_number(name, getattr(self, name), least, most))
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if get_origin(hint) is Literal and value not in get_args(hint):
                raise ConfigError(f"{name} is {value!r}; expected {' or '.join(map(repr, get_args(hint)))}.")
            if hint is bool and not isinstance(value, bool):  # "no" would count as True
                raise ConfigError(f"{name} is {value!r}; expected True or False.")
            if hint is float and (isinstance(value, bool) or not isinstance(value, Real)):
                raise ConfigError(f"{name} is {value!r}; expected a number.")
        anchor_scale = getattr(self, "anchor_scale", 1)
        if not 0 < anchor_scale <= 64:
            raise ConfigError(f"anchor_scale is {anchor_scale!r}; expected a number in (0, 64].")

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """Names of all fields."""
        return tuple(f.name for f in fields(cls))


class BuildOptions(TypedDict, total=False):
    """Keywords of a family's class beside its configuration; `ld_hub.models.detector.DenseDetector` describes them."""

    name: str
    label_names: Sequence[str] | None
    category_ids: Sequence[int] | None
    data_config: DataConfig
    postprocess_config: PostprocessConfig
    pretrained_backbone: bool
    backbone_checkpoint: str | Path | None
    cache_dir: str | Path | None


def whole_number(name: str, value: Any, least: int, most: int) -> int:
    """A field as a plain int, from any integral type (NumPy's too); True and 3.0 are no whole numbers.

    Raises:
        ConfigError: If it is none, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        raise ConfigError(f"{name} is {value!r}; expected a whole number from {least} to {most}.")
    return int(value)
