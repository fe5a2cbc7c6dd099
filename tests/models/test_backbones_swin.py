"""Swin-T against a second implementation under OpenMMLab's names and in its order of doing things.

No recorded forward pass of OpenMMLab's exists, so the facts are written out here: patch merging reads 2x2 patches as
`nn.Unfold` does, stands at the end of a stage, maps are padded to whole windows before they are shifted, every second
block is shifted whatever the size of its map, and each output has a layer norm of its own.
"""

from __future__ import annotations

import math
import zlib

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from ld_hub.errors import CheckpointError
from ld_hub.models.backbones import Backbone
from ld_hub.models.checkpoints.convert import load_openmmlab_state, translate_openmmlab
from ld_hub.models.checkpoints.key_maps import key_map
from ld_hub.models.factory import create_model
from tests.support import golden

WINDOW, SHIFT = 7, 3
DEPTHS, HEADS, WIDTH = (2, 2, 6, 2), (3, 6, 12, 24), 96


def shapes() -> dict[str, tuple[int, ...]]:
    """OpenMMLab's names and shapes of a Swin-T with outputs at strides 8, 16, 32."""
    found: dict[str, tuple[int, ...]] = {"patch_embed.projection.weight": (WIDTH, 3, 4, 4)}
    found |= {"patch_embed.projection.bias": (WIDTH,)} | norm("patch_embed.norm", WIDTH)
    for stage, depth in enumerate(DEPTHS):
        width = WIDTH * 2**stage
        for number in range(depth):
            block = f"stages.{stage}.blocks.{number}."
            found |= norm(f"{block}norm1", width) | norm(f"{block}norm2", width)
            found[f"{block}attn.w_msa.relative_position_bias_table"] = (169, HEADS[stage])
            found |= linear(f"{block}attn.w_msa.qkv", width, 3 * width)
            found |= linear(f"{block}attn.w_msa.proj", width, width)
            found |= linear(f"{block}ffn.layers.0.0", width, 4 * width)
            found |= linear(f"{block}ffn.layers.1", 4 * width, width)
        if stage < 3:
            found |= norm(f"stages.{stage}.downsample.norm", 4 * width)
            found[f"stages.{stage}.downsample.reduction.weight"] = (2 * width, 4 * width)
        if stage:
            found |= norm(f"norm{stage}", width)
    return found


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def linear(name: str, width: int, out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, width), f"{name}.bias": (out,)}


def official_state() -> dict[str, Tensor]:
    """Values that belong to the names; scaled so that attention is far from uniform."""
    state = {}
    for name, shape in shapes().items():
        random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        value = torch.randn(shape, generator=random, dtype=torch.float64)
        if name.endswith("weight") and len(shape) == 1:
            value = 1 + 0.2 * value
        elif len(shape) > 1 and not name.endswith("table"):
            value = value * 1.5 / math.sqrt(math.prod(shape[1:]))
        state[f"backbone.{name}"] = value
    return state


def positions() -> Tensor:
    """Row of the table for the displacement between two cells of a window."""
    cells = [(y, x) for y in range(WINDOW) for x in range(WINDOW)]
    side = 2 * WINDOW - 1
    rows = [[(a - c + WINDOW - 1) * side + b - d + WINDOW - 1 for c, d in cells] for a, b in cells]
    return torch.tensor(rows)


