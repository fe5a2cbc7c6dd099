"""Our detectors behind transformers' own doors: ``import ld_hub.transformers``, then `pipeline` and the Auto classes.

```
import ld_hub.transformers
from transformers import pipeline
detect = pipeline("object-detection", model="org/name")  # trust_remote_code is not needed
```

A detector stays what it is: its own preprocessing, its own choice of boxes. Training is not done from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModelForObjectDetection
from transformers.configuration_utils import PreTrainedConfig
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES
from transformers.utils import ModelOutput

from ld_hub.errors import ConfigError
from ld_hub.hub.downloads import download
from ld_hub.layers.postprocess import PostprocessConfig, postprocess
from ld_hub.models.checkpoints.pretrained import load_pretrained
from ld_hub.models.checkpoints.saved import read_saved
from ld_hub.models.detector import DenseDetector
from ld_hub.preprocessing import DataConfig, Preprocessor, collate, load_image
from ld_hub.structures import DenseOutput

MODEL_TYPE = "ld_hub"  # in every config.json that this library writes
_PLACES = ("revision", "cache_dir", "token")  # where a model lies, of the many arguments that transformers hands on


class LdHubConfig(PreTrainedConfig):
    """What transformers asks of a configuration; the detector's own is in ``content``.

    Args:
        content: Of config.json.
        **options: Of every configuration.
    """

    model_type = MODEL_TYPE

    def __init__(self, content: Mapping[str, Any] | None = None, **options: Any) -> None:
        self.content = dict(content or {})
        names = self.content.get("label_names", ())
        options |= {"id2label": dict(enumerate(names)), "label2id": {name: k for k, name in enumerate(names)}}
        super().__init__(**options)

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **options: Any) -> Any:
        """The configuration of a file's content; see `PreTrainedConfig.from_dict`."""
        unused = options.pop("return_unused_kwargs", False)
        made = cls(config_dict.get("content", config_dict))
        return (made, options) if unused else made


@dataclass
class LdHubOutput(ModelOutput):
    """Predictions before the choice of boxes.

    Attributes:
        logits: ``(N, A, C)``.
        pred_boxes: ``(N, A, 4)`` xyxy px of the padded images.
        image_sizes: ``(N, 2)`` height, width in px before padding.
        dense: All of it.
    """

    logits: Tensor | None = None
    pred_boxes: Tensor | None = None
    image_sizes: Tensor | None = None
    dense: DenseOutput | None = None


class LdHubForObjectDetection(PreTrainedModel):
    """A detector of this library as transformers' models are called.

    Args:
        config: Of `from_pretrained`.
        detector: The detector itself.
    """

    config_class = LdHubConfig
    main_input_name = "pixel_values"

    def __init__(self, config: LdHubConfig, detector: DenseDetector | None = None) -> None:
        super().__init__(config)
        if detector is None:
            raise ConfigError("A detector is made with ld_hub.create_model; from_pretrained loads a saved one here.")
        self.detector = detector

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *_: Any, dtype: Any = None, **options: Any
    ) -> LdHubForObjectDetection:
        """Load a saved model strictly, in eval mode; errors as of `DenseDetector.from_pretrained`.

        Args:
            pretrained_model_name_or_path: Model directory, or ``org/name`` on the Hub.
            dtype: Of the weights; float32 where not given.
            **options: ``revision``, ``cache_dir``, ``token``; what else transformers hands on has no meaning here.
        """
        places = {name: options[name] for name in _PLACES if options.get(name) is not None}
        detector = load_pretrained(str(pretrained_model_name_or_path), **places)
        model: LdHubForObjectDetection = cls(LdHubConfig(detector_content(detector)), detector).eval()
        return (
            model if dtype in (None, "auto") else model.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
        )

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> None:
        """Write the detector as `DenseDetector.save_pretrained` does."""
        self.detector.save_pretrained(save_directory)

    def push_to_hub(self, repo_id: str, **options: Any) -> Any:
        """Publish the detector with its card; see `DenseDetector.push_to_hub`."""
        return self.detector.push_to_hub(repo_id, **options)

    def forward(
        self, pixel_values: Tensor, image_sizes: Tensor | None = None, labels: Any = None, **_: Any
    ) -> LdHubOutput:
        """Predict.

        Args:
            pixel_values: ``(N, K, H, W)`` of the image processor.
            image_sizes: ``(N, 2)`` height, width in px before padding; None where nothing is padded.
            labels: Not taken.

        Raises:
            ConfigError: If there are `labels`.
        """
        if labels is not None:
            raise ConfigError("Detectors are trained by `ld-hub train` and `ld-hub distill`, not from transformers.")
        if image_sizes is None:
            image_sizes = torch.tensor([pixel_values.shape[-2:]] * len(pixel_values), device=pixel_values.device)
        dense = self.detector(pixel_values.to(next(self.parameters()).dtype))
        return LdHubOutput(dense.cls_logits, dense.decode(), image_sizes, dense)


