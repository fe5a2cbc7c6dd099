"""Fetching a published model directory from the Hub: two files, and never a pickle."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ld_hub.errors import HubError
from ld_hub.hub.config import CONFIG_NAME
from ld_hub.hub.fetch import offline
from ld_hub.hub.weights import WEIGHTS_NAME


def download(
    repo_id: str,
    revision: str | None = None,
    *,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    weights: bool = True,
    endpoint: str | None = None,
) -> Path:
    """Fetch ``config.json`` and ``model.safetensors`` of a Hub repository into the cache.

    Files that are in the cache already are not fetched again; without network (or with ``HF_HUB_OFFLINE=1``
    or ``LD_HUB_OFFLINE=1``) the cached ones are used.

    Args:
        repo_id: ``org/name``.
        revision: Branch, tag or commit; the default branch when None.
        cache_dir: Cache to use instead of huggingface_hub's own.
        token: Access token, or True to require the stored one. It never enters a message.
        weights: Whether the weights are wanted; False fetches the configuration only.
        endpoint: Address of another Hub server.

    Returns:
        The local directory that holds the files.

    Raises:
        HubError: If the repository, revision or file does not exist or may not be read, or the network fails.
    """
    config = ""
    for name in (CONFIG_NAME, WEIGHTS_NAME)[: 1 + weights]:
        try:
            file = hf_hub_download(
                repo_id,
                name,
                revision=revision,
                cache_dir=None if cache_dir is None else str(cache_dir),
                token=token,
                endpoint=endpoint,
                library_name="ld_hub",
                local_files_only=bool(offline()),
            )
        except (HfHubHTTPError, HFValidationError, EntryNotFoundError, OSError, ValueError) as error:
            raise HubError(_explain(error, repo_id, revision, name)) from error
        config = config or file
    return Path(config).parent


def _explain(error: Exception, repo_id: str, revision: str | None, name: str) -> str:
    """Say what happened and what to do, without the request's headers or address parameters."""
    where = f"'{repo_id}'" + (f" at revision '{revision}'" if revision else "")
    status = _status(error)
    offline = isinstance(error, LocalEntryNotFoundError)
    explanations = (
        (
            isinstance(error, GatedRepoError),
            f"{where} is gated: accept its terms on the Hub, then pass token= or run `hf auth login`.",
        ),
        (
            isinstance(error, RepositoryNotFoundError),
            f"No Hub repository {where}, or it is private (401/404). Check the spelling (org/name); for a private one "
            "pass token= or run `hf auth login`. A directory on this machine is loaded with 'local-dir:PATH'.",
        ),
        (isinstance(error, RevisionNotFoundError), f"The Hub repository '{repo_id}' has no revision '{revision}'."),
        (
            isinstance(error, HFValidationError),
            f"'{repo_id}' is not a Hub repository id ({_first_line(error)}). Ids look like 'org/name'.",
        ),
        (
            offline and status is None,
            f"The Hub cannot be reached and {name} of {where} is not in the cache. Check the network (and HF_ENDPOINT, "
            "HF_HUB_OFFLINE, LD_HUB_OFFLINE), or copy the model directory here and load it with 'local-dir:PATH'.",
        ),
        (isinstance(error, EntryNotFoundError) and not offline, f"{where} has no {name}.{_HOW_PUBLISHED[name]}"),
        (status is not None, f"The Hub answered {status} for {name} of {where}: {_ADVICE.get(status, 'try later')}."),
    )
    otherwise = f"{name} of {where} could not be fetched: {type(error).__name__}: {_first_line(error)}"
    return next((text for applies, text in explanations if applies), otherwise)


_ADVICE: dict[int | None, str] = {
    401: "log in with `hf auth login`",
    403: "the token may not read it",
    429: "wait, then try again",
}
_HOW_PUBLISHED = {
    CONFIG_NAME: " An ld_hub model has one: model.save_pretrained(DIR) writes it.",
    WEIGHTS_NAME: " Pickled weights (pytorch_model.bin, .pth) are not loaded from the Hub: "
    "convert them on your machine with `ld-hub convert` and publish the result.",
}


def _status(error: BaseException | None) -> int | None:
    """HTTP status behind an error: the client reports a refused request as a file missing from the cache."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


def _first_line(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return re.sub(r"hf_\w{6,}|(?<=[?&])[^ '\"]+", "…", text)[:300]
