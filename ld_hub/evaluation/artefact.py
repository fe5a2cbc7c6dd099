"""The artefact of an evaluation: its numbers, and the hashes that tie them to weights, annotations and detections."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ld_hub.evaluation.metrics import DetectionMetrics
from ld_hub.hub.evidence import DetectionsFile, Evidence, JudgedData, JudgedModel, JudgedWeights
from ld_hub.hub.files import sha256_of
from ld_hub.version import __version__

PACKAGES = ("torch", "torchvision", "timm", "safetensors")


@dataclass(frozen=True)
class Circumstances:
    """How an evaluation was run.

    Attributes:
        command: Command line, or the call.
        device: Hardware by name.
        precision: Of the network, e.g. ``"float32"``.
        batch_size: Images per forward pass.
        backend: Scorer.
        tile: Side in px of the tiles in which larger images were looked at; 0 where none were.
        overlap: Share of it that neighbours had in common.
    """

    command: str
    device: str
    precision: str = "float32"
    batch_size: int = 8
    backend: str = "pycocotools"
    tile: int = 0
    overlap: float = 0.0


def artefact(
    metrics: DetectionMetrics,
    *,
    model: JudgedModel,
    weights: Path,
    tensors: str,
    data: str,
    split: str,
    annotations: str | Path,
    detections: Path,
    how: Circumstances,
) -> Evidence:
    """Put an evaluation artefact together (`ld_hub.hub.evidence` shows it).

    Args:
        metrics: What was measured.
        model: What was evaluated.
        weights: The model.safetensors that was evaluated.
        tensors: Digits of the sha256 of its tensors, which does not depend on the file's layout; by it a run knows
            its teacher.
        data: What the data set is called.
        split: Its part.
        annotations: The annotation file.
        detections: The detections in COCO's format, written beside the artefact.
        how: Hardware and settings.

    Returns:
        The artefact, checked as on reading.
    """
    made = Evidence(
        **vars(metrics),
        model=model,
        weights=JudgedWeights(weights.name, sha256_of(weights), tensors),
        data=JudgedData(data, split, Path(annotations).name, sha256_of(annotations)),
        detections_file=DetectionsFile(detections.name, sha256_of(detections)),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=how.command,
        device=how.device,
        backend=how.backend,
        precision=how.precision,
        batch_size=how.batch_size,
        tile=how.tile,
        overlap=how.overlap,
        versions=library_versions(how.backend),
    )
    return Evidence.from_dict(made.to_dict())


def library_versions(backend: str) -> dict[str, str]:
    """Versions of what the numbers depend on.

    Args:
        backend: Name of the scorer's package.
    """
    found = {"ld_hub": __version__, "python": platform.python_version()}
    for package in (*PACKAGES, backend):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # built from source and not installed
    return found
