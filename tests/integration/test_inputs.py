"""A label job over each kind of listing, on a real Ray: what is listed ends as exactly one row, whatever it lies in."""

import json
from collections import Counter

import pytest

from bundles import make_bundle
from labelmill.storage import open_store
from labelmill.table.table import LabelTable
from pictures import jpeg_bytes, png_bytes
from running import label_spec, labelmill, rows_of
from shards import parquet_shard, tar_shard


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("registry"))
    make_bundle(uri)
    return uri


def run(tmp_path, registry, images, output):
    job = label_spec(tmp_path / "job.yaml", registry=registry, model="tiny@1", images=images, output=output)
    done = labelmill("run", job)
    assert done.returncode == 0, done.stderr
    return done.stdout


def statuses(table):
    return {row["uri"]: row["status"] for row in rows_of(table)}


def test_what_a_manifest_names_is_labelled_once_and_what_is_missing_has_a_row(tmp_path, registry):
    (tmp_path / "in").mkdir()
    for index in range(6):
        (tmp_path / f"in/{index}.jpg").write_bytes(jpeg_bytes(seed=index))
    lines = [
        "uri",
        *(f"{index}.jpg" for index in range(4)),
        "./0.jpg",
        f"{tmp_path}/in/1.jpg",
        "gone.jpg",
        "ftp://b/x.jpg",
    ]
    (tmp_path / "in/list.csv").write_text("\n".join(lines))
    table = tmp_path / "labels"
    run(tmp_path, registry, {"manifest": f"{tmp_path}/in/list.csv"}, table)
    expected = {f"{tmp_path}/in/{index}.jpg": "ok" for index in range(4)}
    expected |= {f"{tmp_path}/in/gone.jpg": "missing", "ftp://b/x.jpg": "fetch_failed"}
    assert statuses(table) == expected
    assert {row["etag"] == "" for row in rows_of(table) if row["status"] != "ok"} == {True}

    # A prefix over the same pictures finds them done.
    run(tmp_path, registry, {"prefix": f"{tmp_path}/in", "include": ["*.jpg"]}, table)
    assert statuses(table) == expected | {f"{tmp_path}/in/{index}.jpg": "ok" for index in range(6)}
    assert max(Counter(row["uri"] for row in rows_of(table)).values()) == 1


@pytest.mark.long
def test_members_of_shards_are_labelled_like_the_pictures_they_are(tmp_path, registry):
    pictures = {f"{index:03}.jpg": jpeg_bytes(seed=index) for index in range(90)}
    loose, shards, table = tmp_path / "loose", tmp_path / "in", tmp_path / "labels"
    for folder in (loose, shards):
        folder.mkdir()
    for name, data in pictures.items():
        (loose / name).write_bytes(data)
    names = list(pictures)
    (shards / "a.tar").write_bytes(tar_shard([(name, pictures[name]) for name in names[:40]] + [("x.json", b"{}")]))
    (shards / "b.parquet").write_bytes(
        parquet_shard({"image": [{"bytes": pictures[name], "path": name} for name in names[40:]]}, row_group_size=30)
    )
    (shards / "c.tar").write_bytes(tar_shard([("p.png", png_bytes()), ("q.jpg", b"no picture")]))
    (shards / "d.tar").write_bytes(b"no shard")
    run(tmp_path, registry, {"shards": str(shards)}, table)
    run(tmp_path, registry, str(loose), tmp_path / "loose-labels")

    rows = {row["uri"].removeprefix(f"{shards}/"): row for row in rows_of(table)}
    whole = {row["uri"].removeprefix(f"{loose}/"): row for row in rows_of(tmp_path / "loose-labels")}
    for index, name in enumerate(names):
        row = rows.pop(f"a.tar#{name}" if index < 40 else f"b.parquet#image.bytes/{index - 40}")
        assert [row[key] for key in ("status", "labels", "scores", "width_px")] == [
            whole[name][key] for key in ("status", "labels", "scores", "width_px")
        ]
        assert row["etag"] == open_store(str(shards)).info(row["uri"].removeprefix(f"{shards}/").partition("#")[0]).etag
    assert {uri: row["status"] for uri, row in rows.items()} == {
        "c.tar#p.png": "ok",
        "c.tar#q.jpg": "unsupported",
        "d.tar": "unreadable",
    }
    assert "nothing to do" in run(tmp_path, registry, {"shards": str(shards)}, table)
    receipt = json.loads(sorted((table / "_labelmill/receipts").glob("*.json"))[-1].read_text())
    assert (receipt["pictures_listed"], receipt["images"]) == (93, str(shards))


def test_a_malformed_listing_ends_the_run_before_there_is_a_table(tmp_path, registry):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/list.csv").write_text("url\na.jpg\n")
    for images, words in (
        ({"manifest": f"{tmp_path}/in/list.csv"}, "expected a column 'uri', found 'url'"),
        ({"prefix": f"{tmp_path}/in", "include": ["*.gif"]}, "with include *.gif, found none"),
    ):
        job = label_spec(
            tmp_path / "job.yaml", registry=registry, model="tiny@1", images=images, output=tmp_path / "labels"
        )
        done = labelmill("run", job)
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "labels").exists()


@pytest.mark.long
def test_manifests_and_shards_in_a_bucket(tmp_path, s3):
    make_bundle(f"{s3}/models")
    store = open_store(f"{s3}/in")
    for index in range(5):
        store.write(f"p/{index} #.jpg", jpeg_bytes(seed=index))
    store.write("list.jsonl", "\n".join(json.dumps({"uri": f"p/{index} #.jpg"}) for index in range(5)).encode())
    store.write("shards/a.tar", tar_shard(7))
    store.write("shards/b.parquet", parquet_shard({"image": [jpeg_bytes(seed=9)] * 6}))
    for images, count in (({"manifest": store.address("list.jsonl")}, 5), ({"shards": store.address("shards")}, 18)):
        run(tmp_path, f"{s3}/models", images, f"{s3}/labels")
        assert "nothing to do" in run(tmp_path, f"{s3}/models", images, f"{s3}/labels")
        rows = LabelTable(f"{s3}/labels").query("SELECT uri, status FROM labels")
        assert Counter(row["status"] for row in rows) == {"ok": count}
        assert len({row["uri"] for row in rows}) == count
