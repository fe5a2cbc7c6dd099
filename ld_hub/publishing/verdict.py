"""What a verification found: comparisons one by one, and whether all is well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

SHOWN = 5  # differences that a check names


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        name: What was compared.
        differences: One line for each; empty if all is well.
    """

    name: str
    differences: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{'FAILED' if self.differences else 'ok':<8}{self.name}"]
        return "\n".join([*lines, *(f"          {line}" for line in self.differences)])


@dataclass
class Report:
    """All comparisons of one verification; printing shows them.

    Attributes:
        checks: In order.
        skipped: A line for each evaluation that was not recomputed, because it is of other data.
    """

    checks: list[Check] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not any(check.differences for check in self.checks)

    def add(self, name: str, differences: Sequence[str]) -> bool:
        """Add a comparison; returns whether all is well."""
        shown = [*differences[:SHOWN], *([f"and {len(differences) - SHOWN} more"] if len(differences) > SHOWN else [])]
        self.checks.append(Check(name, tuple(shown)))
        return not differences

    def __str__(self) -> str:
        return "\n".join([*map(str, self.checks), *(f"{'skipped':<8}{line}" for line in self.skipped)])
