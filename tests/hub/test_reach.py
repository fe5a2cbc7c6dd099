"""A Hub that nobody answers for: said within seconds, once; what was fetched before is used."""

from __future__ import annotations

import socket
import threading

import pytest

from ld_hub.errors import CheckpointError, HubError
from ld_hub.hub import download, reach
from ld_hub.models.backbones import Backbone


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A network without proxies, and what was waited for."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("HF_HUB_OFFLINE", "LD_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(reach, "_answers", {})
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    return pauses


def test_a_server_that_answers_and_one_that_does_not(alone):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert reach.unreachable(f"http://127.0.0.1:{port}") == ""
    assert "refused" in reach.unreachable("http://127.0.0.1:1")
    assert reach.unreachable("http://127.0.0.1:one")


def test_a_silent_network_ends_the_wait(alone, monkeypatch):
    server = socket.socket()
    monkeypatch.setattr(reach, "WAIT_S", 0.05)
    monkeypatch.setattr("socket.create_connection", lambda *_: threading.Event().wait(2) or server)
    assert reach.unreachable("http://silent") == "no answer within 0.05 s"


def test_a_proxy_is_the_clients_matter(alone, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert reach.unreachable("http://127.0.0.1:1") == ""


def test_a_model_and_a_backbone_are_refused_without_a_second_try(alone, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(HubError, match=r"The Hub cannot be reached and config.json of 'org/name' is not in the cache"):
        download("org/name", cache_dir=tmp_path)
    with pytest.raises(CheckpointError, match=r"the Hub cannot be reached \(.*refused.*\), and they were not fetched"):
        Backbone("resnet18", pretrained=True, cache_dir=tmp_path)
    assert alone == []
    assert "Retrying" not in caplog.text
    asked = dict(reach._answers)
    reach.unreachable()
    assert reach._answers == asked  # for a while the answer stands
