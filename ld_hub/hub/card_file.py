"""Text and metadata of a README.md on the Hub: made whole, and renewed without touching its owner's words.

A card is metadata (YAML), a title, and a generated block between two comments. Whatever stands outside of the block is
its owner's. This module knows the form; `ld_hub.publishing.cards` knows the facts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from ld_hub.errors import ConfigError
from ld_hub.hub.evidence import VOC_NAMES, Evidence

BEGIN = "<!-- ld_hub:begin: written by ld-hub; what stands outside of this block stays as it is -->"
END = "<!-- ld_hub:end -->"
_COCO_METRICS = {
    "AP": "map",
    "AP50": "map_50",
    "AP75": "map_75",
    "APs": "map_small",
    "APm": "map_medium",
    "APl": "map_large",
}
METRICS = {  # numbers of an evaluation that a card shows, by protocol: their types in model-index
    "coco": _COCO_METRICS,
    "lvis": {
        **{name: f"lvis_{kind}" for name, kind in _COCO_METRICS.items()},
        "APr": "lvis_map_rare",
        "APc": "lvis_map_common",
        "APf": "lvis_map_frequent",
    },
    **{
        voc: {name: f"{voc}_{name.replace('AP', 'map_').rstrip('_')}" for name in VOC_NAMES}
        for voc in ("voc07", "voc12")
    },
}
DIGITS = 4  # of a fraction in model-index
PREFIXES = ("recipe:", "teacher:")  # of tags that are the generator's
_OWN_FIELDS = ("library_name", "pipeline_tag", "base_model", "model-index")  # follow the weights; absent if unknown
_MERGED = ("tags", "datasets")  # the owner may have added some
_MAX_METADATA = 200_000  # characters

_FRONT = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)(?:\r?\n)?^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_BEGINS = re.compile(r"<!-- ld_hub:begin\b[^\r\n]*?-->")
_TOKEN = re.compile(r"\b((?:hf|api_org)\\?_)[A-Za-z0-9]{20,}")  # the line may have been escaped
_MARKS = str.maketrans({c: "\\" + c for c in "\\`*_[]~"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"})
_BIDI = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}  # they reach beyond the text that holds them


def render_card(metadata: str, title: str, sections: Iterable[str]) -> str:
    """The text of a whole card.

    Args:
        metadata: YAML, see `card_metadata`.
        title: Plain text.
        sections: Markdown, joined by empty lines; empty ones are left out.
    """
    body = "\n\n".join(section.strip("\n") for section in sections if section)
    whole = f"---\n{metadata}\n---\n\n# {escape(title)}\n\n{BEGIN}\n\n{body}\n\n{END}\n"
    return _TOKEN.sub(r"\1…", whole)  # a command line may have held an access token


def card_metadata(
    name: str,
    *,
    license: str | None = None,
    datasets: Sequence[str] = (),
    base_model: str | None = None,
    tags: Sequence[str] = (),
    evaluations: Sequence[Evidence] = (),
) -> str:
    """YAML for the Hub; fields without a value are left out.

    Args:
        name: What the model is called in model-index.
        license: SPDX id of the weights' licence.
        datasets: Data sets that it was trained on.
        base_model: Hub repository of the backbone.
        tags: Further tags.
        evaluations: Evaluation artefacts of this model.
    """
    results = [result for each in evaluations for result in eval_results(each)]
    data = ModelCardData(
        library_name="ld_hub",
        pipeline_tag="object-detection",
        license=license.lower() if license else None,
        datasets=[*dict.fromkeys(slug(each) for each in datasets)] or None,
        base_model=base_model,
        tags=[*dict.fromkeys(tags)] or None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def eval_results(evidence: Evidence) -> list[EvalResult]:
    """The entries of model-index for one evaluation; numbers that it has not are left out.

    Args:
        evidence: An evaluation artefact.
    """
    data, protocol, stats = evidence.data, evidence.protocol, evidence.stats
    return [
        EvalResult(
            task_type="object-detection",
            dataset_type=slug(data.name),
            dataset_name=visible(data.name),
            dataset_split=visible(data.split),
            metric_type=kind,
            metric_name=name if protocol == "coco" else f"{name} ({protocol})",
            metric_value=round(value, DIGITS),
        )
        for name, kind in METRICS[protocol].items()
        if (value := stats[name]) is not None
    ]


def ap_cells(evidence: Evidence) -> list[str]:
    """The numbers `METRICS` of an evaluation times 100, as they stand in the table of a card.

    Args:
        evidence: An evaluation artefact.
    """
    values = [evidence.stats[name] for name in METRICS[evidence.protocol]]
    return ["" if value is None else f"{100 * value:.1f}" for value in values]


def update_card(existing: str, new: str) -> str:
    """Renew the metadata and the generated block of a card, and leave everything else.

    Of the metadata, what follows from the weights (library_name, pipeline_tag, base_model, model-index) is replaced
    or, where it is not known any more, removed; tags and datasets of the owner stay beside the new ones; the licence
    changes if the new card names one; all other fields stay. A card without a generated block gets one at its end.

    Args:
        existing: README.md as it is; the empty string where there is none.
        new: README.md as `ld_hub.publishing.cards.model_card` made it.

    Returns:
        The README.md to write.

    Raises:
        ConfigError: If the metadata of `existing` cannot be read, or its markers do not enclose one block.
    """
    if not existing.strip():
        return new
    front, body = _split(existing)
    _, fresh_body = _split(new)
    old, fresh = read_metadata(existing), read_metadata(new)
    merged = _merge(old, fresh)
    if merged != old or not front:
        front = f"---\n{_dump(merged)}---\n"
    newline = "\r\n" if "\r\n" in existing else "\n"
    block = fresh_body[slice(*_block(fresh_body))]
    place = _block(body)
    if place == (len(body), len(body)):
        body = f"{body.rstrip()}\n\n"
        place, block = (len(body), len(body)), f"{block}\n"
    before, after = body[: place[0]], body[place[1] :]
    return _lines(front, newline) + before + _lines(block, newline) + after


def read_metadata(text: str) -> dict[str, Any]:
    """The metadata of a card; empty where it has none.

    Args:
        text: README.md.

    Raises:
        ConfigError: If it is no YAML mapping, too long, or uses YAML's aliases.
    """
    found = _FRONT.match(text)
    if found is None:
        return {}
    if len(found.group(1)) > _MAX_METADATA:
        raise ConfigError(f"README.md: its metadata is longer than {_MAX_METADATA:,} characters.")
    try:
        return read_yaml(found.group(1))
    except ConfigError as error:
        raise ConfigError(f"README.md: the lines between its two '---' {error} Repair it.") from None


def read_yaml(text: str) -> dict[str, Any]:
    """A YAML mapping of names to plain values; nothing is executed, and aliases are refused.

    Args:
        text: YAML.

    Raises:
        ConfigError: If it is something else.
    """
    try:
        content = yaml.load(text, Loader=_PlainLoader)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"are not YAML ({' '.join(str(error).split())[:200]}).") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError("are no YAML mapping of names to values.")
    return content


def generated_block(text: str) -> str:
    """What stands between the markers of a card; empty where there is no such block.

    Args:
        text: README.md.

    Raises:
        ConfigError: If its markers do not enclose one block.
    """
    _, body = _split(text)
    return body[slice(*_block(body))]


def escape(text: str) -> str:
    """Any text as one line of Markdown that shows just this text, in a paragraph or in a cell of a table.

    Markup loses its meaning; control characters, and marks that turn the direction of text, become visible.

    Args:
        text: For example a label name.
    """
    return visible(" ".join(text.split())).translate(_MARKS)


def visible(text: str) -> str:
    r"""A text with control characters and marks that turn its direction written as escapes, ``\u202e``.

    Args:
        text: Line breaks and tabs stay.
    """
    return "".join(f"\\u{ord(c):04x}" if _is_hidden(c) else c for c in text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown. Columns without any content are left out.

    Args:
        head: Titles, as Markdown.
        rows: Cells as Markdown (`escape` what is not).
    """
    content = [list(row) for row in rows]
    kept = [k for k in range(len(head)) if k == 0 or any(row[k] for row in content)]
    lines = [[head[k] for k in kept], ["---"] * len(kept), *([row[k] for k in kept] for row in content)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fence(text: str, language: str = "") -> str:
    """A block of code whose content cannot end it.

    Args:
        text: Any text.
        language: For highlighting.
    """
    shown = visible(text.strip("\n")).replace("<!-- ld_hub:", "<!--ld_hub:")
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{shown}\n{ticks}"


def slug(name: str) -> str:
    """A name in letters, digits and ``._-``, as the Hub wants it for data sets.

    Args:
        name: For example that of a directory; ``org/name`` stays.
    """
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII):
        return name
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-.").lower() or "custom"


