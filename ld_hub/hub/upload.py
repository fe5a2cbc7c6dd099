"""Publishing files on the Hub: one commit on top of the state that was looked at, or nothing."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from ld_hub.errors import HubError, LdHubError
from ld_hub.hub.downloads import first_line, leaks, secrets_in_use, status_of
from ld_hub.hub.fetch import offline
from ld_hub.hub.reach import unreachable
from ld_hub.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi

Kind: TypeAlias = Literal["model", "space"]

CARD_NAME = "README.md"
MAX_CARD_BYTES = 5_000_000

_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}")
_BINARY = (".safetensors", ".jpg", ".png")


def upload(
    repo_id: str,
    files: Mapping[str, str | Path],
    *,
    commit_message: str,
    renew_card: Callable[[str, str], str],
    owned: Sequence[str] = (),
    refuse: Callable[[Sequence[str]], str] | None = None,
    private: bool | None = None,
    create_pr: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
    kind: Kind = "model",
) -> CommitInfo:
    """Publish files in one commit; the repository is made where there is none.

    Large files are sent first, and belong to nothing until the commit; that goes on top of what was looked at alone.

    Args:
        repo_id: ``org/name``.
        files: Local file by its path in the repository.
        commit_message: First line of the commit's message.
        renew_card: ``(README.md of the repository, new README.md) -> README.md to write``, where there is one.
        owned: Wildcards of the publisher's paths: what fits one and is not in `files` is removed.
        refuse: Why these files must not be published where those of the given paths are; empty where they may.
        private: Make a new repository private; None leaves it to the account's settings.
        create_pr: Propose the commit as a pull request instead of making it.
        revision: Branch, by default main; a new one starts there.
        token: Access token; by default the stored one. It enters no message and no file.
        endpoint: Address of another Hub server.
        kind: Of repository; a Space is run by gradio.

    Returns:
        The commit; as a text its address.

    Raises:
        HubError: If something was not allowed or failed; says whether anything was published.
    """
    _require_network(repo_id, endpoint)
    _refuse_tokens(files, token)
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint, token=token, library_name="ld_hub", library_version=__version__)
    with _errors(repo_id, token):
        repo_id = _made(api, repo_id, kind, private)
        parent, present = _state(api, repo_id, kind, revision, private, new_branch=not create_pr)
        if reason := refuse(present) if refuse is not None else "":
            raise HubError(f"Nothing was published: '{repo_id}' {reason}")
        operations = _operations(api, repo_id, kind, parent, present, files, renew_card, owned)
    with _errors(repo_id, token, None if create_pr else lambda: _head(api, repo_id, kind, revision) == parent):
        return api.create_commit(
            repo_id,
            operations,
            repo_type=kind,
            commit_message=commit_message,
            create_pr=create_pr,
            revision=revision,
            parent_commit=parent,
        )


def _made(api: HfApi, repo_id: str, kind: Kind, private: bool | None) -> str:
    """Make the repository where there is none; returns its whole id."""
    sdk = "gradio" if kind == "space" else None
    return api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True, space_sdk=sdk).repo_id


def _require_network(repo_id: str, endpoint: str | None) -> None:
    forbidding = offline()
    if forbidding:
        raise HubError(f"'{repo_id}' was not published: {forbidding} forbids the network. Unset it.")
    reason = unreachable(endpoint)
    if reason:
        raise HubError(
            f"'{repo_id}': the connection to the Hub broke ({reason}). Check the network and HF_ENDPOINT. "
            "Nothing was published."
        )


def _refuse_tokens(files: Mapping[str, str | Path], token: str | bool | None) -> None:
    """No access token may be published, whoever wrote it into a log or a configuration."""
    secrets = secrets_in_use(token)
    for name, path in files.items():
        if name.endswith(_BINARY):
            continue
        content = Path(path).read_bytes()
        if _TOKEN.search(content) or any(secret.encode() in content for secret in secrets):
            raise HubError(f"Nothing was published: '{name}' ('{path}') holds an access token. Remove it there.")


def _state(
    api: HfApi, repo_id: str, kind: str, revision: str | None, private: bool | None, new_branch: bool
) -> tuple[str | None, list[str]]:
    """The commit that the branch points at, and the paths it has.

    Raises:
        HubError: If the repository is public and was to be private.
    """
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        info = api.repo_info(repo_id, repo_type=kind, revision=revision)
    except RevisionNotFoundError:
        if revision is None or not new_branch:
            raise
        api.create_branch(repo_id, branch=revision, repo_type=kind, exist_ok=True)
        info = api.repo_info(repo_id, repo_type=kind, revision=revision)
    if private and info.private is False:
        raise HubError(
            f"Nothing was published: '{repo_id}' exists and is public, and private=True was asked for. Make it "
            "private in its settings on the Hub, or choose another name."
        )
    return info.sha, [sibling.rfilename for sibling in getattr(info, "siblings", None) or ()]


def _operations(
    api: HfApi,
    repo_id: str,
    kind: str,
    parent: str | None,
    present: Sequence[str],
    files: Mapping[str, str | Path],
    renew_card: Callable[[str, str], str],
    owned: Sequence[str],
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """What the commit adds, replaces and removes."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    for name, path in files.items():
        content: str | bytes = str(path)
        if name == CARD_NAME and name in present:
            new = Path(path).read_text(encoding="utf-8")
            content = renew_card(_existing_card(api, repo_id, kind, parent), new).encode()
        operations.append(CommitOperationAdd(name, content))
    stale = [name for name in present if name not in files and any(fnmatchcase(name, one) for one in owned)]
    return [*operations, *(CommitOperationDelete(name) for name in stale)]


