import socket
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from labelmill import check as check_module
from labelmill.check import check
from labelmill.spec import load_spec
from labelmill.storage import open_store

TRAIN = """\
kind: train
name: digits
registry: ./registry
task: multi_label
data: {images: ./pictures, labels: ./labels.csv}
model: {architecture: timm/resnet10t, weights: scratch}
optimize: {epochs: 1, batch_size: 8, learning_rate: 1e-3}
workers: {count: 1}
"""
LABEL = "{kind: label, name: n, registry: ./registry, model: digits@current, images: ./pictures, output: ./labels}"
EVALUATE = (
    "{kind: evaluate, name: n, registry: ./registry, model: digits@current, "
    "data: {images: ./pictures, labels: ./labels.csv}, output: ./report}"
)
SERVE = "{kind: serve, name: n, registry: ./registry, model: digits@current}"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABELMILL_CACHE", "cache")
    Path("pictures/cats").mkdir(parents=True)
    Path("pictures/cats/1.jpg").write_bytes(b"x")
    Path("labels.csv").write_text("uri,labels\ncats/1.jpg,cat\n")
    return tmp_path


def findings(text, *overrides):
    Path("job.yaml").write_text(text)
    return {found.subject: found for found in check(load_spec("job.yaml", overrides).spec)}


def test_a_training_spec_that_can_run_passes_and_nothing_is_written(folder):
    before = sorted(folder.rglob("*"))
    found = findings(TRAIN)
    assert {subject: finding.detail for subject, finding in found.items()} == {
        "registry": "no models yet, writable",
        "images": "reachable, 1 object",
        "labels": "there, columns uri, labels",
        "cache": "writable",
    }
    assert all(finding.ok for finding in found.values())
    assert sorted(folder.rglob("*")) == sorted([*before, folder / "job.yaml"])


@pytest.mark.parametrize(
    ("change", "subject", "detail"),
    [
        ("data.images=./none", "images", "none"),
        ("data.images=./empty", "images", "reachable, but holds no objects"),
        ("data.labels=./none.csv", "labels", "none.csv"),
        (
            "data.labels=./wrong.csv",
            "labels",
            "expected the columns uri and labels, found url, label: uri and labels missing",
        ),
        ("data.labels=./wrong.jsonl", "labels", "found uri: labels missing"),
        ("data.labels=./wrong.parquet", "labels", "expected a parquet file"),
        ("data.images=./pictures/cats data.labels=folders", "labels", "expected a folder for each label"),
        ("registry=./labels.csv", "registry", "labels.csv"),
        ("model.weights=digits@3", "weights", "no model 'digits'"),
        ("model.weights=./none.safetensors", "weights", "none.safetensors"),
    ],
)
def test_what_training_needs_and_lacks_is_named(folder, change, subject, detail):
    (folder / "empty").mkdir()
    (folder / "wrong.csv").write_text("url,label\n")
    (folder / "wrong.jsonl").write_text('{"uri": "a"}\n')
    (folder / "wrong.parquet").write_text("PAR0")
    found = findings(TRAIN, *change.split())
    assert [name for name, finding in found.items() if not finding.ok] == [subject]
    assert detail in found[subject].detail


def test_every_kind_of_labels_file_is_read_for_its_columns(folder):
    parquet.write_table(pa.table({"uri": ["a"], "labels": [["b"]], "split": ["test"]}), "labels.parquet")
    (folder / "labels.jsonl").write_text('\n{"labels": ["b"], "uri": "a"}\n')
    assert findings(TRAIN, "data.labels=labels.parquet")["labels"].detail == "there, columns uri, labels, split"
    assert findings(TRAIN, "data.labels=labels.jsonl")["labels"].detail == "there, columns uri, labels"
    assert findings(TRAIN, "data.labels=folders")["labels"].detail == "1 folder: cats"


