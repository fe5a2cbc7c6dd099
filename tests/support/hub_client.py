"""Pointing huggingface_hub's client at `tests.hub_server`: in this process, or in one of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import WRITER, serving
from tests.support.hub_state import Hub


def connected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A fixture: this process's client talks to the server, as `WRITER`, with an empty cache and without pauses."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("HF_HUB_OFFLINE", "LD_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with serving() as hub:
        changes = {
            "ENDPOINT": hub.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
        }
        for name, value in changes.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value, raising=False)
        yield hub


def environment(hub: Hub, cache: Path, **more: str) -> dict[str, str]:
    """Of a process of its own whose client talks to the server."""
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower() and "OFFLINE" not in name}
    ours = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(cache), "HF_TOKEN": WRITER, "HF_HUB_DISABLE_XET": "1"}
    root = str(Path(__file__).resolve().parents[2])
    return {**kept, **ours, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **more}
