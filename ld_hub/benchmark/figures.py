"""What `ld-hub benchmark` found, as its JSON file has it; a card reads the speed from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ld_hub.benchmark.caching import CacheCost
from ld_hub.benchmark.data_rates import DataRate
from ld_hub.benchmark.detectors import SpeedRow
from ld_hub.benchmark.scorers import Scoring
from ld_hub.benchmark.steps import Inference, Milliseconds, Timing, Workload
from ld_hub.checked import Source, read_fields
from ld_hub.errors import CheckpointError


@dataclass(frozen=True)
class Part:
    """Time and memory of a part of inference or of a training step.

    Attributes:
        median_ms: Over the rounds.
        least_ms: Over the rounds.
        growth_bytes: How far memory rose above what was in use before; None where the system cannot tell.
        peak_bytes: Most memory that was in use.
    """

    median_ms: float
    least_ms: float
    growth_bytes: int | None
    peak_bytes: int

    @classmethod
    def of(cls, timing: Timing) -> Part:
        """The same in milliseconds."""
        return cls(timing.median * 1e3, timing.least * 1e3, timing.memory.growth, timing.memory.peak)


@dataclass(frozen=True)
class Speed:
    """Cost of a training step.

    Attributes:
        images_per_second: Of all parts but data.
        parts: By name.
    """

    images_per_second: float
    parts: Mapping[str, Part] = field(default_factory=dict)

    @classmethod
    def of(cls, timings: Mapping[str, Timing], images: int) -> Speed:
        """Of the parts of a batch of so many images."""
        seconds = sum(timing.median for name, timing in timings.items() if name != "data")
        return cls(images / seconds, {name: Part.of(timing) for name, timing in timings.items()})


@dataclass(frozen=True)
class InferenceSpeed(Speed):
    """Cost of inference, from image files to detections.

    Attributes:
        outside_network: Share of the time that is not the network's.
        pairs_per_image: (location, class) pairs above the score threshold.
        detections_per_image: What is left of them.
    """

    outside_network: float | None = None
    pairs_per_image: float | None = None
    detections_per_image: float | None = None

    @classmethod
    def found(cls, cost: Inference, images: int) -> InferenceSpeed:
        """Of a batch of so many images."""
        speed = Speed.of(cost.parts, images)
        return cls(speed.images_per_second, speed.parts, cost.outside_network, cost.pairs, cost.detections)


@dataclass(frozen=True)
class OverheadShares:
    """What the method costs beside its networks; see `ld_hub.benchmark.steps.Overhead`.

    Attributes:
        of_student: Over the student's forward and backward pass.
        step: The whole step over its networks.
    """

    of_student: float
    step: float


@dataclass(frozen=True)
class SpeedTable:
    """Architectures side by side.

    Attributes:
        rows: One for each.
    """

    rows: tuple[SpeedRow, ...]


@dataclass(frozen=True)
class ScorerTable:
    """Scorers of an evaluation side by side.

    Attributes:
        images: Of the largest set.
        num_classes: C.
        detections: Per image.
        ratio: hotcoco's time over pycocotools' on that set; None without hotcoco.
        rows: By size and scorer.
    """

    images: int
    num_classes: int
    detections: int
    ratio: float | None
    rows: tuple[Scoring, ...]


@dataclass(frozen=True)
class MeasuredProgram:
    """Which exported program was measured.

    Attributes:
        digest: `ld_hub.runtime.Exported.digest`.
        threads: CPU threads that it was given; None for its own choice.
    """

    digest: str
    threads: int | None = None


@dataclass(frozen=True)
class Figures:
    """Everything that one call of `ld-hub benchmark` has measured; None is what it was not asked for.

    Attributes:
        hardware: Machine and libraries.
        workload: What was measured.
        model: Name of the detector.
        program: Of an exported one.
        teacher: Name of its teacher.
        recipe: Name of what is distilled.
        inference: Its cost.
        training: That of a step.
        criterion_ms: That of the training method alone.
        overhead: The same beside the networks.
        cache: A teacher that is asked once.
        peak_bytes: Most memory that was in use.
        table: Architectures side by side.
        eval: Scorers side by side.
        data: Speeds of loaders.
    """

    hardware: str
    workload: Workload | None = None
    model: str | None = None
    program: MeasuredProgram | None = None
    teacher: str | None = None
    recipe: str | None = None
    inference: InferenceSpeed | None = None
    training: Speed | None = None
    criterion_ms: Milliseconds | None = None
    overhead: OverheadShares | None = None
    cache: CacheCost | None = None
    peak_bytes: int | None = None
    table: SpeedTable | None = None
    eval: ScorerTable | None = None
    data: tuple[DataRate, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything that was measured as JSON values."""
        content = {name: value for name, value in asdict(self).items() if value is not None}
        if self.table is not None:
            rows = [asdict(row) | {"images_per_second": row.images_per_second} for row in self.table.rows]
            content["table"] = {"rows": rows}
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str = "the benchmark") -> Figures:
        """The inverse of `to_dict`, checked.

        Args:
            content: Parsed JSON.
            where: Its source, for messages.

        Raises:
            CheckpointError: Naming the field, what it is and what it should be.
        """
        return read_fields(cls, content, Source(where, CheckpointError, "`ld-hub benchmark --json` writes it anew."))
