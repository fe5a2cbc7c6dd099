"""How a model wants its images: size, channel order, mean and standard deviation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Integral
from typing import Any, Literal

from ld_hub.errors import ConfigError

ChannelOrder = Literal["rgb", "bgr"]


@dataclass(frozen=True)
class DataConfig:
    """Preprocessing that belongs to a set of weights; saved with them in ``config.json``.

    Attributes:
        mean: Per-channel mean on the 0..255 scale, in the order of the model's input channels (``"bgr"``: blue first).
        std: Per-channel standard deviation, same scale and order.
        channel_order: ``"rgb"``, or ``"bgr"`` for weights that came from Caffe.
        image_size: ``(short, long)`` px: images are scaled until the short side is `short` or the long side is `long`,
            whichever happens first. The aspect ratio is kept.
        band_ranges: Of bands of more than 8 bits: the values of each that become 0 and 255, see
            `ld_hub.preprocessing.bands`. Empty for pictures.
        size_divisor: Batches are zero-padded at the right and bottom to a multiple of this many px.

    Raises:
        ConfigError: If a field has a value that cannot work.
    """

    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    channel_order: ChannelOrder = "rgb"
    image_size: tuple[int, int] = (800, 1333)
    size_divisor: int = 32
    band_ranges: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", _floats("mean", self.mean))
        object.__setattr__(self, "std", _floats("std", self.std))
        if len(self.mean) != len(self.std):
            raise ConfigError(
                f"DataConfig: mean has {len(self.mean)} channels and std {len(self.std)}; they need as many."
            )
        if min(self.std) <= 0:
            raise ConfigError(f"DataConfig.std must be positive, got {list(self.std)}.")
        if self.band_ranges:
            object.__setattr__(self, "band_ranges", _ranges(self.band_ranges, len(self.mean)))
        if self.channel_order not in ("rgb", "bgr"):
            raise ConfigError(f"DataConfig.channel_order must be 'rgb' or 'bgr', got {self.channel_order!r}.")
        object.__setattr__(self, "image_size", _image_size(self.image_size))
        if not _is_int(self.size_divisor) or self.size_divisor < 1:
            raise ConfigError(f"DataConfig.size_divisor must be a positive integer, got {self.size_divisor!r}.")
        object.__setattr__(self, "size_divisor", int(self.size_divisor))

    @property
    def channels(self) -> int:
        """Input channels of the model, 3 for colour images."""
        return len(self.mean)

    @property
    def scale_and_shift(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per-channel ``a, b`` with ``a * pixel + b = (pixel - mean) / std``."""
        scale = tuple(1.0 / s for s in self.std)
        return scale, tuple(-m / s for m, s in zip(self.mean, self.std, strict=True))

    @classmethod
    def from_timm(cls, pretrained_cfg: Mapping[str, Any], in_chans: int = 3, **overrides: Any) -> DataConfig:
        """Take mean and std from a timm ``pretrained_cfg``, whose scale is 0..1.

        Args:
            pretrained_cfg: The ``pretrained_cfg`` of a timm model. Missing mean or std mean the defaults.
            in_chans: Channels of the model's input. Where weights know another number (colour, mostly), every channel
                gets the average of theirs: what a grey image, or a channel of unknown meaning, is best taken for.
            **overrides: Fields of `DataConfig` that are set directly.
        """
        values: dict[str, tuple[float, ...]] = {}
        for name in ("mean", "std"):
            known = getattr(cls, name)
            if pretrained_cfg.get(name) is not None:
                known = tuple(255.0 * float(v) for v in pretrained_cfg[name])
            if len(known) != in_chans:
                known = (sum(known) / len(known),) * in_chans
            # 0.485 * 255 is 123.675 only to rounding; ten digits give back what people write.
            values[name] = tuple(round(v, 10) for v in known)
        return cls.from_dict({**values, **overrides})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DataConfig:
        """Read what `to_dict` wrote.

        Raises:
            ConfigError: If a field is unknown or has a value that cannot work.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigError(f"DataConfig has no field {', '.join(unknown)}; its fields are {', '.join(known)}.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `band_ranges` only where there are any."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        ranges = values.pop("band_ranges")
        return values if not ranges else {**values, "band_ranges": [list(pair) for pair in ranges]}


def resolve_data_config(args: object = None, *, model: object = None) -> dict[str, Any]:
    """The preprocessing of a model as keywords for `create_transform`, as in timm.

    Args:
        args: The model; or, as timm has it with the model in its own argument, a mapping of wishes: fields of
            `DataConfig` in it replace the model's, None and other keys do nothing.
        model: A detector, or anything else with a `DataConfig` in its attribute ``data_config``.

    Raises:
        ConfigError: If the model carries no `DataConfig`, or a wish cannot work.
    """
    owner = args if model is None else model
    config = owner if isinstance(owner, DataConfig) else getattr(owner, "data_config", None)
    if not isinstance(config, DataConfig):
        raise ConfigError(f"{type(owner).__name__} has no data_config; give a model made by ld_hub.create_model.")
    values = config.to_dict()
    if model is not None and isinstance(args, Mapping):
        values |= {name: args[name] for name in values if args.get(name) is not None}
    return DataConfig.from_dict(values).to_dict()


def _is_int(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _floats(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(v) for v in values)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(math.isfinite(v) for v in numbers):
        raise ConfigError(f"DataConfig.{name} must be one finite number per channel (0..255 scale), got {values!r}.")
    return numbers


def _ranges(pairs: Sequence[Sequence[float]], channels: int) -> tuple[tuple[float, float], ...]:
    found = tuple(_floats("band_ranges", pair) for pair in pairs)
    if len(found) != channels or any(len(pair) != 2 or pair[0] >= pair[1] for pair in found):
        raise ConfigError(
            f"DataConfig.band_ranges must be one pair (low, high) for each of the {channels} channels, low < high; "
            f"got {pairs!r}."
        )
    return tuple((pair[0], pair[1]) for pair in found)


def _image_size(value: Sequence[int]) -> tuple[int, int]:
    sides = tuple(value) if isinstance(value, (tuple, list)) else ()
    if len(sides) != 2 or not all(_is_int(side) for side in sides) or not 1 <= sides[0] <= sides[1]:
        raise ConfigError(
            f"DataConfig.image_size must be (short side, longest long side) in px, such as (800, 1333); got {value!r}."
        )
    return int(sides[0]), int(sides[1])
