"""The student alone in a card: what comparison.json of the run says, and whether that is what its runs say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from ld_hub.analysis.comparison import TITLES, Comparison, Trained, gain_text
from ld_hub.engine.identity import differences
from ld_hub.errors import LdHubError
from ld_hub.hub.card_file import escape, table
from ld_hub.hub.evidence import COMPARISON_NAME, TRAINING_DIRECTORY

HEAD = ("AP, x100", "seeds", "steps", "AP", "AP of the distillation above it (95 % interval)", "seconds")


def comparison_section(comparison: Comparison | None) -> str:
    """The student alone beside the distillation, Markdown; empty where there is no comparison.

    Args:
        comparison: Of the run.
    """
    if comparison is None:
        return ""
    words = " ".join(escape(sentence) for sentence in comparison.sentences())
    about = (
        "Trainings of this student, AP of each one's last evaluation; seconds of training on the machine of the run."
    )
    return "\n\n".join(["## Beside the student alone", about, comparison_table(comparison), words])


def comparison_table(comparison: Comparison) -> str:
    """Its table in Markdown.

    Args:
        comparison: Of the run.
    """
    rows = []
    for name, row in comparison.rows.items():
        ap = "" if row.AP is None else row.AP.text(factor=100)
        cells = [", ".join(str(run.seed) for run in row.runs), f"{row.steps.mean:.0f}", ap, gain_text(row.gain, " to ")]
        rows.append([escape(TITLES[name]), *cells, row.seconds.text(0)])
    return table(HEAD, rows)


def check_comparison(place: Path, block: str, add: Callable[[str, list[str]], object]) -> None:
    """Compare a card with comparison.json, and this with the runs that it is of, as far as they are there.

    Args:
        place: Model directory, or local copy of a repository.
        block: What the generator wrote into the card.
        add: Told the name of each comparison and its differences.
    """
    published, local = place / TRAINING_DIRECTORY / COMPARISON_NAME, place.parent / COMPARISON_NAME
    file = published if published.is_file() else local
    if not file.is_file():
        return
    try:
        comparison = Comparison.read(file)
    except LdHubError as error:
        add(f"{COMPARISON_NAME} can be read", [str(error)])
        return
    add(f"{COMPARISON_NAME}: its numbers follow from its runs", comparison.contradictions())
    if file == local:
        add(f"{COMPARISON_NAME}: the runs say so", _contradicted(comparison, file.parent))
    shown = comparison_table(comparison) in block
    add(
        f"README.md: table of {COMPARISON_NAME}", [] if shown else ["the card has another one: `ld-hub card` renews it"]
    )


def _contradicted(comparison: Comparison, root: Path) -> list[str]:
    """Where result.json and metrics.jsonl of the runs that are still there say something else."""
    lines = []
    for told in [run for row in comparison.rows.values() for run in row.runs]:
        if not (root / told.run).is_dir():
            continue
        try:
            found = Trained.read(root, told.run, told.seed)
        except (LdHubError, OSError) as error:
            lines.append(str(error))
            continue
        changed = differences(asdict(told), asdict(found))
        lines += [f"{told.run}, {name}: the file has {old}, the run {new}" for name, (old, new) in changed.items()]
    return lines
