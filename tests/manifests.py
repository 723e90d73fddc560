"""Kubernetes manifests, checked as strictly as an API server with strict field validation does."""

import os
from functools import cache
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

__all__ = ["NEEDS_CRDS", "check_manifests"]

_CRDS = os.environ.get("LABELMILL_TEST_CRDS")
NEEDS_CRDS = pytest.mark.skipif(
    not _CRDS,
    reason="LABELMILL_TEST_CRDS names no folder with KubeRay's ray.io_*.yaml (helm-chart/kuberay-operator/crds)",
)
_SAYS_NOTHING = ("format", "default", "description", "x-kubernetes-validations", "nullable")


def check_manifests(text):
    """The manifests of a YAML stream, each of a kind that is known and with no field that is not."""
    found = [manifest for manifest in yaml.safe_load_all(text) if manifest]
    for manifest in found:
        if manifest["apiVersion"] == "ray.io/v1":
            _check_pods(manifest)
            errors = list(_validator(manifest["kind"]).iter_errors(manifest))
            assert not errors, [f"{error.json_path}: {error.message}" for error in errors]
        else:
            kubernetes_validate.validate(manifest, "1.33", strict=True)
    return found


def _check_pods(part):
    """What a CRD knows of pods is an older or a shorter schema: each template is checked as a pod as well."""
    if isinstance(part, dict):
        if "containers" in part:
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": part}
            kubernetes_validate.validate(pod, "1.33", strict=True)
        for inner in part.values():
            _check_pods(inner)
    elif isinstance(part, list):
        for inner in part:
            _check_pods(inner)


@cache
def _validator(kind):
    text = Path(_CRDS, f"ray.io_{kind.lower()}s.yaml").read_text()
    definition = yaml.load(text, yaml.CSafeLoader)  # a megabyte of it
    [version] = [version for version in definition["spec"]["versions"] if version["name"] == "v1"]
    schema = _closed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


def _closed(schema):
    """The same, without room for fields that it does not name."""
    if isinstance(schema, list):
        return [_closed(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    found = {key: inner if key == "properties" else _closed(inner) for key, inner in schema.items()}
    found = {key: inner for key, inner in found.items() if key not in _SAYS_NOTHING or isinstance(schema[key], dict)}
    if isinstance(schema.get("properties"), dict):
        found["properties"] = {name: _closed(inner) for name, inner in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            found.setdefault("additionalProperties", False)
        given = {name for name, inner in schema["properties"].items() if "default" in inner}
        if "required" in found:
            found["required"] = [name for name in found["required"] if name not in given]
    return found
