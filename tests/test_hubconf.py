from __future__ import annotations

from pathlib import Path

import torch

import ld_hub

ROOT = Path(__file__).parents[1]


def test_torch_hub_makes_the_models_of_create_model():
    torch.manual_seed(0)
    mine = ld_hub.create_model("gfocal_tiny", num_classes=3)
    torch.manual_seed(0)
    theirs = torch.hub.load(str(ROOT), "gfocal_tiny", source="local", num_classes=3)
    assert type(theirs).__name__ == "GFocal" and theirs.config == mine.config
    state = theirs.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in mine.state_dict().items())
    named = torch.hub.load(str(ROOT), "create_model", "gfocal_tiny", source="local", num_classes=2)
    assert named.config.num_classes == 2
