"""What training does to its images, as data: presets, and the flags that change their parts. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from ld_hub.errors import ConfigError

PresetName = Literal["none", "flip", "standard", "strong"]
_CHANCES = ("flip", "crop", "zoom_out", "color", "mosaic", "mixup", "copy_paste")


@dataclass(frozen=True)
class Augmentation:
    """What an image goes through on its way into training; `AugmentationFlags` says what each part is.

    Attributes:
        flip: Probability of the mirror.
        short_sides: Range of the shorter side in px, or None.
        crop: Probability of a crop.
        zoom_out: Probability of a wide margin.
        scale_jitter: Range of factors on the size of everything, or None.
        color: Probability of other light.
        mosaic: Probability of three more images on the same canvas.
        mixup: Probability of another image, blended in.
        copy_paste: Probability of objects of another image, cut out along their outlines.

    Raises:
        ConfigError: If a value cannot work; names the field.
    """

    flip: float = 0.5
    short_sides: tuple[int, int] | None = None
    crop: float = 0.0
    zoom_out: float = 0.0
    scale_jitter: tuple[float, float] | None = None
    color: float = 0.0
    mosaic: float = 0.0
    mixup: float = 0.0
    copy_paste: float = 0.0

    def __post_init__(self) -> None:
        for name in _CHANCES:
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value}; it must be between 0 and 1, the share of images that get it.")
        sides, scales = self.short_sides, self.scale_jitter
        if sides is not None and not (len(sides) == 2 and 0 < sides[0] <= sides[1]):
            raise ConfigError(f"short_sides is {sides}; it must be two lengths in px, the smaller one first.")
        if scales is not None and not (len(scales) == 2 and 0.05 <= scales[0] <= scales[1] <= 20):
            raise ConfigError(
                f"scale_jitter is {scales}; it must be two factors between 0.05 and 20, the smaller one first, such "
                "as 0.5 1.5."
            )

    @property
    def parts(self) -> Mapping[str, float | tuple[float, float]]:
        """What is done at all: name and value of each part."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value and value != (1.0, 1.0)}

    @property
    def mixes(self) -> bool:
        """Whether images are made of several."""
        return self.mosaic > 0 or self.mixup > 0 or self.copy_paste > 0

    def describe(self) -> str:
        """The parts in words, for the user."""
        return _listed(self.parts) or "none"

    def require_still(self) -> None:
        """Refuse what answers that are kept of each image, as it is and mirrored, do not hold for.

        Raises:
            ConfigError: If there is such a part; names it.
        """
        others = {name: value for name, value in self.parts.items() if name not in ("flip", "short_sides")}
        if others:
            raise ConfigError(
                "cache_teacher keeps a teacher's answers to images as they are, and mirrored; they do not hold for "
                f"{_listed(others)}. Take --augment flip, or leave --cache_teacher out: a teacher that is asked on "
                "each batch sees what the student sees."
            )


PRESETS: dict[PresetName, Augmentation] = {
    "none": Augmentation(flip=0.0),
    "flip": Augmentation(),
    "standard": Augmentation(crop=0.5, zoom_out=0.25, color=0.5),
    "strong": Augmentation(crop=0.25, scale_jitter=(0.5, 1.5), color=0.8, mosaic=0.5, mixup=0.15),
}


@dataclass(frozen=True, kw_only=True)
class AugmentationFlags:
    """What training does to its images: a preset, and parts of it set otherwise. Boxes move with their image.

    Attributes:
        augment: none leaves images as they are. flip mirrors half of them, as published. standard also crops, zooms
            out and changes light: for a few thousand images or a long training. strong also changes sizes and mixes
            images (mosaic, mixup): for small data sets and long trainings. `ld-hub data show DIR --augment strong
            --out p.png` draws what comes out.
        flip: Probability of a horizontal flip; as augment says where not given, like the flags below.
        short_sides: Smallest and largest length of the shorter image side in px, drawn per image (multi-scale
            training, 480 800 as published); image_size's where not given.
        crop: Probability of cutting out a part, 0.3 to 1 of each side, that keeps objects whose centre lies in it.
        zoom_out: Probability of shrinking the image to 0.33 to 1 of its sides, on a plain canvas: smaller objects.
        scale_jitter: Large-scale jitter: factors that the size of every image is drawn between; above 1 a part of the
            image fills the canvas, below 1 the rest is plain. 0.5 1.5 is moderate, 0.1 2 is published, 1 1 is none.
        color: Probability of other brightness, contrast and saturation, each by up to 40 percent.
        mosaic: Probability of putting an image together from four, each at 0.4 to 0.8 of its size; takes the place of
            crop and zoom_out there.
        mixup: Probability of blending another image in, with its objects.
        copy_paste: Probability of pasting objects of another image onto this one, cut out along their outlines, after
            both went through the parts above; an object of which less than a fifth stays visible is dropped, the box
            of another is what is visible. It is for data with outlines (COCO's segmentation, polygons of YOLO and of
            labelling tools), and thus in no preset; crowds, and objects without outline, are not pasted.
        close_mosaic: Optimizer steps at the end of the run that are done without mosaic, mixup and copy_paste, on
            images as they will be; below 1 a share of the run.
    """

    augment: PresetName = "flip"
    flip: float | None = None
    short_sides: tuple[int, int] | None = None
    crop: float | None = None
    zoom_out: float | None = None
    scale_jitter: tuple[float, float] | None = None
    color: float | None = None
    mosaic: float | None = None
    mixup: float | None = None
    copy_paste: float | None = None
    close_mosaic: float = 0.1

    def __post_init__(self) -> None:
        for name in ("short_sides", "scale_jitter"):
            value = getattr(self, name)
            if isinstance(value, list):  # from JSON or YAML
                object.__setattr__(self, name, tuple(value))
        if self.augment not in PRESETS:
            raise ConfigError(f"augment is {self.augment!r}; it can be: {', '.join(PRESETS)}.")
        if self.close_mosaic < 0:
            raise ConfigError(f"close_mosaic is {self.close_mosaic}; it must not be negative.")
        self.augmentation  # noqa: B018  # refuses values that cannot work

    @property
    def augmentation(self) -> Augmentation:
        """The preset with what is given."""
        given: Mapping[str, Any] = {field.name: getattr(self, field.name) for field in fields(Augmentation)}
        return replace(PRESETS[self.augment], **{name: value for name, value in given.items() if value is not None})

    def mixed_steps(self, steps: int) -> int:
        """Optimizer steps from the start of a run that mix images.

        Args:
            steps: Of the whole run.
        """
        closed = round(steps * self.close_mosaic) if self.close_mosaic < 1 else int(self.close_mosaic)
        return max(0, steps - closed)

    def describe_augmentation(self, steps: int) -> str:
        """What is done in a run, for the user.

        Args:
            steps: Of the whole run.
        """
        augmentation = self.augmentation
        mixing = ("mosaic", "mixup", *(["copy-paste"] if augmentation.copy_paste else []))
        named = f"{', '.join(mixing[:-1])} and {mixing[-1]}"
        end = f"; {named} until step {self.mixed_steps(steps)}" if augmentation.mixes else ""
        return f"{self.augment}: {augmentation.describe()}{end}"


def _listed(parts: Mapping[str, float | tuple[float, float]]) -> str:
    """``"crop 0.5, scale_jitter 0.5 1.5"``."""
    texts = {name: value if isinstance(value, tuple) else (value,) for name, value in parts.items()}
    return ", ".join(f"{name} {' '.join(f'{number:g}' for number in numbers)}" for name, numbers in texts.items())
