"""A detector as a function of plain tensors, and its trace for any batch and image size."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ld_hub.errors import ConfigError
from ld_hub.models.detector import DenseDetector
from ld_hub.models.detector_config import STRIDES
from ld_hub.preprocessing import Preprocessor, collate, padded_shape

Size = tuple[int, int]  # height and width in px

# What tracing raises where a network looks at the size of its image.
TRACE_ERRORS = (RuntimeError, TypeError, ValueError, AttributeError, AssertionError, NotImplementedError)


class DetectorRows(nn.Module):
    """A detector up to the choice of boxes: what is exported, in the order in which `OUTPUTS` names it.

    Args:
        model: The detector, in eval mode; exports take a fused copy.
    """

    OUTPUTS = ("row_boxes", "row_scores", "row_quality", "level_sizes")

    def __init__(self, model: DenseDetector) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(self, images: Tensor, image_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Predict.

        Args:
            images: ``(N, K, H, W)`` float32, normalised and padded.
            image_sizes: ``(N, 2)`` int64 height, width in px before padding.

        Returns:
            Boxes ``(N, A, 4)``, xyxy px, clipped to the image; class scores ``(N, A, C)`` in 0..1, 0 on the padding
            beyond an image's own padded size; ``(N, A)`` what a chosen box's score is multiplied by, 1 where a family
            has no such quality; ``(L,)`` int64 rows of each pyramid level.
        """
        output = self.model(images)
        height, width = image_sizes.to(output.box.dtype).unbind(1)
        limit = torch.stack([width, height, width, height], dim=1)[:, None]
        boxes = torch.minimum(output.decode().clamp(min=0), limit)
        scores = output.cls_logits.sigmoid() * output.priors.valid(image_sizes)[:, :, None]
        quality = torch.ones_like(scores[:, :, 0]) if output.quality is None else output.quality.sigmoid()
        levels = output.priors.levels
        level_sizes = torch.stack([(levels == level).sum() for level in range(len(STRIDES))])
        return boxes, scores, quality, level_sizes


def trace(rows: DetectorRows, size: Size | None = None) -> ExportedProgram:
    """Record what a detector computes.

    Args:
        rows: The detector.
        size: Height and width that all images are padded to; None for any multiples of ``size_divisor``.

    Returns:
        The program; its batch is of any size.

    Raises:
        ConfigError: If the network cannot be traced so.
    """
    config = rows.model.data_config
    divisor = config.size_divisor
    height, width = size or padded_shape(2 * STRIDES[-1] + 1, 3 * STRIDES[-1] + 1, divisor)
    batch = Dim("batch")
    sides = {2: divisor * Dim("rows", min=2), 3: divisor * Dim("columns", min=2)} if size is None else {}
    weight = next(rows.parameters())
    example = (
        torch.zeros(2, config.channels, height, width, dtype=weight.dtype, device=weight.device),
        torch.full((2, 2), min(height, width), device=weight.device),
    )
    shapes = {"images": {0: batch, **sides}, "image_sizes": {0: batch}}
    try:
        with torch.no_grad():
            return torch.export.export(rows, example, dynamic_shapes=shapes, strict=False)
    except TRACE_ERRORS as error:
        of = "any size" if size is None else f"{height} x {width} px"
        raise ConfigError(
            f"'{rows.model.name}' (backbone '{rows.model.config.backbone}') cannot be exported for images of {of}: "
            f"{str(error).strip().splitlines()[0][:200]}"
        ) from error


def network_inputs(rows: DetectorRows, image: Image.Image, size: Size | None) -> tuple[Tensor, Tensor]:
    """An image as the network takes it: ``(1, K, H, W)``, and ``(1, 2)`` its height and width in px before padding.

    Args:
        rows: The detector.
        image: RGB.
        size: Height and width in px that it is padded to; None for the model's own padding.
    """
    batch = collate([Preprocessor(rows.model.data_config)(image)])
    height, width = batch.images.shape[2:]
    below, right = (0, 0) if size is None else (size[0] - height, size[1] - width)
    return torch.nn.functional.pad(batch.images, (0, right, 0, below)), batch.image_sizes


def whole_square(rows: DetectorRows) -> Size:
    """The size that every image fits into as the model wants it: a square of the longest padded side."""
    config = rows.model.data_config
    long = config.image_size[1]
    return padded_shape(long, long, config.size_divisor)
