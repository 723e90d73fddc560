"""What there is to label, from every kind of listing: each picture with its version, and nothing that is none."""

import gzip
import json
import os
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from pyarrow import parquet

from labelmill.errors import ArchivedError, DataError, NotFoundError
from labelmill.label.inventory.inventory import open_inventory
from labelmill.label.inventory.item import ITEM_SCHEMA
from labelmill.spec import Images
from labelmill.storage import open_store, read_pictures, traffic
from shards import tar_shard


def listed(index=None, **images):
    table = pa.Table.from_batches(open_inventory(Images(**images), index).list(), schema=ITEM_SCHEMA)
    return {row["uri"]: row for row in table.to_pylist()}


def names(found, base):
    return [uri.removeprefix(f"{base}/") for uri in sorted(found)]


@pytest.fixture
def root(request, tmp_path):
    """A folder or a bucket with pictures."""
    store = open_store(str(tmp_path))
    for name in ("a.jpg", "in/b.jpg", "in/c.png", "in/deep/d.jpg", "in/deep/e #1.JPG", "thumbs/a.jpg"):
        store.write(name, name.encode())
    return store


# ---- prefixes, patterns, samples ----


@pytest.mark.parametrize(
    ("include", "exclude", "left"),
    [
        (["*.jpg"], [], ["a.jpg", "in/b.jpg", "in/deep/d.jpg", "thumbs/a.jpg"]),
        (["*.{jpg,JPG}"], ["thumbs"], ["a.jpg", "in/b.jpg", "in/deep/d.jpg", "in/deep/e #1.JPG"]),
        (["in/*.jpg"], [], ["in/b.jpg"]),
        (["in/**/*.jpg"], [], ["in/b.jpg", "in/deep/d.jpg"]),
        (["/a.jpg"], [], ["a.jpg"]),
        (["in/"], ["in/deep/"], ["in/b.jpg", "in/c.png"]),
        (["in/deep"], [], ["in/deep/d.jpg", "in/deep/e #1.JPG"]),
        (["**/?.[jp][pn]g"], ["a.jpg"], ["in/b.jpg", "in/c.png", "in/deep/d.jpg"]),
        (["[!a]*.jpg"], [], ["in/b.jpg", "in/deep/d.jpg"]),
        ([], ["*.jpg", "*.JPG"], ["in/c.png"]),
    ],
)
def test_patterns_choose_by_the_key_below_the_prefix(root, include, exclude, left):
    assert names(listed(prefix=root.uri, include=include, exclude=exclude), root.uri) == left


def test_a_pattern_meets_names_that_are_not_utf8(tmp_path):
    root = tmp_path / os.fsdecode(b"gr\xfcn")
    for name in (b"caf\xe9 1.jpg", b"caf\xe8 2.jpg", b"plain.jpg", b"thumbs/\xe9.jpg"):
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name)
    base = f"file://{tmp_path}/gr%FCn"
    assert open_inventory(base).covers(f"{base}/gone%E9.jpg")
    assert names(listed(prefix=base, include=["caf? *.jpg"]), base) == ["caf%E8%202.jpg", "caf%E9%201.jpg"]
    assert names(listed(prefix=base, exclude=["caf*", "thumbs/?.jpg"]), base) == ["plain.jpg"]
    inventory = open_inventory(str(tmp_path))
    assert inventory.covers(f"{base}/x.jpg") and inventory.covers(f"{tmp_path}/x.jpg")
    assert not open_inventory(f"{tmp_path}/gr").covers(f"{base}/x.jpg")


@pytest.mark.parametrize("kind", ["prefix", "shards"])
@pytest.mark.parametrize("exclude", ["closed", "/closed", "closed/", "closed/**", "closed/*", "cl*", "**/[a-c]losed"])
def test_nobody_looks_into_a_folder_that_is_excluded(tmp_path, monkeypatch, kind, exclude):
    for name in ("a/x.tar", "closed/y.tar", "closed/deep/z.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(tar_shard(1))
    entered = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: entered.append(str(path)) or scandir(path))
    member = "#000000.jpg" if kind == "shards" else ""
    assert list(listed(**{kind: str(tmp_path)}, exclude=[exclude])) == [f"{tmp_path}/a/x.tar{member}"]
    open_inventory(Images(**{kind: str(tmp_path)}, exclude=[exclude])).probe()
    assert set(entered) == {str(tmp_path), f"{tmp_path}/a"}


