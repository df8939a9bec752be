"""GitHub's API for comments, on this machine: what it keeps is what a pull request would show."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class GitHub(ThreadingHTTPServer):
    """Its comments, and the status that writing is answered with."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.comments: list[dict[str, Any]] = []
        self.writing = 200
        self.tokens: set[str] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, body: str, kind: str = "Bot") -> dict[str, Any]:
        number = len(self.comments) + 1
        made = {"id": number, "body": body, "user": {"type": kind}, "html_url": f"#{number}"}
        self.comments.append(made)
        return made


class _Handler(BaseHTTPRequestHandler):
    server: GitHub

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        size, page = int(query["per_page"][0]), int(query["page"][0])
        self._answer(200, self.server.comments[(page - 1) * size : page * size])

    def do_POST(self) -> None:
        assert self.path == "/repos/owner/name/issues/7/comments"
        self._write(lambda body: self.server.add(body))

    def do_PATCH(self) -> None:
        number = int(self.path.removeprefix("/repos/owner/name/issues/comments/"))

        def change(body: str) -> dict[str, Any]:
            self.server.comments[number - 1]["body"] = body
            return self.server.comments[number - 1]

        self._write(change)

    def _write(self, write: Any) -> None:
        self.server.tokens.add(self.headers["Authorization"])
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.writing == 200:
            self._answer(200, write(content["body"]))
        else:
            self._answer(self.server.writing, {"message": "no"})

    def _answer(self, status: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        """Nothing is printed."""


@contextmanager
def github() -> Iterator[GitHub]:
    with GitHub() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
