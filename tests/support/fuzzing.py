"""Files that are nearly right: what a seed makes of good ones, for readers that must read them or refuse them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

STRANGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, -0.0, float("nan"), float("inf"), 1e308, 10**30, -(10**30), 2**63, 2**31, "",
    "x", "1", "1.5", "nan", "a" * 300, "\u202e", "\x00", "../../etc/passwd", "/dev/null", ".", "..", "a/b", "\ud800",
    "é" * 200, [], [1], [[]], {}, {"a": 1}, [None], [1, 2, 3, 4], ["1", "2", "3", "4"],
)  # fmt: skip
WORDS = (
    "", "-1", "nan", "inf", "1e400", "x", "9" * 400, "0", "0.5", "<a/>", "&x;", "&amp;", "\u202e", "</object>", "..",
    "../../x", "!!python/object:os.system", "&a *a", "[", "{", "- ", "\t", "\n", "null", "~", "%", "@", "`", "٣",
)  # fmt: skip


def changed_json(content: Any, random: Random) -> bytes:
    """A JSON document with some values replaced, left out, repeated or put elsewhere; sometimes with broken bytes."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        content = _changed(copy.deepcopy(content), random)
    text = json.dumps(content).encode("utf-8", "surrogatepass")
    return changed_bytes(text, random) if random.random() < 0.1 else text


def _changed(content: Any, random: Random) -> Any:
    places = list(_places(content))
    place, other = random.choice(places), random.choice(places)
    if not place:
        return random.choice(STRANGE) if random.random() < 0.1 else content
    holder, key = _at(content, place[:-1]), place[-1]
    kind = random.randrange(4)
    if kind == 0:
        holder[key] = copy.deepcopy(random.choice(STRANGE))
    elif kind == 1:
        del holder[key]
    elif kind == 2 and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    elif kind == 2:
        holder[random.choice([*holder, "another"])] = copy.deepcopy(random.choice(STRANGE))
    else:
        holder[key] = copy.deepcopy(_at(content, other))
    return content


def _places(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inner:
        yield from _places(value, (*place, key))


def _at(content: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        content = content[key]
    return content


def changed_text(text: str, random: Random) -> bytes:
    """A text with some words replaced, lengthened or added; sometimes with broken bytes."""
    for _ in range(random.randrange(1, 4)):
        cuts = sorted(random.randrange(len(text) + 1) for _ in range(2))
        start, end = cuts[0], min(cuts[1], cuts[0] + 12)
        text = text[:start] + random.choice((random.choice(WORDS), text[start:end] * 2, "")) + text[end:]
    raw = text.encode("utf-8", "surrogatepass")
    return changed_bytes(raw, random) if random.random() < 0.1 else raw


def changed_bytes(content: bytes, random: Random) -> bytes:
    """Bytes with some of them replaced, the end cut off, or others behind."""
    made = bytearray(content)
    kind = random.random()
    if kind < 0.6:
        for _ in range(random.randrange(1, 6)):
            if made:
                made[random.randrange(min(len(made), random.choice((20, 80, len(made)))))] = random.randrange(256)
    elif kind < 0.85:
        del made[random.randrange(len(made) + 1) :]
    else:
        made += random.randbytes(9)
    return bytes(made)