class _PlainLoader(yaml.SafeLoader):
    """Without aliases, by which a small text can stand for a huge one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read")
        return super().compose_node(parent, index)


def _merge(old: Mapping[str, Any], fresh: Mapping[str, Any]) -> Mapping[str, Any]:
    merged = {key: value for key, value in old.items() if key not in _OWN_FIELDS or key in fresh}
    for key, value in fresh.items():
        merged[key] = value
        if key in _MERGED and key in old:
            kept = old[key] if isinstance(old[key], list) else [old[key]]
            merged[key] = [each for each in kept if each in value or not str(each).startswith(PREFIXES)]
            merged[key] += [each for each in value if each not in kept]
    return merged


def _split(text: str) -> tuple[str, str]:
    """Metadata with its dashes, and the rest."""
    found = _FRONT.match(text)
    return (text[: found.end()], text[found.end() :]) if found else ("", text)


def _block(body: str) -> tuple[int, int]:
    """Where the generated block is; at the very end if there is none."""
    begins, ends = list(_BEGINS.finditer(body)), [found.start() for found in re.finditer(re.escape(END), body)]
    if not begins and not ends:
        return len(body), len(body)
    if len(begins) != 1 or len(ends) != 1 or ends[0] < begins[0].end():
        raise ConfigError(
            f"README.md has {len(begins)} mark(s) '<!-- ld_hub:begin ... -->' and {len(ends)} mark(s) '{END}'; "
            "expected one block between one of each. Delete those that are too many, or all: then a new block is added."
        )
    return begins[0].start(), ends[0] + len(END)


def _dump(metadata: Mapping[str, Any]) -> str:
    return str(yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True, width=2**16))


def _lines(text: str, newline: str) -> str:
    return text.replace("\r\n", "\n").replace("\n", newline)


def _is_hidden(character: str) -> bool:
    if character in "\n\t":
        return False
    category = unicodedata.category(character)
    return category in ("Cc", "Cs", "Zl", "Zp") or ord(character) in _BIDI
