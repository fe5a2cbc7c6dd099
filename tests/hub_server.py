"""A Hub for tests: a loopback server that speaks the endpoints which huggingface_hub (and datasets) use.

Repositories live in memory: commits with their files, branches, tags, pull requests; large files go through the LFS
endpoints to a storage under another host name, which must never see a token. What the server does not know is noted in
`Hub.unknown`, and whoever runs it asserts that there is nothing. Faults are set by `Hub.fault`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.hub_state import (
    Blob,
    Commit,
    Hub,
    Repo,
    card,
    card_errors,
    entry,
    folder,
    folders,
    is_large,
    sibling,
)

WRITER, READER, STRANGER = ("hf_" + letter * 34 for letter in "wrs")
RIGHTS: dict[str, set[str]] = {WRITER: {"read", "write"}, READER: {"read"}, STRANGER: set()}  # on all repositories


class Refused(Exception):
    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def _any(self) -> None:
        split = urlsplit(self.path)
        self.where, self.query = split.path, parse_qs(split.query)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.seen.append((self.command, self.where, headers))
        self.cut: int | None = None
        fits = (f for f in self.hub.faults if f.times and f.method == self.command and re.search(f.path, self.where))
        fault = next(fits, None)
        if fault is not None:
            fault.times -= 1
            if fault.before is not None:
                fault.before()
            elif fault.cut is not None and self.command in ("PUT", "POST"):
                self.rfile.read(fault.cut)
                return
            elif fault.status:
                self._body()
                return self._send(fault.status, fault.body, fault.headers)
            self.cut = -1 if fault.lost else fault.cut
        try:
            with self.hub.lock:
                self._answer(self._body())
        except Refused as no:
            extra = {"X-Error-Code": no.code} if no.code else {}
            self._json({"error": str(no)}, no.status, {**extra, "X-Error-Message": str(no)})
        except Exception:
            self.hub.broken.append(f"{self.command} {self.path}\n{traceback.format_exc()}")
            self._json({"error": "the test server broke"}, 418)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _any

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        if self.cut == -1 or (self.cut is not None and self.command == "HEAD"):
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: self.cut])

    def _json(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _answer(self, body: bytes) -> None:
        for method, pattern, answer in ROUTES:
            found = re.fullmatch(pattern, self.where)
            if found and self.command in method.split():
                words = {name: unquote(value or "") for name, value in found.groupdict().items()}
                return answer(self, body, **words)
        self.hub.unknown.append(f"{self.command} {self.path}")
        raise Refused(400, f"The test server does not know {self.command} {self.path}")

    def nothing(self, _: bytes) -> None:
        """What the client asks for its own statistics; it goes on without."""
        raise Refused(404, "Not found")

    # Rights

    def _rights(self) -> set[str]:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in RIGHTS:
            raise Refused(401, "Invalid credentials in Authorization header")
        return RIGHTS.get(token, set())

    def _repo(self, kind: str, name: str, right: str = "read") -> Repo:
        repo, rights = self.hub.repos.get((kind or "models", name)), self._rights()
        if repo is None or (repo.private and "read" not in rights):
            status = 404 if self.headers.get("Authorization") else 401
            raise Refused(status, "Repository not found", "RepoNotFound")
        if right == "write":
            self._require_write()
        return repo

    def _require_write(self) -> None:
        rights = self._rights()
        if "Authorization" not in self.headers:
            raise Refused(401, "Invalid username or password.")
        if "write" not in rights:
            raise Refused(403, "You don't have the rights to write here")

    def _commit_of(self, repo: Repo, revision: str) -> Commit:
        commit = repo.find(revision)
        if commit is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # Repositories

    def create(self, body: bytes) -> None:
        wish = json.loads(body)
        self._require_write()
        kind, name = f"{wish.get('type') or 'model'}s", f"{wish['organization']}/{wish['name']}"
        prefix = "" if kind == "models" else f"{kind}/"
        answer = {"url": f"{self.hub.endpoint}/{prefix}{name}", "name": name, "id": "0" * 24}
        if (kind, name) in self.hub.repos:
            return self._json({**answer, "error": f"You already created this {kind[:-1]} repo: {name}"}, 409)
        private = wish.get("private") or wish.get("visibility") == "private"
        self.hub.create(name, kind, bool(private))
        self._json(answer)

    def validate_yaml(self, body: bytes) -> None:
        errors = card_errors(json.loads(body)["content"])
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def info(self, _: bytes, kind: str, name: str, revision: str = "") -> None:
        repo = self._repo(kind, name)
        commit = self._commit_of(repo, revision or "main")
        siblings = [sibling(path, blob, "blobs" in self.query) for path, blob in sorted(commit.files.items())]
        text = commit.files["README.md"].content.decode(errors="replace") if "README.md" in commit.files else ""
        facts = {"id": name, "modelId": name, "author": name.split("/", maxsplit=1)[0], "sha": commit.oid}
        facts |= {
            "private": repo.private,
            "gated": False,
            "disabled": False,
            "lastModified": "2024-01-01T00:00:00.000Z",
        }
        self._json({**facts, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings, "cardData": card(text)})

    def tree(self, _: bytes, kind: str, name: str, revision: str, below: str = "") -> None:
        commit = self._commit_of(self._repo(kind, name), revision)
        start = f"{below}/" if below else ""
        found = {path: blob for path, blob in sorted(commit.files.items()) if path.startswith(start)}
        if below and not found:
            raise Refused(404, "Not found", "EntryNotFound")
        everything = self.query.get("recursive", [""])[0].lower() in ("true", "1")
        paths = [path for path in [*folders(found), *found] if path.startswith(start)]
        shown = [path for path in paths if everything or "/" not in path[len(start) :]]
        self._json([entry(path, found[path]) if path in found else folder(path) for path in shown])

    def paths_info(self, body: bytes, kind: str, name: str, revision: str) -> None:
        commit = self._commit_of(self._repo(kind, name), revision)
        kind_of_body = self.headers.get("Content-Type", "")
        wanted = json.loads(body)["paths"] if "json" in kind_of_body else parse_qs(body.decode())["paths"]
        wanted = [wanted] if isinstance(wanted, str) else wanted
        files = [entry(path, commit.files[path]) for path in wanted if path in commit.files]
        self._json([*files, *[folder(path) for path in folders(commit.files) if path in wanted]])

    def refs(self, _: bytes, kind: str, name: str) -> None:
        kinds = {"branches": "refs/heads/", "tags": "refs/tags/", "pullRequests": "refs/pr/"}
        refs = self._repo(kind, name).refs.items()
        listed = {
            title: [
                {"name": ref.removeprefix(start), "ref": ref, "targetCommit": oid}
                for ref, oid in refs
                if ref.startswith(start)
            ]
            for title, start in kinds.items()
        }
        self._json({**listed, "converts": []})

    def branch(self, body: bytes, kind: str, name: str, branch: str) -> None:
        repo = self._repo(kind, name, "write")
        if f"refs/heads/{branch}" in repo.refs:
            raise Refused(409, "Reference already exists")
        start = json.loads(body).get("startingPoint", "main") if body else "main"
        repo.refs[f"refs/heads/{branch}"] = self._commit_of(repo, start).oid
        self._json({})

    def tag(self, body: bytes, kind: str, name: str, revision: str) -> None:
        repo = self._repo(kind, name, "write")
        tag = f"refs/tags/{json.loads(body)['tag']}"
        if tag in repo.refs:
            raise Refused(409, "Tag reference exists already")
        repo.refs[tag] = self._commit_of(repo, revision).oid
        self._json({})

    # Upload

    def preupload(self, body: bytes, kind: str, name: str, revision: str) -> None:
        repo = self._repo(kind, name, "read" if "create_pr" in self.query else "write")
        commit = self._commit_of(repo, revision)
        files = []
        for one in json.loads(body)["files"]:
            assert len(base64.b64decode(one["sample"])) == min(512, one["size"])
            known = commit.files.get(one["path"])
            mode = "lfs" if is_large(one["path"], one["size"]) else "regular"
            oid = {"oid": known.etag} if known else {}
            files.append({"path": one["path"], "uploadMode": mode, "shouldIgnore": False, **oid})
        self._json({"files": files, "commitOid": commit.oid})

    def lfs_batch(self, body: bytes, kind: str, name: str) -> None:
        self._repo(kind, name)
        wish = json.loads(body)
        assert wish["operation"] == "upload" and wish["hash_algo"] == "sha256"
        objects = []
        for one in wish["objects"]:
            place = f"{self.hub.cdn}/storage/{one['oid']}"
            upload: dict[str, Any] = {"href": place}
            if self.hub.part_size:
                count = -(-one["size"] // self.hub.part_size)
                parts = {str(number): f"{place}/{number}" for number in range(1, count + 1)}
                upload = {"href": f"{place}/complete", "header": {"chunk_size": str(self.hub.part_size), **parts}}
            verify = {"href": f"{self.hub.endpoint}/lfs-verify/{one['oid']}"}
            actions = {} if one["oid"] in self.hub.storage else {"actions": {"upload": upload, "verify": verify}}
            objects.append({"oid": one["oid"], "size": one["size"], **actions})
        transfer = "multipart" if self.hub.part_size else "basic"
        assert transfer in wish["transfers"]
        self._json({"transfer": transfer, "objects": objects})

    def lfs_verify(self, body: bytes, oid: str) -> None:
        told = json.loads(body)
        content = self.hub.storage.get(oid)
        self._require_write()
        if told["oid"] != oid or content is None or len(content) != told["size"]:
            raise Refused(422, "The object is not there, or has another size")
        self._json({})

    def store(self, body: bytes, oid: str, part: str) -> None:
        """The storage behind signed addresses, which checks digests and must see no token."""
        assert "Authorization" not in self.headers, "a token was sent to the storage"
        if part == "complete":
            pieces = self.hub.parts.pop(oid)
            told = json.loads(body)
            assert [(p["partNumber"], p["etag"]) for p in told["parts"]] == [(n, f'"{n}"') for n in sorted(pieces)]
            body = b"".join(pieces[number] for number in sorted(pieces))
        elif part:
            self.hub.parts.setdefault(oid, {})[int(part)] = body
            return self._send(200, headers={"ETag": f'"{part}"'})
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refused(400, "The digest does not fit")
        self.hub.storage[oid] = body
        self._json({})

    def commit(self, body: bytes, kind: str, name: str, revision: str) -> None:
        proposal = "create_pr" in self.query
        repo = self._repo(kind, name, "read" if proposal else "write")
        lines = [json.loads(line) for line in body.splitlines()]
        assert lines[0]["key"] == "header" and lines[0]["value"]["summary"]
        head, parent = self._commit_of(repo, revision), lines[0]["value"].get("parentCommit")
        if parent and parent != head.oid and not proposal:
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files = dict(self._commit_of(repo, parent).files if parent else head.files)
        for line in lines[1:]:
            self._apply(files, line["key"], line["value"])
        if errors := card_errors(files["README.md"].content.decode()) if "README.md" in files else []:
            raise Refused(400, errors[0]["message"])
        number = 1 + sum(ref.startswith("refs/pr/") for ref in repo.refs)
        ref = (
            f"refs/pr/{number}" if proposal else next(r for r in (revision, f"refs/heads/{revision}") if r in repo.refs)
        )
        commit = repo.add(ref, head.oid, files, lines[0]["value"]["summary"])
        web = f"{self.hub.endpoint}/{'' if kind == 'models' else f'{kind}/'}{name}"
        pull = {"pullRequestUrl": f"{web}/discussions/{number}"} if proposal else {}
        self._json({"success": True, "commitOid": commit.oid, "commitUrl": f"{web}/commit/{commit.oid}", **pull})

    def _apply(self, files: dict[str, Blob], key: str, value: dict[str, Any]) -> None:
        path = value["path"]
        if key == "file":
            files[path] = Blob(base64.b64decode(value["content"]), False)
            assert not is_large(path, len(files[path].content)), f"{path} belongs into LFS"
        elif key == "lfsFile":
            if value["oid"] not in self.hub.storage:
                raise Refused(400, "An LFS pointer pointed to a file that does not exist")
            files[path] = Blob(self.hub.storage[value["oid"]], True)
        else:
            assert key == "deletedFile", key
            if files.pop(path, None) is None:
                raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")

    # Download

    def resolve(self, _: bytes, kind: str, name: str, revision: str, path: str) -> None:
        commit = self._commit_of(self._repo(kind, name), revision)
        blob = commit.files.get(path)
        if blob is None:
            refusal = {
                "X-Error-Code": "EntryNotFound",
                "X-Repo-Commit": commit.oid,
                "X-Error-Message": "Entry not found",
            }
            return self._json({"error": "Entry not found"}, 404, refusal)
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{blob.etag}"'}
        if not blob.lfs:
            return self._content(blob.content, headers)
        self.hub.storage[blob.sha256] = blob.content
        linked = {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.content))}
        place = {"Location": f"{self.hub.cdn}/storage/{blob.sha256}?signature=secret"}
        self._send(302, b"", {**headers, **linked, **place})

    def fetch(self, _: bytes, oid: str) -> None:
        assert "Authorization" not in self.headers, "a token was sent to the storage"
        self._content(self.hub.storage[oid], {"ETag": f'"{oid}"'})

    def _content(self, content: bytes, headers: Mapping[str, str]) -> None:
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span is None:
            return self._send(200, content, {**headers, "Accept-Ranges": "bytes"})
        first, last = int(span[1]), min(int(span[2] or len(content)), len(content) - 1)
        told = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        self._send(206, content[first : last + 1], {**headers, **told})


_NAME = r"(?P<name>[^/]+/[^/]+)"
_API = rf"/api/(?P<kind>models|datasets|spaces)/{_NAME}"
_WEB = rf"/((?P<kind>datasets|spaces)/)?{_NAME}"
_REV = r"(?P<revision>[^/]+)"
ROUTES: tuple[tuple[str, str, Callable[..., None]], ...] = (
    ("GET", r"/api/\w+-harnesses", Handler.nothing),
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate_yaml),
    ("GET", rf"{_API}(/revision/{_REV})?", Handler.info),
    ("GET", rf"{_API}/tree/{_REV}(/(?P<below>.+))?", Handler.tree),
    ("POST", rf"{_API}/paths-info/{_REV}", Handler.paths_info),
    ("GET", rf"{_API}/refs", Handler.refs),
    ("POST", rf"{_API}/branch/(?P<branch>[^/]+)", Handler.branch),
    ("POST", rf"{_API}/tag/{_REV}", Handler.tag),
    ("POST", rf"{_API}/preupload/{_REV}", Handler.preupload),
    ("POST", rf"{_API}/commit/{_REV}", Handler.commit),
    ("POST", rf"{_WEB}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("POST", r"/lfs-verify/(?P<oid>\w{64})", Handler.lfs_verify),
    ("PUT POST", r"/storage/(?P<oid>\w{64})(/(?P<part>\d+|complete))?", Handler.store),
    ("GET", r"/storage/(?P<oid>\w{64})", Handler.fetch),
    ("GET HEAD", rf"{_WEB}/resolve/{_REV}/(?P<path>.+)", Handler.resolve),
)


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """Run a server; afterwards, there must have been no request that it did not know or could not answer."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    port = server.server_address[1]
    hub.endpoint, hub.cdn = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
    assert not hub.unknown, hub.unknown
    assert not hub.broken, "\n".join(hub.broken)
