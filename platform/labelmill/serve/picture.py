"""The one picture that a request carries: raw, as a form's file, or as base64 in JSON."""

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect, Request

from labelmill.serve.problems import Problem

__all__ = ["Room", "read_picture"]

_READ_TIMEOUT_S = 30.0
_WANTED = "send the picture's bytes as image/* or application/octet-stream, a form with one file, or JSON with base64"


class Room:
    """How much the endpoint takes on at once, in requests and in bytes of their bodies; beyond it, it says 503."""

    def __init__(self, *, max_requests: int, max_bytes: int) -> None:
        self._free_requests, self._free_bytes = max_requests, max_bytes

    @contextmanager
    def seat(self) -> Iterator["Seat"]:
        if self._free_requests < 1:
            raise _busy()
        self._free_requests -= 1
        seat = Seat(self)
        try:
            yield seat
        finally:
            self._free_requests += 1
            self._free_bytes += seat.num_bytes

    def take(self, num_bytes: int) -> None:
        if num_bytes > self._free_bytes:
            raise _busy()
        self._free_bytes -= num_bytes


class Seat:
    """One request's place in the room."""

    def __init__(self, room: Room) -> None:
        self._room, self.num_bytes = room, 0

    def take(self, num_bytes: int) -> None:
        self._room.take(num_bytes)
        self.num_bytes += num_bytes


async def read_picture(request: Request, seat: Seat, *, max_bytes: int) -> bytes:
    """The bytes of the picture in `request`. Raises Problem: 400, 408, 413, 415 or 503."""
    media_type, parameters = _content_type(request)
    if not (media_type.startswith("image/") or media_type in _READERS):
        raise Problem(415, f"expected a picture, got {media_type or 'no Content-Type'!r}: {_WANTED}")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "a compressed request body is not read: send the picture as it is")
    body = await _read_body(request, seat, max_bytes)
    if not body:
        raise Problem(400, f"the request has no body: {_WANTED}", word="no-picture")
    reader = _READERS.get(media_type)
    # Megabytes of base64 take a while: not on the event loop.
    return await asyncio.to_thread(reader, body, parameters) if reader else body


async def _read_body(request: Request, seat: Seat, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    try:
        async with asyncio.timeout(_READ_TIMEOUT_S):
            async for chunk in request.stream():
                seat.take(len(chunk))
                if seat.num_bytes > max_bytes:
                    raise _too_large(max_bytes)
                chunks.append(chunk)
    except TimeoutError:
        raise Problem(408, f"the body did not arrive within {_READ_TIMEOUT_S:.0f} s") from None
    except ClientDisconnect:
        raise Problem(400, "the client went away while its body was read", word="disconnected") from None
    return b"".join(chunks)


def _content_type(request: Request) -> tuple[str, dict[str, str]]:
    media_type, *rest = request.headers.get("content-type", "").split(";")
    pairs = (part.partition("=") for part in rest)
    return media_type.strip().lower(), {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}


def _from_json(body: bytes, parameters: dict[str, str]) -> bytes:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise Problem(400, 'the body is not JSON: expected {"base64": "…"}', word="bad-json") from None
    if isinstance(fields, dict) and "uri" in fields:
        raise Problem(
            400,
            "this endpoint fetches no uri for its clients, who could reach private addresses through it: "
            "send the picture itself",
            word="uri-not-supported",
        )
    if not isinstance(fields, dict) or set(fields) != {"base64"} or not isinstance(fields["base64"], str):
        raise Problem(400, 'expected a JSON object with one string, {"base64": "…"}', word="bad-json")
    try:
        return base64.b64decode("".join(fields["base64"].split()), validate=True)
    except (binascii.Error, ValueError):
        raise Problem(400, "the value of base64 is not base64 (RFC 4648, section 4)", word="bad-base64") from None


def _from_form(body: bytes, parameters: dict[str, str]) -> bytes:
    """The one file of a form (RFC 7578)."""
    boundary = parameters.get("boundary", "").encode("latin-1", "ignore")
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary)[1:-1] if boundary else []
    files = []
    for part in parts:
        head, separator, content = part.partition(b"\r\n\r\n")
        if separator and re.search(rb"(?im)^content-disposition:[^\r\n]*;\s*filename\*?=", head):
            files.append(content)
    if len(files) != 1:
        raise Problem(400, f"expected a form with one file, got {len(files)}", word="bad-form")
    return files[0]


_READERS = {
    "application/octet-stream": None,
    "application/json": _from_json,
    "multipart/form-data": _from_form,
}


def _busy() -> Problem:
    return Problem(503, "the endpoint has all that it can do: try again", word="busy", headers={"Retry-After": "1"})


def _too_large(max_bytes: int) -> Problem:
    # The connection stays: the server drops what still comes, and a client that sends before it reads gets its answer.
    return Problem(413, f"the body is larger than {max_bytes} bytes", word="body-too-large")
