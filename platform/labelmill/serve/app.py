"""The endpoint as an ASGI app: its paths and what they answer. It knows nothing of Ray."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from labelmill.model.bundle import Bundle
from labelmill.model.labeler import Answer, Labeler
from labelmill.serve.auth import Gate
from labelmill.serve.batching import Batcher
from labelmill.serve.following import Follower
from labelmill.serve.journal import Journal
from labelmill.serve.metrics import Metrics
from labelmill.serve.picture import Room, read_picture
from labelmill.serve.problems import Problem, answer_crash, answer_http_error, answer_problem
from labelmill.serve.settings import Settings

__all__ = ["build_app"]

_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_OPEN = frozenset({*_PAGE, "/healthz", "/readyz"})
_SCORES: dict[str, int | None] = {"none": 0, "top_k": 5, "all": None}  # how many; None: every one


def build_app(settings: Settings, follower: Follower[Labeler], metrics: Metrics) -> ASGIApp:
    """The app that answers with `follower.model`. It does not start or stop the follower."""
    endpoint = _Endpoint(settings, follower, metrics)
    routes = [
        Route("/v1/label", endpoint.label, methods=["POST"]),
        Route("/v1/model", endpoint.model),
        Route("/metrics", endpoint.metrics),
        Route("/healthz", endpoint.health),
        Route("/readyz", endpoint.ready),
        *(Route(path, _page_file(name, media_type)) for path, (name, media_type) in _PAGE.items()),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={Problem: answer_problem, HTTPException: answer_http_error, Exception: answer_crash},
        lifespan=endpoint.lifespan,
    )
    app.router.redirect_slashes = False
    gate = Gate(app, key_digests=settings.key_digests, hosts=settings.hosts, open_paths=_OPEN)
    return Journal(gate, metrics, paths=_OPEN | {"/v1/label", "/v1/model", "/metrics"})


class _Endpoint:
    def __init__(self, settings: Settings, follower: Follower[Labeler], metrics: Metrics) -> None:
        self._settings, self._follower, self._metrics = settings, follower, metrics
        self._room = Room(max_requests=settings.max_requests, max_bytes=settings.max_bytes)
        self._batcher = Batcher(self._label_batch, max_size=settings.max_batch_size, wait_s=settings.batch_wait_s)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="label")

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._batcher.start()
        yield
        await self._batcher.stop()
        self._thread.shutdown()

    async def label(self, request: Request) -> Response:
        started_s = time.perf_counter()
        scores = request.query_params.get("scores", "all")
        if scores not in _SCORES:
            raise Problem(400, f"expected scores to be one of {', '.join(_SCORES)}, got {scores[:40]!r}")
        with self._room.seat() as seat:
            data = await read_picture(request, seat, max_bytes=self._settings.max_request_bytes)
            bundle, answer = await self._batcher.submit(data)
        request.state.notes = {"model": bundle.reference, "status": answer.status, "bytes": len(data)}
        timing = {"Server-Timing": f"total;dur={(time.perf_counter() - started_s) * 1000:.1f}"}
        if answer.status != "ok":
            raise _unlabelled(bundle, answer, timing)
        return JSONResponse(_row(bundle, answer, scores), headers={**timing, "Cache-Control": "no-store"})

    async def _label_batch(self, pictures: Sequence[bytes]) -> list[tuple[Bundle, Answer]]:
        labeler = self._follower.model  # read once: one batch, one model
        started_s = time.perf_counter()
        answers = await asyncio.get_running_loop().run_in_executor(self._thread, labeler.label, pictures)
        self._metrics.labelled([answer.status for answer in answers], seconds=time.perf_counter() - started_s)
        return [(labeler.bundle, answer) for answer in answers]

    async def model(self, request: Request) -> Response:
        bundle, follower = self._follower.model.bundle, self._follower
        fields = {
            "model": bundle.reference,
            "name": bundle.name,
            "version": bundle.version,
            "bundle_digest": bundle.digest,
            "task": bundle.task,
            "architecture": bundle.architecture,
            "labels": list(bundle.labels),
            "thresholds": None if bundle.task == "multi_class" else [float(t) for t in bundle.thresholds],
            "metrics": bundle.metrics,
            "engine": self._follower.model.engine_name,
            "precision": self._follower.model.precision,
            "endpoint": self._settings.name,
            "follows": follower.wanted.reference,
            "wanted": {"version": follower.wanted.version, "bundle_digest": follower.wanted.digest},
            # Clients need not know where the registry is.
            "error": follower.error and follower.error.replace(self._settings.registry, "the registry"),
            "max_request_bytes": self._settings.max_request_bytes,
        }
        return JSONResponse(fields, headers={"Cache-Control": "no-store"})

    async def metrics(self, request: Request) -> Response:
        bundle = self._follower.model.bundle
        text = self._metrics.exposition(name=bundle.name, version=bundle.version, digest=bundle.digest)
        return Response(text, headers={"Content-Type": Metrics.media_type})

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        # The app is built with a model that is loaded and warm, so being asked is being ready.
        return JSONResponse({"status": "ready"})


def _row(bundle: Bundle, answer: Answer, scores: str) -> dict[str, Any]:
    """The columns of the label table that a single picture has, under their names."""
    assert answer.confidences is not None
    top = None if scores == "none" else bundle.top(answer.confidences, _SCORES[scores])
    return {
        "status": answer.status,
        "error": answer.error,
        "width_px": answer.width_px,
        "height_px": answer.height_px,
        "labels": _pairs(bundle.decide(answer.confidences)),
        "scores": None if top is None else _pairs(top),
        "model": bundle.reference,
        "bundle_digest": bundle.digest,
    }


def _pairs(pairs: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"label": label, "confidence": float(confidence)} for label, confidence in pairs]


def _unlabelled(bundle: Bundle, answer: Answer, headers: dict[str, str]) -> Problem:
    """A picture without labels. Its own status word is the type, and stands beside, as a row would carry it."""
    extra = {"picture_status": answer.status, "model": bundle.reference}
    status = 413 if answer.status == "too_large" else 422
    detail = answer.error or "the picture has no labels"
    return Problem(status, detail, word=answer.status.replace("_", "-"), headers=headers, extra=extra)


def _page_file(name: str, media_type: str) -> Any:
    content = files("labelmill.serve").joinpath("page", name).read_bytes()

    async def page(request: Request) -> Response:
        return Response(content, headers={"Content-Type": media_type, "Cache-Control": "no-cache"})

    return page
