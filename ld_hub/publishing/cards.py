"""The README.md of a model, from facts: its own, those of the run that made it, and evaluations by `ld-hub eval`.

Nothing here would be true of every model: what is not known is left out. AP enters from evaluation artefacts and,
for the student alone beside it, from the run's comparison.json; figures of others stand apart, with their source.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ld_hub.catalog import moment
from ld_hub.engine.records import RunSettings
from ld_hub.hub.card_file import METRICS, ap_cells, card_metadata, escape, fence, render_card, table
from ld_hub.hub.evidence import TITLES, Evidence
from ld_hub.models.backbones import timm_name
from ld_hub.publishing.citations import bibtex, papers_of_terms
from ld_hub.publishing.exports import Export, exports_section
from ld_hub.publishing.facts import (
    Measured,
    Run,
    backbone_license,
    backbone_repo,
    from_hub,
    published_rows,
    read_run,
    size_of,
    sort_evaluations,
)
from ld_hub.publishing.gains import comparison_section
from ld_hub.publishing.taught import code, taught_by, unlabeled_section
from ld_hub.registry import PretrainedCfg
from ld_hub.structures import Teaching

PICTURES = {  # files that a card shows where they lie beside it
    "detections.jpg": "Detections of this model",
    "curves.png": "Curves of the training run",
}
_SHOWN_CLASSES = 12
_OPTIONS = ("reference", "individual_ld", "balance", "teacher_scale", "teacher_weights", "class_map")
_TERM_COLUMNS = ("kind", "region", "weight", "temperature", "first_step", "last_step")


def model_card(
    model: Any,
    *,
    repo_id: str = "",
    license: str | None = None,
    evaluations: Sequence[Evidence] = (),
    run: Path | None = None,
    folder: Path | None = None,
    exports: Mapping[str, Export] | None = None,
) -> str:
    """The whole README.md of a model.

    Args:
        model: A detector with its weights.
        repo_id: ``org/name`` that it is published under.
        license: SPDX id of the weights' licence.
        evaluations: Artefacts (`ld_hub.hub.evidence.read_evidence`): the model's own, and those of its teacher and of
            the same model without distillation.
        run: Directory of the training run.
        folder: Directory that the card will lie in; pictures there (`PICTURES`) are shown.
        exports: Programs of the model that are published with it, by name.

    Returns:
        Markdown with YAML metadata; what is generated stands between `ld_hub.hub.card_file.BEGIN` and ``END``.

    Raises:
        EvaluationError: If an artefact is of other weights.
        CheckpointError: If a file of the run is damaged.
    """
    facts = read_run(run)
    measured = sort_evaluations(model, evaluations, facts)
    title = repo_id.rpartition("/")[2] or model.name
    metadata = card_metadata(
        title,
        license=license,
        datasets=[name for name in (facts.data,) if name],
        base_model=_base_model(model, facts),
        tags=card_tags(model.family, model.teaching),
        evaluations=measured.own,
    )
    sections = [
        _lead(model, facts),
        _use(repo_id),
        _pictures(folder, "detections.jpg"),
        _average_precision(model, measured, repo_id),
        comparison_section(facts.comparison),
        recipe_section(model.teaching),
        unlabeled_section(model.teaching),
        _training(model, facts),
        _pictures(folder, "curves.png"),
        size_section(model, _speed(facts)),
        exports_section(exports or {}, repo_id),
        _licences(license, _base_model(model, facts), model.config.backbone),
        _limits(measured),
        citation_section(model, model.teaching),
    ]
    return render_card(metadata, title, sections)


def card_tags(family: str, teaching: Teaching | None) -> list[str]:
    """Tags of a model: its family, and its method and teacher where it was distilled.

    Args:
        family: Of the detector.
        teaching: How it was distilled; None for a model that was not.
    """
    if teaching is None:
        return [family]
    return [family, "distillation", f"recipe:{teaching.recipe}", *(f"teacher:{name}" for name in teaching.teachers)]


def architecture(model: Any) -> str:
    """Family, backbone and classes in one sentence, Markdown.

    Args:
        model: A detector.
    """
    backbone = model.config.backbone
    full = timm_name(backbone)
    inside = f"{code(backbone)} ({code(full)} of timm)" if full != backbone else f"{code(full)} of timm"
    names = model.label_names
    shown = ", ".join(escape(name) for name in names[:_SHOWN_CLASSES])
    more = f" and {len(names) - _SHOWN_CLASSES} more" if len(names) > _SHOWN_CLASSES else ""
    family = model.title or model.family
    return f"{family} with the backbone {inside}; {len(names)} class{'es' * (len(names) > 1)}: {shown}{more}."


def recipe_section(teaching: Teaching | None, note: str = "") -> str:
    """How a model was distilled, term by term; empty for one that was not.

    Args:
        teaching: As the trainer left it.
        note: A sentence below the title.
    """
    if teaching is None or not teaching.terms:
        return ""
    rows = []
    for name, term in _terms(teaching).items():
        first = [_cell(key, term.get(key)) for key in _TERM_COLUMNS]
        others = [f"{escape(key)}={_value(value)}" for key, value in term.items() if _telling(key, value)]
        rows.append([code(name), *first, ", ".join(others)])
    head = ["term", "kind", "region", "weight", "temperature", "from step", "to step", "settings"]
    plain, usual = vars(teaching), vars(Teaching())
    options = [f"{escape(key)}={_value(plain[key])}" for key in _OPTIONS if plain[key] != usual[key]]
    summary = f"{code(teaching.recipe)}: {escape(teaching.summary)}".rstrip(": ")
    parts = ["## Recipe", f"{summary}. {note}".strip(), table(head, rows)]
    return "\n\n".join([*parts, *([f"Options: {', '.join(options)}."] if options else [])])


def _terms(teaching: Teaching) -> dict[str, Mapping[str, Any]]:
    """All terms by name; those of an image encoder beside a detector have its name behind theirs."""
    encoder = teaching.feature_teacher
    beside = {} if encoder is None else {f"{name}@{encoder.name}": term for name, term in encoder.terms.items()}
    return {**teaching.terms, **beside}


def size_section(model: Any, speed: str = "") -> str:
    """Parameters, multiply-adds and speed.

    Args:
        model: A detector.
        speed: Cell with a measured speed and its hardware, Markdown; empty where it was not measured.
    """
    count, cost, (height, width) = size_of(model)
    rows = [
        ["parameters", f"{count.total / 1e6:.2f} M"],
        ["multiply-adds", f"{cost / 1e9:.2f} G at {width}x{height} (without decoding and NMS)"],
        [
            "input",
            f"short side {model.data_config.image_size[0]}, long side at most {model.data_config.image_size[1]} px",
        ],
        *([["speed", speed]] if speed else []),
    ]
    return f"## Size{' and speed' * bool(speed)}\n\n{table(['', ''], rows)}"


def citation_section(model: Any, teaching: Teaching | None, paper: str = "") -> str:
    """BibTeX of the method, of its terms and of the detector.

    Args:
        model: A detector.
        teaching: How it was distilled; None for one that was not.
        paper: Address of the paper, where the method has none.
    """
    method = paper if teaching is None else teaching.paper or paper
    terms = [] if teaching is None else papers_of_terms(_terms(teaching).values())
    entries = bibtex([method, *terms, *(each.arxiv for each in model.papers)])
    return f"## Citation\n\n{fence(entries, 'bibtex')}" if entries else ""


def published_table(rows: Iterable[tuple[str, str, PretrainedCfg]]) -> str:
    """Figures of others with their sources; empty without any.

    Args:
        rows: Title, ``name.tag`` and weights.
    """
    cells = [
        [escape(title), code(name), f"{cfg.ap:.1f}", escape(cfg.metric), _source(cfg)] for title, name, cfg in rows
    ]
    return table(["", "weights", "AP", "on", "published by"], cells) if cells else ""


def _source(cfg: PretrainedCfg) -> str:
    address = cfg.paper if re.fullmatch(r"https://[\w./-]+", cfg.paper, re.ASCII) else ""
    return f"{escape(cfg.source)} ([paper]({address}))" if address else escape(cfg.source)


def _base_model(model: Any, run: Run) -> str | None:
    """The backbone's repository, if the run says that its weights were the start."""
    given = run.arguments
    if not given.pretrained_backbone or given.checkpoint or given.backbone_checkpoint:
        return None
    return backbone_repo(model.config.backbone)


