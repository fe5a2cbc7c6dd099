"""What runs logged, over their steps: losses, gradients, learning rate and AP, with mean and spread over seeds.

Runs that differ in nothing but the seed (and where they were written, and by how many loader processes) are one group,
and one line of a plot (BCKD paper, Fig. 5).
"""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from ld_hub.analysis.comparison import TITLES, Comparison
from ld_hub.checked import Scalar, shorten
from ld_hub.engine.checkpoint import RunDirectory
from ld_hub.engine.records import Record, read_records
from ld_hub.errors import CheckpointError, ConfigError, MissingFileError
from ld_hub.hub import atomic_write
from ld_hub.hub.evidence import COMPARISON_NAME
from ld_hub.spread import Spread

Fact: TypeAlias = Scalar | list[Scalar]  # a setting of a run

SHOWN = ("eval/AP", "eval/AP50", "eval/AP75", "loss", "loss_", "distill_", "share/", "scale/", "grad_norm", "lr")
LOSSES = ("loss_", "distill_")
FINAL = ("eval/AP", "eval/AP50", "eval/AP75")

_SAME_TRAINING = {  # fields of config.json that runs of one group may differ in
    "ld_hub_version", "config.output_dir", "config.seed", "config.resume", "config.workers", "config.save_every",
    "config.log_every", "config.tracker", "config.eval_batch_size",
}  # fmt: skip
_PATHS = ("train_annotations", "eval_annotations")  # the data may lie elsewhere
_NAMING = ("recipe.name", "model", "model_config.backbone", "teacher", "teacher_config.backbone")
_BARE = ("recipe.name", "model", "model_config.backbone")  # told by their value alone


@dataclass(frozen=True)
class Curve:
    """One quantity of a group of runs.

    Attributes:
        steps: Optimizer steps at which all of the runs have logged it.
        mean: Over the runs, at each step.
        std: Sample standard deviation over the runs; 0 of a single one.
        runs: How many they are.
    """

    steps: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    runs: int


@dataclass(frozen=True)
class Group:
    """Runs that are one line.

    Attributes:
        name: What the line is called.
        runs: Their directories.
        records: What each logged.
        seeds: Of the runs, as far as they are known.
    """

    name: str
    runs: tuple[Path, ...]
    records: tuple[tuple[Record, ...], ...]
    seeds: tuple[Any, ...] = ()


def group_runs(directories: Sequence[Path], named: Mapping[str, Sequence[Path]] | None = None) -> list[Group]:
    """Put runs together that differ only in seed, and read them.

    Args:
        directories: Runs.
        named: Groups that are put together by hand.

    Returns:
        Groups, each called after what tells it from the others.

    Raises:
        MissingFileError: If a directory holds no run.
        CheckpointError: If its files are damaged.
        ConfigError: If there is no run, or one of them is named twice.
    """
    given = [path for path in [*directories, *(path for paths in (named or {}).values() for path in paths)]]
    twice = next((path for k, path in enumerate(given) if path.resolve() in {p.resolve() for p in given[:k]}), None)
    if twice is not None:
        raise ConfigError(f"The run '{twice}' is named twice.")
    if not given:
        raise ConfigError("Name at least one run directory.")
    alike: dict[str, list[Path]] = {}
    facts = {path: _facts(path) for path in given}
    for path in directories:
        told = {key: value for key, value in facts[path].items() if key not in _SAME_TRAINING}
        alike.setdefault(json.dumps(told, sort_keys=True), []).append(path)
    names = _names([json.loads(key) for key in alike], [paths[0].name for paths in alike.values()])
    groups = [*(named or {}).items(), *zip(names, alike.values(), strict=True)]
    again = next((name for k, (name, _) in enumerate(groups) if name in [other for other, _ in groups[:k]]), None)
    if again is not None:
        raise ConfigError(f"There are two groups '{again}': give the one of --group another name.")
    return [
        Group(
            name,
            tuple(paths),
            tuple(tuple(read_records(RunDirectory(path).metrics_file)) for path in paths),
            tuple(facts[path].get("config.seed") for path in paths),
        )
        for name, paths in groups
    ]


def comparisons(directories: Sequence[Path]) -> dict[str, list[Path]]:
    """The groups of those runs that have a comparison.json: the distillation and its student alone, over the seeds.

    Args:
        directories: Runs; those without one are passed over.

    Raises:
        CheckpointError: If one cannot be read.
    """
    found = {run: Comparison.read(run / COMPARISON_NAME) for run in directories if (run / COMPARISON_NAME).is_file()}
    return {
        TITLES[training] if len(directories) == 1 else f"{run.name}: {TITLES[training]}": [
            run / each.run for each in row.runs
        ]
        for run, comparison in found.items()
        for training, row in comparison.rows.items()
    }


def with_one_end(group: Group) -> Group:
    """A group whose runs end together: what one of another length logged last stands at the mean of the last steps.

    Runs of equal seconds have about as many steps, and AP is often measured at the end alone.
    """
    ends = [max((int(record["step"]) for record in records), default=0) for records in group.records]
    end = round(statistics.fmean(ends))
    moved = (
        tuple(
            {**record, "step": end} if record["step"] == last else record
            for record in records
            if record["step"] < end or record["step"] == last
        )
        for records, last in zip(group.records, ends, strict=True)
    )
    return replace(group, records=tuple(moved))


def course(name: str, records: Sequence[Record]) -> Group:
    """A group of a single run.

    Args:
        name: What its line is called.
        records: With ``step``.
    """
    return Group(name, (), (tuple(records),))


