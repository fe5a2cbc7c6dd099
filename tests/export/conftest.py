"""One conversion of a small detector for any image size, which all tests of exports share: it takes long."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ld_hub.export.formats import ExportPlan
from ld_hub.export.program import DetectorRows
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model


def detector(name: str = "gfocal", **config: Any) -> DenseDetector:
    """A small detector that finds something on any image; it fits images of 96 to 128 px."""
    torch.manual_seed(0)
    small: dict[str, Any] = {"backbone": "test_resnet", "fpn_channels": 16, "head_width": 16, "head_depth": 1}
    model = create_model(name, label_names=["cat", "dog", "cow"], category_ids=[3, 8, 9], **{**small, **config}).eval()
    torch.nn.init.normal_(model.head.cls.weight, std=0.1)
    torch.nn.init.normal_(model.head.box.weight, std=0.1)
    torch.nn.init.constant_(model.head.cls.bias, -1.0)
    model.data_config = replace(model.data_config, image_size=(96, 128))
    model.postprocess_config = replace(model.postprocess_config, nms_pre=30)
    return model


@dataclass(frozen=True)
class Converted:
    """A detector and its network as ONNX.

    Attributes:
        model: The detector.
        rows: What was converted.
        network: The ONNX graph, for any image size.
    """

    model: DenseDetector
    rows: DetectorRows
    network: Any

    def write(self, directory: Path, plan: ExportPlan, to: str = "onnx") -> Path:
        """Write it as an exported directory, without comparing it."""
        from ld_hub.engine.identity import weights_digest
        from ld_hub.export.formats import FORMATS
        from ld_hub.export.writing import write_export

        weights = weights_digest(self.model)
        write_export(FORMATS[to].load(), self.network, self.rows, plan, directory, to, weights=weights)
        return directory


@pytest.fixture(scope="session")
def gfocal() -> Converted:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra `export`)")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra `export`)")
    from ld_hub.export import onnx_format

    model = detector()
    rows = DetectorRows(model.fuse())
    return Converted(model, rows, onnx_format.convert(rows, None))
