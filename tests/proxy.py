"""A proxy between a job and an S3 server, which does to requests what networks and overloaded stores do."""

import http.client
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

__all__ = ["FAULTS", "Alter", "FaultyProxy", "Headers", "by_chance", "faulty_proxy", "no_fault"]

FAULTS = ("slow_down", "error", "reset", "truncated", "stalled", "lost", "forbidden", "full")
_REFUSALS = {
    "slow_down": (503, "SlowDown"),
    "error": (500, "InternalError"),
    "forbidden": (403, "AccessDenied"),
    "full": (507, "InsufficientStorage"),
}

Decide = Callable[[str, str, int], str | None]
Headers = list[tuple[str, str]]
Alter = Callable[[str, str, Headers, bytes], tuple[Headers, bytes] | None]


class FaultyProxy:
    """Forwards to `target` what `decide(method, key, number)` lets pass, and counts what it did in `seen`. Who signs
    with a key id of `refused` hears its status and code.

    `number` counts the requests of one method and key, from 0. `decide` may do something to the store first; it gives
    None, or one of FAULTS: a refusal (slow_down 503, error 500, forbidden 403, full 507); half of the body and then a
    reset, an early end, or nothing more for `stall_s`; or no answer at all to a request that was carried out (lost).
    `alter(method, path, headers, body)` gives what the client gets instead, as a success, of a whole answer, or None to
    leave it; the path has its query.
    """

    def __init__(self, target: str, decide: Decide, stall_s: float, alter: Alter | None) -> None:
        self.decide, self.stall_s, self.target, self.alter = decide, stall_s, urlsplit(target), alter
        self.seen: Counter[tuple[str, str | None]] = Counter()  # (method, fault)
        self.requests: Counter[tuple[str, str]] = Counter()  # (method, key)
        self.refused: dict[str, tuple[int, str]] = {}
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.endpoint = ""

    @property
    def faults(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for (_, fault), count in self.seen.items():
            if fault:
                total[fault] += count
        return total

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        key = unquote(urlsplit(handler.path).path)[1:].partition("/")[2]
        with self.lock:
            number = self.requests[handler.command, key]
            self.requests[handler.command, key] += 1
        fault = self.decide(handler.command, key, number)
        with self.lock:
            self.seen[handler.command, fault] += 1
        signed = re.search(r"Credential=(\w+)/", handler.headers.get("Authorization", ""))
        if refusal := self.refused.get(signed[1] if signed else "", _REFUSALS.get(fault or "")):
            status, code = refusal
            text = b"" if handler.command == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode()
            _answer(handler, status, [("Content-Type", "application/xml")], text, len(text))
            return
        status, headers, content = self._forward(handler, body)
        if fault is None:
            altered = self.alter(handler.command, handler.path, headers, content) if self.alter else None
            if altered:
                status, (headers, content) = min(status, 206), altered
            _answer(handler, status, headers, content, len(content) if altered and handler.command != "HEAD" else None)
            return
        handler.close_connection = True
        if fault != "lost" and content and handler.command != "HEAD":
            _answer(handler, status, headers, content[: len(content) // 2], len(content))
            handler.wfile.flush()
        elif fault == "truncated":
            fault = "lost"  # an answer without a body ends early only by not coming
        if fault == "stalled":
            self.stopping.wait(self.stall_s)
        if fault in ("reset", "lost"):
            time.sleep(0.02)  # or the reset would overtake the half that was sent
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        server = http.client.HTTPConnection(self.target.hostname, self.target.port, timeout=60)
        try:
            server.request(handler.command, handler.path, body or None, dict(handler.headers))
            answer = server.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            server.close()


def _answer(
    handler: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], body: bytes, length: int | None
) -> None:
    """`length` of None keeps the server's own, which a HEAD has without a body."""
    handler.send_response_only(status)
    for name, value in headers:
        if name.lower() not in ("connection", "transfer-encoding") and (length is None or name.lower() != _LENGTH):
            handler.send_header(name, value)
    if length is not None or not any(name.lower() == _LENGTH for name, _ in headers):
        handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


_LENGTH = "content-length"


@contextmanager
def faulty_proxy(
    target: str, decide: Decide, *, stall_s: float = 60.0, alter: Alter | None = None
) -> Iterator[FaultyProxy]:
    """A running proxy; its address is `endpoint`."""
    proxy = FaultyProxy(target, decide, stall_s, alter)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            try:
                proxy.handle(self)
            except ConnectionError:
                self.close_connection = True  # the job had enough of us

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: object) -> None: ...

    server = Server(("127.0.0.1", 0), Handler)
    proxy.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


def no_fault(method: str, key: str, number: int) -> None:
    """A `decide` that lets everything pass."""


def by_chance(seed: int, **shares: float) -> Callable[[str, int], str | None]:
    """A fault for the n-th request of a key, the same for the same seed: by_chance(1, slow_down=0.1, reset=0.05)."""

    def draw(key: str, number: int) -> str | None:
        at = random.Random(f"{seed} {key} {number}").random()
        for fault, share in shares.items():
            at -= share
            if at < 0:
                return fault
        return None

    return draw
