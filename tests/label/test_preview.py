"""`labelmill plan` without Ray: what it foresees, and that it leaves nothing behind."""

import datetime as dt
import json
from dataclasses import replace

import pyarrow as pa
import pytest

from bundles import make_bundle
from label.work.test_samples import picture
from labelmill.errors import NotFoundError, SpecError
from labelmill.label.preview import preview
from labelmill.label.todo.settings import Settings
from labelmill.spec import load_spec
from labelmill.storage import open_store
from labelmill.table.data_file import put_data_file
from labelmill.table.row import DATA_SCHEMA
from labelmill.table.writer import TableWriter
from running import label_spec, labelmill


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("registry"))
    make_bundle(uri)
    return uri


@pytest.fixture
def job(tmp_path, registry):
    """Writes a spec over pictures in a folder, `bad` of `count` being none."""

    def write(count=100, bad=0, images=None, **fields):
        store = open_store(images or str(tmp_path / "images"))
        for index in range(count):
            store.write(f"{index:04d}.jpg", picture((60, 40)) if index >= bad else b"<html>gone</html>")
        places = {"images": store.uri, "output": str(tmp_path / "labels")}
        spec = label_spec(tmp_path / "job.yaml", registry=registry, model="tiny@1", **(places | fields))
        return load_spec(spec)

    return write


def label_some(loaded, registry, count):
    """Rows of the first `count` pictures, as a run would have committed them."""
    from labelmill.model.registry import Registry

    bundle = Registry(registry).resolve("tiny@1")
    [listed] = open_store(loaded.spec.images).list()
    writer, today = TableWriter(loaded.spec.output), dt.date(2026, 1, 1).isoformat()
    settings = Settings.of(loaded.spec).digest
    rows = [
        row
        | {"status": "ok", "model": "tiny@1", "bundle_digest": bundle.digest, "settings_digest": settings}
        | {"run_id": writer.run_id}
        for row in pa.Table.from_batches([listed]).sort_by("uri").slice(0, count).to_pylist()
    ]
    table = pa.Table.from_pylist(rows, schema=DATA_SCHEMA)
    writer.commit([put_data_file(open_store(loaded.spec.output), f"labelled_on={today}/{count}.parquet", table, today)])


def everything_below(folder):
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_plan_makes_no_table_and_touches_none(job, registry, tmp_path):
    loaded = job()
    before = everything_below(tmp_path)
    found = preview(loaded)
    assert everything_below(tmp_path) == before
    assert (found.pictures_listed, found.pictures_to_label, found.pictures_done) == (100, 100, 0)

    label_some(loaded, registry, 70)
    before = everything_below(tmp_path)
    found = preview(loaded)
    assert everything_below(tmp_path) == before
    assert (found.pictures_to_label, found.pictures_done, found.sample.num_pictures) == (30, 70, 30)
    assert found.bytes_to_read == 30 * len(picture((60, 40)))
    assert found.sample.statuses == {"ok": 30}
    assert found.sample.decode_s > 0 < found.sample.forward_s

    label_some(loaded, registry, 100)
    (tmp_path / "images" / "0000.jpg").unlink()
    found = preview(loaded)
    assert (found.pictures_to_label, found.pictures_deleted, found.sample, found.labelling_s) == (0, 1, None, 0.0)
    assert "nothing to do" in str(found)


def test_a_store_that_fails_is_found_in_the_first_minute(job):
    found = preview(job(100, bad=50))
    assert set(found.sample.statuses) == {"ok", "unsupported"}
    assert found.would_stop
    assert "the run would stop:" in str(found)
    assert {failure["status"] for failure in found.sample.failures} == {"unsupported"}
    assert not preview(job(100, bad=50, max_failure_rate=0.9)).would_stop


def test_a_few_bad_pictures_by_chance_are_no_alarm(job):
    sample = replace(preview(job(100)).sample, statuses={"ok": 60, "unreadable": 4})
    found = replace(preview(job(100)), sample=sample)
    assert sample.failed / sample.num_pictures > found.max_failure_rate
    assert not found.would_stop


def test_requests_and_money_are_foreseen_on_an_object_store(s3, job):
    prices = "{core_hour: 0, get_per_1000: 1000, currency: EUR}"
    loaded = load_spec(job(10, images=f"{s3}/in", output=f"{s3}/out").path, [f"prices={prices}"])
    asked = list(open_store(s3).keys())
    found = preview(loaded)
    assert list(open_store(s3).keys()) == asked
    assert found.sample.gets_a_picture == 1.0
    assert 10 <= found.requests.gets <= 14
    assert found.requests.lists >= 1
    assert found.requests.puts >= 1
    assert found.cost.total == found.cost.requests == found.requests.gets
    assert "EUR" in str(found)


def test_the_command_prints_json_and_fails_where_the_run_would(job):
    done = labelmill("plan", job(80, bad=80).path, "--json")
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert (found["pictures_to_label"], found["would_stop"], found["cost"]) == (80, True, None)
    assert found["sample"]["statuses"] == {"unsupported": 64}
    assert found["wall_s"] == pytest.approx(found["startup_s"] + found["labelling_s"])


def test_what_cannot_be_planned_is_refused_in_a_sentence(job, tmp_path):
    train = tmp_path / "serve.yaml"
    train.write_text(f"kind: serve\nname: api\nregistry: {tmp_path}\nmodel: a@1\n")
    with pytest.raises(SpecError, match=r"expected kind: label, got 'serve'.*labelmill check"):
        preview(load_spec(train))
    with pytest.raises(NotFoundError):
        preview(job(0))


def test_a_picture_s_name_does_not_break_a_line_of_the_plan(job):
    loaded = job(count=20)
    open_store(loaded.spec.images).write("a\nb.jpg", b"<html>gone</html>")
    lines = str(preview(loaded)).splitlines()
    assert [line for line in lines if "a\\nb.jpg: expected a picture" in line]
    assert lines[-1].startswith("nothing was written to ")
