"""A detector as a plain function of tensors, which is what exporters take."""

from __future__ import annotations

from torch import Tensor, nn

from ld_hub.models.detector import DenseDetector


class ExportWrapper(nn.Module):
    """A detector that returns two tensors instead of a `DenseOutput`: for ``torch.export`` and what builds on it.

    The exported program has the image size of its example (the grid of rows becomes a constant of it). Choosing and
    suppressing boxes is left out; scores are ``cls_logits.sigmoid()``.

    Args:
        model: The detector; it is put into eval mode.

    Example:
        >>> wrapper = ExportWrapper(model)  # doctest: +SKIP
        >>> program = torch.export.export(wrapper, (torch.zeros(1, 3, 800, 1344),))  # doctest: +SKIP
        >>> cls_logits, boxes = program.module()(images)  # doctest: +SKIP
    """

    def __init__(self, model: DenseDetector) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Predict.

        Args:
            images: ``(N, in_chans, H, W)``, normalised and padded.

        Returns:
            Class logits ``(N, A, C)``, and boxes ``(N, A, 4)``, xyxy px of the padded image.
        """
        output = self.model(images)
        return output.cls_logits, output.decode()
