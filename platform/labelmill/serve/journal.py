"""Around every request: its id, one line in the log, its metrics, and the headers that every answer carries."""

import json
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from labelmill.serve.metrics import Metrics
from labelmill.serve.problems import crash

__all__ = ["Journal", "request_id"]

logger = logging.getLogger(__name__)

_FREQUENT = frozenset({"/healthz", "/readyz", "/metrics"})
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


def request_id(headers: Headers) -> str:
    """The client's own X-Request-ID where it is plain, else a new one: it goes into logs."""
    given = headers.get("x-request-id", "")
    return given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else uuid.uuid4().hex


class Journal:
    """The outermost ASGI middleware. Also the last net: what was not foreseen is logged, and answered with a bare 500.

    `paths` are those that get series of their own in the metrics; all others count as `other`.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, *, paths: frozenset[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s, code = time.perf_counter(), 0
        own_id = request_id(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = own_id

        async def send_on(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                MutableHeaders(scope=message).update({**_HEADERS, "X-Request-ID": own_id})
            await send(message)

        self._metrics.in_flight(1)
        try:
            await self._app(scope, receive, send_on)
        except Exception:
            logger.exception("request crashed request_id=%s", own_id)
            if not code:
                await crash(own_id).response()(scope, receive, send_on)
        finally:
            self._metrics.in_flight(-1)
            self._record(scope, own_id, code or 499, time.perf_counter() - started_s)

    def _record(self, scope: Scope, own_id: str, code: int, seconds: float) -> None:
        path = scope["path"] if scope["path"] in self._paths else "other"
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
        self._metrics.answered(path=path, method=method, code=code, seconds=seconds)
        level = logging.DEBUG if path in _FREQUENT and code < 400 else logging.INFO
        notes = "".join(f" {name}={value}" for name, value in scope["state"].get("notes", {}).items())
        # The path comes from outside: quoted as JSON it is one line of ASCII, whatever it holds.
        shown = json.dumps(scope["path"][:200])
        logger.log(
            level,
            "request answered request_id=%s method=%s path=%s code=%d ms=%.1f%s",
            own_id, method, shown, code, seconds * 1000, notes,
        )  # fmt: skip
