"""What a distillation gains over its student alone: comparison.json of a run directory, and the same in words.

A `Comparison` is made from the result.json and metrics.jsonl of the runs it names, and of nothing else.
"""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ld_hub.checked import Source, read_fields
from ld_hub.engine.checkpoint import RunDirectory
from ld_hub.engine.identity import differences
from ld_hub.engine.records import RunOutcome, read_records
from ld_hub.errors import CheckpointError
from ld_hub.hub.config_file import parse_json
from ld_hub.hub.evidence import COMPARISON_NAME
from ld_hub.spread import Difference, Spread, paired

Training: TypeAlias = Literal["distilled", "alone", "alone_seconds"]

TITLES: dict[Training, str] = {
    "distilled": "distilled",
    "alone": "alone, equal steps",
    "alone_seconds": "alone, equal seconds",
}
WIDTH = 80  # columns of the table
RELATIVE = 1e-9  # what derived numbers may differ by, where another Python has computed them
_ALIKE = 0.02  # share of the steps that makes another length no other training
_UNEVEN = 0.1  # share of the seconds by which equal seconds may miss them without a word
_SHARE = "share/"


@dataclass(frozen=True)
class Trained:
    """One run of a comparison; its AP is that of the last evaluation, fractions 0..1.

    Attributes:
        seed: Its seed.
        run: Its directory, as seen from that of the first distillation.
        steps: Optimizer steps.
        seconds: Of training, without evaluation and saving.
        AP: As the protocol of the data has it, as the next two; None where there was nothing to find.
        AP50: At IoU 0.50.
        AP75: At IoU 0.75.
        shares: Of each term: mean over the logged steps of its gradient's size over the detection loss's.
    """

    seed: int
    run: str
    steps: int
    seconds: float
    AP: float | None
    AP50: float | None
    AP75: float | None
    shares: Mapping[str, float]

    def __post_init__(self) -> None:
        numbers = [value for value in (self.AP, self.AP50, self.AP75) if value is not None]
        if self.steps < 1 or self.seconds < 0 or not all(0 <= value <= 1 for value in numbers):
            raise CheckpointError(f"run '{self.run}' has steps, seconds or AP that no run has.")
        if Path(self.run).is_absolute() or ".." in Path(self.run).parts:
            raise CheckpointError(f"run '{self.run}' is not below the run directory.")

    @classmethod
    def read(cls, root: Path, run: str, seed: int) -> Trained:
        """Of a run that is complete.

        Args:
            root: Directory of the first distillation.
            run: The run's own, relative to it.
            seed: The run's.

        Raises:
            CheckpointError: If a file of the run is damaged.
            MissingFileError: If there is none.
        """
        directory = RunDirectory(root / run)
        outcome = RunOutcome.read(directory.result_file)
        stats = {} if outcome.metrics is None else outcome.metrics.stats
        found: dict[str, list[float]] = {}
        for record in read_records(directory.metrics_file):
            for name, value in record.items():
                if name.startswith(_SHARE):
                    found.setdefault(name.removeprefix(_SHARE), []).append(value)
        shares = {name: statistics.fmean(values) for name, values in found.items()}
        ap, ap50, ap75 = (stats.get(name) for name in ("AP", "AP50", "AP75"))
        return cls(seed, run, outcome.steps, outcome.seconds, ap, ap50, ap75, shares)


@dataclass(frozen=True)
class Row:
    """One kind of training, over its seeds.

    Attributes:
        runs: In the order of the seeds.
        steps: Of the runs.
        seconds: Of the runs.
        AP: Of those that have one; None if none has.
        gain: AP of the distillation minus that of this training, seed by seed; None of the distillation itself.
        shares: Of each term: mean over the runs.
    """

    runs: tuple[Trained, ...]
    steps: Spread
    seconds: Spread
    AP: Spread | None
    gain: Difference | None
    shares: Mapping[str, float]

    @property
    def pace(self) -> float:
        """Seconds per step."""
        return max(self.seconds.mean, 1e-3) / self.steps.mean

    @classmethod
    def of(cls, runs: Sequence[Trained], distilled: Sequence[Trained]) -> Row:
        """Of some runs, set beside those of the distillation (nothing of itself)."""
        ap = _ap(runs)
        terms = dict.fromkeys(name for run in runs for name in run.shares)
        return cls(
            runs=tuple(runs),
            steps=Spread.of([run.steps for run in runs]),
            seconds=Spread.of([run.seconds for run in runs]),
            AP=Spread.of(list(ap.values())) if ap else None,
            gain=paired(_ap(distilled), ap),
            shares={name: statistics.fmean(run.shares[name] for run in runs if name in run.shares) for name in terms},
        )