def test_a_folder_of_which_a_part_is_excluded_is_looked_into(root):
    assert names(listed(prefix=root.uri, exclude=["in/*.jpg", "in/deep/x", "in/?", "in/[c-d]*"]), root.uri) == [
        "a.jpg",
        "thumbs/a.jpg",
    ]
    assert "in/deep/d.jpg" in names(listed(prefix=root.uri, exclude=["in/*.jpg", "deep/x", "in/deep/[!d]*"]), root.uri)


def test_a_pattern_that_nothing_meets_is_an_error_that_names_it(root):
    inventory = open_inventory(Images(prefix=root.uri, include=["*.gif"]))
    for ask in (inventory.probe, lambda: list(inventory.list())):
        with pytest.raises(NotFoundError, match=r"expected pictures in .* with include \*\.gif, found none"):
            ask()


def test_only_a_whole_prefix_can_say_that_a_picture_is_gone(root):
    whole = open_inventory(root.uri)
    assert (whole.complete_below, whole.covers(f"{root.uri}/x.jpg"), whole.covers(f"{root.uri}2/x.jpg")) == (
        root.uri,
        True,
        False,
    )
    for part in ({"include": ["*.jpg"]}, {"exclude": ["x"]}, {"limit": 3}, {"sample": 1.0}):
        assert not open_inventory(Images(prefix=root.uri, **part)).covers(f"{root.uri}/x.jpg")


def test_a_limit_is_the_same_pictures_each_time_and_reads_no_further(root):
    assert names(listed(prefix=root.uri, limit=2), root.uri) == ["a.jpg", "in/b.jpg"]
    assert names(listed(prefix=root.uri, limit=2, exclude=["a.jpg"]), root.uri) == ["in/b.jpg", "in/c.png"]


def test_a_sample_is_a_share_and_the_same_whatever_else_is_listed(tmp_path):
    store = open_store(str(tmp_path))
    (tmp_path / "m.csv").write_text("uri,etag\n" + "".join(f"s3://b/{n}.jpg,e\n" for n in range(4000)))
    (tmp_path / "half.csv").write_text("uri,etag\n" + "".join(f"s3://b/{n}.jpg,e\n" for n in range(0, 4000, 2)))
    whole = set(listed(manifest=store.address("m.csv"), sample=0.1))
    half = set(listed(manifest=store.address("half.csv"), sample=0.1))
    assert 320 < len(whole) < 480
    assert half == {uri for uri in whole if int(uri[7:-4]) % 2 == 0}
    assert set(listed(manifest=store.address("m.csv"), sample=0.01)) < whole


# ---- manifests ----


def manifest_bytes(name, rows):
    if name.endswith(".parquet"):
        sink = pa.BufferOutputStream()
        parquet.write_table(pa.Table.from_pylist(rows), sink)
        return sink.getvalue().to_pybytes()
    if ".csv" in name:
        lines = [",".join(rows[0]), *(",".join("" if v is None else str(v) for v in row.values()) for row in rows)]
        text = "\n".join(lines)
    else:
        text = "\n".join(json.dumps(row) for row in rows)
    return gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()


@pytest.mark.parametrize("name", ["m.parquet", "m.csv", "m.jsonl", "m.csv.gz", "m.jsonl.gz"])
def test_every_kind_of_manifest_gives_each_picture_with_its_version(root, name):
    known = {"id": 1, "uri": "in/b.jpg", "size": 3, "etag": '"abc"'}
    unknown = [
        {"id": n, "uri": uri, "size": None, "etag": None} for n, uri in enumerate(["./a.jpg", f"{root.uri}/in/c.png"])
    ]
    root.write(name, manifest_bytes(name, [known, *unknown]))
    found = listed(manifest=root.address(name))
    assert names(found, root.uri) == ["a.jpg", "in/b.jpg", "in/c.png"]
    told = found[root.address("in/b.jpg")]
    assert (told["size_bytes"], told["etag"], told["modified_at"]) == (3, "abc", None)
    for uri in (root.address("a.jpg"), root.address("in/c.png")):
        info = root.info(uri.removeprefix(f"{root.uri}/"))
        assert (found[uri]["size_bytes"], found[uri]["etag"]) == (info.size_bytes, info.etag)
        assert found[uri]["modified_at"] == info.modified_at


