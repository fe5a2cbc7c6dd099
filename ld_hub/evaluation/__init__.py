"""Average precision that can be trusted: what is not fit to be scored is refused, not scored."""

from ld_hub.evaluation.evaluator import DetectionEvaluator
from ld_hub.evaluation.ground_truth import GroundTruth, read_ground_truth
from ld_hub.evaluation.metrics import DetectionMetrics

__all__ = ["DetectionEvaluator", "DetectionMetrics", "GroundTruth", "read_ground_truth"]
