"""Pictures in tar and Parquet shards: found without being read, fetched as they are; damage costs only its own rows."""

import gzip
import io
import re
import subprocess
import tarfile

import pyarrow as pa
import pytest

from labelmill.errors import (
    ChangedError,
    DataError,
    NotFoundError,
    TooLargeError,
    UnreadableError,
    UnsupportedError,
)
from labelmill.label.inventory.inventory import open_inventory
from labelmill.label.inventory.item import ITEM_SCHEMA, member_of
from labelmill.label.work import fetch
from labelmill.label.work.fetch import read_items
from labelmill.spec import Images
from labelmill.storage import open_store
from labelmill.storage.files.folder import FolderStore
from pictures import jpeg_bytes
from shards import parquet_shard, tar_shard


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    return open_store(f"{request.getfixturevalue('s3')}/in" if request.param == "s3" else str(tmp_path))


def items_of(index=None, **images):
    return pa.Table.from_batches(open_inventory(Images(**images), index).list(), schema=ITEM_SCHEMA)


def fetched(items, base):
    return dict(zip([uri.removeprefix(f"{base}/") for uri in items["uri"].to_pylist()], read_items(items), strict=True))


def test_members_are_listed_and_fetched_as_they_were_put_in(store):
    long = "d/" + "x" * 150 + ".PNG"
    store.write("a.tar", tar_shard(3))
    store.write("b.tar", tar_shard([(long, b"one"), ("ü #1.webp", b"two"), ("empty.gif", b"")], tarfile.GNU_FORMAT))
    store.write("deep/c.parquet", parquet_shard({"label": [1] * 6, "image": [bytes([n]) * n for n in range(6)]}))
    store.write("README.md", b"nothing to see")
    items = items_of(shards=store.uri)
    assert fetched(items, store.uri) == {
        **{f"a.tar#{n:06}.jpg": jpeg_bytes(seed=n) for n in range(3)},
        f"b.tar#{long}": b"one",
        "b.tar#ü #1.webp": b"two",
        "b.tar#empty.gif": b"",
        **{f"deep/c.parquet#image/{n}": bytes([n]) * n for n in range(6)},
    }
    rows = {row["uri"].removeprefix(f"{store.uri}/"): row for row in items.to_pylist()}
    shard = store.info("a.tar")
    assert rows["a.tar#000001.jpg"]["size_bytes"] == len(jpeg_bytes(seed=1))
    assert (rows["a.tar#000001.jpg"]["etag"], rows["a.tar#000001.jpg"]["modified_at"].date()) == (
        shard.etag,
        shard.modified_at.date(),
    )
    # In any order, and each alone.
    shuffled = items.take([11, 0, 7, 3, 9, 1, 10, 2, 5, 4, 8, 6])
    assert fetched(shuffled, store.uri) == fetched(items, store.uri)
    assert read_items(items.slice(8, 1)) == [bytes([2]) * 2]


