"""`download` against the stand-in Hub: what was published arrives whole, or an error says why not."""

from __future__ import annotations

import errno
import os
import traceback

import pytest

from ld_hub.errors import HubError
from ld_hub.hub import download
from ld_hub.hub.downloads import first_line
from tests.hub_server import READER, STRANGER, WRITER
from tests.support.hub_client import connected

hub = pytest.fixture(connected)
REPO, WEIGHTS = "org/name", bytes(range(256)) * 400
FILES = {"config.json": b'{"model_type": "ld_hub"}', "model.safetensors": WEIGHTS}


def left(cache):
    """Files of the cache that hold anything of a repository."""
    return sorted(
        path.name for path in cache.rglob("*") if path.parent.name == "blobs" and path.suffix != ".incomplete"
    )


def test_both_files_of_one_commit_although_another_is_published_meanwhile(hub, tmp_path):
    first = hub.commit(REPO, FILES)
    newer = {"config.json": b"{}", "model.safetensors": b"other"}
    hub.fault("HEAD", "model.safetensors", before=lambda: hub.commit(REPO, newer), times=1)
    folder = download(REPO)
    assert folder.name == first.oid
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert download(REPO).name != first.oid  # the next call sees what is new


def test_revisions(hub):
    first = hub.commit(REPO, FILES)
    hub.repos["models", REPO].refs["refs/tags/v1"] = first.oid
    hub.commit(REPO, {"model.safetensors": b"other"})
    for revision in ("v1", first.oid):
        assert (download(REPO, revision) / "model.safetensors").read_bytes() == WEIGHTS
    assert (download(REPO, "main") / "model.safetensors").read_bytes() == b"other"


def test_private_ones_need_a_token(hub, monkeypatch):
    hub.create(REPO, private=True)
    hub.commit(REPO, FILES)
    for token in (STRANGER, False):
        with pytest.raises(HubError, match=r"or it is private \(401/404\)\. .* pass token="):
            download(REPO, token=token)
    assert download(REPO, token=READER) == download(REPO)  # HF_TOKEN is the writer's
    assert all("authorization" not in headers for _, path, headers in hub.seen if path.startswith("/storage"))


@pytest.mark.parametrize("what", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "hf auth login"),
        (403, "may not read"),
        (404, "404"),
        (429, "wait"),
        (500, "try later"),
        (503, "try later"),
    ],
)
def test_a_refusal(hub, tmp_path, what, method, status, words):
    hub.commit(REPO, FILES)
    at = "/storage/" if (method, what) == ("GET", "model.safetensors") else f"/resolve/.*{what}"
    hub.fault(method, at, status=status, body=b'{"error": "said to ' + WRITER.encode() + b'"}')
    with pytest.raises(HubError) as caught:
        download(REPO)
    assert words in str(caught.value) and REPO in str(caught.value)
    assert WRITER not in "".join(traceback.format_exception(caught.value))
    assert len(left(tmp_path / "cache")) == (what == "model.safetensors")


def test_a_line_that_goes_dead_and_comes_back(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 5_000)
    hub.commit(REPO, FILES)
    hub.fault("GET", "/storage/", cut=10_000, times=2)
    assert (download(REPO) / "model.safetensors").read_bytes() == WEIGHTS
    ranges = [headers.get("range") for _, path, headers in hub.seen if path.startswith("/storage/")]
    assert ranges == [None, "bytes=10000-", "bytes=20000-"]


@pytest.mark.parametrize("cut", [0, 10_000])
def test_a_line_that_stays_dead(hub, tmp_path, cut):
    hub.commit(REPO, FILES)
    hub.fault("GET", "/storage/", cut=cut, times=1)
    hub.fault("GET", "/storage/", cut=0)
    with pytest.raises(HubError, match=r"model\.safetensors of 'org/name' did not arrive whole .*: try again\."):
        download(REPO)
    assert len(left(tmp_path / "cache")) == 1  # the configuration
    hub.faults.clear()
    assert (download(REPO) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_full_disk(hub, tmp_path, monkeypatch):
    hub.commit(REPO, FILES)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.file_download._check_disk_space", full)
    with pytest.raises(HubError, match=r"the disk is full\. Make room there, .*HF_HOME=DIR or cache_dir=DIR"):
        download(REPO)
    assert left(tmp_path / "cache") == []


def test_pickles_are_not_looked_at(hub):
    hub.commit(REPO, {"config.json": b"{}", "pytorch_model.bin": b"\x80\x04.", "model.pth": b"\x80\x04."})
    with pytest.raises(HubError, match=r"has no model\.safetensors\. Pickled weights .* are not loaded from the Hub"):
        download(REPO)
    assert not any("pytorch_model" in path or ".pth" in path for _, path, _ in hub.seen)


def test_what_was_fetched_serves_when_the_hub_is_down(hub, monkeypatch):
    hub.commit(REPO, FILES)
    folder = download(REPO)
    hub.fault("HEAD", "/", status=503)
    assert download(REPO) == folder
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.seen.clear()
    assert download(REPO) == folder and hub.seen == []


def test_tokens_of_any_form_are_cut_out_of_what_the_hub_says():
    error = ValueError("told odd.token+1 and hf_abcdefgh at https://host/file?X-Signature=abc&b=c today")
    assert first_line(error, ["odd.token+1"]) == "told … and … at https://host/file?… today"
