"""Who taught a model, and what images without labels had to do with it: sentences of its card and of its check."""

from __future__ import annotations

import re
from typing import Any

from ld_hub.engine.identity import Identity
from ld_hub.engine.lessons import describe_parts
from ld_hub.hub.card_file import escape
from ld_hub.publishing.facts import Run, from_hub
from ld_hub.structures import Teaching
from ld_hub.structures.teaching import HASHED


def code(text: Any) -> str:
    """A name in a typewriter font where it is an ordinary one, else as escaped text."""
    return f"`{text}`" if re.fullmatch(r"[\w./:@+=-]{1,200}", str(text), re.ASCII) else escape(str(text))


def taught_by(teaching: Teaching, run: Run) -> str:
    """By whom and by what a model was taught, Markdown.

    Args:
        teaching: As the trainer left it, with teachers.
        run: Of the training, as far as it is known.
    """
    typed = run.arguments.teacher if len(teaching.teachers) == 1 else None
    names = ", ".join(_named(name, teaching, typed) for name in teaching.teachers)
    own = () if teaching.feature_teacher is None else (teaching.feature_teacher.weights_sha256,)
    known = ", ".join(code(digits) for digits in run.teacher_hashes or own if digits)
    if teaching.kinds:
        return f"Taught by the boxes of {names} on images without labels."
    hashes = f" Sha256 of the teacher's tensors: {known}." if known else ""
    return f"Distilled from {names} by the recipe {code(teaching.recipe)}.{hashes}"


def unlabeled_section(teaching: Teaching | None) -> str:
    """How images without labels took part, Markdown; empty where there were none.

    Args:
        teaching: As the trainer left it.
    """
    if teaching is None or teaching.unlabeled is None:
        return ""
    whose = code(teaching.teachers[0]) if teaching.teachers else "the teacher"
    boxes = f"The boxes are those of {whose}." if teaching.detectors or not teaching.teachers else ""
    parts = [f"{escape(teaching.without_labels())}.", boxes]
    parts += [] if teaching.kinds else [describe_parts(teaching.unlabeled)]
    return f"## Images without labels\n\n{' '.join(filter(None, parts))}"


def teacher_differences(teaching: Teaching, then: Identity) -> list[str]:
    """What a model says of the files that taught it and its run does not.

    Args:
        teaching: Of the model.
        then: Of the run.
    """
    known = {teacher.name: teacher.weights_sha256 for teacher in then.teachers}
    hashed = {
        name: origin.removeprefix(HASHED) for name, origin in teaching.origins.items() if origin.startswith(HASHED)
    }
    return [
        f"teacher '{name}': the run has the sha256 {known.get(name, 'of no such teacher')}, the model {digits[:16]}"
        for name, digits in hashed.items()
        if name not in known or not digits.startswith(known[name])
    ]


def _named(name: str, teaching: Teaching, typed: str | None) -> str:
    """A teacher's name, with its kind, and its repository and commit or its hash, as far as they are known."""
    origin = teaching.origins.get(name)
    facts = [escape(teaching.kinds[name])] if name in teaching.kinds else []
    if teaching.feature_teacher is not None and name == teaching.feature_teacher.name:
        facts.append("image encoder")
    if origin is not None and origin.startswith(HASHED):
        facts.append(f"sha256 {code(origin.removeprefix(HASHED))}")
    else:
        place = from_hub(typed if origin is None else f"hf-hub:{origin}")
        facts += [] if place is None else [_address(*place)]
    return f"{code(name)} ({', '.join(facts)})" if facts else code(name)


def _address(place: str, revision: str) -> str:
    link = f"[{place}](https://huggingface.co/{place}" + (f"/tree/{revision})" if revision else ")")
    return f"{link}, commit {code(revision)}" if revision else link
