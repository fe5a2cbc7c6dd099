"""timm models as makers of feature maps: how they are built and filled with weights, and what images they take."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
import torch.nn.functional as F
from huggingface_hub import try_to_load_from_cache
from timm.models import group_parameters
from torch import Tensor, nn

from ld_hub.errors import CheckpointError, ConfigError, MissingFileError
from ld_hub.hub import WEIGHTS_NAME, load_safetensors, offline
from ld_hub.hub.reach import unreachable


class Use(NamedTuple):
    """What a model is wanted for, in the words of messages.

    Attributes:
        what: Before the model's name, e.g. ``"backbone"``.
        checkpoint: The argument that takes a file of weights.
        fitting: Which models fit, a sentence.
        without: How weights are done without.
    """

    what: str
    checkpoint: str
    fitting: str
    without: str


class Stage(NamedTuple):
    """A map that a timm model gives: after which module, and its stride in px."""

    module: str
    reduction: int


@lru_cache(maxsize=64)
def stages_of(full_name: str, use: Use) -> tuple[Stage, ...]:
    """Table of all feature maps, read from a model without weights.

    Args:
        full_name: In timm.
        use: What for.

    Raises:
        ConfigError: If the model has none.
    """
    for device in ("meta", "cpu"):  # a few models compute with values while they are built
        try:
            with torch.device(device):
                stages = timm.create_model(full_name, features_only=True).feature_info.get_dicts()
            return tuple(Stage(stage["module"], stage["reduction"]) for stage in stages)
        except (RuntimeError, AttributeError, TypeError, ValueError, AssertionError) as error:
            reason = f"{type(error).__name__}: {error}"
    raise ConfigError(f"{use.what} '{full_name}' cannot give features ({reason}). {use.fitting}")


@lru_cache(maxsize=8)
def layer_numbers(full_name: str, use: Use) -> dict[str, int]:
    """Which layer each parameter of a whole timm model belongs to, 0 at the stem, under the names in its extractor.

    Args:
        full_name: In timm.
        use: What for.

    Raises:
        ConfigError: If timm does not say it.
    """
    with torch.device("meta"):
        model: Any = timm.create_model(full_name)
    if not hasattr(model, "group_matcher"):
        raise ConfigError(
            f"{use.what} '{full_name}': timm does not say what its layers are, so layer_decay cannot tell them apart; "
            "leave it out."
        )
    numbers = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    return {place: int(number) for name, number in numbers.items() for place in _places(name)}


def nearest(name: str, layers: Mapping[str, int]) -> int:
    """The layer of a parameter; of one that timm's model does not have (of offsets), that of its closest relatives.

    Args:
        name: Of the parameter.
        layers: Of `layer_numbers`.
    """
    while name and name not in layers:
        name = name.rpartition(".")[0]
        relatives = [layer for known, layer in layers.items() if known.startswith(f"{name}.")] if name else []
        if relatives:
            return max(relatives)
    return layers.get(name, 0)


def create_network(full_name: str, use: Use, *, pretrained: bool, cache_dir: str | Path | None, **options: Any) -> Any:
    """Build a timm model, its fixed input size lifted where it has one (Swin, ViT).

    Args:
        full_name: In timm.
        use: What for.
        pretrained: Load timm's weights, which are fetched once.
        cache_dir: Cache of downloads instead of huggingface_hub's own.
        **options: Of `timm.create_model`.

    Raises:
        ConfigError: If timm cannot build it so.
        CheckpointError: If the weights cannot be had.
    """
    build = partial(_with_any_input_size, full_name, use, **options)
    if not pretrained:
        return build()
    try:
        if offline() or unreachable():  # timm itself would ask the Hub, for minutes
            build = partial(build, pretrained_cfg_overlay={"file": _fetched_before(full_name, cache_dir)})
        return build(pretrained=True, cache_dir=cache_dir)
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"The pretrained weights of {use.what} '{full_name}' could not be loaded: {str(error).splitlines()[0]} "
            f"Without a network, pass {use.checkpoint}=FILE.safetensors (timm's weights under timm's names) "
            f"or {use.without}."
        ) from error


def weights_file(full_name: str, cache_dir: str | Path | None = None) -> Path | None:
    """The file of a model's pretrained weights in the cache of downloads; None where they were not fetched."""
    cfg = timm.get_pretrained_cfg(full_name)
    repo = cfg.hf_hub_id if cfg is not None else None
    file = try_to_load_from_cache(repo, WEIGHTS_NAME, cache_dir=cache_dir) if repo else None
    return Path(file) if isinstance(file, str) else None