def test_a_manifest_in_a_bucket_asks_for_the_versions_it_lacks(s3):
    store = open_store(f"{s3}/lists")
    store.write("p/x y.jpg", b"12345")
    store.write("list.csv", f"uri\np/x y.jpg\n{s3}/lists/./p/x y.jpg\n../lists/p/x y.jpg\nnone.jpg\n".encode())
    rows = list(listed(manifest=store.address("list.csv")).values())
    assert {row["uri"]: (row["size_bytes"], row["etag"] != "") for row in rows} == {
        store.address("p/x y.jpg"): (5, True),
        store.address("./p/x y.jpg"): (None, False),  # in a bucket this is another key
        store.address("none.jpg"): (None, False),
    }


def test_a_picture_is_the_same_one_however_its_address_is_written(root):
    lines = ["in/b.jpg", "./in/../in/b.jpg", root.address("in/b.jpg"), f"file://{root.uri}/in/b.jpg"]
    root.write("lists/m.csv", ("uri\n" + "\n".join([f"../{lines[0]}", f"../{lines[1]}", *lines[2:]])).encode())
    assert list(listed(manifest=root.address("lists/m.csv"))) == [root.address("in/b.jpg")]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("m.csv", b"url,size\na.jpg,1\n", r"expected a column 'uri', found 'url', 'size'"),
        ("m.csv", b"", r"expected a column 'uri', found none"),
        ("m.csv", b"uri,size\na.jpg,large\n", r"cannot be read as its name says: .*large"),
        ("m.csv", b"uri,etag\na.jpg,1\n,2\n", r"expected an address in each row, found none in row 2"),
        ("m.csv", b"\xff\xfeuri", r"cannot be read as its name says"),
        ("m.jsonl", b'{"url": "a.jpg"}\n', r"expected a column 'uri', found 'url'"),
        ("m.jsonl", b'["a.jpg"]\n', r"expected a column 'uri', found none"),
        ("m.jsonl", b"a.jpg\n", r"cannot be read as its name says"),
        ("m.jsonl", b'{"uri": "a.jpg"}\n{"etag": "x"}\n', r"found none in row 2"),
        ("m.parquet", b"uri\na.jpg\n", r"cannot be read as its name says"),
        ("m.csv.gz", b"uri\na.jpg\n", r"cannot be read as its name says"),
    ],
)
def test_a_malformed_manifest_is_one_clear_error(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        listed(manifest=f"{tmp_path}/{name}")
    assert str(tmp_path / name) in str(caught.value)


def test_an_empty_manifest_and_one_that_is_not_there_are_not_found(tmp_path):
    (tmp_path / "m.csv").write_text("uri,etag\n")
    with pytest.raises(NotFoundError, match=r"expected rows in the manifest .*m\.csv, found none"):
        listed(manifest=f"{tmp_path}/m.csv")
    with pytest.raises(NotFoundError, match=r"none\.csv"):
        listed(manifest=f"{tmp_path}/none.csv")


def test_a_large_manifest_is_streamed(tmp_path):
    rows = 300_000
    table = pa.table({"uri": [f"s3://b/{n:09}.jpg" for n in range(rows)], "etag": ["e" * 32] * rows})
    parquet.write_table(table, tmp_path / "m.parquet")
    del table
    before = pa.total_allocated_bytes()
    count = highest = 0
    for batch in open_inventory(Images(manifest=f"{tmp_path}/m.parquet")).list():
        count += batch.num_rows
        highest = max(highest, pa.total_allocated_bytes() - before)
    assert count == rows
    assert highest < 8 * 2**20  # the columns of all rows are 16 MB


# ---- S3 Inventory ----

CSV_SCHEMA = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag"


def inventory_at(store, kind, schema, files):
    report = {
        "sourceBucket": "photos",
        "destinationBucket": "arn:aws:s3:::lists",
        "version": "2016-11-30",
        "fileFormat": kind,
        "fileSchema": schema,
        "files": [],
    }
    for number, data in enumerate(files):
        key = f"inv/data/{number}.{'csv.gz' if kind == 'CSV' else 'parquet'}"
        store.write(key, data)
        report["files"].append({"key": key, "size": len(data), "MD5checksum": "0"})
    store.write("inv/2026-11-22T01-00Z/manifest.json", json.dumps(report).encode())
    return store.address("inv/2026-11-22T01-00Z/manifest.json")


def test_a_csv_inventory_gives_the_newest_versions_with_their_keys_decoded(s3):
    lines = [
        '"photos","in/a+b%231.jpg","v2","true","false","7","2026-11-01T10:00:00.000Z","abc"',
        '"photos","in/a+b%231.jpg","v1","false","false","6","2026-10-01T10:00:00.000Z","old"',
        '"photos","in/gone.jpg","v3","true","true","","2026-11-01T10:00:00.000Z",""',
        '"photos","in/","","true","false","0","2026-11-01T10:00:00.000Z","d41d"',
        '"photos","%C3%BC.jpg","","true","false","8","2026-11-02T10:00:00.000Z","def"',
    ]
    packed = [gzip.compress("\n".join(part).encode()) for part in (lines[:3], lines[3:])]
    found = listed(inventory=inventory_at(open_store(s3), "CSV", CSV_SCHEMA, packed))
    assert {uri: (row["size_bytes"], row["etag"]) for uri, row in found.items()} == {
        "s3://photos/in/a b#1.jpg": (7, "abc"),
        "s3://photos/ü.jpg": (8, "def"),
    }
    assert found["s3://photos/ü.jpg"]["modified_at"] == datetime(2026, 11, 2, 10, tzinfo=UTC)


def test_a_parquet_inventory_is_taken_at_its_word(s3):
    rows = {
        "bucket": ["photos"] * 3,
        "key": ["a+b%23.jpg", "in/c.png", "in/old.png"],
        "is_latest": [True, True, False],
        "size": [1, 2, 3],
        "last_modified_date": pa.array([1_780_000_000_000] * 3, pa.timestamp("ms")),
        "e_tag": ["x", "y", "z"],
    }
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(rows), sink)
    uri = inventory_at(open_store(s3), "Parquet", "message s3.inventory { }", [sink.getvalue().to_pybytes()])
    found = listed(inventory=uri)
    assert {uri: row["etag"] for uri, row in found.items()} == {
        "s3://photos/a+b%23.jpg": "x",
        "s3://photos/in/c.png": "y",
    }
    assert list(listed(inventory=uri, include=["in/*"])) == ["s3://photos/in/c.png"]
    assert open_inventory(Images(inventory=uri)).probe() == "of s3://photos, 1 Parquet files"


