"""One message to a webhook: JSON by POST, tried again while that may help, and given up when its time is over."""

from __future__ import annotations

import http.client
import json
import logging
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

__all__ = ["post"]

logger = logging.getLogger(__name__)

_ANSWERS_WITHIN_S = 10.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 8.0


def post(url: str, message: Mapping[str, Any], *, within_s: float) -> bool:
    """Whether it was taken. If it was not, the log has one line, without the address, which is a secret.

    In a thread of its own: a name that is not found, or a server that sends its answer by drops, takes no longer.
    """
    outcome: list[str | None] = [f"no answer within {within_s:.0f} s"]
    request = threading.Thread(target=_try, args=(url, message, within_s, outcome), name="webhook", daemon=True)
    request.start()
    request.join(within_s)
    why = outcome[-1]
    if why is not None:
        logger.warning("the webhook of notify was not told: %s", why)
    return why is None


class _RefusedError(Exception):
    """The server answered, and asking once more would change nothing."""


class _LaterError(Exception):
    def __init__(self, said: str, wait_s: float) -> None:
        super().__init__(said)
        self.wait_s = wait_s


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What is meant for one server is for no other, and a POST that is sent on becomes a GET."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _try(url: str, message: Mapping[str, Any], within_s: float, outcome: list[str | None]) -> None:
    """Adds None to `outcome` once it is told, else why it is not."""
    until, wait_s = time.monotonic() + within_s, _FIRST_WAIT_S
    while True:
        try:
            _send(url, json.dumps(message).encode(), min(_ANSWERS_WITHIN_S, max(0.1, until - time.monotonic())))
            outcome.append(None)
            return
        except _RefusedError as exc:
            outcome.append(str(exc))
            return
        except _LaterError as exc:
            outcome.append(str(exc))
            wait = max(wait_s, exc.wait_s)
        if time.monotonic() + wait >= until:
            return
        time.sleep(wait)
        wait_s = min(_LONGEST_WAIT_S, 2 * wait_s)


def _send(url: str, body: bytes, timeout_s: float) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": "labelmill"}
    try:
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout_s):
            return
    except urllib.error.HTTPError as exc:
        said = f"it answered {exc.code}"
        if exc.code == http.client.TOO_MANY_REQUESTS or exc.code >= http.client.INTERNAL_SERVER_ERROR:
            raise _LaterError(said, _retry_after_s(exc)) from None
        if http.client.MULTIPLE_CHOICES <= exc.code < http.client.BAD_REQUEST:
            said = f"{said}, and a message is sent on to no other address"
        raise _RefusedError(said) from None
    except (OSError, http.client.HTTPException) as exc:
        raise _LaterError(_said(exc), 0.0) from None
    except ValueError:  # no address at all, of which Python would show all
        raise _RefusedError("its address cannot be used") from None


def _retry_after_s(exc: urllib.error.HTTPError) -> float:
    asked = exc.headers.get("Retry-After", "")
    return float(asked) if asked.isdecimal() else 0.0


def _said(exc: Exception) -> str:
    """Of a failed connection, without what names the server."""
    inner = exc.reason if isinstance(exc, urllib.error.URLError) else exc
    if isinstance(inner, ssl.SSLError):
        return str(inner.reason or "no TLS").lower().replace("_", " ")
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return "it did not answer in time" if isinstance(inner, TimeoutError) else type(inner).__name__
