"""Errors as the endpoint answers them: problem documents (RFC 9457), with nothing of the inside in them."""

import json
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

__all__ = ["MEDIA_TYPE", "Problem", "answer_crash", "answer_http_error", "answer_problem", "crash", "document"]

MEDIA_TYPE = "application/problem+json"
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it a problem
    """An answer that is not a success. Raised anywhere below the app, answered as a problem document.

    `word` names the kind of problem and becomes its type, `urn:labelmill:problem:<word>`; None stands for a problem
    that its HTTP status says completely (type `about:blank`). `extra` are further members of the document.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        word: str | None = None,
        headers: dict[str, str] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.word = status, detail, word
        self.headers, self.extra = headers or {}, extra or {}

    def response(self) -> Response:
        body = document(self.status, self.detail, word=self.word, extra=self.extra)
        return Response(body, self.status, {**self.headers, **_HEADERS}, media_type=MEDIA_TYPE)


def document(status: int, detail: str, *, word: str | None = None, extra: dict[str, Any] | None = None) -> bytes:
    """The problem document itself: UTF-8 JSON with type, title, status and detail."""
    kind = {"type": f"urn:labelmill:problem:{word}" if word else "about:blank", "title": HTTPStatus(status).phrase}
    return json.dumps({**kind, "status": status, "detail": detail, **(extra or {})}, ensure_ascii=False).encode()


async def answer_problem(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, Problem)
    return exc.response()


async def answer_http_error(request: Request, exc: Exception) -> Response:
    """What Starlette itself refuses: an unknown path, a method that the path does not have."""
    assert isinstance(exc, HTTPException)
    details = {
        404: "there is nothing at this path; the endpoint's paths are /, /v1/label, /v1/model, /metrics, "
        "/healthz and /readyz",
        405: f"this path does not answer {request.method}",
    }
    detail = details.get(exc.status_code, HTTPStatus(exc.status_code).description)
    return Problem(exc.status_code, detail, headers=dict(exc.headers or {})).response()


async def answer_crash(request: Request, exc: Exception) -> Response:
    """What nobody foresaw. Starlette raises it once more after the answer; the journal logs it."""
    return crash(request.state.request_id).response()


def crash(request_id: str) -> Problem:
    return Problem(500, f"the endpoint failed; its log says more under request id {request_id}")