def panels(groups: Sequence[Group], shown: Sequence[str] = SHOWN) -> dict[str, dict[str, Curve]]:
    """The curves of each quantity, by group.

    Args:
        groups: Runs.
        shown: Names of quantities, or beginnings of names that end in ``_`` or ``/``, in their order.

    Returns:
        By quantity and group's name. Only steps that all runs of a group have logged are in a curve: a mean is over the
        same runs from beginning to end.
    """
    every = sorted({name for group in groups for records in group.records for record in records for name in record})
    names = [name for part in shown for name in every if name == part or (part[-1] in "_/" and name.startswith(part))]
    found = {name: {group.name: _curve(group, name) for group in groups} for name in names}
    kept = {name: {key: curve for key, curve in curves.items() if curve.steps} for name, curves in found.items()}
    return {name: curves for name, curves in kept.items() if curves}


def write_csv(curves: Mapping[str, Mapping[str, Curve]], path: Path) -> Path:
    """Write the numbers of `panels`: ``quantity,group,step,runs,mean,std``, fractions as fractions.

    Args:
        curves: Of `panels`.
        path: File to be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["quantity", "group", "step", "runs", "mean", "std"])
    for name, each in curves.items():
        for group, curve in each.items():
            for step, mean, std in zip(curve.steps, curve.mean, curve.std, strict=True):
                writer.writerow([name, group, step, curve.runs, mean, std])
    return atomic_write(path, text.getvalue())


def final_table(groups: Sequence[Group]) -> str:
    """AP of each group's last evaluations, x100: mean and sample standard deviation over its runs; 80 columns.

    Args:
        groups: Runs.
    """
    lines = [f"{'':<27}{'runs':>5}{'step':>12}" + "".join(f"{name[5:]:>12}" for name in FINAL)]
    notes = []
    for group in groups:
        last = [next((r for r in reversed(records) if FINAL[0] in r), {}) for records in group.records]
        ends = sorted({int(record["step"]) for record in last if record})
        step = "–" if not ends else str(ends[0]) if len(ends) == 1 else f"{ends[0]}..{ends[-1]}"
        cells = [_mean_std([100 * r[name] for r in last if name in r]) for name in FINAL]
        name = group.name if len(group.name) <= 26 else f"{group.name[:25]}…"
        lines.append(f"{name:<27}{len(last):>5}{step:>12}" + "".join(f"{cell:>12}" for cell in cells))
        missing = sum(not record for record in last)
        if 0 < missing < len(last):
            notes.append(f"{group.name}: {missing} of {len(last)} runs have not been evaluated.")
        if len(group.seeds) > 1 and len(set(group.seeds)) < len(group.seeds):
            notes.append(f"{group.name}: runs of the same seed ({', '.join(map(str, group.seeds))}).")
    return "\n".join([*lines, *notes])


def _facts(path: Path) -> dict[str, Fact]:
    """The settings of a run, flattened: ``config.lr``; without what only says where things lie."""
    run = RunDirectory(path)
    if not run.config_file.is_file() or not run.metrics_file.is_file():
        raise MissingFileError(
            f"'{path}' is not the directory of a training run: it lacks "
            f"{' and '.join(file.name for file in (run.config_file, run.metrics_file) if not file.is_file())}."
        )
    try:
        settings = json.loads(run.config_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"'{run.config_file}' is not readable JSON ({error}).") from None
    if not isinstance(settings, dict):
        raise CheckpointError(f"'{run.config_file}' is {shorten(settings)}; expected the settings of a run.")
    facts = _flat(settings)
    facts |= {name: Path(str(facts[name])).name for name in _PATHS if facts.get(name)}
    if (path / "teacher").is_dir():  # trained in the run itself, from the run's seed
        facts.pop("teacher_weights_sha256", None)
    return facts


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Fact]:
    out: dict[str, Fact] = {}
    for key, value in values.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out


def _names(facts: Sequence[Mapping[str, Fact]], directories: Sequence[str]) -> list[str]:
    """Names from what differs, as few settings as tell the groups apart."""
    keys = sorted({key for each in facts for key in each}, key=lambda key: (_rank(key), key))
    chosen: list[str] = []
    distinct = 0
    for key in keys:
        now = len({json.dumps([each.get(name) for name in [*chosen, key]]) for each in facts})
        if now > distinct or (not chosen and any(each.get(key) for each in facts)):
            chosen.append(key)
            distinct = now
    names = []
    for each in facts:
        parts = [_part(key, each[key]) for key in chosen if each.get(key) is not None]
        names.append(
            " ".join(parts if "recipe.name" in each or "recipe.name" not in chosen else ["no distillation", *parts])
        )
    return [f"{n} ({d})" if names.count(n) > 1 or not n else n for n, d in zip(names, directories, strict=True)]


def _rank(key: str) -> int:
    return _NAMING.index(key) if key in _NAMING else len(_NAMING) + (not key.startswith("config."))


def _part(key: str, value: Fact) -> str:
    text = "+".join(map(str, value)) if isinstance(value, list) else str(value)
    if key in _BARE:
        return text
    if key in ("teacher", "teacher_config.backbone"):
        return f"from {text}"
    path = key.split(".")
    return f"{'.'.join(path[-2:] if path[0] == 'recipe' else path[-1:])}={text[:40]}"


def _curve(group: Group, name: str) -> Curve:
    """The mean of a quantity over a group's runs, at the steps that all of them have."""
    runs = [{int(r["step"]): r[name] for r in records if name in r} for records in group.records]
    steps = sorted(set.intersection(*(set(run) for run in runs)))
    found = [Spread.of([run[step] for run in runs]) for step in steps]
    return Curve(tuple(steps), tuple(each.mean for each in found), tuple(each.std or 0.0 for each in found), len(runs))


def _mean_std(values: Sequence[float]) -> str:
    return Spread.of(values).text() if values else "–"