def _fetched_before(full_name: str, cache_dir: str | Path | None) -> str:
    """The file of a model's weights, for use without the network."""
    file = weights_file(full_name, cache_dir)
    if file is None:
        why = f"{offline()} forbids the network" if offline() else f"the Hub cannot be reached ({unreachable()})"
        raise OSError(f"{why}, and they were not fetched before.")
    return str(file)


def _with_any_input_size(full_name: str, use: Use, **options: Any) -> Any:
    for lift in ({"strict_img_size": False}, {"dynamic_img_size": True}, {}):
        try:
            return timm.create_model(full_name, **options, **lift)
        except TypeError:
            continue
    raise ConfigError(f"timm cannot build {use.what} '{full_name}' as a feature extractor.")


def load_weights(body: nn.Module, path: str | Path, full_name: str, use: Use) -> None:
    """Fill a network from a local safetensors file under timm's names.

    Args:
        body: Of `create_network`.
        path: The file; what else it holds (a classifier) is passed over.
        full_name: In timm, for messages.
        use: What for.

    Raises:
        MissingFileError: If there is no such file.
        CheckpointError: If it is no safetensors file, or one of another model; nothing is loaded then.
    """
    if not Path(path).is_file():
        raise MissingFileError(f"{use.checkpoint}: no file '{path}'.")
    expected = body.state_dict()
    found = load_safetensors(path)
    state = {next((k for k in _places(name) if k in expected), name): tensor for name, tensor in found.items()}
    optional = ["num_batches_tracked"]
    if not any("conv_offset" in name for name in state):
        optional += ["conv_offset.weight", "conv_offset.bias"]  # classifiers have none: they stay zero
    missing = [k for k in expected if k not in state and not k.endswith(tuple(optional))]
    wrong = [k for k, v in expected.items() if k in state and state[k].shape != v.shape]
    if missing or wrong:
        raise CheckpointError(
            f"{use.checkpoint} '{path}' does not fit '{full_name}': {len(missing)} tensors missing "
            f"(first: {missing[:3]}), {len(wrong)} of another shape (first: {wrong[:3]}). "
            "Expected a safetensors file of this timm model under timm's key names."
        )
    body.load_state_dict({k: state.get(k, v) for k, v in expected.items()})


def _places(name: str) -> tuple[str, ...]:
    """Where a classifier's tensor may stand in the extractor.

    ``layers.0.blocks...`` of Swin is ``layers_0.blocks...`` there, and Hiera is kept whole as ``model``.
    """
    return name, re.sub(r"^(\w+)\.(\d+)\.", r"\1_\2.", name), f"model.{name}"


def size_multiple(body: nn.Module, strides: Sequence[int], in_chans: int, trained_at: int) -> int | None:
    """What the sides of an image have to be multiples of: 1 where every stage rounds up, as in ResNets.

    Patches (ConvNeXt, Swin) cut or refuse a rest; windows of a fixed number of cells (MaxViT) refuse all but
    multiples of the size they were trained at. Found by asking, on the smallest images that tell.

    Args:
        body: Gives a map for each stride.
        strides: In px.
        in_chans: Channels of an image.
        trained_at: Side of the images that it was trained on, px.

    Returns:
        The multiple; None if it takes none of these sizes, or its maps have other strides.
    """
    was_training = body.training
    body.eval()
    try:
        for multiple in (1, max(strides), trained_at):
            height, width = (65, 95) if multiple == 1 else (2 * multiple, multiple)
            if _rounds_up(body, strides, in_chans, height, width):
                return multiple
    finally:
        body.train(was_training)
    return None


def _rounds_up(body: nn.Module, strides: Sequence[int], in_chans: int, height: int, width: int) -> bool:
    """Whether an image of this size gives maps of the size that grids of these strides have."""
    weight = next(body.parameters())
    image = torch.zeros(1, in_chans, height, width, device=weight.device, dtype=weight.dtype)
    try:
        with torch.no_grad():
            maps = channels_first(body, body(image))
    except (RuntimeError, AssertionError, ValueError, IndexError):
        return False
    return all(tuple(m.shape[2:]) == (-(-height // r), -(-width // r)) for m, r in zip(maps, strides, strict=True))


def channels_first(body: nn.Module, maps: list[Tensor]) -> list[Tensor]:
    """The maps of a body as ``(N, C, H, W)``; Swin's have the channels last."""
    if getattr(body, "output_fmt", None) != "NHWC":
        return maps
    return [m.permute(0, 3, 1, 2).contiguous() for m in maps]


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Images with zeros at the right and bottom up to a multiple of so many px."""
    # by floor division: torch.compile cannot turn the modulo of a symbolic size into tensors
    down, right = (-(-side // multiple) * multiple - side for side in images.shape[-2:])
    return F.pad(images, (0, right, 0, down)) if down or right else images
