"""Evaluation artefacts: what `ld-hub eval` writes about a model, and the only source of the AP in a card.

```
{"format": "ld_hub.evaluation", "format_version": 1, "date": ..., "command": ..., "versions": {...},
 "model":   {"name": as given, "architecture": ..., "family": ..., "config": {...}, "recipe": name or null},
 "weights": {"file": "model.safetensors", "sha256": of the file, "tensors": digits of the sha256 of names and values},
 "data":    {"name": ..., "split": ..., "annotations": file name, "sha256": of the file},
 "detections_file": {"file": "detections.json", "sha256": of the file},
 "protocol": a key of `PROTOCOLS` ("coco" where it is missing), "stats": its numbers, "per_class": AP by label,
 "boxes": ground truth by label, "images": N, "detections": N, "not_counted": N (0 where it is missing),
 "backend": scorer, "device": ..., "precision": ..., "batch_size": ...,
 "tile": px, "overlap": share (where large images were looked at in tiles)}
```
Fractions are 0..1; null stands where there was nothing to find. Files are named without their directories.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from ld_hub.checked import Scalar, Source, read_fields, shorten
from ld_hub.errors import CheckpointError, EvaluationError, HubError, MissingFileError
from ld_hub.hub.config_file import CONFIG_NAME, parse_json
from ld_hub.hub.downloads import TRANSPORT_ERROR, download, first_line, leaks, secrets_in_use
from ld_hub.hub.fetch import offline
from ld_hub.hub.reach import unreachable

FORMAT = "ld_hub.evaluation"
FORMAT_VERSION = 1
EVAL_DIRECTORY = "eval"  # of a model directory or repository: where artefacts and their detections lie
EXPORTS_DIRECTORY = "exports"  # of a repository: programs of the model
BENCHMARK_NAME = "benchmark.json"  # of an export: what `ld-hub benchmark EXPORT --json` wrote
TRAINING_DIRECTORY = "training"  # of a repository: settings of the run that made the model
COMPARISON_NAME = "comparison.json"  # of a run, and of that directory: the student alone beside the distillation
MAX_BYTES = 8_000_000
STAT_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
VOC_NAMES = ("AP", *(f"AP{percent}" for percent in range(50, 100, 5)))
LVIS_NAMES = (*STAT_NAMES[:6], "APr", "APc", "APf", "AR300", *STAT_NAMES[9:])
PROTOCOLS = {  # the numbers that each gives
    "coco": STAT_NAMES,
    "voc07": VOC_NAMES,
    "voc12": VOC_NAMES,
    "lvis": LVIS_NAMES,
}
TITLES = {
    "coco": "COCO box metrics",
    "voc07": "PASCAL VOC 2007, 11-point AP",
    "voc12": "PASCAL VOC 2012, AP by area",
    "lvis": "LVIS box metrics",
}

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST = 20_000  # characters of a text


@dataclass(frozen=True)
class Numbers:
    """Box metrics of one set of detections, as fractions 0..1; None where nothing could be found.

    Attributes:
        stats: The numbers of the protocol, `PROTOCOLS`.
        per_class: AP of each class by name.
        boxes: Ground-truth boxes of each class by name.
        images: Number of images scored.
        detections: Number of detections given.
        not_counted: How many of these the protocol leaves out.
        protocol: A key of `PROTOCOLS`.
    """

    stats: Mapping[str, float | None]
    per_class: Mapping[str, float | None]
    boxes: Mapping[str, int] = field(default_factory=dict)
    images: int = 0
    detections: int = 0
    not_counted: int = 0
    protocol: str = "coco"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; fractions 0..1, None where nothing could be found."""
        return asdict(self)

    def check(self, source: Source) -> None:
        """Refuse numbers that no evaluation gives.

        Raises:
            LdHubError: Of the source's kind, naming the field.
        """
        if self.protocol not in PROTOCOLS:
            raise source.wrong("protocol", self.protocol, f"one of {', '.join(PROTOCOLS)}")
        names = PROTOCOLS[self.protocol]
        if tuple(self.stats) != names:
            raise source.wrong("stats", list(self.stats), f"the names {', '.join(names)}")
        for part, values in (("stats", self.stats), ("per_class", self.per_class)):
            for name, value in values.items():
                if value is not None and not 0 <= value <= 1:  # NaN is refused as well
                    raise source.wrong(f"{part}.{name}", value, "a fraction 0..1 or null")
        counts = {f"boxes.{name}": value for name, value in self.boxes.items()}
        counts |= {name: getattr(self, name) for name in ("images", "detections", "not_counted")}
        require_counts(counts, source)


