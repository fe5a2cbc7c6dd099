"""Where the images and the class names of a YOLO directory are: data.yaml, or the usual folders."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ld_hub.data.checks import name_some
from ld_hub.data.darknet import is_list, labels_beside, listed_names, read_darknet
from ld_hub.errors import DataError, MissingFileError
from ld_hub.formats.splits import SPLITS, WHOLE, NoSplitError
from ld_hub.formats.text import CLASSES_FILE, read_lines
from ld_hub.preprocessing.suffixes import IMAGE_SUFFIXES

YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")


@dataclass(frozen=True)
class YoloPart:
    """One split of a YOLO directory.

    Attributes:
        images: Image files.
        names: Class names.
        parts: Where the images are, for people.
        keypoints: Rows have keypoints behind the box, which are not read.
    """

    images: tuple[Path, ...]
    names: tuple[str, ...]
    parts: str
    keypoints: bool = False


def find_yaml(root: Path) -> Path | None:
    """The description of a YOLO directory: data.yaml, or else the only YAML file there is.

    Args:
        root: The directory.
    """
    found = [root / name for name in YAML_NAMES if (root / name).is_file()]
    others = _yaml_files(root)
    return next(iter(found), others[0] if len(others) == 1 else None)


def find_part(root: Path, yaml_file: Path | None, split: str) -> YoloPart:
    """The images and classes of a split.

    Args:
        root: The directory.
        yaml_file: Its description.
        split: Name.

    Raises:
        MissingFileError: If there is no such split, or it has no images.
        DataError: If the description cannot be read, or the class names are missing.
    """
    content = read_darknet(root) if yaml_file is None else _read_yaml(yaml_file)
    given = next((content[name] for name in SPLITS.get(split, (split,)) if content.get(name)), None)
    if given is None:
        places = usual_places(root, split)[:1]
        if not places:
            told = "" if yaml_file is None else f"{yaml_file} has no '{split}', and "
            looked = [f"{below(images, root)}/ with {below(labels, root)}/" for images, labels in folders(root, split)]
            raise NoSplitError(
                f"No images of the split '{split}' in {root}: {told}none of these exist: {name_some(looked, 4)}."
            )
    else:
        texts = given if isinstance(given, list) else [given]
        if not all(isinstance(text, str) for text in texts):
            raise DataError(f"{yaml_file}: '{split}' is {reprlib.repr(given)}, expected a directory or several.")
        places = [_resolve(root, content, text, yaml_file) for text in texts]
    images = tuple(image for place in places for image in _images_of(place, root))
    if not images:
        raise MissingFileError(f"There are no images in {', '.join(map(str, places))}.")
    names = _names(content, yaml_file) if "names" in content else _listed_names(root, yaml_file, images[0].parent)
    return YoloPart(images, tuple(names), ", ".join(below(place, root) for place in places), "kpt_shape" in content)


def read_names(yaml_file: Path) -> tuple[str, ...]:
    """The class names of a data.yaml.

    Args:
        yaml_file: The file.

    Raises:
        DataError: If it cannot be read, or has none.
    """
    content = _read_yaml(yaml_file)
    if "names" not in content:
        raise DataError(f"{yaml_file} has no 'names', a list of the class names in the order of their numbers.")
    return tuple(_names(content, yaml_file))


def folders(root: Path, split: str) -> list[tuple[Path, Path]]:
    """Where images and labels of a split are usually laid.

    Args:
        root: The directory.
        split: Name.
    """
    names = [f"{name}{year}" for name in SPLITS.get(split, (split,)) for year in ("", "2017")]
    places = [place for name in names for place in (f"{{}}/{name}", f"{name}/{{}}")]
    return [(as_written(root, place.format("images")), as_written(root, place.format("labels"))) for place in places]


def as_written(root: Path, place: str) -> Path:
    """A place below a directory, its folders in the upper and lower case in which they are there.

    Args:
        root: The directory.
        place: Names of folders with slashes between them.
    """
    for part in place.split("/"):
        same = [] if (root / part).is_dir() or not root.is_dir() else _directories(root)
        root = next((folder for folder in same if folder.name.lower() == part), root / part)
    return root


def _directories(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if entry.is_dir())


def usual_places(root: Path, split: str) -> list[Path]:
    """Directories of the images of a split, or lists of them, where no description says where they are.

    Args:
        root: The directory.
        split: Name.
    """
    if split == WHOLE:
        lists, flat = [root / "images.txt"], [root / "images", root / "obj_train_data", root]
        pairs = [(as_written(root, "images"), as_written(root, "labels"))]
    else:
        names = SPLITS.get(split, (split,))
        lists, flat = [root / f"{name}.txt" for name in names], [root / name for name in names]
        pairs = folders(root, split)
    there = [images for images, labels in pairs if images.is_dir() and has_texts(labels)]
    return there + [file for file in lists if is_list(file)] + [folder for folder in flat if labels_beside(folder)]


def has_texts(labels: Path) -> bool:
    """Whether a text file lies below a directory, which else may hold another tool's labels.

    Args:
        labels: It may be missing.
    """
    return any(name.lower().endswith(".txt") for _, _, names in os.walk(labels, followlinks=True) for name in names)


def below(path: Path, root: Path) -> str:
    """A path as seen from a directory, for people and files.

    Args:
        path: The path.
        root: The directory.
    """
    return Path(os.path.relpath(path, root)).as_posix()


def _yaml_files(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*.y*ml") if path.suffix in (".yaml", ".yml"))


def _read_yaml(file: Path) -> Mapping[str, Any]:
    """data.yaml with every value as text: ``no`` and ``1`` are class names, too."""
    import yaml

    class Texts(yaml.BaseLoader):
        """Makes only texts, lists and mappings; says no to what would be Python objects."""

    def refuse(loader: Any, suffix: str, node: Any) -> None:
        line = node.start_mark.line + 1
        raise DataError(f"{file}, line {line}: the tag !!python/{suffix} asks for a Python object; remove it.")

    Texts.add_multi_constructor("tag:yaml.org,2002:python/", refuse)
    try:
        content = yaml.load("\n".join(read_lines(file)), Loader=Texts)  # noqa: S506
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{file} is not YAML ({' '.join(str(error).split())[:200]}).") from None
    if not isinstance(content, dict):
        raise DataError(f"{file} is no YAML mapping with train, val and names.")
    return content


def _resolve(root: Path, content: Mapping[str, Any], given: str, yaml_file: Path | None) -> Path:
    """A directory or list that data.yaml names; often it was written for another place, or another system."""
    named, base = Path(given.replace("\\", "/")), Path(str(content.get("path") or "").replace("\\", "/"))
    parts = [part for part in named.parts if part not in ("..", named.anchor)]
    tails = [root.joinpath(*parts[k:]) for k in range(len(parts)) if _tells_enough(parts[k:], k)]
    usual = [root / base / named, root / named, root / base.name / named]
    for place in (*usual, *tails):
        if place.exists():
            return place
    looked = ", ".join(str(place) for place in dict.fromkeys([*usual[:2], *tails[:1]]))
    raise NoSplitError(f"{yaml_file} names '{given}', which does not exist; looked for {looked}.")


def _tells_enough(parts: list[str], left_out: int) -> bool:
    """Whether the end of a path names a place: ``images`` alone may be that of another split."""
    return left_out == 0 or len(parts) > 1 or parts[0].endswith(".txt")


def _images_of(place: Path, root: Path) -> list[Path]:
    """The images of a directory, below it too, or of a text file that lists them."""
    if place.is_dir():
        return sorted(_walk(place))
    try:
        lines = read_lines(place)
    except DataError:
        raise DataError(f"{place} is neither a directory of images nor a text file that lists them.") from None
    names = [Path(line.strip().replace("\\", "/")) for line in lines if line.strip()]
    return _moved(names, place.parent, root)


def _walk(place: Path) -> Iterator[Path]:
    """Image files, also behind links; what is hidden (``._a.jpg``, ``.ipynb_checkpoints/``) is somebody's remains."""
    top = os.path.realpath(place)
    seen: set[str] = set()
    for folder, inner, files in os.walk(place, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen or (top != real and os.path.commonpath([top, real]) == real):  # a link upwards
            inner.clear()
            continue
        seen.add(real)
        inner[:] = [name for name in inner if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                yield Path(folder, name)


def _moved(names: list[Path], folder: Path, root: Path) -> list[Path]:
    """Listed images: beside the list, or where the ends of their paths are found if the list was made elsewhere."""
    if not names or (folder / names[0]).exists():
        return [folder / name for name in names]
    first = names[0].parts
    for k in range(len(first)):
        for base in (folder, root):
            if base.joinpath(*first[k:]).exists():
                lost = first[:k]
                return [base.joinpath(*n.parts[k:]) if n.parts[:k] == lost else folder / n for n in names]
    return [folder / name for name in names]


def _names(content: Mapping[str, Any], file: Path | None) -> list[str]:
    """Class names from a list, or from a mapping of their numbers."""
    given, count = content["names"], content.get("nc")
    if isinstance(given, dict):
        if sorted(given) != sorted(str(k) for k in range(len(given))):
            raise DataError(f"{file}: 'names' has the numbers {', '.join(given)}; expected 0 to {len(given) - 1}.")
        given = [given[str(k)] for k in range(len(given))]
    if not isinstance(given, list) or not given or not all(isinstance(name, str) and name for name in given):
        shown = given if isinstance(given, str) else reprlib.repr(given)
        raise DataError(f"{file}: 'names' is {shown[:60]}, expected a list of class names.")
    twice = next((name for name in given if given.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{file}: the class '{twice}' is given twice in 'names'.")
    if isinstance(count, str) and count.isdecimal() and int(count) != len(given):
        raise DataError(f"{file}: 'nc' is {count}, but 'names' has {len(given)}; correct the one that is wrong.")
    return given


def _listed_names(root: Path, yaml_file: Path | None, images: Path) -> list[str]:
    """Class names where data.yaml does not give them."""
    names = listed_names(root, images)
    if names is not None:
        return names
    places = (root / CLASSES_FILE, root / "labels" / CLASSES_FILE)
    told = f"{yaml_file} has no 'names'" if yaml_file is not None else f"there is no {root / YAML_NAMES[0]}"
    several = _yaml_files(root) if yaml_file is None else []
    way_out = (
        f"Or name one of {', '.join(file.name for file in several)} in place of the directory."
        if several
        else f"Write {root / YAML_NAMES[0]} with a line 'names: [NAME, NAME]', in the order of their numbers."
    )
    looked = " or ".join(map(str, places))
    raise DataError(f"The class names of {root} are not known: {told}, nor {looked} with one name per line. {way_out}")
