"""Who may ask: API keys, and on a loopback address without keys, only pages of this endpoint's own.

Without keys the endpoint listens on loopback alone. There any web page that the user visits could still reach it, by a
name of its own that resolves to 127.0.0.1 (DNS rebinding) or by posting a form, so the Host header must name the
loopback address, and an Origin header, where there is one, must be the endpoint's own.
"""

import hashlib
import hmac
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from labelmill.serve.problems import Problem

__all__ = ["Gate", "digest_key", "loopback_hosts"]


def digest_key(key: str) -> str:
    """The sha256 of an API key, in hex: what leaves the driver instead of the key."""
    return hashlib.sha256(key.encode()).hexdigest()


def loopback_hosts(host: str, port: int) -> frozenset[str]:
    """The Host headers under which a person reaches a server on the loopback address `host`."""
    own = f"[{host}]" if ":" in host else host.lower()
    names = {"localhost", "127.0.0.1", "[::1]", own}
    with_port = {f"{name}:{port}" for name in names}
    return frozenset(with_port | names if port == 80 else with_port)


class Gate:
    """ASGI middleware. Lets a request through when it shows a key, or, where no keys are set, comes from this machine.

    `open_paths` need no key, for GET and HEAD: the health checks and the page's own files.
    """

    def __init__(
        self, app: ASGIApp, *, key_digests: tuple[str, ...], hosts: frozenset[str], open_paths: Iterable[str]
    ) -> None:
        self._app = app
        self._key_digests, self._hosts, self._open_paths = key_digests, hosts, frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope)
            except Problem as problem:
                await problem.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if not self._key_digests:
            self._check_local(headers)
        elif not (scope["method"] in ("GET", "HEAD") and scope["path"] in self._open_paths):
            self._check_key(headers)

    def _check_local(self, headers: Headers) -> None:
        if headers.getlist("host") not in [[host] for host in self._hosts]:
            raise Problem(
                403,
                "this endpoint has no API keys and answers only under its own loopback address: "
                f"expected a Host header of {' or '.join(sorted(self._hosts))}",
                word="foreign-host",
            )
        if any(origin not in {f"http://{host}" for host in self._hosts} for origin in headers.getlist("origin")):
            raise Problem(
                403,
                "this endpoint has no API keys and answers no pages but its own: the Origin header names another",
                word="foreign-origin",
            )

    def _check_key(self, headers: Headers) -> None:
        key = _shown_key(headers)
        if key is None:
            raise _unauthorized("an API key is needed: send `Authorization: Bearer <key>` or `X-API-Key: <key>`")
        shown = digest_key(key)
        # Every digest is compared, so that the time taken tells nothing about which one matched.
        matches = [hmac.compare_digest(shown, digest) for digest in self._key_digests]
        if not any(matches):
            raise _unauthorized("the API key is not one of this endpoint's")


def _shown_key(headers: Headers) -> str | None:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    return headers.get("x-api-key")


def _unauthorized(detail: str) -> Problem:
    return Problem(401, detail, word="unauthorized", headers={"WWW-Authenticate": 'Bearer realm="labelmill"'})
