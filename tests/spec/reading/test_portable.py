"""A spec that means the same on another machine."""

import json

import pytest

from labelmill.errors import SpecError
from labelmill.spec import load_spec, portable

TRAIN = """
kind: train
name: m
registry: ${REGISTRY:-./registry}
task: multi_class
data:
  images: pictures
  labels: folders
  sources: [{images: s3://b/more, labels: more.csv}]
model: {architecture: timm/test_vit, weights: start.safetensors}
optimize: {epochs: "${EPOCHS}"}
tracking: {mlflow: "http://server:5000"}
"""
LABEL = """
kind: label
name: n
registry: s3://b/registry
models: [a@1, b@2]
images: {prefix: "in $${x}", exclude: ["thumbs"]}
output: out
notify: {url: "${HOOK}"}
"""


def moved(tmp_path, text, **environ):
    (tmp_path / "job.yaml").write_text(text)
    loaded = load_spec(tmp_path / "job.yaml", environ=environ)
    seen = {}
    found = portable(loaded, lambda name, address: seen.setdefault(name, f"/moved/{address}"))
    return found, seen, loaded


def test_every_address_is_moved_and_nothing_else(tmp_path):
    found, seen, _ = moved(tmp_path, TRAIN, EPOCHS="3")
    assert seen == {
        "registry": "/moved/./registry",
        "data.images": "/moved/pictures",
        "data.sources.0.images": "/moved/s3://b/more",
        "data.sources.0.labels": "/moved/more.csv",
        "model.weights": "/moved/start.safetensors",
    }
    assert found.data["optimize"] == {"epochs": 3}
    assert found.data["data"]["labels"] == "folders"
    assert found.data["data"]["sources"] == [{"images": "/moved/s3://b/more", "labels": "/moved/more.csv"}]
    for weights in ("pretrained", "scratch", "m@3"):
        text = TRAIN.replace("start.safetensors", weights)
        assert "model.weights" not in moved(tmp_path, text, EPOCHS="3")[1]


def test_what_is_read_there_is_what_was_read_here(tmp_path):
    """Also where a text holds the characters of a variable; and a secret is filled in there."""
    found, seen, loaded = moved(tmp_path, LABEL, HOOK="https://here.example/")
    assert seen.keys() == {"registry", "images.prefix", "output"}
    assert found.secrets == ("HOOK",)
    (tmp_path / "there.json").write_text(json.dumps(found.data))
    assert "here.example" not in (tmp_path / "there.json").read_text()
    there = load_spec(tmp_path / "there.json", environ={"HOOK": "https://there.example/"}).spec
    assert there.images.prefix == "/moved/in ${x}"
    assert there.notify.url.get_secret_value() == "https://there.example/"
    assert there.models == loaded.spec.models


def test_who_hands_a_job_over_need_not_know_its_secrets(tmp_path):
    (tmp_path / "job.yaml").write_text(LABEL)
    loaded = load_spec(tmp_path / "job.yaml", environ={}, secrets_are_elsewhere=True)
    found = portable(loaded, lambda _, address: address)
    assert (found.data["notify"], found.secrets) == ({"url": "${HOOK}"}, ("HOOK",))
    (tmp_path / "job.yaml").write_text(LABEL.replace("out\n", "${OUT}\n"))
    with pytest.raises(SpecError, match=r"output: the environment variable OUT is not set"):
        load_spec(tmp_path / "job.yaml", environ={}, secrets_are_elsewhere=True)


def test_a_secret_that_stands_in_the_spec_does_not_travel(tmp_path):
    text = LABEL.replace("${HOOK}", "https://here.example/T1")
    with pytest.raises(SpecError, match=r"notify.url: a secret stands in the spec, .* write \${NAME}") as refused:
        moved(tmp_path, text)
    assert "here.example" not in str(refused.value)