class Official:
    """Forward pass from a state dict."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = {name.removeprefix("backbone."): value for name, value in state.items()}

    def norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def __call__(self, images: Tensor) -> list[Tensor]:
        weight, bias = (self.state[f"patch_embed.projection.{kind}"] for kind in ("weight", "bias"))
        x = self.norm("patch_embed.norm", F.conv2d(images, weight, bias, stride=4).permute(0, 2, 3, 1))
        maps = []
        for stage, depth in enumerate(DEPTHS):
            for number in range(depth):
                block = f"stages.{stage}.blocks.{number}."
                x = x + self.attention(block, self.norm(f"{block}norm1", x), HEADS[stage], SHIFT * (number % 2))
                hidden = F.gelu(self.linear(f"{block}ffn.layers.0.0", self.norm(f"{block}norm2", x)))
                x = x + self.linear(f"{block}ffn.layers.1", hidden)
            if stage:
                maps.append(self.norm(f"norm{stage}", x).permute(0, 3, 1, 2))
            if stage < 3:
                x = self.merge(f"stages.{stage}.downsample.", x)
        return maps

    def merge(self, name: str, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        patches = F.unfold(x.permute(0, 3, 1, 2), 2, stride=2).transpose(1, 2)
        x = self.linear(f"{name}reduction", self.norm(f"{name}norm", patches))
        return x.unflatten(1, (height // 2, width // 2))

    def attention(self, block: str, x: Tensor, heads: int, shift: int) -> Tensor:
        """Every pair of cells of the padded map: seen if in one window, and not over the edge of the shifted map."""
        height, width, channels = x.shape[1:]
        x = F.pad(x, (0, 0, 0, -width % WINDOW, 0, -height % WINDOW))
        padded = x.shape[1:3]
        groups = []
        for size in padded:
            at = (torch.arange(size) - shift) % size  # place of each cell in the shifted map
            part = (at >= size - WINDOW).long() + (at >= size - shift).long() if shift else torch.zeros_like(at)
            groups.append((at // WINDOW, part, at % WINDOW))
        spread = [torch.cartesian_prod(a, b).unbind(1) for a, b in zip(*groups, strict=True)]
        (row_window, col_window), (row_part, col_part), (row, col) = spread
        window, part, place = row_window * 1000 + col_window, row_part * 3 + col_part, row * WINDOW + col
        attn = f"{block}attn.w_msa."
        qkv = self.linear(f"{attn}qkv", x.flatten(1, 2)).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        scores = qkv[0] @ qkv[1].transpose(-1, -2) / math.sqrt(channels // heads)
        table = self.state[f"{attn}relative_position_bias_table"]
        scores = scores + table[positions()[place[:, None], place]].permute(2, 0, 1)
        scores = scores - 100.0 * (part[:, None] != part)
        scores = scores.masked_fill(window[:, None] != window, -math.inf)
        out = (scores.softmax(-1) @ qkv[2]).transpose(1, 2).flatten(2)
        return self.linear(f"{attn}proj", out).unflatten(1, padded)[:, :height, :width]


@pytest.fixture(scope="module")
def converted() -> tuple[Backbone, dict[str, Tensor]]:
    names, state = key_map("gfocal", "swin_t"), official_state()
    backbone = Backbone("swin_t").double().eval()
    renamed = {str(names.ours(n)).removeprefix("backbone."): names.arranged(n, t) for n, t in state.items()}
    backbone.load_state_dict(renamed)
    return backbone, state


@pytest.mark.parametrize("size", [(224, 32), (160, 96), (32, 288)])
def test_maps_equal_the_second_implementation(converted: tuple[Backbone, dict[str, Tensor]], size) -> None:
    backbone, state = converted
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        found, expected = backbone(images), Official(state)(images)
    assert [m.shape[1:] for m in found] == [(24 * s, size[0] // s, size[1] // s) for s in (8, 16, 32)]
    for mine, theirs in zip(found, expected, strict=True):
        assert golden.error(mine, theirs) < 1e-9


def test_timm_alone_treats_borders_otherwise(converted: tuple[Backbone, dict[str, Tensor]]) -> None:
    """Why `swin_t` is not timm's model as it is; where no map is padded or small, both are the same."""
    body = converted[0].body
    options = {"features_only": True, "out_indices": (1, 2, 3), "strict_img_size": False}
    plain = timm.create_model("swin_tiny_patch4_window7_224", **options).double().eval()
    plain.load_state_dict(body.state_dict())
    with torch.no_grad():
        for size, same in (((160, 96), False), ((224, 112), True)):
            images = torch.randn(1, 3, *size, dtype=torch.float64)
            assert (golden.error(body(images)[0], plain(images)[0]) < 1e-12) is same


