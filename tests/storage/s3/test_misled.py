"""Servers whose listings are not what was asked for: all of it comes, or one line says whose fault it is."""

import os
import re
import time
from urllib.parse import quote, quote_plus

import pytest

from labelmill.errors import ChangedError, StorageError, UnavailableError
from labelmill.storage import open_store, read_pictures, traffic
from labelmill.storage.s3 import page
from labelmill.storage.s3.listing import Listing
from labelmill.storage.s3.page import Page
from listings import altered, as_path, every_other, for_ever, names_are, no_etag
from proxy import no_fault

as_moto_writes_it = pytest.mark.skipif(
    "LABELMILL_TEST_S3_ENDPOINT" in os.environ, reason="alters a listing as moto writes it"
)

ODD = ["a+b.jpg", "a b.jpg", "100%.jpg", "a%20b.jpg", "a%2Bb.jpg", "ü (1)&.jpg", "plain.jpg"]


def keys_of(store, *, in_order):
    rows = [row for batch in store.list(in_order=in_order) for row in batch.to_pylist()]
    return sorted(row["uri"].removeprefix(f"{store.uri}/") for row in rows)


def put(store, keys):
    for key in keys:
        store.write(key, key.encode())


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize(
    ("way", "told"),
    [
        (altered(lambda body: body.replace(b"<IsTruncated>false", b"<IsTruncated>true")), "gives no token"),
        (for_ever(fresh_tokens=False, keys=True), "begins anew"),
        (for_ever(fresh_tokens=True, keys=True), "begins anew"),
        (for_ever(fresh_tokens=False, keys=False), "begins anew"),
        (for_ever(fresh_tokens=True, keys=False), "20 times in a row"),
        (altered(lambda body: re.sub(rb"<Key>in(/|%2F)", rb"<Key>out\1", body)), "ignores the prefix"),
        (altered(lambda body: body.replace(b"in/f/</Prefix></C", b"in/</Prefix></C")), "as one in itself"),
        (altered(lambda body: body.replace(b"in/f/</Prefix></C", b"in/g/</Prefix></C")), "'in/g/', and nothing"),
        (altered(lambda body: body.replace(b"<Size>", b"<Size>x")), "a size that is no number"),
        (altered(lambda body: re.sub(rb"<LastModified>.*?<", b"<LastModified>now<", body)), "a date that is none"),
        (altered(lambda body: re.sub(rb"<Key>.*?</Key>", b"", body)), "without a key"),
    ],
)  # fmt: skip
def test_a_listing_that_would_end_early_or_never_is_an_error(s3, behind, monkeypatch, way, told, in_order):
    monkeypatch.setattr(page, "_EMPTY_PAGES", 20)
    put(open_store(f"{s3}/in"), ["x.jpg", "y.jpg", *(["f/z.jpg"] if "none" not in told else [])])
    proxy = behind(no_fault, alter=way)
    if in_order and ("in/g/" in told or "itself" in told):
        return  # which asks for no folders
    with pytest.raises(StorageError, match=re.escape(told)) as caught:
        list(open_store(f"{s3}/in").list(in_order=in_order))
    assert proxy.endpoint in str(caught.value) or "a date" in told
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "break_off",
    [
        lambda body: body[: len(body) // 2],
        lambda body: b"",
        lambda body: b"<Error><Code>InternalError</Code></Error>",
    ],
)
def test_a_body_that_is_cut_off_is_asked_for_again(s3, behind, break_off):
    put(open_store(s3), ["a.jpg", "b.jpg"])
    bodies = []

    def once(body):
        bodies.append(body)
        return break_off(body) if len(bodies) == 1 else body

    behind(no_fault, alter=altered(once))
    assert keys_of(open_store(s3), in_order=True) == ["a.jpg", "b.jpg"]
    proxy = behind(no_fault, alter=altered(break_off))
    began = time.monotonic()
    with pytest.raises(UnavailableError, match=r"cut off|cuts its answers off|InternalError") as caught:
        list(open_store(s3, timeout_s=6).list())
    assert proxy.endpoint in str(caught.value)
    assert time.monotonic() - began < 15


def test_a_page_with_nothing_on_it_is_no_end():
    def answer(prefix, **request):
        number = int(request.get("ContinuationToken", 0))
        keys = [f"{number}-{n}" for n in range(2)] if number % 3 == 2 else []
        told = [[1] * len(keys), ["e"] * len(keys), ["2026-11-23T00:00:00Z"] * len(keys), [None] * len(keys)]
        return Page(keys, *told, [], truncated=number < 8, next_token=str(number + 1) if number < 8 else None)

    listing = Listing(answer, lambda key: None, "http://server")
    assert [key for found in listing.pages("") for key in found.keys] == [f"{n}-{m}" for n in (2, 5, 8) for m in (0, 1)]


