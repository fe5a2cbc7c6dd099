"""A JSON file of long lists, read some thousand rows at a time."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ld_hub.errors import DataError

LARGE = 1 << 29  # bytes of a file that is read this way; COCO's own are smaller
_BLOCK = 1 << 22  # bytes read at a time
_MOST = 1 << 25  # characters of one value; more is a fault that no further block puts right
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_CLOSING = re.compile(r'[\]}",]')
# As in `data.annotations`; a polygon counts as complete when the next key, or the end of its object, has been read.
_POLYGONS = re.compile(r'"segmentation"\s*:\s*\[[^"{}]*\](?=\s*(?:\}|,\s*"))')


def read_lists(read: Callable[[int], bytes], path: Path, *, polygons: bool = False) -> Iterator[tuple[str, object]]:
    """Go through the object that a JSON file holds.

    Args:
        read: Gives at most so many further bytes of the file, none at its end.
        path: What messages call it.
        polygons: Keep the polygons, which few need.

    Yields:
        Keys and values in the order of the file; a list comes in parts, the first of which is empty.

    Raises:
        DataError: If it is not JSON, or cut short; says where.
    """
    text = _Text(read, path, polygons)
    text.expect("{", "an object with 'images', as COCO files are,")
    if text.peek() == "}":
        return
    while True:
        key = str(text.value())
        text.expect(":", "':'")
        text.place = f"'{key}'"
        if text.peek() == "[":
            text.at += 1
            yield key, []
            for rows in text.rows(key):
                yield key, rows
        else:
            yield key, text.value()
        text.place = f"what follows '{key}'"
        if text.expect(",}", "',' or '}'") == "}":
            return


class _Text:
    """The part of the file that is being read."""

    def __init__(self, read: Callable[[int], bytes], path: Path, polygons: bool) -> None:
        self._read, self._path, self._polygons = read, path, polygons
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._ended = "", False
        self.at = 0  # place in `_text`
        self._bytes = self._blocks = 0  # read so far
        self.place = "the beginning"

    def peek(self) -> str:
        """The next character that is no space, which stays; empty at the end."""
        while True:
            found = _SPACE.match(self._text, self.at)
            self.at = found.end() if found else self.at
            if self.at < len(self._text) or self._ended:
                return self._text[self.at : self.at + 1]
            self._more()

    def expect(self, characters: str, name: str) -> str:
        """Pass one of these characters and return it."""
        found = self.peek()
        if not found or found not in characters:
            raise self._fault(f"expected {name}", self.at)
        self.at += 1
        return found

    def value(self) -> object:
        """Pass the next value and return it."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self.at)
                if end < len(self._text) or self._ended:  # else a number may go on
                    self.at = end
                    return value
            except (ValueError, RecursionError) as error:
                if self._ended or len(self._text) - self.at > _MOST:
                    what = getattr(error, "msg", "expected a value").lower()
                    raise self._fault(what, getattr(error, "pos", self.at)) from None
            self._more()

    def rows(self, key: str) -> Iterator[list[object]]:
        """Pass the rest of a list, whose bracket was passed."""
        if self.peek() == "]":
            self.at += 1
            return
        count, done = 0, False
        while not done:
            self.place = f"{key}[{count}]"
            rows, done = self._many() or self._few(key, count)
            count += len(rows)
            yield rows

    def _many(self) -> tuple[list[object], bool] | None:
        """All rows up to the last one that seems complete, in one go, and whether the list ends with them.

        What stands between the brackets put around it here is taken only if it is JSON, then it is rows.
        """
        self.peek()
        cut = self._text.rfind("},", self.at)
        if cut < 0:
            return None
        piece = f"[{self._text[self.at : cut + 1]}]"
        try:
            rows, end = _DECODER.raw_decode(piece)
        except (ValueError, RecursionError):
            return None
        ended = end < len(piece)
        self.at = self.at + end - 1 if ended else cut + 2
        return rows, ended

    def _few(self, key: str, count: int) -> tuple[list[object], bool]:
        """One row after the other until another block is read."""
        rows: list[object] = []
        blocks = self._blocks
        while self._blocks == blocks:
            self.place = f"{key}[{count + len(rows)}]"
            rows.append(self.value())
            if self.expect(",]", "',' or ']'") == "]":
                return rows, True
        return rows, False

    def _more(self) -> None:
        """Read a block, and forget what was passed."""
        block = self._read(_BLOCK)
        self._ended = not block
        self._bytes, self._blocks = self._bytes + len(block), self._blocks + 1
        try:
            text = self._decoder.decode(block, final=self._ended)
        except UnicodeDecodeError as error:
            raise self._fault(f"bytes that are no UTF-8 text ({error.reason})", len(self._text)) from None
        rest = self._text[self.at :] + text
        self._text, self.at = rest if self._polygons else _POLYGONS.sub('"segmentation":[]', rest), 0

    def _fault(self, what: str, at: int) -> DataError:
        rest = self._text[at:]
        if self._ended and (what.startswith("unterminated string") or not _CLOSING.search(rest[1:])):
            way_out = "it was cut short. Fetch or write it again"
            return DataError(f"{self._path} ends at byte {self._bytes} in {self.place}: {way_out}.")
        near = self._bytes - len(rest.encode())
        found = f"{rest[:20]!r}" if rest else "the end"
        return DataError(f"{self._path} is not valid JSON near byte {near}, in {self.place}: {what}, found {found}.")
