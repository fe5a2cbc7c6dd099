"""The data that flows through the library; every other room speaks in these.

Shape letters: N images, A locations x anchors of all levels, C classes, G padded ground truths,
R = reg_max (R+1 bins per box side), L pyramid levels, K rows or detections, F channels.

Names are imported from their files at first use: rows of annotations are wanted where torch is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ld_hub.lazy import lazy_names

if TYPE_CHECKING:
    from ld_hub.structures.coco_rows import (
        AnnotationRow,
        CategoryRow,
        ImageFileRow,
        ImageRow,
        ObjectRow,
        PipelineRow,
        ReadImageRow,
        ResultRow,
    )
    from ld_hub.structures.detections import Detections
    from ld_hub.structures.encodings import EncoderSpec, Encoding
    from ld_hub.structures.outputs import BoxCoder, DenseOutput, DetectorSpec, HeadMaps, Towers
    from ld_hub.structures.parts import Assigner, Criterion
    from ld_hub.structures.priors import Priors
    from ld_hub.structures.rows import Rows
    from ld_hub.structures.targets import Assignment, ImageBatch, ScoredTargets, StepCounts, Targets
    from ld_hub.structures.teaching import Balance, FeatureTeaching, Scored, Teaching, Unlabeled

_FILE_OF = {
    "AnnotationRow": "coco_rows",
    "Assigner": "parts",
    "Assignment": "targets",
    "Balance": "teaching",
    "BoxCoder": "outputs",
    "CategoryRow": "coco_rows",
    "Criterion": "parts",
    "DenseOutput": "outputs",
    "Detections": "detections",
    "DetectorSpec": "outputs",
    "EncoderSpec": "encodings",
    "Encoding": "encodings",
    "FeatureTeaching": "teaching",
    "HeadMaps": "outputs",
    "ImageBatch": "targets",
    "ImageFileRow": "coco_rows",
    "ImageRow": "coco_rows",
    "ObjectRow": "coco_rows",
    "PipelineRow": "coco_rows",
    "Priors": "priors",
    "ReadImageRow": "coco_rows",
    "ResultRow": "coco_rows",
    "Rows": "rows",
    "Scored": "teaching",
    "ScoredTargets": "targets",
    "StepCounts": "targets",
    "Targets": "targets",
    "Teaching": "teaching",
    "Towers": "outputs",
    "Unlabeled": "teaching",
}

__all__ = [
    "AnnotationRow",
    "Assigner",
    "Assignment",
    "Balance",
    "BoxCoder",
    "CategoryRow",
    "Criterion",
    "DenseOutput",
    "Detections",
    "DetectorSpec",
    "EncoderSpec",
    "Encoding",
    "FeatureTeaching",
    "HeadMaps",
    "ImageBatch",
    "ImageFileRow",
    "ImageRow",
    "ObjectRow",
    "PipelineRow",
    "Priors",
    "ReadImageRow",
    "ResultRow",
    "Rows",
    "Scored",
    "ScoredTargets",
    "StepCounts",
    "Targets",
    "Teaching",
    "Towers",
    "Unlabeled",
]

__getattr__ = lazy_names(__name__, _FILE_OF)
