"""An endpoint as an application of the cluster's Ray Serve, declared through its REST API."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labelmill.cluster.submission.dashboard import Dashboard
from labelmill.cluster.submission.sight import Sight
from labelmill.errors import ClusterError
from labelmill.spec import LoadedSpec, Portable, ServeSpec, portable

__all__ = ["Endpoint", "application_config", "declare", "endpoints", "http_options", "remove", "wait_until_it_answers"]

_APPLICATIONS = "/api/serve/applications/"
_STARTS_WITHIN_S = 600.0
_REQUEST_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`status` is Serve's word: NOT_STARTED, DEPLOYING, RUNNING, UNHEALTHY, DEPLOY_FAILED, DELETING."""

    name: str
    status: str
    message: str


def application_config(spec: ServeSpec, parcel: Portable) -> dict[str, Any]:
    """An entry of `applications` in Serve's configuration. Whatever changes in `args` or in `runtime_env` exchanges the
    replicas; the rest is taken over in place."""
    data = {name: value for name, value in parcel.data.items() if name != "replicas"}
    data["model"] = f"{spec.model.partition('@')[0]}@current"  # one there must be; which answers stands below
    return {
        "name": spec.name,
        "route_prefix": "/",
        "import_path": "labelmill.serve.application:build",
        "args": {"spec": data},
        "deployments": [
            {"name": "endpoint", "num_replicas": spec.replicas, "user_config": {"model": spec.model}},
        ],
    }


def http_options(spec: ServeSpec) -> dict[str, Any]:
    """Of Serve's proxies: one listens on each node that has a replica."""
    return {"host": spec.host.strip("[]"), "port": spec.port, "request_timeout_s": _REQUEST_TIMEOUT_S}


def declare(loaded: LoadedSpec, dashboard: Dashboard, secrets: Mapping[str, str]) -> bool:
    """Have the cluster serve what the spec says; other applications stay as they are. False: it does so already.

    ClusterError: Serve runs there on another address, which nothing but its end changes.
    """
    spec = loaded.spec
    assert isinstance(spec, ServeSpec)
    wanted = application_config(spec, portable(loaded, Sight(dashboard).address_there))
    if secrets:
        wanted["runtime_env"] = {"env_vars": dict(secrets)}
    details = dashboard.ask("GET", _APPLICATIONS)
    _check_address(details, spec, dashboard)
    others = _declared(details)
    if others.pop(spec.name, None) == wanted:
        return False
    config = {"http_options": http_options(spec), "applications": [*others.values(), wanted]}
    dashboard.ask("PUT", _APPLICATIONS, config)
    return True


def remove(name: str, dashboard: Dashboard) -> bool:
    """Take an application away; requests in hand are answered. False: there is none of this name."""
    details = dashboard.ask("GET", _APPLICATIONS)
    declared = _declared(details)
    if declared.pop(name, None) is None:
        return False
    options = {key: details["http_options"][key] for key in ("host", "port")}
    dashboard.ask("PUT", _APPLICATIONS, {"http_options": options, "applications": list(declared.values())})
    return True


def endpoints(dashboard: Dashboard) -> list[Endpoint]:
    """What the cluster serves, by name."""
    found = dashboard.ask("GET", _APPLICATIONS)["applications"]
    return [Endpoint(name, details["status"], _reason(details["message"])) for name, details in sorted(found.items())]


def _reason(message: str) -> str:
    """Of the tracebacks that Serve tells, what was raised first, which stands last."""
    text = " ".join(message.split())
    raised = list(re.finditer(r"[\w.]+(?:Error|Exception): ", text)) if "Traceback" in text else []
    return text[raised[-1].end() :] if raised else text


def wait_until_it_answers(name: str, dashboard: Dashboard) -> Endpoint:
    """ClusterError: it did not start."""
    until = time.monotonic() + _STARTS_WITHIN_S
    while True:
        found = next((endpoint for endpoint in endpoints(dashboard) if endpoint.name == name), None)
        if found and found.status == "RUNNING":
            return found
        if found is None or found.status not in ("NOT_STARTED", "DEPLOYING") or time.monotonic() > until:
            status = f"{found.status} {found.message}".rstrip() if found else "the cluster has forgotten it"
            raise ClusterError(f"{name} did not start: {status}")
        time.sleep(1)


def _check_address(details: Mapping[str, Any], spec: ServeSpec, dashboard: Dashboard) -> None:
    options = details.get("http_options") or {}
    if not details.get("proxies"):
        return  # it does not run yet
    found = options.get("host"), options.get("port")
    if found != (spec.host.strip("[]"), spec.port):
        raise ClusterError(
            f"Ray Serve runs at {dashboard.address} already, and listens on {found[0]}:{found[1]}: give the spec that "
            f"host and port instead of {spec.host}:{spec.port}, or another cluster"
        )


def _declared(details: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What was declared of each application by whoever did."""
    found = {name: application.get("deployed_app_config") for name, application in details["applications"].items()}
    return {name: config for name, config in found.items() if config}
