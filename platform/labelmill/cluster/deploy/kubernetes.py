"""Manifests for Kubernetes with KubeRay (ray.io/v1): a job with its schedule, or an endpoint."""

import json
from typing import Any

import yaml

from labelmill.cluster.deploy.night import Night
from labelmill.cluster.deploy.pods import LOCKED, cluster_of, user, workers_of
from labelmill.cluster.submission.endpoint import application_config, http_options
from labelmill.errors import SpecError
from labelmill.spec import ServeSpec, portable

__all__ = ["cronjob", "raycronjob", "rayservice"]

_SPEC_FOLDER = "/etc/labelmill"
_STARTS_WITHIN_S = 600
_RETRIES = 2
# That another run has the table (exit code 5) is no reason to try once more.
_DONE_OR_BUSY = f"python -m labelmill run {_SPEC_FOLDER}/job.json; code=$?; [ $code = 5 ] || exit $code"
_KEPT_S = 3 * 86_400  # so that a second start of a night finds the first one
_ALPHA = "# RayCronJob is alpha in KubeRay 1.7: its operator needs the feature gate RayCronJob=true.\n"


def cronjob(night: Night) -> str:
    """A CronJob whose pod creates a RayJob, which every KubeRay takes, with the rights that it needs for this.

    The pod ends when that is done, so that Kubernetes cannot tell whether the run before is at work still: its lease
    tells, and `schedule.overlap` says what comes of it. Two that start for the same night create one RayJob.
    """
    schedule = night.schedule
    creates = ["python", "-m", "labelmill.cluster.deploy.create"]
    creates += [f"{_SPEC_FOLDER}/rayjob.json", schedule.cron, schedule.time_zone]
    container = {
        "name": "create",
        "image": night.image,
        "command": creates,
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": LOCKED,
        "volumeMounts": [{"name": "spec", "mountPath": _SPEC_FOLDER, "readOnly": True}],
    }
    pod = {
        "serviceAccountName": f"{night.name}-schedule",
        "restartPolicy": "OnFailure",
        "securityContext": user(),
        "containers": [container],
        "volumes": [{"name": "spec", "configMap": {"name": night.name}}],
    }
    return _printed(
        _spec_map(night, **{"rayjob.json": json.dumps(_rayjob(night), indent=2)}),
        *_rights(night),
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": _metadata(night),
            "spec": {
                "schedule": schedule.cron,
                "timeZone": schedule.time_zone,
                "concurrencyPolicy": "Forbid",
                "startingDeadlineSeconds": 3600,
                "jobTemplate": {"spec": {"backoffLimit": 3, "template": {"spec": pod}}},
            },
        },
    )


def raycronjob(night: Night) -> str:
    """KubeRay's own schedule."""
    schedule = night.schedule
    spec = {"schedule": schedule.cron, "timeZone": schedule.time_zone, "jobTemplate": _rayjob(night)["spec"]}
    return _ALPHA + _printed(
        _spec_map(night),
        {"apiVersion": "ray.io/v1", "kind": "RayCronJob", "metadata": _metadata(night), "spec": spec},
    )


def rayservice(night: Night) -> str:
    """An endpoint that KubeRay watches over. What changes in it alone, as its model, is taken over in place."""
    spec = night.loaded.spec
    assert isinstance(spec, ServeSpec)
    parcel = portable(night.loaded, _in_a_store)
    serve = {"http_options": http_options(spec), "applications": [application_config(spec, parcel)]}
    front = {
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "labelmill.serve.front.middlewares",
        "LABELMILL_SERVE_MAX_REQUEST_BYTES": str(spec.max_request_bytes),
    }
    cluster = cluster_of(night, workers_of(spec), front)
    return _printed(
        {
            "apiVersion": "ray.io/v1",
            "kind": "RayService",
            "metadata": _metadata(night),
            "spec": {"serveConfigV2": yaml.safe_dump(serve, sort_keys=False), "rayClusterConfig": cluster},
        }
    )


def _rayjob(night: Night) -> dict[str, Any]:
    cluster = cluster_of(night, workers_of(night.loaded.spec))
    head = cluster["headGroupSpec"]["template"]["spec"]
    head["containers"][0]["volumeMounts"].append({"name": "spec", "mountPath": _SPEC_FOLDER, "readOnly": True})
    head["volumes"].append({"name": "spec", "configMap": {"name": night.name}})
    spec = {
        "entrypoint": f"sh -c '{_DONE_OR_BUSY}'",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": _KEPT_S,
        "preRunningDeadlineSeconds": _STARTS_WITHIN_S,
        "backoffLimit": _RETRIES,  # each on a new cluster, which goes on where the table ends
        "rayClusterSpec": cluster,
    }
    if night.schedule.deadline_s:
        spec["activeDeadlineSeconds"] = int(night.schedule.deadline_s)
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": _metadata(night), "spec": spec}


def _rights(night: Night) -> list[dict[str, Any]]:
    name = f"{night.name}-schedule"
    rules = [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get"]}]
    rbac = "rbac.authorization.k8s.io"
    metadata = {"name": name, "labels": _metadata(night)["labels"]}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name}],
        },
    ]


def _spec_map(night: Night, **more: str) -> dict[str, Any]:
    data = portable(night.loaded, _in_a_store).data
    files = {"job.json": json.dumps(data, indent=2), **more}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(night), "data": files}


def _in_a_store(field: str, address: str) -> str:
    if "://" not in address:
        raise SpecError(
            f"{field}: {address!r} is a place on this machine, which no pod sees: expected an address in an object "
            "store, or file:///… where every pod mounts that folder"
        )
    return address


def _metadata(night: Night) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": "labelmill", "app.kubernetes.io/instance": night.name}
    return {"name": night.name, "labels": labels}


class _Manifest(yaml.SafeDumper):
    """Text over several lines as it is, and nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _as_written(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Manifest.add_representer(str, _as_written)


def _printed(*manifests: dict[str, Any]) -> str:
    return yaml.dump_all(manifests, Dumper=_Manifest, sort_keys=False, width=120, explicit_start=True)
