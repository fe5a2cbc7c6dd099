"""Exports that lie on the Hub: found by their config.json, fetched by their manifest."""

from __future__ import annotations

from pathlib import Path

from ld_hub.errors import CheckpointError
from ld_hub.models.names import parse_source, saved_directory
from ld_hub.runtime.exported_files import README, SUMS, ExportedError, is_exported, listed


def find_export(model_name: str) -> Path | None:
    """The exported directory that a name means; None where it means a model.

    Args:
        model_name: As the verbs take it: a directory, a name, or a repository on the Hub, of which config.json is
            fetched to see what it holds, and of an export all that its manifest lists. Nothing is executed.

    Raises:
        HubError: If the repository cannot be read, or misses a file.
        CheckpointError: If its manifest is none.
    """
    if is_exported(model_name):
        return Path(model_name).expanduser()
    if saved_directory(model_name) is not None:
        return None
    source, place = parse_source(model_name)
    if source == "local-dir":
        return Path(place) if is_exported(place) else None
    if source != "hf-hub":
        return None

    from ld_hub.hub.downloads import download

    repo, _, revision = place.partition("@")
    folder = download(repo, revision or None, weights=False)
    if not is_exported(folder):
        return None
    download(repo, folder.name, weights=False, also=[SUMS])
    try:
        names = [name for name in listed(folder) if name != README]
    except ExportedError as error:
        raise CheckpointError(str(error)) from error
    return download(repo, folder.name, weights=False, also=names)
