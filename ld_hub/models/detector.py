"""What all families share: the way from images to rows, losses and detections."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ld_hub.errors import CheckpointError, ConfigError
from ld_hub.layers.output_tree import handed_over, register_output
from ld_hub.layers.postprocess import NmsKind, PostprocessConfig, postprocess
from ld_hub.models.backbones import Backbone
from ld_hub.models.checkpoints.pretrained import load_pretrained, save_pretrained
from ld_hub.models.detector_config import STRIDES, DetectorConfig, LevelShapes
from ld_hub.models.fusing import fused
from ld_hub.models.input_checks import require_images
from ld_hub.models.label_names import make_labels
from ld_hub.models.timm_methods import TimmMethods
from ld_hub.ops.grids import level_shapes
from ld_hub.papers import Paper
from ld_hub.preprocessing import DataConfig
from ld_hub.structures import (
    Assigner,
    Assignment,
    BoxCoder,
    Criterion,
    DenseOutput,
    Detections,
    DetectorSpec,
    HeadMaps,
    Priors,
    StepCounts,
    Targets,
    Teaching,
    Towers,
)
from ld_hub.tiling import Tiling

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

    from ld_hub.export.writing import ExportReport
    from ld_hub.models.inference import Images


class DenseDetector(TimmMethods):
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
    title: ClassVar[str] = ""  # what cards call the family
    paper: ClassVar[Paper | None] = None
    train_settings: ClassVar[
        Mapping[str, Any]
    ] = {}  # what its published configurations set differently (`TrainConfig`)
    coder: BoxCoder
    assigner: Assigner
    criterion: Criterion
    teaching: Teaching | None = None  # how it was distilled, as the trainer records it; saved with the weights
    origin: str | None = None  # org/name@commit of one that came from the Hub
    is_fused: bool = False  # a copy that `fuse` made

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
        register_output()
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
        self.label_names, self.category_ids = make_labels(self.config.num_classes, label_names, category_ids)

    @property
    def papers(self) -> tuple[Paper, ...]:
        """What a card cites for the architecture."""
        return (self.paper,) if self.paper else ()

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
            tower_channels=self.head.tap_channels,
            mean=self.data_config.mean,
            std=self.data_config.std,
            points=self.build_priors(((1, 1),) * len(STRIDES), torch.device("cpu"), torch.float32).anchors is None,
        )

    def forward(self, images: Tensor, *, features: bool = False, towers: bool = False) -> DenseOutput:
        """Predict.

        Args:
            images: ``(N, in_chans, H, W)``, normalised (`data_config`) and padded.
            features: Also hand over the pyramid maps.
            towers: Also hand over the maps at the taps of the head's towers.

        Returns:
            Raw predictions of all levels as rows, float32; to `torch.jit.trace`, which knows tensors alone, the tuple
            of `cls_logits`, `box` and, where there is one, `quality`.

        Raises:
            ConfigError: If `images` is no batch of normalised images with `in_chans` channels.
        """
        output: DenseOutput = handed_over(
            self.forward_head(self.forward_features(images), features=features, towers=towers)
        )
        return output

    def forward_features(self, images: Tensor) -> tuple[Tensor, ...]:
        """The pyramid: ``(N, in_chans, H, W)`` to L maps ``(N, F, ceil(H/s), ceil(W/s))``; see `feature_info`.

        Raises:
            ConfigError: As `forward`.
        """
        require_images(images, self.config.in_chans)
        return tuple(self.neck(self.backbone(images)))

    def forward_head(self, pyramid: Sequence[Tensor], *, features: bool = False, towers: bool = False) -> DenseOutput:
        """Predict from the maps of `forward_features`; the other arguments and the result are those of `forward`."""
        maps: HeadMaps = self.head(pyramid)
        shapes = tuple((level.shape[-2], level.shape[-1]) for level in pyramid)
        priors = self._grid(shapes, pyramid[0].device, pyramid[0].dtype)
        output = DenseOutput.from_levels(maps.cls, maps.box, maps.quality, priors, self.coder)
        return replace(output, features=tuple(pyramid) if features else None, towers=maps.towers if towers else None)

    def resume(self, towers: Towers, priors: Priors) -> DenseOutput:
        """Predict from maps at the taps of the head's towers, another model's maybe (CrossKD, arXiv 2306.11369).

        Args:
            towers: Class and box maps ``(N, width, H, W)`` of all levels, as a `DenseOutput` hands them over.
            priors: The grid of the output they belong to.
        """
        maps: HeadMaps = self.head.resume(towers)
        return DenseOutput.from_levels(maps.cls, maps.box, maps.quality, priors, self.coder)

    def make_priors(
        self, height: int, width: int, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> Priors:
        """The grid of rows for an input of height x width px; made once per size."""
        return self._grid(level_shapes(height, width, STRIDES), torch.device(device), dtype)

    def _grid(self, shapes: LevelShapes, device: torch.device, dtype: torch.dtype) -> Priors:
        dtype = torch.float64 if dtype == torch.float64 else torch.float32
        if torch.compiler.is_compiling():
            return self._new_grid(shapes, device, dtype)
        key = (shapes, str(device), dtype, self.config, self.data_config.size_divisor)
        if key not in self._priors:
            if len(self._priors) >= 64:  # multi-scale training sees many sizes
                self._priors.pop(next(iter(self._priors)))
            with torch.inference_mode(False):  # a grid made while predicting must serve training as well
                self._priors[key] = self._new_grid(shapes, device, dtype)
        return self._priors[key]

    def _new_grid(self, shapes: LevelShapes, device: torch.device, dtype: torch.dtype) -> Priors:
        return replace(self.build_priors(shapes, device, dtype), size_divisor=self.data_config.size_divisor)

    @abstractmethod
    def build_priors(self, shapes: LevelShapes, device: torch.device, dtype: torch.dtype) -> Priors:
        """A new grid of levels of these heights and widths in cells, from `config` alone; each family says which."""

    def __getstate__(self) -> dict[str, object]:
        """Copies and pickles leave the cached grids behind."""
        return {**self.__dict__, "_priors": {}}

    def assign(self, priors: Priors, targets: Targets) -> Assignment:
        """Which row answers for which ground truth; independent of predictions."""
        return self.assigner(priors, targets, self.config.num_classes)

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
        return self.criterion(output, assignment, counts)

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
        nms: NmsKind | None = None,
        batch_size: int = 8,
        tile: int | None = None,
        overlap: float = 0.2,
    ) -> Detections | list[Detections]:
        """Detect objects on a path, URL, Pillow image, array, tensor, directory, or a list of them.

        Args:
            images: What to look at; see `ld_hub.models.inference.predict`.
            threshold: Least score; by default the model's own.
            nms: ``"hard"``, ``"soft_linear"``, ``"soft_gaussian"`` or ``"score_voting"``; by default the model's own.
            batch_size: Most images in one forward pass; does not change the result.
            tile: Side in px of the tiles in which larger images are looked at; None looks at whole images only.
            overlap: Share of a tile's side that neighbours have in common (`ld_hub.tiling.Tiling`).

        Returns:
            `Detections` of a single image, a list of them otherwise.
        """
        from ld_hub.models.inference import predict  # this room stands on detectors

        tiling = None if tile is None else Tiling(tile, overlap)
        return predict(self, images, threshold=threshold, nms=nms, batch_size=batch_size, tiling=tiling)

    def fuse(self) -> DenseDetector:
        """A copy for inference, its batch norms folded into convolutions; it detects the same, and cannot be saved."""
        made = fused(self, "backbone.body", self.config.in_chans)
        made.is_fused = True
        return made

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write ``config.json`` and ``model.safetensors``; `from_pretrained` gives the model back bit for bit.

        Raises:
            CheckpointError: If this is a copy that `fuse` made.
        """
        if self.is_fused:
            raise CheckpointError(
                f"This '{self.name}' is a copy that model.fuse() made; save the model itself, or use model.export(DIR)."
            )
        return save_pretrained(self, directory)

    def push_to_hub(self, repo_id: str, **options: Any) -> CommitInfo:
        """Publish the model with its card in one commit; see `ld_hub.publishing.push.push_to_hub` for all options.

        Args:
            repo_id: ``org/name``; made if it does not exist.
            **options: ``private``, ``create_pr``, ``revision``, ``token``, ``commit_message``, ``license``,
                ``eval_results``, ``run``, ``image``, ``curves``, ``exports``.

        Returns:
            The commit: as a text its address, with ``.oid`` and ``.pr_url``.
        """
        from ld_hub.publishing.push import push_to_hub  # the one door upwards: the room that publishes

        return push_to_hub(self, repo_id, **options)

    def export(self, directory: str | Path, **options: Any) -> ExportReport:
        """Write a program that runs without torch, and say how it compares; see `ld_hub.export.writing.export_model`.

        Args:
            directory: Where to; new, empty, or an earlier export.
            **options: ``to``, ``no_nms``, ``with_preprocessing``, ``size``, ``precision``, ``images``, ``dataset``,
                ``calibration``, ``calibration_images``, ``keep``, ``page``, ``onnxruntime_web``.
        """
        from ld_hub.export.writing import export_model  # the other door upwards: the room that exports

        return export_model(self, directory, **options)

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
            num_classes: C; another number than the saved one resets the class predictor, for fine-tuning.
            label_names: Names of the classes; as many as were saved are other names for the same classes.
            category_ids: Ids of the classes.
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
