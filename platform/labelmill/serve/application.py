"""What Ray Serve's configuration names as an application: `import_path: labelmill.serve.application:build`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from labelmill.errors import SpecError
from labelmill.serve.deployment import application
from labelmill.serve.settings import Settings
from labelmill.spec import ServeSpec, spec_of

if TYPE_CHECKING:
    from ray.serve import Application

__all__ = ["build"]


def build(args: Mapping[str, Any]) -> "Application":
    """The endpoint of a spec, `args["spec"]`, whose secrets are filled in from the environment of the node.

    Which version or alias of its model answers, and how many replicas, stands beside it in the configuration of the
    deployment `endpoint`: Serve takes a change of them over in place, and exchanges replicas when the spec changes.
    """
    spec = spec_of(args["spec"], "the spec of the endpoint")
    if not isinstance(spec, ServeSpec):
        raise SpecError(f"expected kind: serve, got {spec.kind!r}")
    return application(Settings.of(spec), num_replicas=spec.replicas)
