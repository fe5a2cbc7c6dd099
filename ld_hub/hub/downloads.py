"""Fetching a published model directory from the Hub: two files, and never a pickle."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import get_token, hf_hub_download
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
from ld_hub.hub.config_file import CONFIG_NAME
from ld_hub.hub.fetch import DISK_FULL, offline
from ld_hub.hub.files import WEIGHTS_NAME
from ld_hub.hub.reach import unreachable

# requests' errors are OSErrors; httpx's, which later clients let through, have a base of their own
TRANSPORT_ERROR: type[Exception] = HfHubHTTPError.__mro__[1]

TOKEN_TEXT = re.compile(r"hf_\w{6,}")  # what an access token looks like


def download(
    repo_id: str,
    revision: str | None = None,
    *,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    weights: bool = True,
    also: Sequence[str] = (),
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
        also: Names of further files, which must be there.
        endpoint: Address of another Hub server.

    Returns:
        The local directory that holds the files.

    Raises:
        HubError: If the repository, revision or file does not exist or may not be read, or the network fails.
    """
    folder = Path()
    for name in (*(CONFIG_NAME, WEIGHTS_NAME)[: 1 + weights], *also):
        at = revision if name == CONFIG_NAME else folder.name  # of the same commit, whatever is published meanwhile
        try:
            file = hf_hub_download(
                repo_id,
                name,
                revision=at,
                cache_dir=None if cache_dir is None else str(cache_dir),
                token=token,
                endpoint=endpoint,
                library_name="ld_hub",
                local_files_only=bool(offline() or unreachable(endpoint)),  # which would try for minutes
            )
        except (TRANSPORT_ERROR, EntryNotFoundError, OSError, ValueError, RuntimeError) as error:
            secrets = secrets_in_use(token)
            message = _explain(error, repo_id, revision, name, secrets)
            raise HubError(message) from (None if leaks(error, secrets) else error)
        folder = Path(file).parent
    return folder


def origin_of(folder: Path) -> str | None:
    """``org/name@commit`` of a directory in the cache of downloads; None for any other.

    Args:
        folder: As `download` returns it.
    """
    repository = folder.parent.parent.name
    if folder.parent.name != "snapshots" or not repository.startswith("models--"):
        return None
    return f"{repository.removeprefix('models--').replace('--', '/', 1)}@{folder.name}"


def _explain(error: Exception, repo_id: str, revision: str | None, name: str, secrets: Sequence[str]) -> str:
    """Say what happened and what to do, without the request's headers or address parameters."""
    where = f"'{repo_id}'" + (f" at revision '{revision}'" if revision else "")
    status = status_of(error)
    said = first_line(error, secrets)
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
            f"'{repo_id}' is not a Hub repository id ({said}). Ids look like 'org/name'.",
        ),
        (
            offline and status is None,
            f"The Hub cannot be reached and {name} of {where} is not in the cache. Check the network (and HF_ENDPOINT, "
            "HF_HUB_OFFLINE, LD_HUB_OFFLINE), or copy the model directory here and load it with 'local-dir:PATH'.",
        ),
        (
            isinstance(error, EntryNotFoundError) and not offline,
            f"{where} has no {name}.{_HOW_PUBLISHED.get(name, '')}",
        ),
        (status is not None, f"The Hub answered {status} for {name} of {where}: {_ADVICE.get(status, 'try later')}."),
        (
            getattr(error, "errno", None) in DISK_FULL,
            f"{name} of {where} could not be written: the disk is full. Make room there, or name another place for the "
            "cache: HF_HOME=DIR or cache_dir=DIR.",
        ),
        (
            isinstance(error, (TRANSPORT_ERROR, OSError)),
            f"{name} of {where} did not arrive whole ({said}). No part of it is used: try again.",
        ),
    )
    otherwise = f"{name} of {where} could not be fetched: {type(error).__name__}: {said}"
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


def status_of(error: BaseException | None) -> int | None:
    """HTTP status behind an error of the client, which wraps it in others; None where there is none.

    Args:
        error: The error; a refused request may come as a file missing from the cache, or as a failed upload.
    """
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


def first_line(error: BaseException, secrets: Sequence[str] = ()) -> str:
    """What an error says, in one line without tokens and without the parameters of signed addresses.

    Args:
        error: Of the client; of a refused request, what the Hub said.
        secrets: Tokens in use.
    """
    text = str(getattr(error, "server_message", None) or error)
    line = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    for secret in secrets:
        line = line.replace(secret, "…")
    return re.sub(r"(?<=[?&])[^ '\"]+", "…", TOKEN_TEXT.sub("…", line))[:300].rstrip(".")


def secrets_in_use(token: str | bool | None) -> list[str]:
    """The tokens that requests carry: the one that was passed, and the stored one.

    Args:
        token: As it was passed.
    """
    return [secret for secret in (token, get_token()) if isinstance(secret, str) and secret]


def leaks(error: BaseException, secrets: Sequence[str]) -> bool:
    """Whether an error, or one behind it, shows a token; such an error must not be chained to another.

    Args:
        error: Of the client.
        secrets: Tokens in use.
    """
    chain: BaseException | None = error
    while chain is not None:
        if any(secret in f"{chain!r}{chain}" for secret in secrets):
            return True
        chain = chain.__cause__ or chain.__context__
    return False
