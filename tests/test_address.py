"""One reading of an address, whoever writes it: a spec, a labels file, a manifest, a listing."""

import os
from pathlib import Path

import pytest

from labelmill.address import beginnings, lies_inside, path_uri, plain, split_uri, table_fault, tidied
from labelmill.errors import StorageError
from labelmill.storage import open_store

LATIN = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize(
    ("uri", "base", "address"),
    [
        ("a%20b.jpg", "/in", "/in/a%20b.jpg"),
        ("file:///in/a%20b.jpg", "/else", "/in/a b.jpg"),
        ("file:///in/caf%E9.jpg", "/else", "file:///in/caf%E9.jpg"),
        ("file:///in/caf%C3%A9.jpg", "/else", "/in/café.jpg"),
        ("file:///in/./x//%2e%2e/a.jpg", "/else", "/in/a.jpg"),
        ("./x/../a.jpg", "/in", "/in/a.jpg"),
        ("../b//a.jpg", "/in/deep", "/in/b/a.jpg"),
        ("a.jpg", "file:///caf%E9", "file:///caf%E9/a.jpg"),
        ("//in//a.jpg", "/else", "/in/a.jpg"),
        ("x:y/a.jpg", "/in", "/in/x:y/a.jpg"),
        ("./a.jpg", "s3://b/p", "s3://b/p/a.jpg"),
        ("../a.jpg", "s3://b/p", "s3://b/a.jpg"),
        ("s3://b/p/../a//%20#?.jpg", "/in", "s3://b/p/../a//%20#?.jpg"),
        ("https://host/a.jpg", "/in", "https://host/a.jpg"),
        ("file://host/a.jpg", "/in", "file://host/a.jpg"),
    ],
)
def test_an_address_is_written_as_a_listing_writes_it(uri: str, base: str, address: str) -> None:
    assert tidied(uri, base) == address
    assert tidied(address, "/somewhere/else") == address


def test_a_zero_byte_is_refused_and_no_traceback() -> None:
    for uri in ("/a\0b", "file:///a%00b", "s3://b/a\0b", "a\0"):
        with pytest.raises(StorageError, match=r"without a zero byte"):
            split_uri(uri)


def test_a_folder_with_a_colon_in_its_name_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2026:11").mkdir()
    (tmp_path / "C:").mkdir()
    for name in ("2026:11/x", "C:/x"):
        open_store(name).write("a", b"1")
        assert (tmp_path / name / "a").read_bytes() == b"1"


def test_a_store_of_a_name_that_is_not_utf8_has_an_address_that_reads_back(tmp_path: Path) -> None:
    (tmp_path / LATIN).mkdir()
    store = open_store(f"{tmp_path}/{LATIN}")
    store.write("a b.jpg", b"1")
    assert store.uri == f"file://{tmp_path}/caf%E9"
    assert open_store(store.uri) == store
    assert [row["uri"] for batch in store.list() for row in batch.to_pylist()] == [store.address("a b.jpg")]
    assert store.address("a b.jpg") == f"file://{tmp_path}/caf%E9/a%20b.jpg"
    assert list(store.keys()) == ["a b.jpg"]
    assert open_store("/").read(split_uri(store.address("a b.jpg"))[1]) == b"1"


def test_what_lies_below_begins_with_its_root_or_with_the_roots_other_writing() -> None:
    for root in ("/in/a b", "/in/a b/", "file:///in/a%20b"):
        assert beginnings(root) == ("/in/a b/", "file:///in/a%20b/")
    assert beginnings(f"/{LATIN}") == ("file:///caf%E9/",)
    assert beginnings("/") == ("/", "file:///")
    assert beginnings("s3://b/p") == beginnings("s3://b/p/") == ("s3://b/p/",)
    assert path_uri(f"/in/a b/{LATIN}").startswith(beginnings("/in/a b"))


def test_an_address_that_is_written_in_another_way_lies_inside_all_the_same() -> None:
    assert lies_inside("file:///in/a%20b/c", "/in/a b")
    assert lies_inside("/in/x/../a b", "/in//a b/")
    assert lies_inside("/in", "/")
    assert lies_inside("s3://b/p/x", "s3://b")
    assert not lies_inside("/in/a b2", "/in/a b")
    assert not lies_inside("s3://b/p2", "s3://b/p")
    assert not lies_inside("s3://c/p", "s3://b")


def test_a_pattern_meets_the_characters_of_a_name_and_not_their_codes() -> None:
    assert plain("file:///in/a%20b%E9%FF.jpg") == "/in/a b\ufffd\ufffd.jpg"
    assert plain("/in/a%20b") == "/in/a%20b"


@pytest.mark.parametrize(
    "name", ["a b", "100%", "%zz", "plus+", "ünï", "x[1]", "{y}^`|<>", "~z", "'q\"", "a:b", "a&b=c"]
)
def test_an_address_that_all_take_alike_is_one_for_a_table(name: str) -> None:
    assert table_fault(f"/in/{name}/labels") is None
    assert table_fault(f"s3://b/{name}/labels/") is None


@pytest.mark.parametrize(
    ("uri", "fault"),
    [
        ("s3://b/run#7/labels", "#"),
        ("s3://b/what?/labels", "?"),
        ("s3://b/100%25/labels", "%25"),
        ("s3://b/a%20b/labels", "%20"),
        ("s3://b/a//b", "//"),
        ("s3://b/a/../b", ".."),
        ("s3://b/./b", "."),
        ("s3://b/a\tb", "\t"),
        ("/in/a%20b/labels", "%20"),
        ("/in/a\\b/labels", "\\"),
        ("/in/a\nb/labels", "\n"),
        (f"/{LATIN}/labels", "\udce9"),
        ("file:///in/caf%E9/labels", "\udce9"),
    ],
)
def test_an_address_that_another_reader_takes_otherwise_is_none_for_a_table(uri: str, fault: str) -> None:
    assert table_fault(uri) == fault
    assert table_fault("s3://b/run\\7") is None  # in a bucket all agree on it
    assert table_fault("/in/run#7?") is None  # and in a folder on these
