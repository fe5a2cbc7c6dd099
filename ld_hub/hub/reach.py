"""Whether a server answers at all: asked once, for seconds, before clients that would try for minutes."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from urllib.parse import urlsplit

WAIT_S = 6.0  # for the name and the connection together
FRESH_S = 60.0  # how long an answer is believed

_PORTS = {"http": 80, "https": 443}
_answers: dict[str, tuple[float, str]] = {}


def unreachable(endpoint: str | None = None) -> str:
    """Why nobody answers at an address; the empty string where somebody does.

    Args:
        endpoint: Of a server; the Hub's where None. Behind a proxy nothing is asked: it is the client's.
    """
    if endpoint is None:
        from huggingface_hub import constants

        endpoint = constants.ENDPOINT
    if urllib.request.getproxies().keys() & {*_PORTS, "all"}:
        return ""
    asked, reason = _answers.get(endpoint, (-FRESH_S, ""))
    if time.monotonic() - asked > FRESH_S:
        reason = _try_to_connect(endpoint)
        _answers[endpoint] = time.monotonic(), reason
    return reason


def _try_to_connect(endpoint: str) -> str:
    split, said = urlsplit(endpoint), [f"no answer within {WAIT_S:g} s"]

    def connect() -> None:
        try:
            socket.create_connection((split.hostname, split.port or _PORTS.get(split.scheme, 443)), WAIT_S).close()
            said[0] = ""
        except (OSError, ValueError) as error:  # ValueError: of a port that is no number
            said[0] = str(error) or type(error).__name__

    thread = threading.Thread(target=connect, daemon=True)  # finding the name of a server knows no time limit
    thread.start()
    thread.join(WAIT_S)
    return said[0]
