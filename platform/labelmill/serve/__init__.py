"""The same model, online: an endpoint on Ray Serve with a page to try it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labelmill.spec import LoadedSpec

__all__ = ["run"]


def run(loaded: "LoadedSpec") -> None:
    """Serve what the spec says until SIGINT or SIGTERM (see `labelmill.serve.server.run`)."""
    # Not at the top: Serve's proxy imports its front from this package, and needs no model for it.
    from labelmill.serve import server

    server.run(loaded)
