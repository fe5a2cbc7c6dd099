"""What a user of timm expects of a model: its parts by timm's names, a new classifier, gradient checkpointing."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

from timm.models import FeatureInfo
from torch import nn

from ld_hub.errors import ConfigError
from ld_hub.layers.towers import PRIOR_BIAS, TowerHead, predictor
from ld_hub.models.backbones import Backbone
from ld_hub.models.checkpoints.differences import CLASSIFIER
from ld_hub.models.detector_config import STRIDES, DetectorConfig
from ld_hub.models.label_names import make_labels
from ld_hub.preprocessing import DataConfig


class TimmMethods(nn.Module, ABC):
    """timm's attributes and methods, for a detector with a backbone, a neck and a head whose class layer is ``cls``."""

    anchors_per_cell: ClassVar[int] = 1
    name: str
    config: DetectorConfig
    data_config: DataConfig
    label_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    backbone: Backbone
    neck: nn.Module
    head: TowerHead

    @property
    def num_classes(self) -> int:
        """C."""
        return self.config.num_classes

    @property
    def num_features(self) -> int:
        """F, channels of every map of `forward_features`."""
        return self.config.fpn_channels

    @property
    def feature_info(self) -> FeatureInfo:
        """The maps of `forward_features`: ``.channels()``, ``.reduction()`` (strides), ``.module_name()``."""
        levels = [
            {"num_chs": self.num_features, "reduction": stride, "module": f"neck.fpn_convs.{level}"}
            for level, stride in enumerate(STRIDES)
        ]
        return FeatureInfo(levels, out_indices=tuple(range(len(levels))))

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """The facts timm keeps under this name, in its units: mean and std on the 0..1 scale."""
        data = self.data_config
        return {
            "architecture": self.name,
            "num_classes": self.num_classes,
            "label_names": self.label_names,
            "input_size": (data.channels, *data.image_size),
            "mean": tuple(value / 255 for value in data.mean),
            "std": tuple(value / 255 for value in data.std),
            "classifier": CLASSIFIER,
        }

    default_cfg = pretrained_cfg

    def get_classifier(self) -> nn.Conv2d:
        """The layer that predicts classes: 3x3 convolution to anchors * C logits per cell."""
        return cast(nn.Conv2d, self.get_submodule(CLASSIFIER))

    def reset_classifier(
        self, num_classes: int, label_names: Sequence[str] | None = None, category_ids: Sequence[int] | None = None
    ) -> None:
        """Put a fresh class predictor in place, for other classes; everything else stays as it is.

        Make the optimizer after this: one that was made before holds the old predictor's parameters.

        Args:
            num_classes: C.
            label_names: C names in the order of the logits; None for COCO's 80, else numbered ones.
            category_ids: C ids of the data set.

        Raises:
            ConfigError: If an argument cannot work; the model is then unchanged.
        """
        config = replace(self.config, num_classes=num_classes)
        labels = make_labels(config.num_classes, label_names, category_ids)
        old = self.get_classifier()
        new = predictor(old.in_channels, self.anchors_per_cell * config.num_classes, bias=PRIOR_BIAS)
        self.set_submodule(CLASSIFIER, new.to(old.weight).train(old.training))
        self.config, (self.label_names, self.category_ids) = config, labels

    def reset_head(
        self, num_classes: int, label_names: Sequence[str] | None = None, category_ids: Sequence[int] | None = None
    ) -> None:
        """`reset_classifier`: of a detector's head, only the class predictor depends on the classes."""
        self.reset_classifier(num_classes, label_names, category_ids)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the backbone's activations in the backward pass: less memory, more time, the same gradients.

        Raises:
            ConfigError: If the backbone cannot.
        """
        body = self.backbone.body  # a list of layers, or a wrapper around the whole timm model
        owner: Any = body if hasattr(body, "set_grad_checkpointing") else getattr(body, "model", None)
        if not hasattr(owner, "set_grad_checkpointing"):
            raise ConfigError(f"The backbone '{self.backbone.name}' does not know gradient checkpointing.")
        owner.set_grad_checkpointing(enable)
