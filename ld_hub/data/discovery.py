"""Where the images and annotations of a split lie below one directory in COCO format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ld_hub.errors import ConfigError, MissingFileError
from ld_hub.formats.split_files import annotation_files, has_marks, image_folders
from ld_hub.formats.splits import SPLITS, NoSplitError

_YEARS = ("2017", "", "2014")
_PURPOSES = (
    "captions_",
    "person_keypoints_",
    "panoptic_",
    "stuff_",
    "image_info_",
)  # COCO's files that are not of boxes
OR_NAME_BOTH = (
    "Or name the image directory and the COCO file: images=..., annotations=... (--images DIR --annotations FILE)."
)


def find_places(data_dir: str | Path, split: str) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Find a split below a directory in one of the usual layouts.

    * ``train2017/`` + ``annotations/instances_train2017.json`` (COCO; also 2014 and without a year)
    * ``images/train/`` or ``images/`` + ``annotations/instances_train.json`` or ``annotations/train.json``
    * ``annotations/lvis_v1_train.json`` beside COCO's images (LVIS)
    * ``train/_annotations.coco.json`` beside its images (Roboflow, which calls the other split ``valid``)
    * other COCO files with the split's name in their own or their directory's; without parts (`WHOLE`), any. Those
      called instances, as CVAT's, go before others

    Args:
        data_dir: The directory.
        split: ``"train"``, ``"val"`` (also found as ``valid`` or ``validation``), or another name such as ``"test"``.

    Returns:
        The directories in which the images may be, best first, and the annotation file; several where only what they
        hold can tell whether they are to be read as one.

    Raises:
        MissingFileError: If there is no such directory or no such layout (`NoSplitError`); says what was looked for
            and what is there.
    """
    root = data_root(data_dir, split)
    for file, folders in _layouts(root, split):
        if file.is_file() and not _is_another(file):
            return folders, (file,)
    others = _other_files(root, split)
    if others:
        return tuple(dict.fromkeys(p for file in others for p in image_folders(root, split, file))), tuple(others)
    raise NoSplitError(
        f"No annotations of the split '{split}' in {root}. Looked for {looked_for(root, split)}. "
        f"Found {contents(root)}. {OR_NAME_BOTH}"
    )


def files_beside(root: Path, split: str, file: Path) -> list[str]:
    """Names of other COCO files of a split, which `find_places` passes over; COCO's own of other purposes aside.

    Args:
        root: The data directory.
        split: Name.
        file: The file that is read.
    """
    usual = [other for other, _ in _layouts(root, split) if other.is_file() and not _is_another(other)]
    shown = [other for other in annotation_files(root, split, (".json",), lambda f: not f.name.startswith(_PURPOSES))]
    found = dict.fromkeys([*usual, *(other for other in shown if other not in usual and is_coco(other))])
    return [_relative(other, root) for other in found if not other.samefile(file)]


def _other_files(root: Path, split: str) -> list[Path]:
    """COCO files of other names that belong to a split; those called instances, as CVAT's, go before others."""
    found = annotation_files(root, split, (".json",), is_coco)
    return [file for file in found if "instances" in file.name] or found


def is_coco(file: Path) -> bool:
    """Whether a JSON file has COCO's lists.

    Args:
        file: Of any size; it is not read into memory.
    """
    return has_marks(file, b'"images"', b'"annotations"', b'"categories"', opening=b"{")


def _is_another(file: Path) -> bool:
    """Whether a file of a usual name is not COCO's but CreateML's, a list, or VIA's, VoTT's or Datumaro's."""
    others = not has_marks(file, b'"images"') and any(has_marks(file, mark) for mark in (b'"regions"', b'"items"'))
    return others or has_marks(file, opening=b"[")


