"""A Hub on this machine: the part of its HTTP interface that pushing files asks for; datasets pushes rows aside."""

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from datasets import Dataset
from huggingface_hub import HfApi, constants


class LocalHub(ThreadingHTTPServer):
    """Repositories by name: `kind`, `private`, and the content of their `files`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict] = {}
        self.refuses = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: LocalHub

    def log_message(self, *given):
        pass

    def _reply(self, content, status: int = 200):
        content = {"error": "Entry not found"} if status == 404 else content
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(body), "ETag": '"e"', "X-Repo-Commit": "c" * 40}.items():
            self.send_header(name, str(value))
        if status == 404:
            self.send_header("X-Error-Code", "EntryNotFound" if "/resolve/" in self.path else "RepoNotFound")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _repo(self) -> dict:
        name = re.match(r"/(?:api/)?(?:datasets|models|spaces)/([^/]+/[^/?]+)", self.path)
        return self.server.repos[name[1]]

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refuses:
            return self._reply({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            made = {
                "kind": asked.get("type", "model"),
                "private": "private" in (asked.get("visibility"), asked.get("private") and "private"),
                "sdk": asked.get("sdk"),
            }
            self.server.repos.setdefault(name, made | {"files": {}})
            return self._reply({"url": f"{self.server.address}/{name}", "name": name})
        if "/preupload/" in self.path:
            paths = [item["path"] for item in json.loads(body)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            return self._reply({"files": modes})
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self._repo()["files"][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            repo = self.path.partition("/commit/")[0].replace("/api/", "/")
            return self._reply({"commitUrl": f"{self.server.address}{repo}/commit/c", "commitOid": "c" * 40})
        self._reply({"errors": [], "warnings": []})  # whether the card's metadata is valid

    def do_GET(self):
        path = re.sub(r"\?.*", "", self.path)
        if found := re.search(r"/resolve/[^/]+/(.*)", path):
            content = self._repo()["files"].get(found[1])
            return self._reply(b"" if content is None else content, 404 if content is None else 200)
        name = re.match(r"/api/\w+/([^/]+/[^/?]+)", path)[1]
        if name not in self.server.repos:
            return self._reply({}, 404)
        self._reply({"id": name, "sha": "c" * 40, "siblings": [], "private": True})

    do_HEAD = do_GET


@contextmanager
def local_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A Hub that huggingface_hub and datasets talk to meanwhile."""
    with LocalHub() as hub:
        threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )

        def push_rows(rows: Dataset, repo: str, private: bool, token: str | None) -> None:
            HfApi().create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
            hub.repos[repo]["rows"] = rows

        monkeypatch.setattr(Dataset, "push_to_hub", push_rows)  # in its own protocol of large files
        yield hub
        hub.shutdown()
