"""What `tests.hub_server` keeps in memory: repositories, large files, faults to come; and their forms in JSON."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

LFS_FROM = 1_000_000  # bytes; weights always go there


@dataclass(frozen=True)
class Blob:
    content: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        """Of git: of a large file, that of the pointer to it."""
        stored = self.pointer if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        return text.encode()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str
    files: dict[str, Blob]
    message: str


@dataclass
class Repo:
    kind: str
    name: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def find(self, revision: str) -> Commit | None:
        names = (revision, f"refs/heads/{revision}", f"refs/tags/{revision}")
        oid = next((self.refs[name] for name in names if name in self.refs), revision)
        return self.commits.get(oid)

    def add(self, ref: str, parent: str, files: dict[str, Blob], message: str) -> Commit:
        text = f"{self.kind}/{self.name} {parent} {len(self.commits)} {message}"
        commit = Commit(hashlib.sha1(text.encode()).hexdigest(), parent, files, message)
        self.commits[commit.oid] = commit
        self.refs[ref] = commit.oid
        return commit


def is_large(path: str, size: int) -> bool:
    """Whether a file goes through LFS."""
    return size > 0 and (size >= LFS_FROM or path.endswith((".safetensors", ".bin", ".jpg", ".png", ".parquet")))


@dataclass
class Fault:
    """What happens instead of, or before, the answer to requests that fit."""

    method: str
    path: str
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    cut: int | None = None  # bytes of the request's body, or else of the answer's, after which the line goes dead
    lost: bool = False  # the request is carried out, and its answer never arrives
    before: Callable[[], None] | None = None
    times: int = 1_000


class Hub:
    """The state of the server; see `serving`."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.storage: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.part_size = 0  # larger than 0: uploads in parts of that many bytes
        self.faults: list[Fault] = []
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.unknown: list[str] = []
        self.broken: list[str] = []
        self.lock = threading.RLock()
        self.endpoint = self.cdn = ""

    def fault(self, method: str, path: str, **what: Any) -> None:
        """Answer requests whose path has a match of the regular expression as a `Fault` says."""
        self.faults.append(Fault(method, path, **what))

    def create(self, name: str, kind: str = "models", private: bool = False) -> Repo:
        repo = self.repos[kind, name] = Repo(kind, name, private)
        repo.add(
            "refs/heads/main", "", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", False)}, "initial commit"
        )
        return repo

    def commit(self, name: str, files: Mapping[str, bytes | None], kind: str = "models", ref: str = "main") -> Commit:
        """Put files into a repository as somebody else would; None removes one."""
        repo = self.repos.get((kind, name)) or self.create(name, kind)
        parent = repo.find(ref)
        assert parent is not None
        kept = {path: blob for path, blob in parent.files.items() if path not in files}
        new = {
            path: Blob(content, is_large(path, len(content))) for path, content in files.items() if content is not None
        }
        return repo.add(f"refs/heads/{ref}", parent.oid, kept | new, "by hand")

    def files(self, name: str, revision: str = "main", kind: str = "models") -> dict[str, bytes]:
        """Contents by path."""
        commit = self.repos[kind, name].find(revision)
        assert commit is not None
        return {path: blob.content for path, blob in commit.files.items()}


def card(text: str) -> dict[str, Any] | None:
    found = re.match(r"---\r?\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    return yaml.safe_load(found[1]) if found else None


def card_errors(text: str) -> list[dict[str, str]]:
    """What the Hub checks of a card's metadata: that it is YAML, and an object."""
    try:
        facts = card(text)
    except yaml.YAMLError as error:
        return [{"message": f"invalid YAML: {error}"}]
    return [] if facts is None or isinstance(facts, dict) else [{"message": "the metadata must be an object"}]


def lfs(blob: Blob, digest: str) -> dict[str, Any] | None:
    facts = {digest: blob.sha256, "size": len(blob.content), "pointerSize": len(blob.pointer)}
    return facts if blob.lfs else None


def sibling(path: str, blob: Blob, detailed: bool) -> dict[str, Any]:
    facts = {"size": len(blob.content), "blobId": blob.oid, "lfs": lfs(blob, "sha256")}
    return {"rfilename": path, **(facts if detailed else {})}


def entry(path: str, blob: Blob) -> dict[str, Any]:
    large = {"lfs": lfs(blob, "oid")} if blob.lfs else {}
    return {"type": "file", "path": path, "size": len(blob.content), "oid": blob.oid, **large}


def folders(paths: Iterable[str]) -> list[str]:
    """Every folder that one of these files is in."""
    parts = [path.split("/")[:-1] for path in paths]
    return sorted({"/".join(names[:depth]) for names in parts for depth in range(1, len(names) + 1)})


def folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}