@dataclass(frozen=True)
class JudgedModel:
    """What an evaluation says about the model.

    Attributes:
        name: As the user calls it.
        architecture: Registered name it was built by.
        family: Of the architecture.
        config: Fields of the family's configuration.
        recipe: Name of the recipe it was distilled by, or None.
        commit: Of the repository that it came from; empty where that is not known.
    """

    name: str
    architecture: str
    family: str
    config: Mapping[str, Scalar]
    recipe: str | None = None
    commit: str = ""


@dataclass(frozen=True)
class JudgedWeights:
    """The file of weights that was evaluated.

    Attributes:
        file: Its name.
        sha256: Of the file.
        tensors: Digits of the sha256 of names and values, which does not depend on the file's layout; by it a run
            knows its teacher.
    """

    file: str
    sha256: str
    tensors: str


@dataclass(frozen=True)
class JudgedData:
    """The data that a model was evaluated on.

    Attributes:
        name: What the data set is called.
        split: Its part.
        annotations: Name of the annotation file.
        sha256: Of that file.
    """

    name: str
    split: str
    annotations: str
    sha256: str


@dataclass(frozen=True)
class DetectionsFile:
    """The detections in COCO's format, written beside the artefact.

    Attributes:
        file: Its name, without directories.
        sha256: Of the file.
    """

    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Evidence(Numbers):
    """The content of an evaluation artefact: what was measured, of which weights on which data, and how.

    Attributes:
        model: What was evaluated.
        weights: Its file.
        data: On what.
        detections_file: What was detected.
        date: When.
        command: Command line, or the call.
        device: Hardware by name.
        backend: Scorer.
        precision: Of the network, e.g. ``"float32"``.
        batch_size: Images per forward pass.
        versions: Of what the numbers depend on, by package.
        tile: Side in px of the tiles in which larger images were looked at; 0 where none were.
        overlap: Share of it that neighbours had in common.
    """

    model: JudgedModel
    weights: JudgedWeights
    data: JudgedData
    detections_file: DetectionsFile
    date: str
    command: str
    device: str
    backend: str
    precision: str
    batch_size: int
    versions: Mapping[str, str]
    tile: int = 0
    overlap: float = 0.0

    @property
    def comparable(self) -> tuple[str, str]:
        """What two evaluations must have in common to stand in one table: annotations and protocol."""
        return self.data.sha256, self.protocol

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values, as the file has it."""
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, **super().to_dict()}
        if not self.model.commit:
            del content["model"]["commit"]
        if not self.tile:
            del content["tile"], content["overlap"]
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str = "the evaluation") -> Evidence:
        """The inverse of `to_dict`, checked.

        Args:
            content: Parsed JSON. What older versions did not write (protocol, not_counted) may be missing.
            where: Its source, for messages.

        Raises:
            EvaluationError: Naming the field, what it is and what it should be.
        """
        if content.get("format") != FORMAT:
            raise EvaluationError(
                f"{where} is not an evaluation artefact: its 'format' is {shorten(content.get('format'))}, not "
                f"'{FORMAT}'. Only what `ld-hub eval` writes counts as measured."
            )
        version = content.get("format_version")
        if version != FORMAT_VERSION or isinstance(version, bool):
            raise EvaluationError(
                f"{where} has format_version {shorten(version)}; this ld_hub reads {FORMAT_VERSION}. Evaluate again, "
                "or update ld_hub."
            )
        source = Source(where, EvaluationError, "Evaluate again.")
        for name in ("boxes", "images", "detections"):  # have a default elsewhere
            if name not in content:
                raise source.wrong(name, None, "what was counted")
        found = read_fields(cls, content, source)
        found.check(source)
        return found

    def check(self, source: Source) -> None:
        """See `Numbers.check`."""
        parts = ("model", "weights", "data", "detections_file")
        texts = {f"{part}.{name}": text for part in parts for name, text in vars(getattr(self, part)).items()}
        texts |= {name: getattr(self, name) for name in ("date", "command", "backend", "device", "precision")}
        for name, text in texts.items():
            if isinstance(text, str) and name != "model.commit" and not 0 < len(text) <= _LONGEST:
                raise source.wrong(name, text, f"a text of 1 to {_LONGEST:,} characters")
            if name.endswith(".sha256") and not _SHA256.fullmatch(text):
                raise source.wrong(name, text, "64 hexadecimal digits")
        if Path(self.detections_file.file).name != self.detections_file.file:
            raise source.wrong("detections_file.file", self.detections_file.file, "a name without directories")
        require_counts({"batch_size": self.batch_size, "tile": self.tile}, source)
        super().check(source)


def require_counts(values: Mapping[str, int], source: Source) -> None:
    """Refuse numbers below 0.

    Args:
        values: By field.
        source: Where they come from.

    Raises:
        LdHubError: Of the source's kind, naming the field.
    """
    for name, value in values.items():
        if value < 0:
            raise source.wrong(name, value, "a whole number from 0 on")


def read_evidence(path: str | Path) -> Evidence:
    """Read an evaluation artefact.

    Args:
        path: The metrics.json that `ld-hub eval` wrote.

    Returns:
        Its content.

    Raises:
        MissingFileError: If there is no such file.
        EvaluationError: If it is not such a file: another JSON, too large, of a newer version, or with a value that
            no evaluation gives.
    """
    file = Path(path)
    if not file.is_file():
        raise MissingFileError(f"No evaluation artefact '{path}': `ld-hub eval MODEL --data DIR --out DIR` writes one.")
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise EvaluationError(f"'{path}' has {size:,} bytes; an evaluation artefact has at most {MAX_BYTES:,}.")
    try:
        content = parse_json(file, "an evaluation artefact")
    except CheckpointError as error:
        raise EvaluationError(str(error)) from None
    return Evidence.from_dict(content, f"'{path}'")


def find_evidence(directory: str | Path) -> dict[Path, Evidence]:
    """Read every artefact in ``eval/`` and its subdirectories; other JSON files there are passed over.

    Args:
        directory: A model directory, or a local copy of a repository.

    Returns:
        Contents by path, sorted by path.

    Raises:
        EvaluationError: If a file claims to be an artefact and is none.
    """
    found = {}
    for file in sorted((Path(directory) / EVAL_DIRECTORY).rglob("*.json")):
        if f'"{FORMAT}"' in _start(file):
            found[file] = read_evidence(file)
    return found


def download_evidence(
    repo_id: str, revision: str | None = None, *, token: str | bool | None = None, exported: bool = False
) -> Path:
    """Fetch a model with its card, its evaluations, the settings of its run and its exports into the cache.

    Args:
        repo_id: ``org/name``.
        revision: Branch, tag or commit; the default branch when None.
        token: Access token, or True to require the stored one.
        exported: Whether the repository is an export, whose program is not fetched here.

    Returns:
        The local directory, all of one commit.

    Raises:
        HubError: As `ld_hub.hub.downloads`.
    """
    directory = download(repo_id, revision, token=token, weights=not exported)
    try:
        snapshot_download(
            repo_id,
            revision=directory.name,
            allow_patterns=[
                "README.md",
                f"{EVAL_DIRECTORY}/*.json",
                BENCHMARK_NAME,
                f"{EXPORTS_DIRECTORY}/*",
                *(f"{TRAINING_DIRECTORY}/{name}" for name in (CONFIG_NAME, COMPARISON_NAME)),
            ],
            token=token,
            library_name="ld_hub",
            local_files_only=bool(offline() or unreachable()),
        )
    except (TRANSPORT_ERROR, OSError, ValueError, RuntimeError) as error:
        secrets = secrets_in_use(token)
        message = f"The card and evaluations of '{repo_id}' could not be fetched: {first_line(error, secrets)}."
        raise HubError(message) from (None if leaks(error, secrets) else error)
    return directory


def _start(file: Path) -> str:
    with open(file, "rb") as stream:
        return stream.read(200).decode(errors="replace")
