"""What the endpoint counts, for Prometheus. One instance a replica; its series carry the replica's name."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_PICTURES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one replica. A scrape reaches one replica at a time, so every series says which: label `replica`."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, replica: str = "0") -> None:
        self._registry, self._replica = CollectorRegistry(), replica
        self._requests = Counter(
            "labelmill_serve_requests",
            "Requests answered, by path, method and HTTP status.",
            ["replica", "path", "method", "code"],
            registry=self._registry,
        )
        self._request_s = Histogram(
            "labelmill_serve_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["replica", "path"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batch_pictures = Histogram(
            "labelmill_serve_batch_pictures",
            "Pictures in a forward pass.",
            ["replica"],
            buckets=_PICTURES,
            registry=self._registry,
        )
        self._batch_s = Histogram(
            "labelmill_serve_batch_seconds",
            "Decoding and labelling one batch.",
            ["replica"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._pictures = Counter(
            "labelmill_serve_pictures",
            "Pictures by the status that their row would carry.",
            ["replica", "status"],
            registry=self._registry,
        )
        self._model = Gauge(
            "labelmill_serve_model_info",
            "1 for the model that answers.",
            ["replica", "name", "version", "digest"],
            registry=self._registry,
        )
        self._following = Counter(
            "labelmill_serve_model_swaps",
            "Promotions followed, by outcome: swapped, load_failed (the old model goes on), poll_failed.",
            ["replica", "outcome"],
            registry=self._registry,
        )
        self._in_flight = Gauge(
            "labelmill_serve_requests_in_flight", "Requests being answered.", ["replica"], registry=self._registry
        )
        for outcome in (
            "swapped",
            "load_failed",
            "poll_failed",
        ):  # a series that is there from the start can be alarmed
            self._following.labels(replica, outcome)

    def answered(self, *, path: str, method: str, code: int, seconds: float) -> None:
        self._requests.labels(self._replica, path, method, str(code)).inc()
        self._request_s.labels(self._replica, path).observe(seconds)

    def labelled(self, statuses: Sequence[str], *, seconds: float) -> None:
        self._batch_pictures.labels(self._replica).observe(len(statuses))
        self._batch_s.labels(self._replica).observe(seconds)
        for status in statuses:
            self._pictures.labels(self._replica, status).inc()

    def followed(self, outcome: str) -> None:
        self._following.labels(self._replica, outcome).inc()

    def in_flight(self, change: int) -> None:
        self._in_flight.labels(self._replica).inc(change)

    def exposition(self, *, name: str, version: int, digest: str) -> bytes:
        """The text that Prometheus scrapes, with the model that answers now."""
        self._model.clear()
        self._model.labels(self._replica, name, str(version), digest).set(1)
        return generate_latest(self._registry)
