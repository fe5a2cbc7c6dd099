"""`DenseOutput` as a tree of tensors, for `torch.export`, `torch.func` and all that takes outputs apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ld_hub.layers.coders import DeltaCoder, DistanceCoder, DistributionCoder
from ld_hub.structures import DenseOutput, Priors
from ld_hub.structures.outputs import BoxCoder

_CODERS: dict[str, Callable[..., BoxCoder]] = {
    coder.__name__: coder for coder in (DistributionCoder, DistanceCoder, DeltaCoder)
}

_Context = tuple[BoxCoder, tuple[int, ...], int, int]  # what stays the same for every batch


def register_output() -> None:
    """Tell torch what a `DenseOutput` is made of; more than once does nothing."""
    if DenseOutput not in pytree.SUPPORTED_NODES:
        pytree.register_pytree_node(
            DenseOutput,
            _apart,
            _together,
            serialized_type_name="ld_hub.DenseOutput",
            to_dumpable_context=_to_json,
            from_dumpable_context=_from_json,
        )


def handed_over(output: DenseOutput) -> Any:
    """The output, but to `torch.jit.trace`, which knows tensors alone, a tuple of them."""
    if torch._C._get_tracing_state() is None:  # what torch.jit.is_tracing asks, which has no types
        return output
    return tuple(each for each in (output.cls_logits, output.box, output.quality) if each is not None)


def _apart(output: DenseOutput) -> tuple[list[Any], _Context]:
    priors = output.priors
    rows = [priors.centers, priors.strides, priors.levels, priors.anchors, priors.level_shapes]
    told = [output.cls_logits, output.box, output.quality, output.features, output.towers]
    return [*told, *rows], (output.coder, priors.level_strides, priors.size_divisor, priors.anchors_per_cell)


def _together(children: Iterable[Any], context: _Context) -> DenseOutput:
    cls_logits, box, quality, features, towers, centers, strides, levels, anchors, shapes = children
    coder, level_strides, size_divisor, per_cell = context
    priors = Priors(centers, strides, levels, anchors, shapes, level_strides, size_divisor, per_cell)
    return DenseOutput(cls_logits, box, quality, priors, coder, features, towers)


def _to_json(context: _Context) -> list[Any]:
    coder, *rest = context
    return [type(coder).__name__, vars(coder), *rest]


def _from_json(content: list[Any]) -> _Context:
    name, fields, level_strides, size_divisor, per_cell = content
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return _CODERS[name](**given), tuple(level_strides), size_divisor, per_cell
