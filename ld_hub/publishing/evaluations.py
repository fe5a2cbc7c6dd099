"""Which of a model's evaluations `ld-hub verify` recomputes: those of the data that was given, or the one named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ld_hub.data import DetectionSet
from ld_hub.errors import ConfigError, LdHubError
from ld_hub.hub import sha256_of
from ld_hub.hub.evidence import EVAL_DIRECTORY, Evidence


class Source(Protocol):
    """Where the data is."""

    def load(self, split: str) -> DetectionSet:
        """Read one part of it."""
        ...


@dataclass(frozen=True)
class Given:
    """One part of the data that was given.

    Attributes:
        dataset: Its images; None where they cannot be read.
        sha256: Of its annotation file.
        error: Why it cannot be read.
    """

    dataset: DetectionSet | None = None
    sha256: str = ""
    error: str = ""


def read_parts(source: Source, artefacts: Iterable[Evidence]) -> dict[str, Given]:
    """Read each part of the data that artefacts are of, once.

    Args:
        source: The data.
        artefacts: They.
    """
    parts = {}
    for split in dict.fromkeys(each.data.split for each in artefacts):
        try:
            dataset = source.load(split)
            parts[split] = Given(dataset, sha256_of(dataset.annotation_file))
        except LdHubError as error:
            parts[split] = Given(error=str(error))
    return parts


def of_this_data(
    found: Mapping[Path, Evidence], own: Iterable[Path], parts: Mapping[str, Given]
) -> dict[Path, Evidence]:
    """The artefacts that were made of the given annotations; all of them where none of the model's own was.

    Args:
        found: Artefacts by path.
        own: Paths of those of the model itself.
        parts: Of `read_parts`.
    """
    fits = {path: each for path, each in found.items() if parts[each.data.split].sha256 == each.data.sha256}
    return fits if any(path in fits for path in own) else dict(found)


def named(place: Path, found: Mapping[Path, Evidence], name: str | Path) -> Path:
    """The artefact that a user means.

    Args:
        place: Model directory.
        found: Its artefacts by path.
        name: A file, a directory with a metrics.json (also one below ``eval/``), or the data set's name.

    Raises:
        ConfigError: If there is none, or there are several; names what there is.
    """
    for base in (Path(name), place / EVAL_DIRECTORY / name):
        for file in (base, base / "metrics.json"):
            if file.is_file():
                return next((path for path in found if path.resolve() == file.resolve()), file)
    fits = [path for path, each in found.items() if str(name) in _names(each)]
    if len(fits) == 1:
        return fits[0]
    where = place / EVAL_DIRECTORY
    known = [f"{path.relative_to(where)} ({_names(each)[1]})" for path, each in found.items()]
    what = f"is the name of {len(fits)} evaluations" if fits else "is no evaluation"
    raise ConfigError(f"--evaluation '{name}' {what} in '{where}'; there are: {', '.join(known) or 'none'}.")


def _names(evidence: Evidence) -> tuple[str, str]:
    data = evidence.data
    return data.name, f"{data.name}/{data.split}"
