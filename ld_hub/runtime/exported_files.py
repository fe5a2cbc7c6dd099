"""The files of an exported detector: which they are, and that they are what was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL_TYPE = "ld_hub_exported"
FORMAT_VERSION = 1
CONFIG = "config.json"
SUMS = "SHA256SUMS"
README = "README.md"
_LARGEST = 1_000_000  # bytes of config.json
_HEX = set("0123456789abcdef")


class ExportedError(ValueError):
    """An exported detector that cannot be used as it is; the message names the file and the way out."""


@dataclass(frozen=True)
class Preparation:
    """How images become the network's input; as `ld_hub.preprocessing.DataConfig`, which has the words."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str
    image_size: tuple[int, int]
    size_divisor: int


@dataclass(frozen=True)
class Choice:
    """How boxes are chosen from rows; as `ld_hub.layers.postprocess.PostprocessConfig`, which has the words."""

    score_threshold: float
    nms_iou: float
    nms_pre: int
    max_detections: int
    prefilter: str = "location"
    nms: str = "hard"


@dataclass(frozen=True)
class Exported:
    """What the config.json of an exported detector says.

    Attributes:
        directory: Where it lies.
        architecture: Name of the model it was made of.
        family: Its family.
        config: Its structure, by field.
        to: Format of the program, e.g. ``"onnx"``.
        program: File name of the program.
        label_names: C names.
        category_ids: C ids of the data set.
        preparation: Preprocessing.
        choice: Settings of the choice of boxes.
        chooses: Whether the program chooses boxes itself; otherwise it gives rows.
        takes_pixels: Whether the program prepares images itself.
        size: Height and width in px that all images are padded to; None for any.
        precision: ``"float32"``, ``"float16"``, ``"int8"`` or ``"int8_weights"``.
        weights: Digits of the sha256 of the model's tensors; empty where that is not known.
    """

    directory: Path
    architecture: str
    family: str
    config: Mapping[str, str | int | float | bool]
    to: str
    program: str
    label_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    preparation: Preparation
    choice: Choice
    chooses: bool
    takes_pixels: bool
    size: tuple[int, int] | None
    precision: str
    weights: str = ""

    @property
    def file(self) -> Path:
        """The program."""
        return self.directory / self.program

    @property
    def program_files(self) -> tuple[Path, ...]:
        """The program with what lies beside it under its name, as OpenVINO's weights do."""
        names = sorted(name for name in listed(self.directory) if Path(name).stem == Path(self.program).stem)
        return tuple(self.directory / name for name in names)

    @property
    def digest(self) -> str:
        """Hex digits of a sha256 of the program's files and config.json: by it a measurement tells what it is of."""
        names, sums = (CONFIG, *(file.name for file in self.program_files)), listed(self.directory)
        return hashlib.sha256("".join(f"{sums[name]}  {name}\n" for name in names).encode()).hexdigest()


def is_exported(place: str | Path) -> bool:
    """Whether a directory holds an exported detector."""
    file = Path(place).expanduser() / CONFIG
    try:
        return file.is_file() and f'"{MODEL_TYPE}"' in file.read_text(encoding="utf-8", errors="replace")[:_LARGEST]
    except (OSError, ValueError):
        return False


def read_exported(place: str | Path) -> Exported:
    """Read config.json, and make sure that it and the program are the files that were written.

    Raises:
        ExportedError: If a file is missing, changed, or says what cannot be.
    """
    directory = Path(place).expanduser()
    content = _read_config(directory)
    try:
        exported = _parse(directory, content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ExportedError):
            raise
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise ExportedError(f"'{directory / CONFIG}' is not what an export writes: {what}. Export again.") from None
    _check_sums(directory, (CONFIG, exported.program))
    return exported


