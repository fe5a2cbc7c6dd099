"""`upload`, through the real client against the stand-in Hub: one commit or nothing, and an error that says which."""

from __future__ import annotations

import logging
import traceback

import pytest

from ld_hub.errors import ConfigError, HubError
from ld_hub.hub.upload import upload
from tests.hub_server import READER, WRITER
from tests.support.hub_client import connected

hub = pytest.fixture(connected)
REPO = "org/name"
AS_IT_WAS = "Nothing was published; 'org/name' is as it was."


@pytest.fixture
def files(tmp_path):
    """What is to be published."""
    contents = {
        "README.md": b"---\nlicense: mit\n---\nnew",
        "model.safetensors": b"weights" * 9999,
        "eval/a.json": b"{}",
    }
    for name, content in contents.items():
        place = tmp_path / "files" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return {name: tmp_path / "files" / name for name in contents}


def push(files, repo=REPO, **options):
    def renew(existing, new):
        return f"{new} | {existing}"

    return upload(repo, files, **{"commit_message": "Publish", "renew_card": renew, **options})


def commits(hub, repo=REPO):
    """All commits that anybody can reach: the first one is the Hub's own."""
    return len(hub.repos["models", repo].commits)


def test_a_new_repository(hub, files):
    commit = push(files, private=True)
    assert str(commit) == commit.commit_url == f"{hub.endpoint}/org/name/commit/{commit.oid}"
    assert hub.repos["models", REPO].private
    assert hub.files(REPO) == {
        ".gitattributes": b"*.safetensors filter=lfs\n",
        **{name: path.read_bytes() for name, path in files.items()},
    }
    assert commits(hub) == 2 and hub.repos["models", REPO].commits[commit.oid].message == "Publish"


def test_what_belongs_to_others_stays_and_what_is_stale_goes(hub, files):
    theirs = {
        "README.md": "their words: é 🐕".encode(),
        "notes.txt": b"n",
        "eval/old.json": b"{}",
        "evaluate.json": b"e",
    }
    hub.commit(REPO, theirs)
    push(files, owned=("eval/*.json",))
    found = hub.files(REPO)
    assert found["README.md"].decode() == "---\nlicense: mit\n---\nnew | their words: é 🐕"
    assert found["notes.txt"] == b"n" and found["evaluate.json"] == b"e"
    assert "eval/old.json" not in found and found["eval/a.json"] == b"{}"
    assert commits(hub) == 3


def test_the_same_again_is_no_commit(hub, files):
    first = push(files, renew_card=lambda existing, new: existing)
    assert push(files, renew_card=lambda existing, new: existing).oid == first.oid and commits(hub) == 2


def test_a_branch_and_a_pull_request(hub, files):
    hub.commit(REPO, {"a.txt": b"a"})
    push(files, revision="next")
    assert "model.safetensors" in hub.files(REPO, "next") and "model.safetensors" not in hub.files(REPO)
    proposal = push(files, create_pr=True, token=READER)  # who may not write may propose
    assert proposal.pr_url == f"{hub.endpoint}/org/name/discussions/1"
    assert "model.safetensors" in hub.files(REPO, "refs/pr/1") and "model.safetensors" not in hub.files(REPO)


def test_large_files_in_parts(hub, files):
    hub.part_size = 20_000
    push(files)
    assert hub.files(REPO)["model.safetensors"] == b"weights" * 9999
    assert sum(method == "PUT" for method, _, _ in hub.seen) == 4  # 69,993 bytes


STEPS = (
    ("POST", "/api/repos/create"),
    ("GET", "/api/models/org/name$"),
    ("HEAD", "/resolve/"),
    ("POST", "/api/validate-yaml"),
    ("POST", "/preupload/"),
    ("POST", "/info/lfs/objects/batch"),
    ("PUT", "/storage/"),
    ("POST", "/lfs-verify/"),
    ("POST", "/commit/"),
)
ADVICE = {
    401: "hf auth login",
    403: "write access",
    404: "org/name",
    429: "wait some minutes",
    500: "Try later",
    503: "Try later",
}


@pytest.mark.parametrize("status", ADVICE)
@pytest.mark.parametrize("step", STEPS, ids=[path for _, path in STEPS])
def test_a_refusal_at_any_step_changes_nothing(hub, files, step, status):
    exists = not step[1].endswith("/create")  # else a refusal of it means nothing
    if exists:
        hub.commit(REPO, {"README.md": b"theirs"})
    before = dict(hub.repos)
    hub.fault(*step, status=status, body=b'{"error": "said the Hub, to hf_' + WRITER[3:].encode() + b'"}')
    with pytest.raises(HubError) as caught:
        push(files)
    text = str(caught.value)
    assert text.startswith("Publishing 'org/name' failed: ") and ADVICE[status] in text and str(status) in text
    assert text.endswith(AS_IT_WAS)
    assert hub.repos == before and (not exists or commits(hub) == 2)
    assert WRITER not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("step", STEPS, ids=[path for _, path in STEPS])