def _existing_card(api: HfApi, repo_id: str, kind: str, parent: str | None) -> str:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        file = Path(api.hf_hub_download(repo_id, CARD_NAME, repo_type=kind, revision=parent, cache_dir=cache))
        size = file.stat().st_size
        if size > MAX_CARD_BYTES:
            raise HubError(
                f"Nothing was published: {CARD_NAME} of '{repo_id}' has {size:,} bytes; at most {MAX_CARD_BYTES:,} "
                "are renewed. Shorten it."
            )
        try:
            return file.read_bytes().decode()
        except UnicodeDecodeError:
            raise HubError(
                f"Nothing was published: {CARD_NAME} of '{repo_id}' is not UTF-8 text, so what its owner wrote cannot "
                "be kept. Repair or delete it there."
            ) from None


@contextlib.contextmanager
def _errors(repo_id: str, token: str | bool | None, unmoved: Callable[[], bool] | None = None) -> Iterator[None]:
    """Turn whatever the client raises into one `HubError`.

    Args:
        repo_id: For the message.
        token: Never to be shown, neither by the message nor by its cause.
        unmoved: Whether the branch is where it was, where a commit may have been made although its answer was lost.
    """
    try:
        yield
    except LdHubError:
        raise
    except Exception as error:  # the client, its transports and its parsing of answers have no common base
        secrets, status = secrets_in_use(token), status_of(error)
        refused = status is not None and status < 500
        outcome = f"Nothing was published; '{repo_id}' is as it was."
        if not refused and unmoved is not None:
            outcome = _outcome(repo_id, unmoved)
        text = f"Publishing '{repo_id}' failed: {_why(error, status, secrets)} {outcome}"
        raise HubError(text) from (None if leaks(error, secrets) else error)


def _why(error: Exception, status: int | None, secrets: Sequence[str]) -> str:
    """What happened and what to do, in one or two sentences."""
    said = first_line(_innermost(error), secrets)
    if status is None:
        return _without_status(error, said)
    advice = _ADVICE.get(status, "Try later." if status >= 500 else "See the Hub's message.")
    return f"the Hub answered {status} ({said}). {advice}"


def _without_status(error: Exception, said: str) -> str:
    from huggingface_hub.errors import HFValidationError

    if isinstance(error, HFValidationError):
        return f"this is no repository id ({said}). Ids look like 'org/name'."
    if isinstance(error, ValueError):  # a refused card, or an answer that is none
        return f"{said}."
    return f"the connection to the Hub broke ({said}). Check the network (and HF_ENDPOINT) and try again."


def _outcome(repo_id: str, unmoved: Callable[[], bool]) -> str:
    """Whether a commit whose answer was lost has been made."""
    try:
        if unmoved():
            return f"Nothing was published; '{repo_id}' is as it was."
    except Exception:  # whatever broke the upload may last
        return f"Whether the commit was made could not be asked: look at '{repo_id}' on the Hub before you try again."
    return f"There is a new commit meanwhile, this one or another: look at '{repo_id}' before you try again."


def _head(api: HfApi, repo_id: str, kind: str, revision: str | None) -> str | None:
    return api.repo_info(repo_id, repo_type=kind, revision=revision).sha


def _innermost(error: Exception) -> BaseException:
    """The reason below wrappers without one of their own, such as "Error while uploading FILE"."""
    inner: BaseException = error
    while isinstance(inner, RuntimeError) and inner.__cause__ is not None:
        inner = inner.__cause__
    return inner


_ADVICE = {
    401: "Log in with `hf auth login`, or pass token= (or set HF_TOKEN): a token with write access.",
    403: "The token may not write there: take one with write access to it, or propose the change "
    "(create_pr=True, --create_pr).",
    404: "Check the spelling (org/name), or make the repository on the Hub first; a private one needs a token.",
    409: "Somebody else published there at the same time. Look at it, then publish again.",
    412: "Somebody else published there at the same time. Look at it, then publish again.",
    413: "A file is too large for the Hub.",
    429: "Too many requests: wait some minutes, then try again.",
}
