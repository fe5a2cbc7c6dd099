"""The stand-in Hub against the real client: what it answers is what the client's own parsing makes of it."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from tests.hub_server import READER, STRANGER, WRITER, serving
from tests.support.hub_client import connected, environment

hub = pytest.fixture(connected)
WEIGHTS = bytes(range(256)) * 100
CARD = "---\nlicense: mit\ntags: [a, b]\n---\nText.\n"


def push(api, repo="org/name", **options):
    files = {"README.md": CARD.encode(), "sub/model.safetensors": WEIGHTS, "sub/deep/a.json": b"{}"}
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    api.create_repo(repo, exist_ok=True)
    return api.create_commit(repo, operations, commit_message="First", **options)


@pytest.mark.parametrize("part_size", [0, 7000])
def test_a_commit_and_all_that_can_be_asked_about_it(hub, part_size, tmp_path):
    hub.part_size = part_size
    api = HfApi()
    commit = push(api)
    info = api.model_info("org/name", files_metadata=True)
    assert (info.id, info.sha, info.private, info.card_data.license) == ("org/name", commit.oid, False, "mit")
    assert commit.commit_url == f"{hub.endpoint}/org/name/commit/{commit.oid}" and commit.pr_url is None
    sizes = {sibling.rfilename: (sibling.size, sibling.lfs and sibling.lfs.sha256) for sibling in info.siblings}
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    assert sizes["sub/model.safetensors"] == (25600, digest) and sizes["README.md"] == (len(CARD), None)
    tree = list(api.list_repo_tree("org/name", recursive=True))
    assert [entry.path for entry in tree] == [
        "sub", "sub/deep", ".gitattributes", "README.md", "sub/deep/a.json", "sub/model.safetensors",
    ]  # fmt: skip
    assert [entry.path for entry in api.list_repo_tree("org/name", "sub")] == ["sub/deep", "sub/model.safetensors"]
    assert tree[-1].lfs.sha256 == digest and tree[-1].lfs.pointer_size == 130
    known = api.get_paths_info("org/name", ["sub", "README.md", "none"])
    assert [(type(one).__name__, one.path) for one in known] == [("RepoFile", "README.md"), ("RepoFolder", "sub")]
    folder = snapshot_download("org/name", cache_dir=tmp_path)
    assert (tmp_path / folder / "sub/model.safetensors").read_bytes() == WEIGHTS
    assert ModelCard.load("org/name").data.tags == ["a", "b"]
    assert all("authorization" not in headers for _, path, headers in hub.seen if path.startswith("/storage"))


def test_branches_tags_and_pull_requests(hub):
    api = HfApi()
    first = push(api)
    api.create_tag("org/name", tag="v1")
    api.create_branch("org/name", branch="next")
    addition = [CommitOperationAdd("b.txt", b"b")]
    proposal = api.create_commit("org/name", addition, commit_message="B", create_pr=True)
    assert (proposal.pr_url, proposal.pr_revision) == (f"{hub.endpoint}/org/name/discussions/1", "refs/pr/1")
    refs = api.list_repo_refs("org/name", include_pull_requests=True)
    assert {branch.name: branch.target_commit for branch in refs.branches} == {"main": first.oid, "next": first.oid}
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("v1", first.oid)]
    assert [(pull.ref, pull.target_commit) for pull in refs.pull_requests] == [("refs/pr/1", proposal.oid)]
    assert "b.txt" in api.list_repo_files("org/name", revision="refs/pr/1")
    assert "b.txt" not in api.list_repo_files("org/name", revision="main")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("org/name", revision="v2")
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download("org/name", "none.txt")
    again = api.create_commit("org/name", [CommitOperationAdd("README.md", CARD.encode())], commit_message="Same")
    assert again.oid == first.oid  # the client finds that nothing has changed


def test_rights(hub):
    push(HfApi())
    hub.create("org/secret", private=True)
    for token, status in ((READER, 403), (STRANGER, 403), ("hf_" + "x" * 34, 401), (False, 401)):
        with pytest.raises(HfHubHTTPError) as caught:
            HfApi(token=token).create_commit("org/name", [CommitOperationAdd("a", b"a")], commit_message="A")
        assert caught.value.response.status_code == status
    assert HfApi(token=READER).model_info("org/secret").private is True
    for token in (STRANGER, False):
        with pytest.raises(RepositoryNotFoundError):
            HfApi(token=token).model_info("org/secret")
    assert HfApi(token=WRITER).repo_exists("org/secret") and not HfApi(token=WRITER).repo_exists("org/none")


def test_a_parent_that_is_not_the_head_any_more(hub):
    api = HfApi()
    first = push(api)
    hub.commit("org/name", {"other.txt": b"1"})
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_commit(
            "org/name", [CommitOperationAdd("a", b"a")], commit_message="A", parent_commit=first.oid
        )  # fmt: skip
    assert caught.value.response.status_code == 412 and "commit has happened since" in str(caught.value)


def test_a_card_that_is_no_yaml(hub):
    HfApi().create_repo("org/name")
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        HfApi().create_commit(
            "org/name", [CommitOperationAdd("README.md", b"---\na: [\n---\n")], commit_message="A"
        )  # fmt: skip


def test_what_the_server_does_not_know_fails_the_test():
    with pytest.raises(AssertionError, match="GET /api/models/org/name/discussions"), serving() as hub:
        hub.create("org/name")
        with pytest.raises(HfHubHTTPError, match="does not know"):
            list(HfApi(endpoint=hub.endpoint, token=WRITER).get_repo_discussions("org/name"))


# The child ends without the interpreter's own end, at which pyarrow's threads may abort it.
_DATASETS = """
import os
import datasets
rows = datasets.load_dataset("org/shapes", split="train")
assert rows["a"][:] == [1, 2], rows
rows.push_to_hub("org/again")
assert list(datasets.load_dataset("org/again", split="train", streaming=True)) == [{"a": 1}, {"a": 2}]
os._exit(0)
"""


def test_the_datasets_library_reads_and_publishes(tmp_path):
    with serving() as hub:
        hub.commit("org/shapes", {"train.jsonl": b'{"a": 1}\n{"a": 2}\n'}, kind="datasets")
        child = subprocess.run(
            [sys.executable, "-c", _DATASETS],
            env=environment(hub, tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
    assert child.returncode == 0, child.stderr
    assert "data/train-00000-of-00001.parquet" in hub.files("org/again", kind="datasets")
