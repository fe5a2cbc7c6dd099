"""Comparing the tensors of a file with those of a model, name by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from ld_hub.errors import CheckpointError

Shape = tuple[int, ...]

CLASSIFIER = "head.cls"  # where every family keeps the layer that predicts classes


@dataclass(frozen=True)
class LoadReport:
    """What a weights file and a model have in common.

    Attributes:
        source: The file, for messages.
        matched: Names that are in both, with the same shape.
        missing: Names of the model that the file lacks.
        unexpected: Names of the file that the model has no place for.
        wrong_shape: ``(name, shape in the file, shape in the model)``.
        dropped: Names of the file left out on purpose, with the reason.
        reset: Names of the class predictor, which the model starts afresh because it has other classes.
        file_classes: C of the file, where that is so; else 0.
        num_classes: C of the model, where that is so; else 0.
    """

    source: str
    matched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    wrong_shape: tuple[tuple[str, Shape, Shape], ...] = ()
    dropped: tuple[tuple[str, str], ...] = ()
    reset: tuple[str, ...] = ()
    file_classes: int = 0
    num_classes: int = 0

    @property
    def ok(self) -> bool:
        """Whether every tensor of the model is in the file, or reset, and nothing is left over."""
        return not (self.missing or self.unexpected or self.wrong_shape)

    @property
    def summary(self) -> str:
        """What was kept and what was reset, in one line."""
        kept = f"'{self.source}': kept {len(self.matched)} tensors"
        if not self.reset:
            return f"{kept}."
        classes = f"{self.file_classes} -> {self.num_classes} classes"
        return f"{kept}, reset {', '.join(self.reset)} ({classes}; to be trained)."

    def table(self, most: int = 10) -> str:
        """The report as text, one line per group and at most `most` names of each."""
        shapes = [
            f"{name}: {list(found)} in the file, {list(own)} in the model" for name, found, own in self.wrong_shape
        ]
        groups = [
            ("matched", list(self.matched), 0),
            ("missing", list(self.missing), most),
            ("unexpected", list(self.unexpected), most),
            ("wrong shape", shapes, most),
            *((f"dropped ({reason})", names, 3) for reason, names in self._dropped_by_reason().items()),
        ]
        lines = []
        for title, names, shown in groups:
            lines.append(f"{title:<12} {len(names):>5}")
            lines += [f"    {name}" for name in names[:shown]]
            if 0 < shown < len(names):
                lines.append(f"    ... and {len(names) - shown} more")
        return "\n".join(lines)

    def require(self, num_classes: int, *, new_classes: bool = False) -> LoadReport:
        """Return the report, or refuse the file.

        Args:
            num_classes: C of the model; a file that differs in nothing else is told as such.
            new_classes: Accept a file of another number of classes: the class predictor is then to be reset.

        Raises:
            CheckpointError: If anything is missing, left over or of another shape. The message holds the table.
        """
        if self.ok:
            return self
        classes = self._classes_of_file(num_classes)
        if classes and new_classes:
            reset = tuple(name for name, _, _ in self.wrong_shape)
            return replace(self, wrong_shape=(), reset=reset, file_classes=classes, num_classes=num_classes)
        if classes:
            raise CheckpointError(
                f"'{self.source}' has weights for {classes} classes, the model has {num_classes}. "
                f"Create the model with num_classes={classes} (and the label_names of that file)."
            )
        raise CheckpointError(f"'{self.source}' does not fit the model.\n{self.table()}")

    def _classes_of_file(self, num_classes: int) -> int:
        """C of the file, if only the class predictor differs, and in its number of outputs alone; else 0.

        With several anchors per cell (RetinaNet: 9) it has that many times C outputs.
        """
        if self.missing or self.unexpected:
            return 0
        counts = set()
        for name, found, own in self.wrong_shape:
            if not name.startswith(f"{CLASSIFIER}.") or not found or found[1:] != own[1:]:
                return 0
            classes, rest = divmod(found[0] * num_classes, own[0])
            counts.add(0 if rest else classes)
        return counts.pop() if len(counts) == 1 else 0

    def _dropped_by_reason(self) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for name, reason in self.dropped:
            groups.setdefault(reason, []).append(name)
        return groups


def compare(
    source: str,
    found: Mapping[str, Shape],
    own: Mapping[str, Tensor],
    dropped: tuple[tuple[str, str], ...] = (),
    unexpected: tuple[str, ...] = (),
) -> LoadReport:
    """Compare names and shapes.

    Args:
        source: The file, for messages.
        found: Shapes in the file, under the model's names.
        own: The model's state dict; may lie on the meta device.
        dropped: Names that were left out on purpose, with reasons.
        unexpected: Names of the file that could not even be translated.
    """
    wrong = tuple((name, found[name], tuple(own[name].shape)) for name in own if name in found)
    return LoadReport(
        source=source,
        matched=tuple(name for name, there, here in wrong if there == here),
        missing=tuple(name for name in own if name not in found),
        unexpected=(*(name for name in found if name not in own), *unexpected),
        wrong_shape=tuple(item for item in wrong if item[1] != item[2]),
        dropped=dropped,
    )
