"""What all families share: the way from images to rows, losses and detections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from ld_hub.errors import CheckpointError, ConfigError
from ld_hub.layers.postprocess import PostprocessConfig, postprocess
from ld_hub.models.backbones import Backbone
from ld_hub.models.inference import Images, predict
from ld_hub.models.labels import default_labels
from ld_hub.models.pretrained import load_pretrained, save_pretrained
from ld_hub.ops.priors import level_shapes
from ld_hub.preprocessing import DataConfig
from ld_hub.structures import (
    Assignment,
    BoxCoder,
    DenseOutput,
    Detections,
    DetectorSpec,
    HeadMaps,
    Priors,
    StepCounts,
    Targets,
)

STRIDES = (8, 16, 32, 64, 128)
LevelShapes = tuple[tuple[int, int], ...]  # height and width in cells of each level


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
        for name, least, most in (
            ("num_classes", 1, 100_000),
            ("in_chans", 1, 64),
            ("frozen_stages", 0, 4),
            ("fpn_channels", 1, 8192),
            ("head_width", 1, 8192),
            ("head_depth", 0, 64),
            ("reg_max", 1, 256),
        ):
            if hasattr(self, name):  # not every family has all of them
                object.__setattr__(self, name, whole_number(name, getattr(self, name), least, most))
        anchor_scale = getattr(self, "anchor_scale", 1)
        if not 0 < anchor_scale <= 64:
            raise ConfigError(f"anchor_scale is {anchor_scale!r}; expected a number in (0, 64].")
        for name, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                choices = " or ".join(map(repr, get_args(hint)))
                raise ConfigError(f"{name} is {getattr(self, name)!r}; expected {choices}.")

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """Names of all fields."""
        return tuple(f.name for f in fields(cls))


def whole_number(name: str, value: Any, least: int, most: int) -> int:
    """A field as a plain int, from any integral type (NumPy's too); True and 3.0 are no whole numbers.

    Raises:
        ConfigError: If it is none, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        raise ConfigError(f"{name} is {value!r}; expected a whole number from {least} to {most}.")
    return int(value)


class DenseDetector(nn.Module, ABC):
    """Backbone, pyramid and head, with an assigner, a criterion and post-processing.

    A family composes these in its ``__init__`` and nothing else; the reader of its file sees the whole detector.

    Args:
        config: Structure.
        name: Registered name; goes into the saved configuration.
        label_names: C names in the order of the logits.
        category_ids: C ids of the data set, used when detections are written in COCO format.
        data_config: How images become input; by default, as the backbone's weights expect. Backbones know colour
            images; for another number of input channels their mean over the three is taken for each.
        postprocess_config: Inference settings.
        pretrained_backbone: Start from timm's weights (downloads once).
        backbone_checkpoint: Local safetensors file under timm's key names.
        cache_dir: Cache of downloads instead of huggingface_hub's own.

    Raises:
        ConfigError: If a field cannot work.
    """

    config_class: ClassVar[type[DetectorConfig]] = DetectorConfig
    family: ClassVar[str] = ""
    anchors_per_cell: ClassVar[int] = 1
    neck: nn.Module
    head: nn.Module
    coder: BoxCoder
    assigner: Any
    criterion: Any
    recipe: dict[str, Any] | None = None  # how it was distilled, as the trainer records it; saved with the weights

    def __init__(
        self,
        config: DetectorConfig,
        *,
        name: str = "",
        label_names: Sequence[str] | None = None,
        category_ids: Sequence[int] | None = None,
        data_config: DataConfig | None = None,
        postprocess_config: PostprocessConfig | None = None,
        pretrained_backbone: bool = False,
        backbone_checkpoint: str | Path | None = None,
        cache_dir: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.config, self.name = config, name or self.family
        self.set_labels(label_names, category_ids)
        self.backbone = Backbone(
            config.backbone,
            in_chans=config.in_chans,
            pretrained=pretrained_backbone,
            checkpoint=backbone_checkpoint,
            frozen_stages=config.frozen_stages,
            norm_eval=config.norm_eval,
            cache_dir=cache_dir,
        )
        self.data_config = data_config or self.backbone.data_config()
        if self.data_config.channels != config.in_chans:
            raise ConfigError(
                f"data_config has mean and std of {self.data_config.channels} channels, but in_chans is "
                f"{config.in_chans}."
            )
        self.postprocess_config = postprocess_config or PostprocessConfig()
        self._priors: dict[tuple[Any, ...], Priors] = {}

    def set_labels(self, label_names: Sequence[str] | None, category_ids: Sequence[int] | None = None) -> None:
        """Name the classes; None for the defaults.

        Raises:
            ConfigError: If the number of names or ids is not C, or an id is not a whole number.
        """
        names, ids = default_labels(self.config.num_classes)
        if label_names is not None:
            names, ids = tuple(label_names), tuple(range(len(label_names)))
        if category_ids is not None:
            ids = tuple(whole_number("an id of category_ids", i, -(2**63), 2**63 - 1) for i in category_ids)
        for field, values in (("label_names", names), ("category_ids", ids)):
            if len(values) != self.config.num_classes:
                raise ConfigError(f"{field} has {len(values)} entries, but num_classes is {self.config.num_classes}.")
        self.label_names, self.category_ids = names, ids

    @property
    def spec(self) -> DetectorSpec:
        """The facts that distillation compares."""
        return DetectorSpec(
            name=self.name,
            family=self.family,
            num_classes=self.config.num_classes,
            label_names=self.label_names,
            reg_max=self.coder.reg_max,
            strides=STRIDES,
            anchors_per_cell=self.anchors_per_cell,
            feature_channels=self.config.fpn_channels,
            mean=self.data_config.mean,
            std=self.data_config.std,
        )

    def forward(self, images: Tensor, *, features: bool = False, towers: bool = False) -> DenseOutput:
        """Predict.

        Args:
            images: ``(N, in_chans, H, W)``, normalised (`data_config`) and padded.
            features: Also hand over the pyramid maps.
            towers: Also hand over the head's tower maps.

        Returns:
            Raw predictions of all levels as rows, float32.

        Raises:
            ConfigError: If `images` is no batch of normalised images with `in_chans` channels.
        """
        self._check_images(images)
        pyramid = self.neck(self.backbone(images))
        maps: HeadMaps = self.head(pyramid)
        height, width = images.shape[-2:]
        priors = self.make_priors(height, width, images.device, images.dtype)
        output = DenseOutput.from_levels(maps.cls, maps.box, maps.quality, priors, self.coder)
        return replace(output, features=pyramid if features else None, towers=maps.towers if towers else None)

    def make_priors(
        self, height: int, width: int, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> Priors:
        """The grid of rows for an input of height x width px; made once per size."""
        dtype = torch.float64 if dtype == torch.float64 else torch.float32
        if torch.compiler.is_compiling():
            return self._new_priors(height, width, torch.device(device), dtype)
        key = (height, width, str(device), dtype, self.config, self.data_config.size_divisor)
        if key not in self._priors:
            if len(self._priors) >= 64:  # multi-scale training sees many sizes
                self._priors.pop(next(iter(self._priors)))
            with torch.inference_mode(False):  # a grid made while predicting must serve training as well
                self._priors[key] = self._new_priors(height, width, torch.device(device), dtype)
        return self._priors[key]

    def _new_priors(self, height: int, width: int, device: torch.device, dtype: torch.dtype) -> Priors:
        grid = self.build_priors(level_shapes(height, width, STRIDES), device, dtype)
        return replace(grid, size_divisor=self.data_config.size_divisor)

    @abstractmethod
    def build_priors(self, shapes: LevelShapes, device: torch.device, dtype: torch.dtype) -> Priors:
        """A new grid of levels of these heights and widths in cells, from `config` alone; each family says which."""

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles leave the cached grids behind."""
        return {**self.__dict__, "_priors": {}}

    def _check_images(self, images: Tensor) -> None:
        """Refuse what would fail far from its cause; looks at no values, so it costs nothing and compiles."""
        expected = f"expected normalised floats of shape (N, {self.config.in_chans}, H, W)"
        if not isinstance(images, Tensor):
            raise ConfigError(f"The images are a {type(images).__name__}; {expected}. For files use model.predict.")
        if images.ndim != 4 or images.shape[1] != self.config.in_chans:
            hint = " One image is a batch of one: image[None]." if images.ndim == 3 else ""
            raise ConfigError(f"The images have the shape {tuple(images.shape)}; {expected}.{hint}")
        if not images.is_floating_point():
            raise ConfigError(
                f"The images are {images.dtype}; {expected}: ld_hub.create_transform(**resolve_data_config(model)) "
                "makes them, and model.predict takes raw pixels."
            )

    def assign(self, priors: Priors, targets: Targets) -> Assignment:
        """Which row answers for which ground truth; independent of predictions."""
        assignment: Assignment = self.assigner(priors, targets, self.config.num_classes)
        return assignment

    def loss(
        self,
        output: DenseOutput,
        targets: Targets,
        *,
        assignment: Assignment | None = None,
        counts: StepCounts | None = None,
    ) -> dict[str, Tensor]:
        """Detection losses of a batch; their sum is the training loss.

        Args:
            output: Of `forward` on the same batch.
            targets: Ground truths.
            assignment: Of `assign`, if it was made already.
            counts: Normalisers of the whole optimizer step; None means this batch, over all ranks.
        """
        if assignment is None:
            assignment = self.assign(output.priors, targets)
        losses: dict[str, Tensor] = self.criterion(output, assignment, counts)
        return losses

    @torch.no_grad()
    def postprocess(
        self,
        output: DenseOutput,
        image_sizes: Tensor,
        scale_factors: Tensor | None = None,
        *,
        config: PostprocessConfig | None = None,
    ) -> list[Detections]:
        """Detections of each image, best first.

        Args:
            output: Of `forward`.
            image_sizes: ``(N, 2)`` height, width in px before padding.
            scale_factors: ``(N, 2)`` resized / original along x, y; given, boxes are in px of the originals.
            config: Other settings than the model's own.
        """
        raw = postprocess(output, image_sizes, scale_factors, config or self.postprocess_config)
        return [
            Detections(
                boxes=r.boxes,
                scores=r.scores,
                labels=r.labels,
                label_names=self.label_names,
                category_ids=self.category_ids,
            )
            for r in raw
        ]

    def predict(
        self,
        images: Images,
        *,
        threshold: float | None = None,
        batch_size: int = 8,
    ) -> Detections | list[Detections]:
        """Detect objects on a path, URL, Pillow image, array, tensor, directory, or a list of them.

        Args:
            images: What to look at; see `ld_hub.models.inference.predict`.
            threshold: Least score; by default the model's own.
            batch_size: Most images in one forward pass; does not change the result.

        Returns:
            `Detections` of a single image, a list of them otherwise.
        """
        return predict(self, images, threshold=threshold, batch_size=batch_size)

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write ``config.json`` and ``model.safetensors``; `from_pretrained` gives the model back bit for bit."""
        return save_pretrained(self, directory)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        num_classes: int | None = None,
        label_names: Sequence[str] | None = None,
        category_ids: Sequence[int] | None = None,
        **config_overrides: Any,
    ) -> DenseDetector:
        """Load a saved model strictly, in eval mode.

        Args:
            source: Model directory, or ``org/name`` on the Hub.
            revision: Branch, tag or commit on the Hub.
            cache_dir: Cache of downloads.
            token: Access token for private repositories.
            num_classes: C that the caller expects.
            label_names: Other names for the same classes.
            category_ids: Other ids for the same classes.
            **config_overrides: Configuration fields to change; the weights must still fit.

        Raises:
            CheckpointError: If the weights do not fit, or belong to another family than this class.
        """
        model = load_pretrained(
            source,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            num_classes=num_classes,
            label_names=label_names,
            category_ids=category_ids,
            config_overrides=config_overrides,
        )
        if not isinstance(model, cls):
            raise CheckpointError(f"'{source}' holds a {type(model).__name__}, not a {cls.__name__}.")
        return model