def special_tar(*members, layout=tarfile.PAX_FORMAT):
    """A tar of (name, type or bytes or None for a folder, linkname)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=layout) as archive:
        for name, content, *link in members:
            header = tarfile.TarInfo(name)
            header.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            if isinstance(content, str):
                header.type, header.linkname = getattr(tarfile, f"{content}TYPE"), "".join(link)
            header.size = len(content) if isinstance(content, bytes) else 0
            archive.addfile(header, io.BytesIO(content if isinstance(content, bytes) else b""))
    return buffer.getvalue()


def test_a_link_in_a_tar_is_a_picture_with_the_bytes_of_its_target(store):
    long = "d/" + "x" * 150 + ".jpg"
    members = [
        ("hard.jpg", "LNK", "./a.jpg"),  # before its target, as no tar should be
        ("a.jpg", b"first"),
        ("was.jpg", "LNK", "a.jpg"),
        ("a.jpg", b"second"),
        ("is.jpg", "LNK", "a.jpg"),
        ("later.png", "SYM", "in/deep/z.bin"),
        ("in/deep/up.png", "SYM", "../../a.jpg"),
        ("in/chain.png", "SYM", "deep/up.png"),
        ("in/deep/z.bin", b"named otherwise"),
        ("in/same.jpg", "SYM", "deep/same.jpg"),
        ("in/deep/same.jpg", "LNK", "in/deep/z.bin"),
        ("dir", "SYM", "in/deep"),
        ("through.jpg", "SYM", "dir/z.bin"),
        ("caption.txt", "SYM", "a.jpg"),
        (long, b"long"),
        ("y" * 150 + ".jpg", "LNK", long),
        ("over.jpg", "SYM", "a.jpg"),
        ("over.jpg", b"a file took its place"),
        ("under.jpg", b"its place was taken"),
        ("under.jpg", "LNK", "in/deep/z.bin"),
    ]
    store, kept = open_store(f"{store.uri}/shards"), open_store(f"{store.uri}/index")
    for name, layout in (("p.tar", tarfile.PAX_FORMAT), ("g.tar", tarfile.GNU_FORMAT)):
        store.write(name, special_tar(*members, layout=layout))
    expected = {
        "hard.jpg": b"second",
        "a.jpg": b"second",
        "was.jpg": b"first",
        "is.jpg": b"second",
        "later.png": b"named otherwise",
        "in/deep/up.png": b"second",
        "in/chain.png": b"second",
        "in/same.jpg": b"named otherwise",
        "in/deep/same.jpg": b"named otherwise",
        "through.jpg": b"named otherwise",
        long: b"long",
        "y" * 150 + ".jpg": b"long",
        "over.jpg": b"a file took its place",
        "under.jpg": b"named otherwise",
    }
    for index in (None, kept, kept):
        got = fetched(items_of(index, shards=store.uri), store.uri)
        assert got == {f"{shard}#{name}": data for shard in ("p.tar", "g.tar") for name, data in expected.items()}


def test_what_is_named_like_a_picture_in_a_tar_and_is_none_has_a_row_that_says_why(store):
    members = [
        ("a.jpg", b"a"),
        ("out.jpg", "SYM", "../../etc/passwd"),
        ("absolute.jpg", "SYM", "/a.jpg"),
        ("gone.jpg", "LNK", "none.jpg"),
        ("self.jpg", "SYM", "self.jpg"),
        ("round.jpg", "SYM", "about.jpg"),
        ("about.jpg", "LNK", "round.jpg"),
        ("folder.jpg/", None),
        ("to-folder.jpg", "SYM", "folder.jpg"),
        ("pipe.jpg", "FIFO"),
        ("device.JPG", "CHR"),
        ("pipe", "FIFO"),
        ("out", "SYM", "/data"),
        ("b.jpg", b"b"),
    ]
    store, kept = open_store(f"{store.uri}/shards"), open_store(f"{store.uri}/index")
    store.write("a.tar", special_tar(*members))
    for index in (None, kept, kept):
        items = items_of(index, shards=store.uri)
        got = {uri.removeprefix("a.tar#"): value for uri, value in fetched(items, store.uri).items()}
        assert {name: data for name, data in got.items() if isinstance(data, bytes)} == {"a.jpg": b"a", "b.jpg": b"b"}
        reasons = {name: str(value) for name, value in got.items() if isinstance(value, UnsupportedError)}
        assert {
            name: reason.removeprefix("expected a file in the tar, and this is a") for name, reason in reasons.items()
        } == {
            **{
                name: f" link to {target!r}, and no file of that name lies in this tar: put the picture itself there"
                for name, target in (
                    ("out.jpg", "../../etc/passwd"),
                    ("absolute.jpg", "/a.jpg"),
                    ("gone.jpg", "none.jpg"),
                    ("self.jpg", "self.jpg"),
                    ("round.jpg", "about.jpg"),
                    ("about.jpg", "round.jpg"),
                    ("to-folder.jpg", "folder.jpg"),
                )
            },
            "pipe.jpg": " pipe: put the picture itself there",
            "device.JPG": " device: put the picture itself there",
        }
    items = items_of(shards=store.uri)
    store.write("a.tar", special_tar(*members, ("c.jpg", b"c")))
    assert {type(value) for value in fetched(items, store.uri).values()} == {ChangedError}


def test_a_member_without_an_ending_is_a_picture_when_it_begins_like_one(store):
    picture = jpeg_bytes(seed=1)
    members = [("d.x/one", picture), ("README", b"a text"), ("two", picture), ("three.JFIF", b"3"), ("4.heic", b"4")]
    store.write(
        "a.tar", special_tar(*members, ("link", "SYM", "two"), ("text", "LNK", "README"), ("", b""), ("e", b""))
    )
    got = fetched(items_of(shards=store.uri), store.uri)
    assert got == {f"a.tar#{name}": picture for name in ("d.x/one", "two", "link")} | {
        "a.tar#three.JFIF": b"3",
        "a.tar#4.heic": b"4",
    }


@pytest.mark.parametrize(
    "layout", [["gnu"], ["pax"], *(["pax", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))]
)
def test_a_file_with_holes_is_never_taken_for_what_is_left_of_it(tmp_path, layout):
    """As GNU tar writes it, who leaves the holes out: what follows in the tar is the next header."""
    pictures = tmp_path / "in"
    pictures.mkdir()
    for number in range(3):
        (pictures / f"{number}.jpg").write_bytes(bytes([number]) * 700)
    with (pictures / "1.jpg").open("r+b") as file:
        file.truncate(10 * 2**20)
        file.seek(8 * 2**20)
        file.write(b"end")
    (pictures / "link.jpg").symlink_to("1.jpg")
    command = ["tar", "--sparse", f"--format={layout[0]}", *layout[1:], "-cf", "../a.tar", "0.jpg", "1.jpg", "2.jpg"]
    subprocess.run([*command, "link.jpg"], cwd=pictures, check=True)
    got = fetched(items_of(shards=f"{tmp_path}/a.tar"), f"{tmp_path}/a.tar#")
    got = {name.rpartition("#")[2]: value for name, value in got.items()}
    assert (got["0.jpg"], got["2.jpg"]) == (bytes([0]) * 700, bytes([2]) * 700)
    assert isinstance(got["1.jpg"], UnsupportedError) and "stored with holes (a sparse file)" in str(got["1.jpg"])
    assert isinstance(got["link.jpg"], UnsupportedError)
    assert set(got) == {"0.jpg", "1.jpg", "2.jpg", "link.jpg"}


def test_one_shard_is_named_directly_and_patterns_see_it_as_a_folder(tmp_path):
    for name in ("a.tar", "b.tar"):
        (tmp_path / name).write_bytes(tar_shard(3))
    assert len(items_of(shards=f"{tmp_path}/a.tar")) == 3
    chosen = items_of(shards=str(tmp_path), include=["a.tar/*1.jpg", "*2.jpg"], exclude=["b.tar"])
    assert [member_of(uri) for uri in chosen["uri"].to_pylist()] == [
        (f"{tmp_path}/a.tar", "000001.jpg"),
        (f"{tmp_path}/a.tar", "000002.jpg"),
    ]


def test_a_tar_is_looked_through_once_until_it_changes(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tar").write_bytes(tar_shard(3))
    index = open_store(f"{tmp_path}/index")
    first = items_of(index, shards=f"{tmp_path}/in")
    read = FolderStore.read_range
    monkeypatch.setattr(FolderStore, "read_range", lambda *_, **__: pytest.fail("the tar was read again"))
    assert items_of(index, shards=f"{tmp_path}/in").equals(first)
    monkeypatch.setattr(FolderStore, "read_range", read)
    (tmp_path / "in/a.tar").write_bytes(tar_shard(5))
    assert len(items_of(index, shards=f"{tmp_path}/in")) == 5
    assert len(list(index.keys())) == 1
    index.write(next(iter(index.keys())), b"damaged")
    assert len(items_of(index, shards=f"{tmp_path}/in")) == 5


def test_large_members_are_passed_over_without_being_read(tmp_path, monkeypatch):
    (tmp_path / "a.tar").write_bytes(tar_shard([(f"{n}.jpg", bytes(4 * 2**20)) for n in range(5)]))
    read, lengths = FolderStore.read_range, []

    def counted(self, key, start, length, **more):
        lengths.append(length)
        return read(self, key, start, length, **more)

    monkeypatch.setattr(FolderStore, "read_range", counted)
    assert len(items_of(shards=f"{tmp_path}/a.tar")) == 5
    assert sum(lengths) < 200_000


def test_neighbours_come_in_one_request_and_strangers_do_not(tmp_path, monkeypatch):
    (tmp_path / "a.tar").write_bytes(tar_shard([(f"{n:03}.jpg", bytes([n]) * 1000) for n in range(200)]))
    items = items_of(shards=f"{tmp_path}/a.tar")
    read, lengths = FolderStore.read_range, []

    def counted(self, key, start, length, **more):
        lengths.append(length)
        return read(self, key, start, length, **more)

    monkeypatch.setattr(FolderStore, "read_range", counted)
    assert read_items(items) == [bytes([n]) * 1000 for n in range(200)]
    assert len(lengths) == 1
    lengths.clear()
    monkeypatch.setattr(fetch, "_GAP_BYTES", 10_000)
    assert read_items(items.take([0, 100, 199])) == [bytes([n]) * 1000 for n in (0, 100, 199)]
    assert lengths == [1000] * 3


def test_a_row_group_is_read_once_for_its_neighbours(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(parquet_shard({"image": [bytes([n]) for n in range(12)]}))
    items = items_of(shards=str(tmp_path))
    read, groups = fetch.parquet.ParquetFile.read_row_group, []

    def counted(self, group, **more):
        groups.append(group)
        return read(self, group, **more)

    monkeypatch.setattr(fetch.parquet.ParquetFile, "read_row_group", counted)
    assert [data for start in range(0, 12, 3) for data in read_items(items.slice(start, 3))] == [
        bytes([n]) for n in range(12)
    ]
    assert groups == [0, 1, 2]


# ---- what is damaged ends as rows of its own ----


def whole_tar():
    return tar_shard([(f"{n}.jpg", bytes([n]) * 700) for n in range(4)])


def test_a_tar_cut_short_keeps_what_is_whole_and_says_what_is_not(store):
    store.write("a.tar", whole_tar()[: 2 * 1536 + 512 + 300])
    got = fetched(items_of(shards=store.uri), store.uri)
    assert got["a.tar#0.jpg"] == bytes([0]) * 700
    assert got["a.tar#1.jpg"] == bytes([1]) * 700
    assert isinstance(got["a.tar#2.jpg"], UnreadableError)
    assert "ends inside this member, after 300 of 700 bytes" in str(got["a.tar#2.jpg"])
    assert isinstance(got["a.tar"], UnreadableError)
    assert "cut short" in str(got["a.tar"])
    assert len(got) == 4


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    data = bytearray(whole_tar())
    data[2 * 1536 + 20] ^= 0xFF
    (tmp_path / "a.tar").write_bytes(data)
    got = fetched(items_of(shards=str(tmp_path)), tmp_path)
    assert list(got) == ["a.tar#0.jpg", "a.tar#1.jpg", "a.tar"]
    assert "no valid header here, at byte 3,072" in str(got["a.tar"])


def test_a_tar_without_its_end_mark_is_complete(tmp_path):
    (tmp_path / "a.tar").write_bytes(whole_tar()[: 4 * 1536])
    assert len(items_of(shards=str(tmp_path))) == 4


@pytest.mark.parametrize(
    ("name", "data", "error", "words"),
    [
        ("x.tar", b"no tar at all", UnreadableError, "expected a tar"),
        ("x.tar", b"", UnreadableError, "expected a tar"),
        ("x.tar", gzip.compress(b"x" * 999, mtime=0), UnsupportedError, "packed with gzip.*unpack it"),
        ("x.tar.gz", gzip.compress(b"x" * 999, mtime=0), UnsupportedError, "packed with gzip.*unpack it"),
        ("x.tgz", gzip.compress(b"x" * 999, mtime=0), UnsupportedError, "packed with gzip.*unpack it"),
        ("x.parquet", b"PAR1 but not really PAR1", UnreadableError, "expected a Parquet file"),
    ],
)
def test_a_shard_that_is_none_is_one_row_beside_the_others(tmp_path, name, data, error, words):
    (tmp_path / "a.tar").write_bytes(tar_shard(2))
    (tmp_path / name).write_bytes(data)
    got = fetched(items_of(shards=str(tmp_path)), tmp_path)
    assert [type(value) for value in got.values()].count(bytes) == 2
    assert isinstance(got[name], error)
    assert re.search(words, str(got[name]))


def test_a_damaged_row_group_costs_its_own_rows_only(tmp_path):
    pictures = [jpeg_bytes(seed=n) for n in range(8)]
    data = bytearray(parquet_shard({"image": pictures}))
    data[4:24] = bytes(20)  # the header of the first page
    (tmp_path / "a.parquet").write_bytes(data)
    got = list(fetched(items_of(shards=str(tmp_path)), tmp_path).values())
    assert got[4:] == pictures[4:]
    assert [type(value) for value in got[:4]] == [UnreadableError] * 4


def test_a_shard_replaced_since_it_was_listed_is_changed(store):
    for name, data in (("a.tar", tar_shard(2)), ("b.parquet", parquet_shard({"image": [b"1", b"2"]}))):
        store.write(name, data)
    items = items_of(shards=store.uri)
    store.write("a.tar", tar_shard(3))
    store.write("b.parquet", parquet_shard({"image": [b"3", b"4"]}))
    assert [type(value) for value in read_items(items)] == [ChangedError] * 4
    store.delete("a.tar")
    assert isinstance(read_items(items)[0], NotFoundError)


def test_rows_without_bytes_and_pictures_of_too_many_bytes_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "MAX_PICTURE_BYTES", 10)
    (tmp_path / "a.parquet").write_bytes(parquet_shard({"image": [b"1", None, b"x" * 11]}))
    (tmp_path / "a.tar").write_bytes(tar_shard([("big.jpg", b"x" * 11), ("small.jpg", b"x" * 10)]))
    (tmp_path / "big.bin").write_bytes(b"x" * 11)
    (tmp_path / "m.csv").write_text(f"uri,etag\nbig.bin,{open_store(str(tmp_path)).info('big.bin').etag}\n")
    got = read_items(items_of(shards=str(tmp_path))) + read_items(items_of(manifest=f"{tmp_path}/m.csv"))
    assert [value if isinstance(value, bytes) else type(value) for value in got] == [
        b"1",
        UnreadableError,
        TooLargeError,
        TooLargeError,
        b"x" * 10,
        TooLargeError,
    ]


# ---- what the spec must say is an error before anything is labelled ----


def test_the_column_of_pictures_is_found_or_asked_for(tmp_path):
    struct = [{"bytes": b"1", "path": "a.jpg"}]
    (tmp_path / "a.parquet").write_bytes(parquet_shard({"image": struct, "mask": [b"2"], "label": [3]}))
    with pytest.raises(DataError, match=r"a\.parquet: expected one column .* found 'image\.bytes', 'mask': choose"):
        items_of(shards=str(tmp_path))
    items = items_of(shards=str(tmp_path), column="image")
    assert fetched(items, tmp_path) == {"a.parquet#image.bytes/0": b"1"}
    assert fetched(items_of(shards=str(tmp_path), column="mask"), tmp_path) == {"a.parquet#mask/0": b"2"}
    with pytest.raises(DataError, match=r"expected bytes in the column 'label', found 'image\.bytes', 'mask'"):
        items_of(shards=str(tmp_path), column="label")


def test_a_parquet_file_without_pictures_is_named_and_can_be_left_out(tmp_path):
    (tmp_path / "a.parquet").write_bytes(parquet_shard({"image": [b"1"]}))
    (tmp_path / "meta.parquet").write_bytes(parquet_shard({"label": [1]}))
    with pytest.raises(DataError, match=r"meta\.parquet: expected a column of pictures .*found 'label'.*`exclude`"):
        items_of(shards=str(tmp_path))
    assert len(items_of(shards=str(tmp_path), exclude=["meta.parquet"])) == 1


def test_no_shards_and_shards_without_pictures_are_not_found(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(NotFoundError, match="expected pictures in tar or parquet files"):
        items_of(shards=str(tmp_path))
    (tmp_path / "a.tar").write_bytes(tar_shard([("0.cls", b"1")]))
    with pytest.raises(NotFoundError, match="expected pictures in tar or parquet files"):
        items_of(shards=str(tmp_path))
