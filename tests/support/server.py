"""A loopback server of files: whole ones, parts, refusals."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

CONTENT = bytes(range(256)) * 4096  # 1 MiB


class Server(BaseHTTPRequestHandler):
    """Answers GET of PATH as `answers[PATH]` says: a status, or a function that does all."""

    answers: ClassVar[dict[str, Callable[[Server], None]]] = {}
    seen: ClassVar[list[tuple[str, dict[str, str]]]] = []
    content = CONTENT
    etag = '"one"'

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        Server.seen.append((self.path, dict(self.headers)))
        self.answers.get(self.path, Server.whole)(self)

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def whole(self) -> None:
        """The file, or the part that is asked for if it is of the same file."""
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if start is None or self.headers.get("If-Range") != self.etag:
            self.head(200, Content_Length=len(self.content), ETag=self.etag)
            self.wfile.write(self.content)
            return
        first = int(start[1])
        span = f"bytes {first}-{len(self.content) - 1}/{len(self.content)}"
        self.head(206, Content_Length=len(self.content) - first, Content_Range=span, ETag=self.etag)
        self.wfile.write(self.content[first:])


def status(code: int, **headers: object) -> Callable[[Server], None]:
    """Nothing but a status."""
    return lambda self: self.head(code, Content_Length=0, **headers)


def breaks_after(size: int, **headers: object) -> Callable[[Server], None]:
    """Promises everything, sends the first `size` bytes, hangs up."""

    def answer(self: Server) -> None:
        self.head(200, Content_Length=len(self.content), **headers)
        self.wfile.write(self.content[:size])

    return answer


def one_after_another(*answers: Callable[[Server], None]) -> Callable[[Server], None]:
    """These, then the whole file."""
    queue = list(answers)

    def answer(self: Server) -> None:
        (queue.pop(0) if queue else Server.whole)(self)

    return answer


def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run it with fresh settings, without proxies and pauses; yields its address."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("LD_HUB_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("ld_hub.hub.fetch.PAUSES_S", (0.0, 0.0))
    Server.answers, Server.seen, Server.content, Server.etag = {}, [], CONTENT, '"one"'
    running = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{running.server_address[1]}"
    running.shutdown()
    running.server_close()