def test_the_order_of_patch_merging_matters(converted: tuple[Backbone, dict[str, Tensor]]) -> None:
    """The same weights in timm's order give other maps, so the test above tells them apart."""
    backbone, state = converted
    names = key_map("gfocal", "swin_t")
    name = "backbone.stages.1.downsample.reduction.weight"
    assert names.ours(name) == "backbone.body.layers_2.downsample.reduction.weight"
    ours = names.arranged(name, state[name])
    assert not torch.equal(ours, state[name])
    assert torch.equal(ours, backbone.body.layers_2.downsample.reduction.weight)
    # channel 5, row 1, column 0 there; column, row, channel here
    assert torch.equal(ours[:, (0 * 2 + 1) * 192 + 5], state[name][:, 5 * 4 + 1 * 2 + 0])


def whole_file() -> dict[str, Tensor]:
    """A Swin-T detector: the backbone as above, neck and head of a published list with the widths of Swin's maps."""
    state = {name: tensor.float() for name, tensor in official_state().items()}
    for name, item in golden.load("keys_LD_gfl_r50")[0]["keys"].items():
        if not name.startswith("backbone."):
            shape = list(item["shape"])
            if name.startswith("neck.lateral_convs") and name.endswith("weight"):
                shape[1] = (192, 384, 768)[int(name.split(".")[2])]
            state[name] = torch.ones(shape)
    state["bbox_head.integral.project"] = torch.arange(17.0)
    for stage, depth in enumerate(DEPTHS):
        for number in range(depth):
            state[f"backbone.stages.{stage}.blocks.{number}.attn.w_msa.relative_position_index"] = positions()
    return state


def test_a_whole_file_maps_one_to_one() -> None:
    with torch.device("meta"):
        model = create_model("gfocal_swin_t")
    state = whole_file() | {"backbone.norm0.weight": torch.ones(96), "backbone.norm0.bias": torch.ones(96)}
    renamed, report = translate_openmmlab(model, state)
    assert report.ok and renamed.keys() == model.state_dict().keys(), report.table()
    reasons = [reason for _, reason in report.dropped]
    assert reasons.count("constants, checked") == 13 and reasons.count("of the map at stride 4, which is not used") == 2


def test_other_windows_are_refused() -> None:
    with torch.device("meta"):
        model = create_model("gfocal_swin_t")
    name = "backbone.stages.2.blocks.5.attn.w_msa.relative_position_index"
    for value, words in (
        (torch.zeros(144, 144, dtype=torch.long), r"\[144, 144\], the model expects \[49, 49\]\.$"),
        (positions().T.contiguous(), r"is \[84, 85, .*expected \[84, 83, "),
    ):
        with pytest.raises(CheckpointError, match=words):
            load_openmmlab_state(model, whole_file() | {name: value})
    merging = "backbone.stages.0.downsample.norm.weight"
    for shape in ((192,), (383,)):
        with pytest.raises(CheckpointError, match=rf"layers_1\.downsample\.norm\.weight: \[{shape[0]}\] in the file"):
            load_openmmlab_state(model, whole_file() | {merging: torch.ones(shape)})


def test_output_norms_train_with_everything_else_frozen() -> None:
    backbone = Backbone("swin_t", frozen_stages=4)
    maps = backbone(torch.randn(1, 3, 64, 64))
    for each in maps:
        torch.testing.assert_close(each.mean(dim=1), torch.zeros(each[:, 0].shape), atol=1e-4, rtol=0)
        torch.testing.assert_close(each.var(dim=1, correction=0), torch.ones(each[:, 0].shape), atol=1e-2, rtol=0)
    names = [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]
    assert names == [f"norms.{n}.{kind}" for n in range(3) for kind in ("weight", "bias")]
