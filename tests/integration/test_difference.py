"""What changes in a store between two nights, on real runs: pictures go and come back, and failures are tried again."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from bundles import make_bundle
from labelmill.label.todo.settings import Settings
from labelmill.model.registry import Registry
from labelmill.spec import load_spec
from labelmill.storage import LISTING_SCHEMA, open_store
from labelmill.table.data_file import put_data_file
from labelmill.table.row import DATA_SCHEMA
from labelmill.table.table import LabelTable
from labelmill.table.writer import TableWriter
from listings import altered, for_ever
from proxy import faulty_proxy, no_fault
from running import label_spec, labelmill, rows_of


def picture(seed):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def history(table):
    """Per picture, the statuses of its rows from the first run to the last."""
    found = {}
    for row in rows_of(table):
        found.setdefault(Path(row["uri"]).name, []).append(row["status"])
    return found


def receipts(table):
    return [json.loads(path.read_text()) for path in sorted(table.glob("_labelmill/receipts/*.json"))]


def test_a_picture_goes_and_comes_back_and_a_damaged_one_is_tried_again(tmp_path):
    make_bundle(str(tmp_path / "registry"))
    images, table = tmp_path / "images", tmp_path / "labels"
    (images / "inner").mkdir(parents=True)
    for name in ("stays.jpg", "inner/goes.jpg"):
        (images / name).write_bytes(picture(1))
    (images / "damaged.jpg").write_bytes(picture(2)[:300])
    job = label_spec(
        tmp_path / "label.yaml", registry=tmp_path / "registry", model="tiny@1", images=images, output=table
    )
    first = labelmill("run", job)
    assert first.returncode == 0, first.stderr

    (images / "inner").rename(tmp_path / "inner")
    for _ in range(2):  # the second night has nothing new to say of it
        night = labelmill("run", job)
        assert night.returncode == 0, night.stderr
    assert history(table) == {"stays.jpg": ["ok"], "goes.jpg": ["ok", "deleted"], "damaged.jpg": ["unreadable"]}
    assert [receipt["pictures_deleted"] for receipt in receipts(table)] == [0, 1, 0]
    first_row, gone = (row for row in rows_of(table) if row["uri"].endswith("goes.jpg"))
    assert {name: gone[name] for name in ("etag", "size_bytes", "modified_at", "model", "labels", "width_px")} == {
        **{name: first_row[name] for name in ("etag", "size_bytes", "modified_at", "model")},
        "labels": [],
        "width_px": None,
    }
    assert "no longer in the store" in labelmill("labels", table, "--status", "deleted").stdout

    (tmp_path / "inner").rename(images / "inner")  # as it was: the same etag
    back = labelmill("run", job, "--set", "retry=[unreadable]")
    assert back.returncode == 0, back.stderr
    assert history(table) == {
        "stays.jpg": ["ok"],
        "goes.jpg": ["ok", "deleted", "ok"],
        "damaged.jpg": ["unreadable", "unreadable"],
    }
    assert "nothing to do" in labelmill("run", job).stdout
    # its row is the first one's, and nobody read the picture again
    *_, again = (row for row in rows_of(table) if row["uri"].endswith("goes.jpg"))
    new = {"run_id", "labelled_at", "labelled_on"}
    assert {name: value for name, value in again.items() if name not in new} == {
        name: value for name, value in first_row.items() if name not in new
    }
    assert again["run_id"] > gone["run_id"]
    assert again["labelled_at"] > gone["labelled_at"]
    assert [receipt["pictures_returned"] for receipt in receipts(table)] == [0, 0, 0, 1, 0]
    assert receipts(table)[3]["pictures_labelled"] == 1


def labelled(spec):
    """The table that a run of this spec leaves, without running it: every picture is `ok`."""
    loaded = load_spec(spec)
    bundle, writer = Registry(loaded.spec.registry).resolve(loaded.spec.model), TableWriter(loaded.spec.output)
    listed = pa.Table.from_batches(open_store(loaded.spec.images).list(), LISTING_SCHEMA).drop_columns("archive")
    same = {
        "status": "ok",
        "model": bundle.reference,
        "bundle_digest": bundle.digest,
        "settings_digest": Settings.of(loaded.spec).digest,
        "run_id": writer.run_id,
    }
    rows = pa.Table.from_pylist([row | same for row in listed.to_pylist()], schema=DATA_SCHEMA)
    day = "2026-01-01"
    writer.commit([put_data_file(open_store(loaded.spec.output), f"labelled_on={day}/x.parquet", rows, day)])


def current(table):
    """Per status, how many pictures the current view has."""
    sql = "SELECT status, count(*) AS pictures FROM current_labels GROUP BY status"
    return {row["status"]: row["pictures"] for row in LabelTable(str(table)).query(sql)}


def test_folders_that_are_not_mounted_stop_the_run_and_what_is_back_is_labelled_by_nobody(tmp_path):
    make_bundle(str(tmp_path / "registry"))
    images, table = tmp_path / "images", tmp_path / "labels"
    for number in range(250):
        file = images / f"site{number % 10}" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * number)  # which nobody could label
    job = label_spec(
        tmp_path / "label.yaml", registry=tmp_path / "registry", model="tiny@1", images=images, output=table
    )
    labelled(job)

    (images / "site1").rename(tmp_path / "volume")
    (images / "site1").symlink_to(tmp_path / "volume")
    labelled(job)
    (tmp_path / "volume").rename(tmp_path / "elsewhere")  # a link to what is not mounted is said, and costs no row
    done = labelmill("run", job)
    assert (done.returncode, current(table)) == (0, {"ok": 250})
    assert f"link that leads nowhere, not listed: '{images}/site1'" in done.stderr
    (images / "site1").unlink()
    (tmp_path / "elsewhere").rename(images / "site1")

    for site in range(1, 10):
        (images / f"site{site}").rename(tmp_path / f"site{site}")
    for command in ("run", "run", "plan"):  # and so on, until somebody says what it is
        done = labelmill(command, job)
        assert done.returncode == 4, (command, done.stderr)
        said = done.stdout if command == "plan" else done.stderr
        assert "225 of the 250 pictures" in said
        assert f"{images}/site7/ 25" in said
        assert "--set max_vanished_rate=1" in said
        assert "Traceback" not in done.stderr
        assert current(table) == {"ok": 250}
        assert len(rows_of(table)) == 250
    assert json.loads(labelmill("plan", job, "--json").stdout)["pictures_deleted"] == 225
    assert not list(table.glob("_labelmill/runs/*"))

    assert labelmill("run", job, "--set", "max_vanished_rate=1").returncode == 0
    assert current(table) == {"ok": 25, "deleted": 225}

    for site in range(1, 10):
        (tmp_path / f"site{site}").rename(images / f"site{site}")
    plan = json.loads(labelmill("plan", job, "--json").stdout)
    assert (plan["pictures_returned"], plan["pictures_to_label"], plan["pictures_done"]) == (225, 0, 25)
    back = labelmill("run", job)
    assert back.returncode == 0, back.stderr
    assert "nothing to do" in back.stdout
    assert "225 came back as they were" in back.stdout
    assert current(table) == {"ok": 250}
    rows = rows_of(table)
    assert labelmill("run", job).returncode == 0
    assert rows_of(table) == rows


@pytest.mark.parametrize(
    ("way", "told"),
    [
        (altered(lambda body: body.replace(b"<IsTruncated>false", b"<IsTruncated>true")), "gives no token"),
        (for_ever(fresh_tokens=False, keys=True), "begins anew"),
        (altered(lambda body: body[: len(body) // 2]), "cuts its answers off"),
        (altered(lambda body: body.replace(b"in/f/</Prefix></C", b"in/g/</Prefix></C")), "'in/g/', and nothing in it"),
    ],
)
def test_pictures_that_a_server_does_not_list_are_never_said_to_be_deleted(s3, s3_endpoint, tmp_path, way, told):
    make_bundle(str(tmp_path / "registry"))
    store, table = open_store(f"{s3}/in"), tmp_path / "labels"
    for name in ("a.jpg", "b.jpg", "f/c.jpg"):
        store.write(name, b"x")
    job = label_spec(
        tmp_path / "label.yaml", registry=tmp_path / "registry", model="tiny@1", images=store.uri, output=table
    )
    labelled(job)
    with faulty_proxy(s3_endpoint, no_fault, alter=way) as proxy:
        done = labelmill("run", job, AWS_ENDPOINT_URL=proxy.endpoint)
    assert done.returncode == 1, done.stderr
    assert told in done.stderr
    assert proxy.endpoint in done.stderr
    assert "Traceback" not in done.stderr
    assert current(table) == {"ok": 3}


def test_what_lies_in_an_archive_is_asked_for_once_it_does_no_more(s3, s3_buckets, s3_endpoint, tmp_path):
    make_bundle(str(tmp_path / "registry"))
    bucket, table = s3_buckets.Bucket(s3.removeprefix("s3://")), tmp_path / "labels"
    for number in range(30):
        bucket.put_object(Key=f"in/{number}.jpg", Body=picture(number), StorageClass="DEEP_ARCHIVE")
    job = label_spec(
        tmp_path / "label.yaml", registry=tmp_path / "registry", model="tiny@1", images=f"{s3}/in", output=table
    )
    with faulty_proxy(s3_endpoint, no_fault) as proxy:
        for _ in range(2):
            done = labelmill("run", job, AWS_ENDPOINT_URL=proxy.endpoint)
            assert done.returncode == 0, done.stderr
            assert current(table) == {"archived": 30}
            assert len(rows_of(table)) == 30
        assert not [key for method, key in proxy.requests if key.startswith("in/")]
    assert {row["error"] for row in rows_of(table)} == {
        "in an archive, storage class DEEP_ARCHIVE: give it one that is read at once, and the next run labels it"
    }
    assert [receipt["pictures_archived"] for receipt in receipts(table)] == [30, 0]
    bucket.put_object(Key="in/7.jpg", Body=picture(7))
    done = labelmill("run", job)
    assert done.returncode == 0, done.stderr
    assert current(table) == {"archived": 29, "ok": 1}