def _lead(model: Any, run: Run) -> str:
    sentence = architecture(model)
    teaching: Teaching | None = model.teaching
    if teaching is None or not teaching.teachers:
        return sentence
    return f"{sentence} {taught_by(teaching, run)}"


def _use(repo_id: str) -> str:
    place = f"hf-hub:{repo_id}" if repo_id else "local-dir:."
    lines = [
        "import ld_hub",
        "",
        f'model = ld_hub.create_model("{place}", pretrained=True)' + ("" if repo_id else "  # in this directory"),
        'detections = model.predict("photo.jpg", threshold=0.3)  # path, URL, PIL image, array, or a list of them',
        "print(detections)",
        'detections.save("found.png")',
    ]
    return f"## Use\n\n{fence(chr(10).join(lines), 'python')}"


def _pictures(folder: Path | None, name: str) -> str:
    return f"![{PICTURES[name]}]({name})" if folder is not None and (folder / name).is_file() else ""


def _average_precision(model: Any, measured: Measured, repo_id: str) -> str:
    parts = []
    for own in measured.own:
        rows = [["this model", *ap_cells(own)]]
        rows += [[_row_title(title, each), *ap_cells(each)] for title, each in measured.beside(own)]
        data = own.data
        place = repo_id or "."
        parts += [
            f"{escape(data.name)}, {escape(data.split)}: {TITLES[own.protocol]}; "
            f"{own.images} images, {own.detections} detections{_left_out(own)} "
            f"(annotations sha256 `{data.sha256[:16]}`, weights `{own.weights.sha256[:16]}`); "
            f"{escape(own.precision)} on {escape(own.device)}.",
            table(["AP, x100", *METRICS[own.protocol]], rows),
            _classes(own),
            f"Measured by {code('ld-hub')} {escape(own.versions.get('ld_hub', ''))}; to check it:",
            fence(f"ld-hub verify {place} --data DATA_DIRECTORY", "sh"),
        ]
    others = [("this name", full, cfg) for full, cfg in published_rows(model.name, model.label_names)]
    rows_of_others = published_table(others)
    if rows_of_others:
        parts += ["Published for weights of this name, which are not these; not measured here:", rows_of_others]
    return "\n\n".join(["## Average precision", *parts]) if parts else ""


