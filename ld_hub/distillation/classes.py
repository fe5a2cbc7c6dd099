"""What terms on class scores share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ld_hub.distillation.correspondence import require_common_classes
from ld_hub.distillation.terms import CONFIG, Term
from ld_hub.structures import DetectorSpec


class ClassTerm(Term[CONFIG]):
    """Base of terms that compare class scores."""

    def setup(self, student: DetectorSpec, teacher: DetectorSpec) -> list[str]:
        """At least one class must have the same name in both."""
        remarks = super().setup(student, teacher)
        require_common_classes(student, teacher)
        return remarks


def binary_divergence(student: Tensor, teacher: Tensor, beta: float = 1.0, detach_factor: bool = False) -> Tensor:
    """``sum over c of |t_c - s_c|^beta BCE(s_c, t_c)`` of scores, which is 0 where all scores agree (BCKD).

    Args:
        student: ``(K, C)`` logits.
        teacher: ``(K, C)`` logits.
        beta: Exponent.
        detach_factor: Whether the factor ``|t - s|^beta`` is a constant to the gradient.

    Returns:
        ``(K,)``.
    """
    target = teacher.sigmoid()
    gap = (student.detach() if detach_factor else student).sigmoid().sub(target).abs()
    entropy = F.binary_cross_entropy_with_logits(student, target, reduction="none")
    return (entropy * (gap if beta == 1 else gap.pow(beta))).sum(dim=1)