def require_places(
    data_dir: str | Path | None, *, images: str | Path | None = None, annotations: str | Path | None = None
) -> None:
    """Refuse places that do not exist, as the readers do, before anything is read or imported.

    Args:
        data_dir: A data directory or, for YOLO, its YAML file.
        images: Image directory.
        annotations: COCO file.

    Raises:
        MissingFileError: If something named does not exist.
        ConfigError: If too little is named.
    """
    if data_dir is None and (images is None or annotations is None):
        raise ConfigError(
            "Say where the data is: a data directory (--data DIR), or both images=DIR and annotations=FILE "
            "(--images DIR --annotations FILE)."
        )
    if images is not None and not Path(images).expanduser().is_dir():
        raise MissingFileError(f"The image directory {Path(images).expanduser()} does not exist.")
    if annotations is not None and not Path(annotations).expanduser().is_file():
        raise MissingFileError(f"No annotation file {Path(annotations).expanduser()}.")
    if str(data_dir).startswith("hf:"):  # a data set of the Hub
        return
    needed = data_dir is not None and (images is None or annotations is None)
    if needed and not Path(data_dir or "").expanduser().is_file():
        data_root(data_dir or "", "train")


def data_root(data_dir: str | Path, split: str) -> Path:
    """The data directory as a path.

    Raises:
        MissingFileError: If there is none.
        ConfigError: If the split could lead out of it.
    """
    root = Path(data_dir).expanduser()
    if not split or Path(split).name != split:
        raise ConfigError(f"A split is a plain name such as {' or '.join(SPLITS)}, got '{split}'.")
    if not root.is_dir():
        if root.exists():
            packed = root.suffix.lower() in (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar")
            way_out = "Unpack it, and name" if packed else f"Name {root.parent}, which is"
            raise MissingFileError(
                f"The data directory {root} is a file, not a directory. {way_out} the directory. {OR_NAME_BOTH}"
            )
        raise MissingFileError(f"The data directory {root} does not exist.")
    return root


def has_split(root: Path, split: str) -> bool:
    """Whether there is a COCO file of a split where `find_places` looks."""
    named = (file for file, _ in _layouts(root, split) if file.is_file())
    return any(not _is_another(file) for file in named) or bool(_other_files(root, split))


def looked_for(root: Path, split: str) -> str:
    """Where `find_places` looks for the file of a split, below the directory, for a message."""
    name, *others = SPLITS.get(split, (split,))
    files = ", ".join(_relative(file, root) for file, _ in _layouts(root, name, (name,)))
    return files + (f", and the same with {' or '.join(others)}" if others else "")


def find_images(folders: tuple[Path, ...], annotations: Path) -> Path:
    """The first of `folders` that exists.

    Raises:
        MissingFileError: If none does.
    """
    for folder in folders:
        if folder.is_dir():
            return folder
    names = ", ".join(str(folder) for folder in folders)
    raise MissingFileError(f"{annotations} exists, but none of the image directories that go with it: {names}.")


def _layouts(root: Path, split: str, names: tuple[str, ...] | None = None) -> Iterator[tuple[Path, tuple[Path, ...]]]:
    for name in names or SPLITS.get(split, (split,)):
        for year in _YEARS:
            own = (root / f"{name}{year}", root / "images" / f"{name}{year}")
            plain = (root / name, root / "images" / name, root / "images", root)
            yield root / "annotations" / f"instances_{name}{year}.json", (*own, *plain)
        for file in (root / "annotations" / f"lvis_v1_{name}.json", root / f"lvis_v1_{name}.json"):
            yield file, (root / "images", root)
        for file in (root / "annotations" / f"{name}.json", root / f"{name}.json"):
            yield file, (root / name, root / "images" / name, root / "images", root)
        for folder in (root / name, root / "images" / name):
            yield folder / "_annotations.coco.json", (folder,)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def contents(root: Path, most: int = 12) -> str:
    """What is in a directory, for a message."""
    names = sorted(p.name + ("/" if p.is_dir() else "") for p in root.iterdir())
    inner = root / "annotations"
    if inner.is_dir():
        names += sorted(f"annotations/{p.name}" for p in inner.iterdir())
    if not names:
        return "an empty directory"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
