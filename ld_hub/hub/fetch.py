"""Fetching a plain file by its address: resumed where it broke off, checked, and in its place only when it is whole."""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from ld_hub.errors import HubError
from ld_hub.hub.files import describe_bytes, put_in_place, sha256_of
from ld_hub.version import __version__

TIMEOUT_S = 30.0  # of silence, not of the whole transfer
PAUSES_S = (0.5, 3.0)  # before the second and the third try
BLOCK = 2**18
DISK_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
OFFLINE_VARIABLES = ("LD_HUB_OFFLINE", "HF_HUB_OFFLINE")

_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)


class _BrokenError(Exception):
    """A transfer ended before the file did; what arrived may be of use to the next try."""


def offline() -> str:
    """The environment variable that forbids the network; the empty string where none does."""
    set_to_yes = (name for name in OFFLINE_VARIABLES if os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"})
    return next(set_to_yes, "")


@contextlib.contextmanager
def one_at_a_time(target: Path) -> Iterator[None]:
    """Hold the lock of what one process at a time may make; others wait here.

    Args:
        target: What is made. The lock's file lies in ``.locks`` beside it.

    Raises:
        HubError: If the directory cannot be written.
    """
    with disk_errors(target.parent):
        place = target.parent / ".locks" / f"{target.name}.lock"
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def fetch_file(url: str, target: Path, *, sha256: str = "") -> str:
    """Download a file, check it, and put it in its place; two processes that may ask at once use `one_at_a_time`.

    While it arrives it is called ``NAME.part``. A transfer that breaks off is tried three times; after that, or when
    the process is stopped, the part stays and the next call asks for the rest only (``Range``, with ``If-Range``, so
    that a file that has changed meanwhile comes whole). A bar shows the progress where stderr is a terminal.

    Args:
        url: An ``http``, ``https`` or ``file`` address. Redirects are followed, but not from https to http.
        target: Where the file belongs.
        sha256: Leading hex digits of the sha256 it has to have.

    Returns:
        The sha256 of the file.

    Raises:
        HubError: If the file cannot be had, is not the expected one, or cannot be written. Nothing but a part of an
            interrupted transfer is left behind.
    """
    by_hand = f" A copy fetched by other means belongs at '{target}': the next call checks it and goes on."
    _require_allowed(url, by_hand)
    part = target.with_name(f"{target.name}.part")
    with disk_errors(target.parent, by_hand):
        target.parent.mkdir(parents=True, exist_ok=True)
        _transfer_patiently(url, part, by_hand)
        found = sha256_of(part)
        if not found.startswith(sha256.lower()):
            what = describe_bytes(part)
            _discard(part)
            raise HubError(
                f"{url} gave another file than the published one{f': {what}' if what else ''}. Its sha256 is {found}, "
                f"expected to start with {sha256}. It was deleted, and nothing of it was read. Try later.{by_hand}"
            )
        put_in_place(part, target)
        _discard(part)
    return found


@contextlib.contextmanager
def disk_errors(place: Path, way_out: str = "") -> Iterator[None]:
    """Turn what the system says about writing below `place` into a `HubError`.

    Args:
        place: Directory that is written to.
        way_out: What else the user can do, as a last sentence.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in DISK_FULL
        reason = "the disk is full" if full else error.strerror or str(error)
        raise HubError(
            f"'{place}' cannot be written ({reason}). {'Make room there' if full else 'Make it writable'}, or name "
            f"another place for the cache: LD_HUB_CACHE=DIR or cache_dir=DIR.{way_out}"
        ) from error


def _require_allowed(url: str, by_hand: str) -> None:
    scheme = urlsplit(url).scheme.lower()
    if scheme not in ("http", "https", "file"):
        raise HubError(f"'{url}' cannot be fetched: expected an address that starts with https://, http:// or file://.")
    forbidding = offline()
    if scheme != "file" and forbidding:
        raise HubError(
            f"{url} is needed, and {forbidding}={os.environ[forbidding]} forbids the network. Unset it.{by_hand}"
        )


def _transfer_patiently(url: str, part: Path, by_hand: str) -> None:
    for pause in (*PAUSES_S, None):
        try:
            return _transfer(url, part)
        except _BrokenError as error:
            if pause is None:
                raise HubError(
                    f"{url} could not be fetched: {error}. Check the network and its proxy settings, and try again."
                    f"{_kept(part)}{by_hand}"
                ) from None
            time.sleep(pause)
        except OSError:  # of the disk: those of the network are told apart where they arise
            _discard(part)
            raise
        except HubError as error:
            _discard(part)
            raise HubError(f"{error}{by_hand}") from None


def _transfer(url: str, part: Path) -> None:
    """Get the file, or what is missing of it, in one request."""
    offset, validator = _resumable(part)
    headers = {"User-Agent": f"ld_hub/{__version__}", "Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
    with _open(url, headers, part) as response:
        resumed = response.status == 206 and _start(response) == offset
        start = offset if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length is not None else None
        if not resumed:
            _discard(part)
            _validator_file(part).write_text(_validator(response), encoding="utf-8")
        with open(part, "ab" if resumed else "wb") as stream, _bar(part, start, total) as bar:
            for block in _blocks(response):
                stream.write(block)
                bar.update(len(block))
    size = part.stat().st_size
    if total is not None and size != total:
        raise _BrokenError(f"the connection ended after {size:,} of {total:,} bytes")


def _open(url: str, headers: dict[str, str], part: Path) -> Any:
    # urllib, and not the client that huggingface_hub brings: that is requests before its version 1 and httpx since
    opener = urllib.request.build_opener(_Redirects)
    try:
        return opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)  # noqa: S310 (checked)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # there is nothing after the part we have, so it is a part of something else
            _discard(part)
        if error.code in (*_TRY_AGAIN, 416):
            raise _BrokenError(f"the server answered {error.code} ({error.reason})") from None
        why = "the file has moved or was withdrawn" if error.code in (404, 410) else "it does not give the file out"
        raise HubError(f"The server of {url} answered {error.code} ({error.reason}): {why}.") from None
    except (OSError, http.client.HTTPException) as error:
        if url.startswith("file:"):
            raise HubError(f"{url} could not be fetched: {_reason(error)}.") from None
        raise _BrokenError(_reason(error)) from None


def _blocks(response: Any) -> Iterator[bytes]:
    while True:
        try:
            block: bytes = response.read1(BLOCK)  # what is there: a later timeout must not lose it
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenError(f"the connection broke ({_reason(error)})") from None
        if not block:
            return
        yield block


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https, never from a safe address to an unsafe one; 308 too, which Python 3.10 does not."""

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        safe = ("https",) if req.full_url.startswith("https:") else ("http", "https")
        if urlsplit(newurl).scheme not in safe:
            fp.close()
            raise HubError(f"{req.full_url} could not be fetched: it redirects to {newurl}, which is not followed.")
        return super().redirect_request(req, fp, 307 if code == 308 else code, msg, headers, newurl)


def _start(response: Any) -> int:
    """First byte of a partial answer: ``Content-Range: bytes START-END/TOTAL``; -1 where it is not told."""
    first = str(response.headers.get("Content-Range", "")).removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdigit() else -1


def _validator(response: Any) -> str:
    """What tells whether the file is still the same one: a strong ETag, or the date of its last change."""
    etag = str(response.headers.get("ETag", ""))
    return etag if etag.startswith('"') else str(response.headers.get("Last-Modified", ""))


def _resumable(part: Path) -> tuple[int, str]:
    """Bytes that are there already, and the validator of their file; ``(0, "")`` where either is missing."""
    if not (part.is_file() and _validator_file(part).is_file()):
        return 0, ""
    validator = _validator_file(part).read_text(encoding="utf-8", errors="replace")
    usable = validator.isascii() and validator.isprintable()  # else damaged, or no header could carry it
    return (part.stat().st_size, validator) if validator and usable else (0, "")


def _kept(part: Path) -> str:
    """What is said about a broken transfer; a part that nobody could go on with is removed."""
    size, _ = _resumable(part)
    if not size:
        _discard(part)
        return ""
    return f" {size:,} bytes are kept: the next call asks for the rest only."


def _validator_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.validator")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator_file(part).unlink(missing_ok=True)


def _bar(part: Path, start: int, total: int | None) -> Any:
    from tqdm import tqdm

    return tqdm(
        desc=part.name.removesuffix(".part"),
        initial=start,
        total=total,
        unit="B",
        unit_scale=True,
        disable=not (sys.stderr and sys.stderr.isatty()),
    )


def _reason(error: BaseException) -> str:
    """What the network said; urllib wraps it."""
    inner = getattr(error, "reason", error)
    return str(inner) or type(inner).__name__
