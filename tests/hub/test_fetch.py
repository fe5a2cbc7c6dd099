"""Plain files from a loopback server: whole, resumed, refused; what is left on the disk after each."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import threading
import time

import pytest

from ld_hub.errors import HubError
from ld_hub.hub import fetch_file, one_at_a_time
from ld_hub.version import __version__
from tests.support.server import CONTENT, Server, breaks_after, one_after_another, status

DIGEST = hashlib.sha256(CONTENT).hexdigest()


def test_a_file_comes_whole_and_alone(server, tmp_path, capfd):
    assert fetch_file(f"{server}/a.pth", tmp_path / "new" / "a.pth", sha256=DIGEST[:8]) == DIGEST
    assert (tmp_path / "new" / "a.pth").read_bytes() == CONTENT
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "a.pth"]
    assert [headers["User-Agent"] for _, headers in Server.seen] == [f"ld_hub/{__version__}"]
    assert capfd.readouterr() == ("", "")  # no bar where there is no terminal


def test_a_bar_on_a_terminal(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fetch_file(f"{server}/a.pth", tmp_path / "a.pth", sha256=DIGEST)
    shown = capsys.readouterr()
    assert "a.pth: 100%" in shown.err and "1.05M/1.05M" in shown.err and shown.out == ""


def test_a_file_address_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("LD_HUB_OFFLINE", "1")
    (tmp_path / "source").write_bytes(CONTENT)
    assert fetch_file((tmp_path / "source").as_uri(), tmp_path / "a.pth", sha256=DIGEST) == DIGEST
    with pytest.raises(HubError, match="No such file"):
        fetch_file((tmp_path / "none").as_uri(), tmp_path / "b.pth")
    assert {path.name for path in tmp_path.iterdir()} == {"source", "a.pth"}


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed_and_keep_the_range(server, tmp_path, code):
    Server.answers = {
        "/old": status(code, Location="/new"),
        "/new": one_after_another(breaks_after(1000, ETag='"one"')),
    }
    fetch_file(f"{server}/old", tmp_path / "a.pth", sha256=DIGEST)
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert [path for path, _ in Server.seen] == ["/old", "/new", "/old", "/new"]
    assert Server.seen[3][1]["Range"] == "bytes=1000-"


def test_a_broken_transfer_goes_on_where_it_broke_within_a_call(server, tmp_path):
    Server.answers["/a"] = one_after_another(breaks_after(300_000, ETag='"one"'), status(503))
    assert fetch_file(f"{server}/a", tmp_path / "a.pth", sha256=DIGEST) == DIGEST
    assert [headers.get("Range") for _, headers in Server.seen] == [None, "bytes=300000-", "bytes=300000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_a_broken_transfer_goes_on_at_the_next_call(server, tmp_path):
    down = one_after_another(breaks_after(300_000, ETag='"one"'), status(503), status(503))
    Server.answers["/a"] = down
    with pytest.raises(HubError, match=r"answered 503.*300,000 bytes are kept.*belongs at '.*a\.pth'"):
        fetch_file(f"{server}/a", tmp_path / "a.pth", sha256=DIGEST)
    assert not (tmp_path / "a.pth").exists()
    assert (tmp_path / "a.pth.part").stat().st_size == 300_000
    Server.seen.clear()
    assert fetch_file(f"{server}/a", tmp_path / "a.pth", sha256=DIGEST) == DIGEST
    assert [(h.get("Range"), h.get("If-Range")) for _, h in Server.seen] == [("bytes=300000-", '"one"')]
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_the_part_of_another_file_is_not_used(server, tmp_path):
    Server.answers["/a"] = one_after_another(*[breaks_after(1000, ETag='"one"')] * 3)
    with pytest.raises(HubError, match="1,000 of 1,048,576 bytes"):
        fetch_file(f"{server}/a", tmp_path / "a.pth", sha256=DIGEST)
    Server.content, Server.etag = CONTENT[::-1], '"two"'  # the file was replaced meanwhile
    digest = hashlib.sha256(Server.content).hexdigest()
    assert fetch_file(f"{server}/a", tmp_path / "a.pth", sha256=digest) == digest
    assert (tmp_path / "a.pth").read_bytes() == Server.content


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"weak"'}])
def test_without_a_strong_validator_a_part_is_not_kept(server, tmp_path, headers):
    Server.answers["/a"] = breaks_after(1000, **headers)
    with pytest.raises(HubError, match="ended after 1,000 of 1,048,576 bytes") as caught:
        fetch_file(f"{server}/a", tmp_path / "a.pth", sha256=DIGEST)
    assert "kept" not in str(caught.value)
    assert len(Server.seen) == 3 and not any("Range" in headers for _, headers in Server.seen)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"\xff\xfe\x00", b'"one"\n', b"\x00\x00\x00\x00", b""])
def test_a_part_whose_validator_is_damaged_is_not_used(server, tmp_path, damage):
    (tmp_path / "a.pth.part").write_bytes(CONTENT[:1000])
    (tmp_path / "a.pth.part.validator").write_bytes(damage)
    assert fetch_file(f"{server}/a", tmp_path / "a.pth", sha256=DIGEST) == DIGEST
    assert not any("Range" in headers for _, headers in Server.seen)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_a_part_that_is_longer_than_the_file_is_dropped(server, tmp_path):
    (tmp_path / "a.pth.part").write_bytes(CONTENT + b"more")
    (tmp_path / "a.pth.part.validator").write_text('"one"')
    Server.answers["/a"] = one_after_another(status(416, Content_Range=f"bytes */{len(CONTENT)}"))
    assert fetch_file(f"{server}/a", tmp_path / "a.pth", sha256=DIGEST) == DIGEST
    assert [headers.get("Range") for _, headers in Server.seen] == [f"bytes={len(CONTENT) + 4}-", None]


@pytest.mark.parametrize(
    ("answer", "tries", "words"),
    [
        (status(404), 1, r"answered 404 \(Not Found\): the file has moved or was withdrawn"),
        (status(410), 1, "answered 410"),
        (status(403), 1, "answered 403"),
        (status(500), 3, "answered 500"),
        (status(302, Location="ftp://127.0.0.1/a"), 1, "redirects to ftp://127.0.0.1/a, which is not followed"),
        (status(302, Location="file:///etc/hostname"), 1, "file:///etc/hostname' is not allowed"),
        (status(302, Location="/a"), None, "infinite loop"),
        (lambda self: self.wfile.write(b"what?\r\n\r\n"), 3, "could not be fetched"),
    ],
)
def test_an_answer_that_is_no_file(server, tmp_path, answer, tries, words):
    Server.answers["/a"] = answer
    with pytest.raises(HubError, match=words) as caught:
        fetch_file(f"{server}/a", tmp_path / "a.pth", sha256=DIGEST)
    assert f"{server}/a" in str(caught.value)
    assert f"belongs at '{tmp_path / 'a.pth'}'" in str(caught.value)
    assert tries in (len(Server.seen), None)
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_deleted_and_named(server, tmp_path):
    Server.content = b"<!DOCTYPE html><html>Please log in</html>"
    with pytest.raises(HubError, match=r"a web page.*expected to start with .*nothing of it was read"):
        fetch_file(f"{server}/a", tmp_path / "a.pth", sha256=DIGEST[:8])
    assert list(tmp_path.iterdir()) == []


def test_no_network(server, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr("ld_hub.hub.fetch.PAUSES_S", (0.25, 1.5))
    monkeypatch.setattr("time.sleep", pauses.append)
    with pytest.raises(HubError, match=r"could not be fetched: .*refused.*Check the network.*belongs at"):
        fetch_file("http://127.0.0.1:9/a", tmp_path / "a.pth")
    assert pauses == [0.25, 1.5]
    assert list(tmp_path.iterdir()) == []


def test_silence_is_a_broken_transfer(server, tmp_path, monkeypatch):
    monkeypatch.setattr("ld_hub.hub.fetch.TIMEOUT_S", 0.1)
    over = threading.Event()

    def stalls(self: Server) -> None:
        breaks_after(1000, ETag='"one"')(self)
        self.wfile.flush()
        over.wait(10)

    Server.answers["/a"] = stalls
    with pytest.raises(HubError, match=r"timed out.*1,000 bytes are kept"):
        fetch_file(f"{server}/a", tmp_path / "a.pth")
    over.set()


@pytest.mark.parametrize("name", ["LD_HUB_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_asks_nobody(server, tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, "true")
    with pytest.raises(HubError, match=rf"{name}=true forbids the network.*belongs at"):
        fetch_file(f"{server}/a", tmp_path / "a.pth")
    assert Server.seen == [] and list(tmp_path.iterdir()) == []
    monkeypatch.setenv(name, "0")
    assert fetch_file(f"{server}/a", tmp_path / "a.pth") == DIGEST


def test_other_addresses_are_refused(tmp_path):
    for url in ("ftp://example.org/a", "data:,a", "a.pth"):
        with pytest.raises(HubError, match="expected an address that starts with https://"):
            fetch_file(url, tmp_path / "a.pth")


def test_a_full_disk(server, tmp_path, monkeypatch):
    real = open

    def full(path, *arguments, **options):
        stream = real(path, *arguments, **options)
        if str(path).endswith(".part") and "b" in arguments[0] and arguments[0] != "rb":
            stream.write(b"some")

            class Full:
                def __enter__(self):
                    return self

                def __exit__(self, *_):
                    stream.close()

                def write(self, block):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            return Full()
        return stream

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(HubError, match=r"the disk is full.*Make room there.*LD_HUB_CACHE=DIR"):
        fetch_file(f"{server}/a", tmp_path / "a.pth")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HubError, match=r"cannot be written.*LD_HUB_CACHE=DIR"):
        fetch_file(f"{server}/a", tmp_path / "file" / "a.pth")
    with pytest.raises(HubError, match="cannot be written"), one_at_a_time(tmp_path / "file" / "a"):
        pass
    assert Server.seen == []


def test_the_lock_lets_one_in_at_a_time(tmp_path):
    events = []

    def hold() -> None:
        with one_at_a_time(tmp_path / "a"):
            events.append("in")
            time.sleep(0.02)
            events.append("out")

    workers = [threading.Thread(target=hold) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    assert events == ["in", "out"] * 4
    assert not (tmp_path / "a").exists()