def test_an_inventory_that_is_none_is_one_clear_error(s3):
    store = open_store(s3)
    with pytest.raises(DataError, match="expected an inventory in CSV or Parquet, got ORC"):
        listed(inventory=inventory_at(store, "ORC", "", [b""]))
    store.write("manifest.json", b'{"files": []}')
    with pytest.raises(DataError, match=r"expected the manifest\.json of an S3 Inventory"):
        listed(inventory=f"{s3}/manifest.json")
    uri = inventory_at(store, "CSV", "Bucket, Key", [b"not gzip"])
    with pytest.raises(DataError, match="cannot be read"):
        listed(inventory=uri)


@pytest.mark.parametrize("damage", ["missing", "shorter", "longer"])
@pytest.mark.parametrize("kind", ["CSV", "Parquet"])
def test_an_inventory_whose_files_are_not_as_it_says_is_one_clear_error(s3, kind, damage):
    store = open_store(s3)
    data = [gzip.compress(b'"photos","a.jpg"'), gzip.compress(b'"photos","b.jpg"')]
    if kind == "Parquet":
        data = [manifest_bytes("x.parquet", [{"bucket": "photos", "key": name}]) for name in ("a.jpg", "b.jpg")]
    uri = inventory_at(store, kind, "Bucket, Key", data)
    cut = f"inv/data/1.{'csv.gz' if kind == 'CSV' else 'parquet'}"
    if damage == "missing":
        store.delete(cut)
    else:
        store.write(cut, data[1][:-3] if damage == "shorter" else data[1] + b"...")
    with pytest.raises(DataError, match="is not there" if damage == "missing" else r"says that .* bytes, and it has"):
        listed(inventory=uri)


