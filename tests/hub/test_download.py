"""The real huggingface_hub client against a loopback server that speaks HEAD and GET of `resolve`."""

from __future__ import annotations

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ld_hub.errors import HubError
from ld_hub.hub import download

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    ("org/good", "config.json"): b'{"model_type": "ld_hub"}',
    ("org/good", "model.safetensors"): b"weights",
    ("org/pickle", "config.json"): b"{}",
}


class Hub(BaseHTTPRequestHandler):
    seen: list[str] = []  # noqa: RUF012

    def log_message(self, *args):
        pass

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self):
        self.seen.append(self.command + " " + self.path)
        _, org, name, _, revision, file = self.path.split("/", 5)
        repo = f"{org}/{name}"
        if repo == "org/private":
            return self._answer(401, {"X-Error-Code": "RepoNotFound"})
        if repo == "org/gated":
            return self._answer(403, {"X-Error-Code": "GatedRepo"})
        if repo == "org/teapot":
            return self._answer(418, {})
        if revision not in ("main", "v1", COMMIT):
            return self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        if (repo, file) not in FILES:
            return self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        body = FILES[repo, file]
        etag = hashlib.sha256(body).hexdigest()
        return self._answer(200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, body)

    do_HEAD = do_GET


@pytest.fixture
def hub(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    Hub.seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_fetches_both_files_once_then_offline(hub, tmp_path, monkeypatch):
    folder = download("org/good", "v1", cache_dir=tmp_path, endpoint=hub)
    assert (folder / "config.json").read_bytes() == FILES["org/good", "config.json"]
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert folder.name == COMMIT
    fetched = [line for line in Hub.seen if line.startswith("GET")]
    assert len(fetched) == 2
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert download("org/good", "v1", cache_dir=tmp_path, endpoint=hub) == folder
    assert [line for line in Hub.seen if line.startswith("GET")] == fetched


def test_configuration_alone(hub, tmp_path):
    folder = download("org/good", cache_dir=tmp_path, endpoint=hub, weights=False)
    assert [file.name for file in folder.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("repo", "revision", "words"),
    [
        ("org/private", None, "or it is private"),
        ("org/gated", None, "is gated"),
        ("org/good", "v9", "no revision 'v9'"),
        ("org/pickle", None, "has no model.safetensors. Pickled weights"),
        ("org/teapot", None, "The Hub answered 418"),
        ("not a repo id", None, "not a Hub repository id"),
    ],
)
def test_errors_say_what_and_the_way_out(hub, tmp_path, repo, revision, words):
    token = "hf_" + "S" * 30
    with pytest.raises(HubError) as caught:
        download(repo, revision, cache_dir=tmp_path, endpoint=hub, token=token)
    assert words in str(caught.value)
    assert token not in str(caught.value) and token not in repr(caught.value.__cause__)


def test_no_network(tmp_path, hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="cannot be reached"):
        download("org/good", cache_dir=tmp_path, endpoint="http://127.0.0.1:1")


def test_advice_names_methods_that_exist():
    from ld_hub.hub.downloads import _HOW_PUBLISHED
    from ld_hub.models.detector import DenseDetector

    named = re.findall(r"\bmodel\.([a-z]+_[a-z_]+)", " ".join(_HOW_PUBLISHED.values()))
    assert named and all(hasattr(DenseDetector, name) for name in named)
