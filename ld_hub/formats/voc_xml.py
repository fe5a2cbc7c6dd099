"""One PASCAL VOC annotation: an XML file into plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias
from xml.etree import ElementTree  # a document type, where entities come from, is refused

Fault: TypeAlias = tuple[str, str]  # kind; what is wrong, in words that begin with the file
Number: TypeAlias = "int | float"

SLACK = 1  # px a box may reach beyond its image: files that count from 0 are off by one


@dataclass(frozen=True)
class VocObject:
    """One object.

    Attributes:
        name: Class.
        difficult: Its flag.
        box: xmin, ymin, xmax, ymax as written: pixels counted from 1, both corners inside.
    """

    name: str
    difficult: bool
    box: tuple[Number, Number, Number, Number]


@dataclass(frozen=True)
class Annotated:
    """One image.

    Attributes:
        file: The XML, below the data directory.
        image: The image, below the data directory.
        size: Width and height in px; None where the XML does not say.
        objects: What is on it.
    """

    file: str
    image: str
    size: tuple[int, int] | None
    objects: tuple[VocObject, ...]

    def sized(self, size: tuple[int, int]) -> Annotated:
        """The same with a size."""
        return replace(self, size=size)

    def outside(self) -> list[Fault]:
        """Boxes that reach beyond the image."""
        width, height = self.size or (0, 0)
        return [
            (
                "boxes outside the image",
                f"{self.file}: object {k} ('{item.name}') has the box {_corners(item.box)}, "
                f"outside its image of {width} x {height} px",
            )
            for k, item in enumerate(self.objects, start=1)
            if min(item.box[:2]) < 1 - SLACK or item.box[2] > width + SLACK or item.box[3] > height + SLACK
        ]


class _NoDoctype(ElementTree.TreeBuilder):
    """Stops where a document type begins, before an entity can be declared."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise _DoctypeError


class _DoctypeError(Exception):
    """An XML has a document type."""


class UnreadableXMLError(Exception):
    """A file is not an XML that may be read.

    Args:
        kind: Of the fault.
        text: What is wrong, in words that begin with the file.
    """

    def __init__(self, kind: str, text: str) -> None:
        self.fault: Fault = (kind, text)


def parse_xml(path: Path, name: str) -> ElementTree.Element:
    """The root of an XML.

    Args:
        path: The file.
        name: What messages call it.

    Raises:
        UnreadableXMLError: If it cannot be read; says why.
    """
    try:
        return _parse(path)
    except _DoctypeError:
        text = f"{name} has a DOCTYPE, which VOC files have not; remove it"
        raise UnreadableXMLError("unsafe XML", text) from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an encoding that is unknown
        raise UnreadableXMLError("broken XML", f"{name} is not valid XML ({error})") from None
    except OSError as error:
        raise UnreadableXMLError("broken XML", f"{name} cannot be read ({error.strerror})") from None


def named_image(path: Path) -> str:
    """The image that an XML names; empty where it names none or cannot be read.

    Args:
        path: The file.
    """
    try:
        return _text(_parse(path), "filename")
    except (_DoctypeError, ElementTree.ParseError, ValueError, LookupError, OSError):
        return ""


def read_annotation(path: Path, name: str, image: str) -> tuple[Annotated | None, list[Fault]]:
    """Read an XML.

    Args:
        path: The file.
        name: What messages call it.
        image: Its image.

    Returns:
        What it says, and what is wrong with it; nothing where it cannot be read at all.
    """
    try:
        tree = parse_xml(path, name)
    except UnreadableXMLError as error:
        return None, [error.fault]
    if tree.tag != "annotation":  # else it would pass for an image without objects
        return None, [("broken XML", f"{name} has the root <{tree.tag[:60]}>, expected VOC's <annotation>")]
    objects: list[VocObject] = []
    faults: list[Fault] = []
    for k, element in enumerate(tree.findall("object"), start=1):
        try:
            objects.append(_object(element))
        except _FieldError as error:
            faults.append(("wrong values", f"{name}: object {k} {error}"))
    try:
        size = _size(tree)
    except _FieldError as error:
        faults.append(("wrong values", f"{name}: {error}"))
        size = None
    return Annotated(name, image, size, tuple(objects)), faults


def class_names(path: Path) -> set[str]:
    """The classes of an XML; none where it cannot be read, which is for those to say who need it.

    Args:
        path: The file.
    """
    try:
        tree = _parse(path)
    except (_DoctypeError, ElementTree.ParseError, ValueError, LookupError, OSError):
        return set()
    return {name for element in tree.findall("object") if (name := _text(element, "name"))}


class _FieldError(Exception):
    """A field has a value that cannot be."""


def _parse(path: Path) -> ElementTree.Element:
    parser = ElementTree.XMLParser(target=_NoDoctype())  # noqa: S314  # see _NoDoctype
    return ElementTree.parse(path, parser).getroot()  # noqa: S314


def _text(element: ElementTree.Element, key: str) -> str:
    return (element.findtext(key) or "").strip()


def _object(element: ElementTree.Element) -> VocObject:
    name = _text(element, "name")
    if not name:
        raise _FieldError("has no name")
    difficult = _text(element, "difficult") or "0"
    if difficult not in ("0", "1"):
        raise _FieldError(f"('{name}') has difficult = {difficult!r}, expected 0 or 1")
    inner = element.find("bndbox")
    if inner is None:
        raise _FieldError(f"('{name}') has no bndbox")
    xmin, ymin, xmax, ymax = (_number(inner, key, name) for key in ("xmin", "ymin", "xmax", "ymax"))
    if xmax < xmin or ymax < ymin:
        raise _FieldError(f"('{name}') has the box {_corners((xmin, ymin, xmax, ymax))}: xmax and ymax are the larger")
    return VocObject(name, difficult == "1", (xmin, ymin, xmax, ymax))


def _number(element: ElementTree.Element, key: str, name: str) -> Number:
    text = _text(element, key)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _FieldError(f"('{name}') has {key} = {text!r}, expected a number")
    return int(value) if value.is_integer() else value


def _size(tree: ElementTree.Element) -> tuple[int, int] | None:
    """Width and height; None where they are missing or 0, as some tools write them."""
    width, height = _text(tree, "size/width"), _text(tree, "size/height")
    if not width or not height:
        return None
    if not (width.isdecimal() and height.isdecimal()):
        raise _FieldError(f"the size is {width!r} x {height!r}, expected whole numbers of px")
    return (int(width), int(height)) if int(width) > 0 and int(height) > 0 else None


def _corners(box: tuple[Number, Number, Number, Number]) -> str:
    return "({:g}, {:g}) to ({:g}, {:g})".format(*box)