def _left_out(evidence: Evidence) -> str:
    return f", {evidence.not_counted} of them not counted" if evidence.not_counted else ""


def _row_title(title: str, evidence: Evidence) -> str:
    judged = evidence.model
    hub = from_hub(judged.name)
    name = hub[0] if hub else judged.architecture
    commit = judged.commit or (hub[1] if hub else "")
    return f"{title}: {code(name)}" + (f" at {code(commit[:12])}" if commit else "")


def _classes(evidence: Evidence) -> str:
    """AP of each class, folded where there are many."""
    rows = [
        [escape(name), "" if ap is None else f"{100 * ap:.1f}", str(evidence.boxes.get(name, ""))]
        for name, ap in evidence.per_class.items()
    ]
    text = table(["class", "AP, x100", "boxes"], rows)
    if len(rows) <= 10:
        return text
    return f"<details><summary>AP of each of the {len(rows)} classes</summary>\n\n{text}\n\n</details>"


def _training(model: Any, run: Run) -> str:
    if run.settings is None:
        return ""
    settings, config, parts = run.settings, run.settings.config, ["## Training"]
    rows = [
        ["images", f"{settings.identity.train_images}"],
        ["annotations", _annotations(settings)],
        ["steps", f"{settings.steps} of {settings.images_per_step} images"],
        ["optimizer", f"{config.optimizer}, {config.lr_schedule} schedule, weight decay {config.weight_decay}"],
        ["peak learning rate", f"{settings.peak_lr}"],
        ["precision", "float32" if config.precision == "no" else config.precision or ""],
        ["seed", f"{config.seed}"],
    ]
    parts.append(table(["", ""], [[name, escape(text)] for name, text in rows if text]))
    if run.commands:
        continued = "; each line after the first continued an interrupted run" if len(run.commands) > 1 else ""
        parts += [f"Started by (as typed{continued}):", fence("\n".join(run.commands), "sh")]
    elif run.text:
        module = "distill" if run.distils else "train"
        processes = f"--num_processes {run.processes} " if run.processes else ""
        name = run.arguments.name or model.name
        command = f"accelerate launch {processes}-m ld_hub.{module} {name} --config arguments.yaml"
        parts += ["The same settings as a command, rebuilt from arguments.yaml:", fence(command, "sh")]
    if run.text:
        parts.append(f"<details><summary>arguments.yaml</summary>\n\n{fence(run.text, 'yaml')}\n\n</details>")
    return "\n\n".join(parts)


