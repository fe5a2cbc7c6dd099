"""Which parameters of a network share a learning rate and a weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from torch import nn


class ParamGroup(TypedDict):
    """A group as `torch.optim.Optimizer` takes it.

    Attributes:
        params: Its parameters.
        lr_scale: Factor on the learning rate of a step.
        weight_decay: Of its parameters.
    """

    params: list[nn.Parameter]
    lr_scale: float
    weight_decay: float


def param_groups(
    module: nn.Module,
    *,
    weight_decay: float,
    bias_weight_decay: float,
    bias_lr_factor: float = 1.0,
    layer_factors: Mapping[str, float] | None = None,
) -> list[ParamGroup]:
    """The trained parameters by learning rate and weight decay, in the order of their first ones.

    Biases of convolutions and linear layers may differ; those of norms go with the weights (reference SPEC 7).

    Args:
        module: What is trained.
        weight_decay: Of weights and norms.
        bias_weight_decay: Of biases.
        bias_lr_factor: Factor on the learning rate of biases.
        layer_factors: Factors on the learning rate of parameters by name, see `layer_factors`; 1 for the others.
    """
    layers = (m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
    biases = {id(layer.bias) for layer in layers}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {(1.0, weight_decay): []}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        own = (bias_lr_factor, bias_weight_decay) if id(parameter) in biases else (1.0, weight_decay)
        factor = (layer_factors or {}).get(name, 1.0)
        groups.setdefault((own[0] * factor, own[1]), []).append(parameter)
    return [
        {"params": parameters, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
        if parameters
    ]


def layer_factors(layers: Mapping[str, int], decay: float) -> dict[str, float]:
    """Layer-wise decay of the learning rate: each layer of a backbone learns `decay` times as fast as the next one.

    The last layer, on which the pyramid stands, has the factor `decay`, the one below it ``decay^2`` and so on (BEiT,
    arXiv 2106.08254, appendix; for detectors ConvNeXt, arXiv 2201.03545, appendix A.3).

    Args:
        layers: Number of the layer of each parameter by name, 0 at the stem.
        decay: In (0, 1].

    Returns:
        Factors by name of parameter.
    """
    count = max(layers.values(), default=0) + 1
    return {name: decay ** (count - layer) for name, layer in layers.items()}
