"""Deformable convolution, version 1 (arXiv 1703.06211) and version 2 (arXiv 1811.11168).

Shapes: N images, C channels, K = kernel height * width taps, H x W cells of the output.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d


class DeformableConv2d(nn.Conv2d):
    """A convolution whose taps move: a second convolution on the same input says where each reads.

    Version 1 predicts 2K channels, the offsets (dy, dx) of all taps in cells of the input. Version 2 predicts 3K: the
    same 2K offsets and one weight per tap through a sigmoid (eq. 1 of the paper; "modulated"). The offsets start at
    zero, as published: then version 1 is the plain convolution, and version 2 half of it, since sigmoid(0) = 1/2.

    Parameters are called as in OpenMMLab's files: ``weight``, ``conv_offset.weight``, ``conv_offset.bias``.

    Args:
        plain: The convolution that becomes deformable. Its weight is kept, not copied.
        modulated: Version 2.
    """

    conv_offset: nn.Conv2d
    modulated: bool

    def __init__(self, plain: nn.Conv2d, *, modulated: bool = False) -> None:
        self._geometry: dict[str, Any] = {
            name: getattr(plain, name) for name in ("kernel_size", "stride", "padding", "dilation")
        }
        channels = plain.in_channels, plain.out_channels
        # On the meta device: no memory and no random numbers for weights that are replaced at once.
        super().__init__(*channels, groups=plain.groups, bias=False, device="meta", **self._geometry)
        self.weight, self.bias = plain.weight, plain.bias
        self.train(plain.training)
        self.set_version(modulated)

    @property
    def offset_channels(self) -> int:
        """2K for version 1, 3K for version 2: 18 and 27 with 3 x 3 taps."""
        return self.conv_offset.out_channels

    def set_version(self, modulated: bool) -> None:
        """Make it version 1 or 2. Its offsets are zero again, and trainable if the weight is."""
        channels = self.kernel_size[0] * self.kernel_size[1] * (3 if modulated else 2)
        offsets = nn.Conv2d(self.in_channels, channels, device="meta", **self._geometry)
        offsets.to_empty(device=self.weight.device).to(self.weight.dtype)
        for parameter in offsets.parameters():
            nn.init.zeros_(parameter).requires_grad_(self.weight.requires_grad)
        self.conv_offset, self.modulated = offsets.train(self.training), modulated

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H_in, W_in)`` to ``(N, C_out, H, W)`` of the same type.

        Computed in float32 at least: near cell 100, bfloat16 knows positions to half a cell only, and the operator
        has no kernel for it. Autocast does not see to that: it hands the operator a mixture of types.
        """
        dtype = torch.promote_types(x.dtype, torch.float32)
        offset, mask = self.conv_offset(x).to(dtype), None
        if self.modulated:
            taps = self.offset_channels // 3
            offset, mask = offset[:, : 2 * taps], offset[:, 2 * taps :].sigmoid()
        bias = None if self.bias is None else self.bias.to(dtype)
        settings = {name: self._geometry[name] for name in ("stride", "padding", "dilation")}
        out: Tensor = deform_conv2d(x.to(dtype), offset, self.weight.to(dtype), bias, mask=mask, **settings)
        return out.to(x.dtype)