def _annotations(settings: RunSettings) -> str:
    digits, name = settings.identity.train_annotations_sha256, Path(settings.train_annotations).name
    return f"{name} (sha256 {digits})" if digits else name


def _speed(run: Run) -> str:
    """Images per second that `ld-hub benchmark` measured, with the hardware."""
    if run.speed is None or run.speed.inference is None or run.speed.workload is None:
        return ""
    work = run.speed.workload
    size = f"{work.batch_size} images of {work.width}x{work.height}"
    return escape(f"{run.speed.inference.images_per_second:.1f} images/s ({size}; {run.speed.hardware})")


def _licences(license: str | None, base_model: str | None, backbone: str) -> str:
    lines = []
    if license:
        lines.append(f"These weights: {escape(license)}.")
    if base_model:
        name = backbone_license(backbone)
        lines.append(f"The backbone started from [{base_model}](https://huggingface.co/{base_model})"
                     f"{f' ({escape(name)})' if name else ''}.")  # fmt: skip
    return "\n\n".join(["## Licences", " ".join(lines)]) if lines else ""


def _limits(measured: Measured) -> str:
    """What the evaluations show it cannot do, or do not show."""
    lines = []
    for own in measured.own:
        where = f"{escape(own.data.name)}, {escape(own.data.split)}"
        unseen = [name for name, ap in own.per_class.items() if ap is None]
        weak = [name for name, ap in own.per_class.items() if ap is not None and ap < 0.05]
        if unseen:
            lines.append(f"- {where} has no boxes of {_some(unseen)}: nothing is known about them.")
        if weak:
            lines.append(f"- AP below 5 on {where}: {_some(weak)}.")
        sizes = {"small (below 32² px)": "APs", "medium": "APm", "large (above 96² px)": "APl"}
        missing = [name for name, key in sizes.items() if own.stats.get(key, 0.0) is None]
        if missing:
            lines.append(f"- {where} has no {' and no '.join(missing)} objects.")
        if own.images < 500:
            lines.append(f"- AP on {where} is of {own.images} images: a difference of few points may be chance.")
    return "\n\n".join(["## Limits", "\n".join(lines)]) if lines else ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(escape(name) for name in names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _telling(key: str, value: Any) -> bool:
    """Whether a field of a term goes into the column of settings: no other column has it, and it is not off."""
    return key not in _TERM_COLUMNS and value not in (None, False, "none", "all", "own_head")


def _cell(key: str, value: Any) -> str:
    """A field of a term in its column; what begins with the run says nothing."""
    if value == 0 and key != "weight":
        return ""
    return moment(value) if isinstance(value, float) and key.endswith("_step") else _value(value)


def _value(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else escape(str(value))