@pytest.mark.parametrize("kind", ["CSV", "Parquet"])
def test_an_inventory_says_what_lies_in_an_archive(s3, kind):
    classes = ["STANDARD", "GLACIER", "GLACIER_IR", "DEEP_ARCHIVE", *["INTELLIGENT_TIERING"] * 4]
    tiers = ["", "", "", "", "FREQUENT", "ARCHIVE_INSTANT", "ARCHIVE", "DEEP_ARCHIVE"]
    names = ("bucket", "key", "e_tag", "storage_class", "intelligent_tiering_access_tier")
    lines = [("photos", f"{n}.jpg", "e", *told) for n, told in enumerate(zip(classes, tiers, strict=True))]
    rows = [dict(zip(names, line, strict=True)) for line in lines]
    data = manifest_bytes("x.parquet", rows)
    if kind == "CSV":
        data = gzip.compress("\n".join(",".join(f'"{value}"' for value in row.values()) for row in rows).encode())
    schema = "Bucket, Key, ETag, StorageClass, IntelligentTieringAccessTier"
    found = listed(inventory=inventory_at(open_store(s3), kind, schema, [data]))
    assert [row["archive"] for _, row in sorted(found.items())] == [
        None,
        "GLACIER",
        None,
        "DEEP_ARCHIVE",
        None,
        None,
        "INTELLIGENT_TIERING ARCHIVE",
        "INTELLIGENT_TIERING DEEP_ARCHIVE",
    ]


def test_a_prefix_says_what_lies_in_an_archive(s3, s3_buckets):
    bucket = s3_buckets.Bucket(s3.removeprefix("s3://"))
    classes = ("STANDARD", "GLACIER", "GLACIER_IR", "DEEP_ARCHIVE", "STANDARD_IA")
    for name in classes:
        bucket.put_object(Key=f"in/{name}", Body=b"x", StorageClass=name)
    found = listed(prefix=f"{s3}/in")
    archives = {uri.rpartition("/")[2]: row["archive"] for uri, row in found.items()}
    assert archives == dict.fromkeys(classes) | {"GLACIER": "GLACIER", "DEEP_ARCHIVE": "DEEP_ARCHIVE"}
    results = read_pictures([(uri, row["etag"]) for uri, row in sorted(found.items())])
    assert [type(result) for result in results] == [ArchivedError, ArchivedError, bytes, bytes, bytes]


def test_a_shard_in_an_archive_stands_for_itself_and_is_not_read(s3, s3_buckets):
    bucket = s3_buckets.Bucket(s3.removeprefix("s3://"))
    bucket.put_object(Key="in/a.tar", Body=b"x", StorageClass="GLACIER")
    before = traffic()
    found = listed(shards=f"{s3}/in")
    assert {uri: row["archive"] for uri, row in found.items()} == {f"{s3}/in/a.tar": "GLACIER"}
    assert (traffic() - before).gets == 0


# ---- lists that are cut short ----


@pytest.mark.parametrize("name", ["m.parquet", "m.csv", "m.jsonl", "m.csv.gz", "m.jsonl.gz"])
def test_a_manifest_that_is_cut_short_is_an_error(tmp_path, name):
    rows = [{"uri": f"s3://b/{n * 7919}.jpg", "etag": f"{n * 104729:x}"} for n in range(200_000)]
    data = manifest_bytes(name, rows)
    (tmp_path / name).write_bytes(data[: len(data) * 2 // 3 - (len(data) * 2 // 3) % 3])
    with pytest.raises(DataError, match="cannot be read as its name says"):
        for _ in open_inventory(Images(manifest=f"{tmp_path}/{name}")).list():
            pass


@pytest.mark.parametrize("name", ["m.parquet", "m.csv", "m.jsonl"])
def test_rows_of_a_manifest_keep_their_order_though_some_have_to_be_asked_for(root, name):
    rows = [{"uri": uri, "etag": etag} for uri, etag in (("a.jpg", None), ("x", "1"), ("in/b.jpg", None), ("y", "2"))]
    root.write(name, manifest_bytes(name, rows))
    table = pa.Table.from_batches(open_inventory(Images(manifest=root.address(name))).list(), schema=ITEM_SCHEMA)
    assert table["uri"].to_pylist() == [root.address(row["uri"]) for row in rows]