def test_further_sources_are_reached_for_too(folder):
    (folder / "synthetic" / "cat").mkdir(parents=True)
    (folder / "synthetic" / "cat" / "1.png").write_bytes(b"x")
    (folder / "labels.csv").write_text("uri,labels,slice,group,more\ncats/1.jpg,cat,night,7,x\n")
    sources = "[{images: ./synthetic, labels: folders}, {images: ./none, labels: ./none.csv}]"
    found = findings(TRAIN, f"data.sources={sources}")
    assert found["labels"].detail == "there, columns uri, labels, group, slice"
    assert found["labels 1"].detail == "1 folder: cat"
    assert [name for name, finding in found.items() if not finding.ok] == ["images 2", "labels 2"]


def test_a_label_job_without_a_registry_is_told_so(folder):
    found = findings(LABEL)
    assert [name for name, finding in found.items() if not finding.ok] == ["registry", "model"]
    assert found["output"].detail == "writable"


@pytest.mark.parametrize("spec", [TRAIN, LABEL, EVALUATE, SERVE], ids=["train", "label", "evaluate", "serve"])
def test_a_cache_that_cannot_be_written_is_told_of_before_a_job_needs_it(folder, spec, monkeypatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(folder / "labels.csv"))
    found = findings(spec)["cache"]
    assert not found.ok and found.place == str(folder / "labels.csv")
    assert found.detail.endswith("Set LABELMILL_CACHE to a folder that can be, and has room.")


def test_an_evaluation_is_asked_for_its_model_its_pictures_and_its_output(folder):
    found = findings(EVALUATE, "data.labels=./none.csv")
    assert list(found) == ["registry", "model", "images", "labels", "output", "cache"]
    assert [name for name, finding in found.items() if not finding.ok] == ["registry", "model", "labels"]


def test_every_kind_of_listing_is_looked_into(folder):
    parquet.write_table(pa.table({"image": [b"x"]}), "pictures/rows.parquet")
    Path("damaged.tar").write_text("no tar")
    Path("list.csv").write_text("uri,etag\npictures/cats/1.jpg,abc\n")
    for images, detail in (
        ("{prefix: ./pictures, include: ['*.jpg']}", "reachable, 2 objects"),
        ("{manifest: ./list.csv}", "there, columns uri, etag; its first picture is there"),
        ("{shards: ./pictures}", "reachable, 1 shard, the first begins with #image/0"),
    ):
        assert findings(LABEL, f"images={images}")["images"].detail == detail
    for images, detail in (
        ("{prefix: ./pictures, include: ['*.gif']}", "with include *.gif, found none"),
        ("{manifest: ./none.csv}", "none.csv"),
        ("{manifest: ./labels.csv}", "there, but its first picture is not: no such file"),
        ("{shards: ./pictures/cats}", "reachable, but holds no tar or parquet files"),
        ("{shards: ./none.tar}", "none.tar"),
        ("{shards: ./damaged.tar}", "damaged.tar holds no pictures, or is no plain tar or parquet file"),
    ):
        found = findings(LABEL, f"images={images}")["images"]
        assert not found.ok
        assert detail in found.detail


def test_an_output_below_a_file_is_not_writable(folder):
    found = findings(LABEL, "output=./labels.csv/table")["output"]
    assert (found.ok, found.detail) == (False, f"expected a folder, and {folder / 'labels.csv'} is a file")


def test_a_port_in_use_is_noticed(folder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert "cannot listen there: Address already in use" in findings(SERVE, f"port={port}")["listen"].detail
    assert findings(SERVE, f"port={port}")["listen"].detail == "free"


def test_a_place_that_does_not_answer_is_given_up_and_the_others_are_still_told(folder, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(check_module, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(check_module, "_images", lambda uri: str(release.wait(10)))
    found = findings(TRAIN)
    release.set()
    assert (found["images"].answered, found["images"].detail) == (False, "no answer within 0.3 seconds")
    assert found["labels"].ok


def test_an_object_store_is_tried_and_left_as_it_was(folder, s3):
    store = open_store(s3)
    store.write("in/1.jpg", b"x")
    found = findings(LABEL, f"images={s3}/in", f"output={s3}/out", f"registry={s3}/models")
    assert found["images"].detail == "reachable, 1 object"
    assert found["output"].detail.startswith("writable")
    assert found["registry"].detail == "holds no models: train one first, or correct the address"
    assert not findings(LABEL, "images=s3://no-such-bucket-here/in")["images"].ok
    assert list(store.keys()) == ["in/1.jpg"]
