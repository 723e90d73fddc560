"""A webhook as a chat has one: a real HTTP server that keeps what it is sent and answers as it is told."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Webhook", "webhook"]


@dataclass
class Webhook:
    """`answers` are given in turn, the last one for ever: a status, or a status and headers."""

    url: str
    answers: list[Any]
    got: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    hang: threading.Event | None = None


@contextmanager
def webhook(*answers: Any, path: str = "/services/T000/SECRET") -> Iterator[Webhook]:
    state = Webhook("", list(answers) or [200])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.methods.append(self.command)
            state.paths.append(self.path)
            if body:
                assert self.headers["Content-Type"] == "application/json"
                state.got.append(json.loads(body))
            if state.hang is not None:
                state.hang.wait(60)
            answer = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
            status, headers = answer if isinstance(answer, tuple) else (answer, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        do_GET = do_POST  # noqa: N815 - the library's name

        def log_message(self, *_: Any) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}{path}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        if state.hang is not None:
            state.hang.set()
        server.shutdown()
        server.server_close()
