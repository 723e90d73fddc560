"""The Ray Serve deployment: one replica holds one model and one app."""

import asyncio
import logging
import sys
import time
from collections.abc import Mapping

from ray import serve
from starlette.types import ASGIApp

from labelmill.serve.app import build_app
from labelmill.serve.following import Asked, follow
from labelmill.serve.metrics import Metrics
from labelmill.serve.settings import Settings

__all__ = ["Endpoint", "application"]


@serve.ingress()
class Endpoint:
    """What a replica runs. Promotions are followed inside it, by polling.

    Serve's own way, `reconfigure`, takes the replica out of service while it loads, and for good when it raises: so it
    only notes the model that an operator wants, and the same polling finds it.
    """

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        _log_to_stderr()
        self._settings = settings
        context = serve.get_replica_context()
        self._metrics = Metrics(replica=context.replica_id.unique_id)
        # A replica that is started later begins with the newest one; Serve has no other way to ask it here.
        self._asked = Asked((context._deployment_config.user_config or {}).get("model", settings.model))
        self._follower = await asyncio.to_thread(follow, settings, self._asked, self._metrics.followed)

    def reconfigure(self, user_config: Mapping[str, str]) -> None:
        """Called by Serve with what an operator has set."""
        self._asked.reference = user_config["model"]

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return build_app(self._settings, self._follower, self._metrics)


def application(settings: Settings, *, num_replicas: int) -> serve.Application:
    """The Serve application of an endpoint."""
    deployment = serve.deployment(
        Endpoint,
        name="endpoint",
        num_replicas=num_replicas,
        # Above what the app itself takes on, so that it is the app that says 503; what is over is health checks' room.
        max_ongoing_requests=settings.max_requests + 32,
        max_queued_requests=settings.max_requests,
        backpressure_config={"status_code": 503, "retry_after_s": 1},
        ray_actor_options={"num_cpus": 1},
        logging_config={"log_level": "WARNING", "enable_access_log": False},  # the journal has a line for each already
        graceful_shutdown_timeout_s=10,
        graceful_shutdown_wait_loop_s=0.5,
    )
    return deployment.bind(settings)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    log = logging.getLogger("labelmill")
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