@dataclass(frozen=True)
class Comparison:
    """comparison.json.

    Attributes:
        model: Name of the distilled model.
        rows: By training: distilled and, as far as they are done, alone and alone_seconds.
    """

    model: str
    rows: Mapping[Training, Row]

    @classmethod
    def of(cls, model: str, runs: Mapping[Training, Sequence[Trained]]) -> Comparison:
        """All numbers that follow from the runs.

        Args:
            model: Name of the distilled model.
            runs: By training; what has no runs yet has no row.
        """
        first: Sequence[Trained] = runs.get("distilled", ())
        rows = {name: Row.of(each, () if name == "distilled" else first) for name, each in runs.items() if each}
        return cls(model, rows)

    @classmethod
    def read(cls, file: Path) -> Comparison:
        """From its file, checked.

        Raises:
            CheckpointError: Naming the field, what it is and what it should be.
        """
        source = Source(f"'{file}'", CheckpointError)
        found = read_fields(cls, parse_json(file, "what a run writes"), source)
        wrong = [name for name, row in found.rows.items() if name not in TITLES or not row.runs]
        if wrong or "distilled" not in found.rows:
            raise source.wrong("rows", list(found.rows), f"runs of distilled and of some of {', '.join(TITLES)}")
        return found

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the distillations."""
        return tuple(run.seed for run in self.rows["distilled"].runs)

    def write(self, root: Path) -> None:
        """Write comparison.json of a run directory, whole or not at all."""
        RunDirectory(root).write_json(root / COMPARISON_NAME, asdict(self))

    def contradictions(self) -> list[str]:
        """Means, spreads and gains that do not follow from the runs; a line for each."""
        runs: dict[Training, Sequence[Trained]] = {name: row.runs for name, row in self.rows.items()}
        changed = differences(asdict(self), asdict(Comparison.of(self.model, runs)))
        wrong = {name: pair for name, pair in changed.items() if not _close(*pair)}
        return [f"{name}: the file has {told}, its runs give {found}" for name, (told, found) in wrong.items()]

    def table(self) -> str:
        """AP x100, gains and seconds in at most 80 columns, and what they mean in words."""
        lines = [f"{'AP x100':<21}{'steps':>7}{'AP':>13}{'distilled is above by':>25}{'seconds':>14}"]
        for name, row in self.rows.items():
            ap = "–" if row.AP is None else row.AP.text(factor=100)
            steps, seconds = f"{row.steps.mean:.0f}", row.seconds.text(0)
            lines.append(f"{TITLES[name]:<21}{steps:>7}{ap:>13}{gain_text(row.gain, ' .. '):>25}{seconds:>14}")
        return "\n".join([*lines, *(textwrap.fill(sentence, WIDTH) for sentence in self.sentences())])

    def sentences(self) -> list[str]:
        """What the table says, a sentence for each of its facts."""
        seeds = self.seeds
        many = f"Seeds {', '.join(map(str, seeds))}: mean ± standard deviation; in brackets the 95 % interval."
        said = [many if len(seeds) > 1 else f"One seed, {seeds[0]}: nothing says how far AP spreads over seeds."]
        said += [_verdict(name, row.gain) for name, row in self.rows.items() if row.gain]
        said += self._cost()
        shares = ", ".join(f"{name} {share:.2g}" for name, share in self.rows["distilled"].shares.items())
        return [*said, *([f"Gradients of the terms over the detection loss's: {shares}."] if shares else [])]

    def _cost(self) -> list[str]:
        """What a step with the teacher costs, and whether equal seconds are another training at all."""
        alone, longer = self.rows.get("alone"), self.rows.get("alone_seconds")
        if alone is None:
            return []
        said = [
            f"A step with the teacher takes {self.rows['distilled'].pace / alone.pace:.2f} x as long as one without."
        ]
        if longer is None:
            return said
        more = round(longer.steps.mean - alone.steps.mean)
        if abs(more) <= max(1.0, _ALIKE * alone.steps.mean):
            said.append(f"Equal seconds are {more:+d} steps here: as good as the same training as that of equal steps.")
        wanted, took = (row.seconds.mean for row in (self.rows["distilled"], longer))
        if abs(took - wanted) > _UNEVEN * wanted:
            said.append(
                f"What was to take {wanted:.0f} s took {took:.0f} s: the machine's pace was not the same throughout."
            )
        return said


def gain_text(gain: Difference | None, to: str) -> str:
    """A gain in AP x100 with its interval, ``+8.5 (+5.1 .. +11.9)``; empty where there is none.

    Args:
        gain: Fractions.
        to: Between the two ends.
    """
    if gain is None:
        return ""
    mean = f"{100 * gain.mean:+.1f}"
    if gain.low is None or gain.high is None:
        return mean
    return f"{mean} ({100 * gain.low:+.1f}{to}{100 * gain.high:+.1f})"


def _verdict(training: Training, gain: Difference) -> str:
    """Whether a gain stands clear of the spread."""
    where = TITLES[training].removeprefix("alone, ")
    points = f"{abs(100 * gain.mean):.1f} AP {'above' if gain.mean > 0 else 'below'}"
    by = f"At {where} distillation is {points if gain.mean else 'as good as'} the student alone"
    if gain.number == 1:
        return f"{by}; of one seed, this may be chance (--seeds 3 tells)."
    if gain.clear:
        return f"{by}, which stands clear of the spread: its 95 % interval does not reach 0."
    return f"{by}, which is within the spread: its 95 % interval holds 0."


def _ap(runs: Sequence[Trained]) -> dict[int, float]:
    return {run.seed: run.AP for run in runs if run.AP is not None}


def _close(told: float | str | None, found: float | str | None) -> bool:
    """Whether both are numbers, and equal to the last digits."""
    if not isinstance(told, (int, float)) or not isinstance(found, (int, float)):
        return False
    return math.isclose(told, found, rel_tol=RELATIVE, abs_tol=RELATIVE)