class LdHubImageProcessor(BaseImageProcessor):
    """A detector's own preprocessing and choice of boxes.

    Args:
        data_config: How images become input.
        postprocess_config: How rows become detections.
    """

    model_input_names = ("pixel_values", "image_sizes")

    def __init__(
        self, data_config: DataConfig | None = None, postprocess_config: PostprocessConfig | None = None, **_: Any
    ) -> None:
        super().__init__()
        self.data_config = data_config or DataConfig()
        self.postprocess_config = postprocess_config or PostprocessConfig()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> LdHubImageProcessor:
        """Read the settings of a saved model; `options` as of `LdHubForObjectDetection.from_pretrained`."""
        place = Path(pretrained_model_name_or_path)
        places = {name: options[name] for name in _PLACES if options.get(name) is not None}
        saved = read_saved(place if place.is_dir() else download(str(place), weights=False, **places))
        return cls(saved.data_config, saved.postprocess_config)

    def __call__(self, images: Any, return_tensors: str | None = None, **_: Any) -> BatchFeature:
        """Images to a batch; see `preprocess`."""
        return self.preprocess(images, return_tensors)

    def preprocess(self, images: Any, return_tensors: str | None = None, **_: Any) -> BatchFeature:
        """Resize, normalise and pad.

        Args:
            images: Whatever `ld_hub.preprocessing.load_image` takes, or a list of such.
            return_tensors: ``"pt"`` in any case.

        Returns:
            ``pixel_values`` ``(N, K, H, W)`` and ``image_sizes`` ``(N, 2)`` height, width in px before padding.
        """
        several = images if isinstance(images, (list, tuple)) else [images]
        prepare = Preprocessor(self.data_config)
        batch = collate([prepare(load_image(image)) for image in several])
        return BatchFeature({"pixel_values": batch.images, "image_sizes": batch.image_sizes})

    def post_process_object_detection(
        self, outputs: Any, threshold: float = 0.5, target_sizes: Tensor | Sequence[Sequence[int]] | None = None
    ) -> list[dict[str, Tensor]]:
        """Detections of each image.

        Args:
            outputs: Of the model.
            threshold: Least score, exclusive.
            target_sizes: ``(N, 2)`` height, width of the original images in px; None keeps px of the input.

        Returns:
            ``scores`` ``(K,)``, ``labels`` ``(K,)``, ``boxes`` ``(K, 4)`` xyxy px of each image.
        """
        dense, sizes = outputs["dense"], outputs["image_sizes"]
        config = self.postprocess_config.letting_through(threshold)
        sizes = sizes.to(dense.box.device)
        factors = None
        if target_sizes is not None:
            factors = (sizes / torch.as_tensor(target_sizes, device=sizes.device)).flip(1)
        found = postprocess(dense, sizes, factors, config)
        kept = [(each, each.scores > threshold) for each in found]
        return [{"scores": e.scores[k], "labels": e.labels[k], "boxes": e.boxes[k]} for e, k in kept]


def detector_content(detector: DenseDetector) -> dict[str, object]:
    """What of a detector transformers asks: names of its classes."""
    return {"model_type": MODEL_TYPE, "architecture": detector.name, "label_names": list(detector.label_names)}


AutoConfig.register(MODEL_TYPE, LdHubConfig, exist_ok=True)
AutoModelForObjectDetection.register(LdHubConfig, LdHubForObjectDetection, exist_ok=True)
AutoImageProcessor.register(
    LdHubConfig, image_processor_classes=dict.fromkeys(("torchvision", "pil"), LdHubImageProcessor), exist_ok=True
)
MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES[MODEL_TYPE] = LdHubForObjectDetection.__name__  # which `pipeline` looks up
