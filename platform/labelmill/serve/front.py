"""What stands before Ray Serve's HTTP proxy, in the proxy's own process.

The proxy reads a body into its memory as fast as it comes, whatever the replica makes of it, answers some paths and
failures by itself, and takes request ids as they are. Serve builds its middlewares through a callback that an
environment variable names (`environment`); where a cluster was started without it, the app's own limits still hold.
"""

import os

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from labelmill.serve.journal import request_id
from labelmill.serve.problems import MEDIA_TYPE, Problem

__all__ = ["Front", "environment", "middlewares"]

_MAX_BYTES = "LABELMILL_SERVE_MAX_REQUEST_BYTES"
_DETAILS = {
    408: (503, "the endpoint did not answer in time: try again"),
    404: (503, "the endpoint is starting or stopping: try again"),
    503: (503, "the endpoint has all that it can do: try again"),
}


def environment(max_request_bytes: int) -> dict[str, str]:
    """The environment in which Ray must be started, for its proxies to stand behind a front."""
    callback = f"{__name__}.{middlewares.__name__}"
    return {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": callback, _MAX_BYTES: str(max_request_bytes)}


def middlewares() -> list[Middleware]:
    """Called by Serve's proxy when it starts."""
    return [Middleware(Front, max_request_bytes=int(os.environ[_MAX_BYTES]))]


class Front:
    """ASGI middleware: limits bodies, hides the proxy's own paths, and makes problem documents of its own errors."""

    def __init__(self, app: ASGIApp, *, max_request_bytes: int) -> None:
        self._app, self._max_bytes = app, max_request_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal.response()(scope, receive, send)
            return
        own_id = request_id(Headers(scope=scope))
        MutableHeaders(scope=scope)["x-request-id"] = own_id
        exchange = _Exchange(scope, receive, send, own_id, self._max_bytes)
        await self._app(scope, exchange.receive, exchange.send)

    def _refusal(self, scope: Scope) -> Problem | None:
        if scope["path"].startswith("/-/"):
            return Problem(404, "there is nothing at this path")
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared) > self._max_bytes:
            return _too_large(self._max_bytes)
        return None


class _Exchange:
    """One request on its way in and its answer on the way out."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, own_id: str, max_bytes: int) -> None:
        self._scope, self._receive, self._send, self._own_id = scope, receive, send, own_id
        self._left, self._max_bytes = max_bytes, max_bytes
        self._started = self._replaced = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                await self._replace(_too_large(self._max_bytes))
                return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            if message["status"] >= 400 and headers.get("content-type") != MEDIA_TYPE:
                await self._replace(_own_error(message["status"]))
                return
            headers["x-request-id"] = self._own_id  # the app says it and the proxy says it again: once is enough
            self._started = True
        await self._send(message)

    async def _replace(self, problem: Problem) -> None:
        self._replaced = True
        if not self._started:
            problem.headers["X-Request-ID"] = self._own_id
            await problem.response()(self._scope, self._receive, self._send)


def _own_error(status: int) -> Problem:
    status, detail = _DETAILS.get(status, (500, "the endpoint failed"))
    return Problem(status, detail, word="unavailable", headers={"Retry-After": "1"} if status == 503 else {})


def _too_large(max_bytes: int) -> Problem:
    # The connection stays: the server drops what still comes, and a client that sends before it reads gets its answer.
    return Problem(413, f"the body is larger than {max_bytes} bytes", word="body-too-large")
