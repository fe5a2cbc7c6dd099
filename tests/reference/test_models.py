"""Whole models: backbone, pyramid, head and detections with the official weights' rule, through the converter."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch

from ld_hub.layers.postprocess import PostprocessConfig
from ld_hub.models.convert import load_openmmlab_state
from tests.reference.test_inference import assert_same_detections
from tests.support import golden


def _rules() -> Any:
    spec = importlib.util.spec_from_file_location("gen_inputs", golden.DIRECTORY / "gen_inputs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
