"""Average precision that can be trusted: what is not fit to be scored is refused, not scored."""

from ld_hub.evaluation.coco import CocoEvaluator
from ld_hub.evaluation.ground_truth import GroundTruth, read_ground_truth
from ld_hub.evaluation.metrics import CocoMetrics

__all__ = ["CocoEvaluator", "CocoMetrics", "GroundTruth", "read_ground_truth"]