def listed(place: str | Path) -> dict[str, str]:
    """Hex digits of the sha256 by file name, as the manifest of an export has them; empty without a manifest.

    Raises:
        ExportedError: If it lists what does not lie in the directory itself.
    """
    file, sums = Path(place).expanduser() / SUMS, {}
    if not file.is_file():
        return {}
    with open(file, encoding="utf-8", errors="replace") as stream:
        text = stream.read(_LARGEST)
    for line in text.splitlines():
        digits, _, name = line.partition("  ")
        if len(digits) == 64 and set(digits) <= _HEX:
            if Path(name).name != name:
                raise ExportedError(f"'{file}' lists {name!r}; expected names of files beside it. Export again.")
            sums[name] = digits
    return sums


def write_sums(directory: Path) -> None:
    """Write the manifest of all files of a directory; `sha256sum -c SHA256SUMS` reads it as well."""
    files = sorted(file.name for file in directory.iterdir() if file.is_file() and file.name != SUMS)
    text = "".join(f"{_sha256(directory / name)}  {name}\n" for name in files)
    (directory / SUMS).write_text(text, encoding="utf-8")


def _read_config(directory: Path) -> Mapping[str, Any]:
    file = directory / CONFIG
    if not file.is_file():
        raise ExportedError(
            f"'{directory}' holds no exported detector: there is no {CONFIG}. `ld-hub export` makes one."
        )
    if file.stat().st_size > _LARGEST:
        raise ExportedError(f"'{file}' has {file.stat().st_size:,} bytes; expected at most {_LARGEST:,}. Export again.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportedError(f"'{file}' is no JSON ({error}). Export again.") from None
    if not isinstance(content, dict) or content.get("model_type") != MODEL_TYPE:
        raise ExportedError(
            f"'{directory}' is no exported detector: '{file.name}' has not the model_type '{MODEL_TYPE}'. "
            "`ld-hub export MODEL` makes one of a model."
        )
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise ExportedError(f"'{file}' has format_version {version!r}; this ld_hub reads {FORMAT_VERSION}. Update it.")
    return content


def _parse(directory: Path, content: Mapping[str, Any]) -> Exported:
    names, ids = (tuple(content[name]) for name in ("label_names", "category_ids"))
    if not names or not all(isinstance(name, str) for name in names) or len(names) != len(ids):
        raise ExportedError(
            f"'{directory / CONFIG}': {len(names)} label_names and {len(ids)} category_ids; expected a text and a "
            "number for every class. Export again."
        )
    data, choice, size = content["data_config"], content["postprocess"], content["size"]
    program = str(content["program"])
    if Path(program).name != program:
        raise ExportedError(f"'{directory / CONFIG}': program is {program!r}; expected a file name.")
    return Exported(
        directory=directory,
        architecture=str(content["architecture"]),
        family=str(content["family"]),
        config=dict(content["config"]),
        to=str(content["to"]),
        program=program,
        label_names=names,
        category_ids=tuple(int(number) for number in ids),
        preparation=Preparation(
            mean=tuple(map(float, data["mean"])),
            std=tuple(map(float, data["std"])),
            channel_order=str(data["channel_order"]),
            image_size=(int(data["image_size"][0]), int(data["image_size"][1])),
            size_divisor=int(data["size_divisor"]),
        ),
        choice=Choice(**{name: choice[name] for name in Choice.__dataclass_fields__ if name in choice}),
        chooses=bool(content["chooses"]),
        takes_pixels=bool(content["takes_pixels"]),
        size=None if size is None else (int(size[0]), int(size[1])),
        precision=str(content["precision"]),
        weights=str(content.get("weights", "")),
    )


def _check_sums(directory: Path, names: tuple[str, ...]) -> None:
    file = directory / SUMS
    if not file.is_file():
        raise ExportedError(f"'{directory}' has no {SUMS}, so nothing tells whether its files are whole. Export again.")
    sums = listed(directory)
    for name in names:
        if name not in sums:
            raise ExportedError(f"'{file}' does not list {name}. Export again.")
    for name in (name for name in sums if name != README):  # a README is anyone's to write in
        if not (directory / name).is_file():
            raise ExportedError(f"'{directory / name}' is missing. Export again, or copy the whole directory.")
        if _sha256(directory / name) != sums[name]:
            raise ExportedError(
                f"'{directory / name}' was changed or cut short after the export: its sha256 is not the one in {SUMS}. "
                "Copy the directory again, or export again."
            )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()
