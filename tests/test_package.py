from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import ld_hub

HEAVY = ("datasets", "accelerate", "pycocotools", "matplotlib", "jsonargparse", "rich", "pandas", "pyarrow")


ROOT = Path(ld_hub.__file__).parents[1]


def modules_after(code: str) -> set[str]:
    """All modules of a fresh interpreter after some code."""
    code += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, cwd=ROOT
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_heavy():
    loaded = modules_after("import ld_hub")
    assert not loaded & {*HEAVY, "torch", "timm"}


def test_models_losses_and_distillation_need_only_the_model_libraries():
    loaded = modules_after(
        "import ld_hub\n"
        "model = ld_hub.create_model('gfocal_tiny', num_classes=2, fpn_channels=16, head_width=16)\n"
        "ld_hub.get_recipe('vlr'), ld_hub.Detections, ld_hub.load_checkpoint, ld_hub.resolve_data_config"
    )
    assert "timm" in loaded and "torchvision" in loaded
    assert not loaded & set(HEAVY)
    # What `python -m` runs stays out: the package must not hide those modules behind names of its own.
    assert not loaded & {"ld_hub.train", "ld_hub.distill"}


def test_every_export_exists():
    for name in ld_hub.__all__:
        assert getattr(ld_hub, name) is not None, name
        assert name in dir(ld_hub)
    with pytest.raises(AttributeError, match="no attribute 'create_modell'"):
        _ = ld_hub.create_modell


def test_no_export_is_called_like_a_command_module():
    assert not {"train", "distill"} & {*ld_hub.__all__, *ld_hub._ROOM_OF}
