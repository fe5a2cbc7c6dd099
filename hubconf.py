"""Every model by its name, as `ld_hub.create_model` makes it: `torch.hub.load("ORG/ld_hub", NAME, pretrained=True)`."""

from functools import partial

from ld_hub import create_model, list_models

dependencies = ["torch", "torchvision", "timm", "huggingface_hub", "safetensors"]
globals().update({name: partial(create_model, name) for name in list_models()})
