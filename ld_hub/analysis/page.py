"""From sections to one HTML file that needs nothing else: every text is escaped unless it is `Html` already."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

VOID = frozenset({"br", "img", "meta"})  # elements without an end tag

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --quiet: #59636e; --line: #d4dae0; --soft: #f3f5f7;
  --link: #0b57b0; --good: #1a7f37; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --paper: #15181c; --quiet: #9aa4ae; --line: #3a424a;
  --soft: #1f242a; --link: #8ab8ff; --good: #6fce86; --bad: #ff8f86; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.5rem 0 0.5rem; padding-top: 0.75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 0.5rem; }
a { color: var(--link); }
p { margin: 0.5rem 0; max-width: 46rem; }
.lead { font-size: 1.05rem; }
.note, figcaption { color: var(--quiet); font-size: 0.875rem; }
figure { margin: 0; min-width: 0; }
figcaption { margin-top: 0.25rem; line-height: 1.35; }
img { display: block; width: auto; max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
nav ol { margin: 0.5rem 0; padding-left: 1.4rem; columns: 18rem; }
nav li { break-inside: avoid; }
.scroll { overflow-x: auto; margin: 0.75rem 0; max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { padding: 0.25rem 0.6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { background: var(--soft); vertical-align: bottom; white-space: normal; min-width: 4.5rem; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--paper);
  max-width: 14rem; overflow: hidden; text-overflow: ellipsis; }
th:first-child { background: var(--soft); }
ul { max-width: 46rem; padding-left: 1.2rem; }
.key { margin-right: 1rem; white-space: nowrap; }
.key i { display: inline-block; width: 0.9em; height: 0.9em; margin-right: 0.35em; border-radius: 2px; }
.gain { color: var(--good); } .loss { color: var(--bad); }
.plots { display: grid; gap: 1.25rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr));
  margin: 0.75rem 0; align-items: start; }
.pictures, .strip { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(14rem, 1fr); gap: 0.75rem;
  overflow-x: auto; margin: 0.75rem 0 1.5rem; align-items: start; }
.strip { grid-auto-columns: minmax(9rem, 1fr); }
.pictures img, .strip img { width: 100%; }
"""


class Html(str):
    """Text that is markup already; only `tag`, `join` and `page` make it."""

    __slots__ = ()


Content = Html | str | int | float


def escape(value: Content) -> Html:
    """Markup as it is, anything else as text: no letter of it can become markup or leave a quoted attribute."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(str(value).encode("utf-8", "replace").decode("utf-8"), quote=True))


def join(parts: Iterable[Content]) -> Html:
    """One piece of markup after the other; texts among them are escaped."""
    return Html("".join(escape(part) for part in parts))


def tag(name: str, /, *children: Content, **attributes: Content) -> Html:
    """An element.

    Args:
        name: Of the element; our own word, not data.
        *children: Its content, escaped where it is not `Html`.
        **attributes: Its attributes, always escaped; a trailing underscore is dropped (``class_``).
    """
    words = "".join(f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"' for key, value in attributes.items())
    if name in VOID:
        return Html(f"<{name}{words}>")
    return Html(f"<{name}{words}>{join(children)}</{name}>")


def _attribute(value: Content) -> Html:
    return escape(str(value))  # str() of Html is plain text again


@dataclass(frozen=True)
class Picture:
    """An encoded image on its way into the page.

    Attributes:
        data: PNG, JPEG or SVG.
        kind: ``"png"``, ``"jpeg"`` or ``"svg+xml"``.
        width: px it is shown with where there is room.
        height: px.
        alt: What it shows, for those who cannot see it.
    """

    data: bytes
    kind: str
    width: int
    height: int
    alt: str

    def html(self, caption: Content = "") -> Html:
        """As a figure; the image is part of the page."""
        source = f"data:image/{self.kind};base64,{base64.b64encode(self.data).decode('ascii')}"
        image = tag("img", src=source, alt=self.alt, width=self.width, height=self.height)
        return tag("figure", image, tag("figcaption", caption) if caption else Html(""))


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        key: Anchor, letters and hyphens.
        title: Heading.
        lead: One sentence that says what to see.
        body: What comes below.
    """

    key: str
    title: str
    lead: str
    body: Sequence[Content]

    def html(self) -> Html:
        """Heading, sentence and content."""
        return tag("section", tag("h2", self.title), tag("p", self.lead, class_="lead"), *self.body, id=self.key)


def note(text: Content) -> Html:
    """A remark in small letters."""
    return tag("p", text, class_="note")


def heading(text: str) -> Html:
    """A heading within a section."""
    return tag("h3", text)


def grid(figures: Iterable[Html], kind: str = "plots") -> Html:
    """Figures beside each other where there is room (``plots``), or rows to be swiped (``pictures``, ``strip``)."""
    return tag("div", *figures, class_=kind)


def table(head: Sequence[str], rows: Iterable[Iterable[Content]]) -> Html:
    """A table that scrolls sideways where the screen is narrow.

    Args:
        head: Names of the columns; the first column holds names, the others numbers.
        rows: Cells; a cell made by `cell` keeps its attributes.
    """
    top = tag("tr", *(tag("th", name, scope="col") for name in head))
    lines = [tag("tr", *(c if _is_cell(c) else tag("td", c) for c in row)) for row in rows]
    return tag("div", tag("table", tag("thead", top), tag("tbody", *lines)), class_="scroll")


def cell(value: Content, **attributes: Content) -> Html:
    """A table cell with attributes."""
    return tag("td", value, **attributes)


def _is_cell(value: Content) -> bool:
    return isinstance(value, Html) and value.startswith("<td")


def page(title: str, intro: Sequence[Content], sections: Sequence[Section]) -> str:
    """The whole file.

    Args:
        title: Of the page.
        intro: What stands above the table of contents.
        sections: In order.
    """
    contents = tag("ol", *(tag("li", tag("a", part.title, href=f"#{part.key}")) for part in sections))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(STYLE)),
    )
    nav = tag("nav", contents, aria_label="Contents")
    body = tag("body", tag("h1", title), *intro, nav, *(part.html() for part in sections))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"