def test_a_line_that_goes_dead_at_any_step_changes_nothing(hub, files, step):
    hub.commit(REPO, {"README.md": b"theirs"})
    before = hub.files(REPO)
    hub.fault(*step, cut=0 if step[0] in ("GET", "HEAD") else 20)
    with pytest.raises(HubError) as caught:
        push(files)
    assert str(caught.value).startswith("Publishing 'org/name' failed: ")
    assert hub.files(REPO) == before and commits(hub) == 2


def test_a_passing_trouble_is_got_over(hub, files):
    hub.fault("PUT", "/storage/", cut=1000, times=2)
    hub.fault("PUT", "/storage/", status=503, times=1)
    push(files)
    assert hub.files(REPO)["model.safetensors"] == b"weights" * 9999


def test_an_answer_that_was_lost_is_not_called_a_failure_of_the_commit(hub, files):
    hub.fault("POST", "/commit/", lost=True)
    with pytest.raises(HubError, match="There is a new commit meanwhile, this one or another: look at 'org/name'"):
        push(files)
    assert "model.safetensors" in hub.files(REPO)


def test_a_server_that_is_gone(hub, files):
    with pytest.raises(HubError, match=r"connection to the Hub broke .*Check the network .*Nothing was published"):
        push(files, endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize("moment", ["/api/validate-yaml", "/preupload/", "/commit/"])
def test_two_at_the_same_time(hub, files, moment):
    hub.create(REPO)
    hub.fault("POST", moment, before=lambda: hub.commit(REPO, {"README.md": b"the other's"}), times=1)
    with pytest.raises(HubError, match=r"answered 412 .*at the same time\. Look at it, then publish again\."):
        push(files)
    assert hub.files(REPO)["README.md"] == b"the other's" and commits(hub) == 2
    push(files)
    assert hub.files(REPO)["README.md"].endswith(b"new | the other's")


def test_a_public_repository_that_was_to_be_private(hub, files):
    hub.create(REPO)
    with pytest.raises(HubError, match=r"exists and is public, and private=True was asked for"):
        push(files, private=True)
    assert commits(hub) == 1


def test_a_card_that_cannot_be_kept(hub, files, monkeypatch):
    hub.commit(REPO, {"README.md": b"\xff\xfe\x00"})
    with pytest.raises(HubError, match="is not UTF-8 text, so what its owner wrote cannot be kept"):
        push(files)
    hub.commit(REPO, {"README.md": b"long"})
    monkeypatch.setattr("ld_hub.hub.upload.MAX_CARD_BYTES", 3)
    with pytest.raises(HubError, match="has 4 bytes; at most 3"):
        push(files)

    def refuses(existing, new):
        raise ConfigError("the marks are broken")

    monkeypatch.setattr("ld_hub.hub.upload.MAX_CARD_BYTES", 9)
    with pytest.raises(ConfigError, match=r"^the marks are broken$"):
        push(files, renew_card=refuses)
    assert commits(hub) == 3


def test_a_card_that_the_hub_refuses(hub, files):
    files["README.md"].write_text("---\na: [\n---\n")
    with pytest.raises(HubError, match=r"Invalid metadata in README\.md.*Nothing was published"):
        push(files)
    assert commits(hub) == 1


def test_nothing_is_asked_of_the_hub_offline_or_with_a_token_in_a_file(hub, files, monkeypatch):
    for content in (f"key: {WRITER}", "hub: hf_" + "A" * 34):
        files["eval/a.json"].write_text(content)
        with pytest.raises(HubError, match=r"'eval/a\.json' .* holds an access token") as caught:
            push(files)
        assert "hf_" not in str(caught.value)
    files["eval/a.json"].write_text("an-odd-token-of-a-mirror")
    with pytest.raises(HubError, match="holds an access token"):
        push(files, token="an-odd-token-of-a-mirror")
    monkeypatch.setenv("LD_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match="LD_HUB_OFFLINE forbids the network"):
        push(files)
    assert hub.seen == []


def test_a_name_that_is_none(hub, files):
    with pytest.raises(HubError, match=r"no repository id .*Ids look like 'org/name'"):
        push(files, repo="a/b/c")


def test_no_token_in_the_log(hub, files, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    hub.fault("PUT", "/storage/", status=503, times=1)
    push(files)
    shown = capfd.readouterr()
    assert "/preupload/" in caplog.text  # something was logged
    assert WRITER not in caplog.text + shown.out + shown.err
    assert not any(WRITER.encode() in content for content in hub.files(REPO).values())
