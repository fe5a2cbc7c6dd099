"""An exported directory as a repository of its own: program, config.json, manifest, card."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ld_hub.errors import EvaluationError
from ld_hub.export.web_page import PAGE_FILES
from ld_hub.hub import WEIGHTS_NAME, atomic_write, sha256_of
from ld_hub.hub.card_file import BEGIN, card_metadata, escape, fence, render_card, update_card
from ld_hub.hub.evidence import BENCHMARK_NAME, EVAL_DIRECTORY, read_evidence
from ld_hub.hub.upload import CARD_NAME, upload
from ld_hub.publishing.exports import Export, measured, read_export
from ld_hub.publishing.taught import code
from ld_hub.runtime.exported_files import SUMS, Exported, listed

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

OWNED = (f"{EVAL_DIRECTORY}/*.json", BENCHMARK_NAME, "model.onnx", "model.xml", "model.bin", "model.pt2", *PAGE_FILES)
_SHOWN_CLASSES = 12


def publish_export(
    directory: str | Path,
    repo_id: str,
    *,
    evaluations: Sequence[Path] = (),
    license: str | None = None,
    commit_message: str | None = None,
    **options: Any,
) -> CommitInfo:
    """Publish what `ld-hub export` wrote in one commit: what its manifest lists, measurements, and a card.

    The manifest of the repository has no README.md: that is the card, in which everybody may write.

    Args:
        directory: Of the export. What was written into its README.md stays in the card.
        repo_id: ``org/name``; made if it does not exist.
        evaluations: Artefacts of the export beside those in its ``eval/``.
        license: SPDX id of the weights' licence.
        commit_message: First line of the commit's message.
        **options: ``private``, ``create_pr``, ``revision`` and ``token`` of `ld_hub.hub.upload.upload`.

    Returns:
        The commit.

    Raises:
        CheckpointError: If a file is not the one that the manifest lists.
        EvaluationError: If an evaluation is of another program.
        HubError: If it could not be published, or the repository holds a model.
    """
    export = read_export(directory)
    for file in evaluations:
        path = file / "metrics.json" if file.is_dir() else file
        export.evaluations[path] = evidence = read_evidence(path)
        if evidence.weights.tensors != export.exported.digest:
            raise EvaluationError(
                f"'{path}' is of another program than that of '{directory}'. Evaluate this one: "
                f"`ld-hub eval {directory} --data DIR`."
            )
    with tempfile.TemporaryDirectory(prefix="ld_hub_", ignore_cleanup_errors=True) as temporary:
        folder, files = Path(temporary), export.files()
        lines = [f"{digits}  {name}\n" for name, digits in listed(directory).items() if name != CARD_NAME]
        files[SUMS] = atomic_write(folder / SUMS, "".join(lines))
        files[CARD_NAME] = atomic_write(folder / CARD_NAME, export_card(export, repo_id, license))
        return upload(
            repo_id,
            files,
            commit_message=commit_message or f"Publish {export.exported.architecture}, exported to {export.name}",
            renew_card=update_card,
            owned=OWNED,
            refuse=_refuse_beside_a_model,
            **options,
        )


def export_card(export: Export, repo_id: str, license: str | None = None) -> str:
    """The README.md of an export on the Hub.

    Args:
        export: With what was measured of it.
        repo_id: ``org/name``.
        license: SPDX id of the weights' licence.

    Returns:
        Markdown with metadata, as `ld_hub.hub.card_file` has it; where the export's README.md was changed after the
        export, this with the generated block renewed.
    """
    exported, title = export.exported, repo_id.rpartition("/")[2]
    metadata = card_metadata(
        title, license=license, tags=[exported.family, exported.to], evaluations=[*export.evaluations.values()]
    )
    file = exported.directory / CARD_NAME
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    untouched = bool(text) and sha256_of(file) == listed(exported.directory).get(CARD_NAME)
    sections = [_lead(exported), _use(repo_id), "\n\n".join(["## Measured", *measured({repo_id: export})])]
    how = text[text.find("\n## ") :] if untouched and BEGIN not in text else ""
    card = render_card(metadata, title, [*sections, how])
    return update_card("" if untouched else text, card)


def _lead(exported: Exported) -> str:
    names = exported.label_names
    shown = ", ".join(escape(name) for name in names[:_SHOWN_CLASSES])
    more = f" and {len(names) - _SHOWN_CLASSES} more" if len(names) > _SHOWN_CLASSES else ""
    backbone = code(exported.config.get("backbone", ""))
    return (
        f"A {escape(exported.family)} detector with the backbone {backbone}, exported to {escape(exported.to)} "
        f"({escape(exported.precision)}); {len(names)} class{'es' * (len(names) > 1)}: {shown}{more}."
    )


def _use(repo_id: str) -> str:
    shell = f"hf download {repo_id} --local-dir exported\nld-hub predict photo.jpg --model {repo_id}"
    return f"## Use\n\n{fence(shell, 'sh')}"


def _refuse_beside_a_model(present: Sequence[str]) -> str:
    if WEIGHTS_NAME not in present:
        return ""
    return (
        f"holds a model ({WEIGHTS_NAME}), whose config.json an export would replace. Publish it with the model: "
        "`ld-hub push MODEL ORG/NAME --export DIR`; or name another repository."
    )
