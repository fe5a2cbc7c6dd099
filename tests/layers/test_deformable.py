"""Deformable convolution against bilinear sampling by hand, one tap at a time."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ld_hub.layers.deformable import DeformableConv2d

GEOMETRIES = [
    {"stride": 1, "padding": 1, "groups": 1},
    {"stride": 2, "padding": 1, "groups": 4},
    {"stride": 1, "padding": 2, "dilation": 2, "groups": 2, "bias": True},
]


def layer(geometry: dict[str, int], modulated: bool, *, moving: bool = True) -> DeformableConv2d:
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 12, 3, **{"bias": False, **geometry}).double()
    deformable = DeformableConv2d(plain, modulated=modulated)
    if moving:
        nn.init.normal_(deformable.conv_offset.weight, std=0.3)
        nn.init.normal_(deformable.conv_offset.bias, std=1.5)
    return deformable


def by_hand(conv: DeformableConv2d, x: Tensor) -> Tensor:
    """Sum over the taps of weight * (tap's weight) * image, read bilinearly at p0 + pk + offset; zero outside."""
    height, width = x.shape[2:]
    moves = conv.conv_offset(x)
    out: Tensor | float = 0.0
    rows, columns = (torch.arange(n, dtype=x.dtype) * conv.stride[0] - conv.padding[0] for n in moves.shape[2:])
    for tap in range(9):
        y = rows[:, None] + (tap // 3) * conv.dilation[0] + moves[:, 2 * tap]
        z = columns[None, :] + (tap % 3) * conv.dilation[1] + moves[:, 2 * tap + 1]
        grid = torch.stack([2 * z / (width - 1) - 1, 2 * y / (height - 1) - 1], dim=-1)
        seen = F.grid_sample(x, grid, padding_mode="zeros", align_corners=True)
        if conv.modulated:
            seen = seen / (1 + torch.exp(-moves[:, 18 + tap : 19 + tap]))
        out = out + F.conv2d(seen, conv.weight[:, :, tap // 3, tap % 3, None, None], groups=conv.groups)
    assert isinstance(out, Tensor)
    return out if conv.bias is None else out + conv.bias[:, None, None]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("modulated", [False, True])
def test_values_and_gradients(geometry: dict[str, int], modulated: bool) -> None:
    conv = layer(geometry, modulated)
    assert conv.offset_channels == (27 if modulated else 18)
    x = torch.randn(2, 8, 9, 7, dtype=torch.float64, requires_grad=True)
    leaves = [x, *conv.parameters()]
    results = []
    for out in (conv(x), by_hand(conv, x)):
        results.append((out, torch.autograd.grad(out.square().sum(), leaves)))
    (found, grads), (expected, wanted) = results
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(grads, wanted, strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_offsets_start_at_zero(geometry: dict[str, int]) -> None:
    """Version 1 is then the plain convolution, version 2 half of it (sigmoid(0)); the bias is not halved."""
    x = torch.randn(2, 8, 9, 7, dtype=torch.float64)
    for modulated, factor in ((False, 1.0), (True, 0.5)):
        conv = layer(geometry, modulated, moving=False)
        plain = F.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups) * factor
        torch.testing.assert_close(conv(x), plain if conv.bias is None else plain + conv.bias[:, None, None])


@pytest.mark.parametrize("modulated", [False, True])
def test_lower_precision(modulated: bool) -> None:
    """Under autocast and as a bfloat16 model: the type of the input comes out, the sampling is not done in it."""
    conv = layer(GEOMETRIES[1], modulated).float()
    x = torch.randn(1, 8, 40, 40)
    expected = conv(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for images in (x, x.bfloat16()):
            found = conv(images)
            assert found.dtype == images.dtype
            assert (found - expected).norm() < 0.03 * expected.norm()
        found.sum().backward()
    assert conv.conv_offset.weight.grad is not None and conv.conv_offset.weight.grad.isfinite().all()
    for dtype in (torch.bfloat16, torch.float16):
        low = copy.deepcopy(conv).to(dtype)
        found = low(x.to(dtype))
        assert found.dtype == dtype and (found - expected).norm() < 0.03 * expected.norm()


def test_the_version_changes_in_place() -> None:
    conv = layer(GEOMETRIES[0], modulated=False).float().eval()
    weight = conv.weight
    conv.weight.requires_grad_(False)
    conv.set_version(True)
    assert conv.weight is weight and conv.modulated and conv.offset_channels == 27
    assert list(conv.state_dict()) == ["weight", "conv_offset.weight", "conv_offset.bias"]
    assert not any(p.requires_grad or p.abs().max() for p in conv.conv_offset.parameters())
    assert conv.conv_offset.weight.dtype == weight.dtype and not conv.conv_offset.training
    conv.set_version(False)
    assert conv.offset_channels == 18


def test_making_one_draws_no_random_numbers() -> None:
    plain = nn.Conv2d(4, 4, 3)
    state = torch.get_rng_state()
    DeformableConv2d(plain)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("modulated", [False, True])
def test_on_a_gpu(modulated: bool) -> None:
    conv = layer(GEOMETRIES[1], modulated)
    x = torch.randn(2, 8, 20, 20, dtype=torch.float64)
    expected = conv(x)
    moved = copy.deepcopy(conv).cuda()
    torch.testing.assert_close(moved(x.cuda()).cpu(), expected)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cuda", dtype=dtype):
            found = copy.deepcopy(conv).float().cuda()(x.float().cuda())
        assert (found.cpu() - expected).norm() < 0.03 * expected.norm()