@pytest.mark.parametrize("prefix", ["in", "i n+%25"])
@pytest.mark.parametrize("echo", [True, False])
@pytest.mark.parametrize("keys", [quote_plus, quote, as_path, str])
@pytest.mark.parametrize("folders", [quote_plus, quote, as_path, str])
def test_names_are_found_out_however_a_server_writes_them(s3, behind, keys, folders, echo, prefix):
    wanted = sorted([*ODD, *(f"{name}/{other}" for name in ("x+y", "x y", "50%", "x%2By") for other in ODD[:3])])
    put(open_store(f"{s3}/{prefix}"), wanted)
    behind(no_fault, alter=names_are(keys, folders, echo=echo))
    for in_order in (True, False):
        before = traffic()
        assert keys_of(open_store(f"{s3}/{prefix}"), in_order=in_order) == wanted
        assert (traffic() - before).gets <= 24
    assert open_store(f"{s3}/{prefix}").folders() == ["50%", "x y", "x%2By", "x+y"]


@pytest.mark.parametrize("name", ["a+b.jpg", "a%20b.jpg", "x+y/1.jpg", "x%20y/1.jpg"])
def test_one_odd_name_alone_is_looked_up(s3, behind, name):
    put(open_store(f"{s3}/in"), [name, "x.jpg"])
    behind(no_fault, alter=names_are(str, str))
    assert keys_of(open_store(f"{s3}/in"), in_order=False) == sorted([name, "x.jpg"])


def test_a_folder_that_is_emptied_while_it_is_listed_is_no_error(s3, behind):
    put(open_store(f"{s3}/in"), ["f/x.jpg", "y.jpg"])
    seen = []

    def ghost(body):
        seen.append(body)
        another = b"<CommonPrefixes><Prefix>in/g/</Prefix></CommonPrefixes>"
        return body.replace(b"<EncodingType>", another + b"<EncodingType>") if len(seen) == 1 else body

    behind(no_fault, alter=altered(ghost))
    assert keys_of(open_store(f"{s3}/in"), in_order=False) == ["f/x.jpg", "y.jpg"]
    assert len(seen) == 4  # the top, both folders, and the top again, which names the one no more


# ---- etags


@as_moto_writes_it
@pytest.mark.parametrize("instead", [b"", b"<ETag></ETag>", b'<ETag>""</ETag>'])
@pytest.mark.parametrize("which", [every_other, lambda number: True])
def test_what_a_listing_lacks_is_asked_for_singly(s3, behind, instead, which):
    put(open_store(f"{s3}/in"), ODD)
    told = {row["uri"]: row for batch in open_store(f"{s3}/in").list() for row in batch.to_pylist()}
    behind(no_fault, alter=no_etag(instead, in_listing=which, in_heads=False, in_gets=False))
    for in_order in (True, False):
        rows = [row for batch in open_store(f"{s3}/in").list(in_order=in_order) for row in batch.to_pylist()]
        assert {row["uri"]: row for row in rows} == told
    assert None not in read_pictures([(row["uri"], row["etag"]) for row in rows])


def test_where_a_server_has_no_etags_size_and_date_are_the_version(s3, behind):
    store = open_store(f"{s3}/in")
    put(store, ["a.jpg", "b.jpg", "odd\x01"])
    proxy = behind(no_fault, alter=no_etag(b"", in_listing=every_other, in_heads=True, in_gets=True))
    rows = {row["uri"]: row["etag"] for batch in open_store(f"{s3}/in").list() for row in batch.to_pylist()}
    first, second = store.address("a.jpg"), store.address("b.jpg")
    assert re.fullmatch(r"\d{8}T\d{6}Z-5", rows[first])
    assert re.fullmatch("[0-9a-f]{32}", rows[second])  # which no answer but the listing has
    assert open_store(f"{s3}/in").info("a.jpg").etag == rows[first]
    assert read_pictures(list(rows.items())) == [b"a.jpg", b"b.jpg", b"odd\x01"]
    assert open_store(f"{s3}/in").read_range("a.jpg", 1, 3, etag=rows[first]) == b".jp"
    assert open_store(f"{s3}/in").read_range("odd\x01", 1, 2, etag=rows[store.address("odd\x01")]) == b"dd"
    open_store(f"{s3}/in").write("a.jpg", b"another")
    changed, _, _ = read_pictures(list(rows.items()))
    assert isinstance(changed, ChangedError)
    assert proxy.requests["HEAD", "in/a.jpg"] >= 1
    store.delete("odd\x01")  # moto cannot empty a bucket of such names


@as_moto_writes_it
def test_an_object_that_a_listing_says_nothing_of_is_asked_for(s3, behind):
    put(open_store(s3), ["a.jpg", "b.jpg", "c.jpg"])
    told = {row["uri"]: row for batch in open_store(s3).list() for row in batch.to_pylist()}
    bare = altered(lambda body: re.sub(rb"<(Size|LastModified|ETag)>[^<]*</\1>", b"", body, count=4))
    behind(no_fault, alter=bare)
    rows = [row for batch in open_store(s3).list() for row in batch.to_pylist()]
    assert {row["uri"]: row for row in rows} == told
