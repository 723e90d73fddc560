"""A bucket listed by many requests at once: every key, each once, in little memory, and never at a price."""

import threading
from collections import Counter

import pytest

from labelmill.errors import UnavailableError
from labelmill.storage import open_store
from labelmill.storage.s3 import listing
from labelmill.storage.s3.listing import pages_at_once
from labelmill.storage.s3.page import Page


def page_of(keys=(), folders=()):
    count = len(keys)
    return Page(keys, [1] * count, ["e"] * count, ["2026-11-23T00:00:00Z"] * count, [None] * count, folders)


def never(folder):
    raise AssertionError(f"{folder} is not empty")


class Bucket:
    """ListObjectsV2 over a list of keys, a page of at most `page_keys` keys and folders at a time."""

    def __init__(self, keys, page_keys=10):
        self.keys, self.page_keys = sorted(keys), page_keys
        self.requests, self.busy, self.most_busy = 0, 0, 0
        self.lock = threading.Lock()

    def pages(self, prefix, Delimiter=None):  # noqa: N803 - the name in the protocol
        below = [key for key in self.keys if key.startswith(prefix)]
        entries = list(dict.fromkeys(self.entry(key, prefix, Delimiter) for key in below))
        for start in range(0, max(len(entries), 1), self.page_keys):
            with self.lock:
                self.requests += 1
            some = entries[start : start + self.page_keys]
            folders = [name for name, is_folder in some if is_folder]
            keys = [name for name, is_folder in some if not is_folder]
            yield page_of(keys, folders)

    @staticmethod
    def entry(key, prefix, delimiter):
        head, slash, _ = key[len(prefix) :].partition("/")
        return (prefix + head + slash, True) if delimiter and slash else (key, False)


def keys_of(pages):
    return Counter(key for page in pages for key in page.keys)


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [f"in/{n}" for n in range(35)],
        [f"in/{day}/{n}" for day in range(5) for n in range(23)],
        [f"in/{day:04}/{n}" for day in range(400) for n in range(30)],
        ["in/a//b", "in//x", "in/a/", "in/deep/er/and/deeper/x", "in/a", "in/a-b", "in/a/b"],
    ],
)
def test_every_key_is_listed_once(keys, monkeypatch):
    monkeypatch.setattr(listing, "_WORTH_A_REQUEST", 5)
    bucket = Bucket(keys)
    assert keys_of(pages_at_once(bucket.pages, "in/", never)) == Counter(keys)


def test_thousands_of_tiny_folders_are_passed_in_one_listing():
    bucket = Bucket([f"in/{user:05}/{n}" for user in range(2000) for n in range(2)], page_keys=1000)
    assert sum(keys_of(pages_at_once(bucket.pages, "in/", never)).values()) == 4000
    assert bucket.requests <= 1 + 8 + 4  # a look at the top, eight probes, and the listing itself


def test_large_folders_are_listed_at_the_same_time():
    together = threading.Barrier(4)

    def pages(prefix, Delimiter=None):  # noqa: N803
        if prefix == "in/":
            yield page_of(folders=[f"in/{n}/" for n in range(4)])
        else:
            together.wait(timeout=20)  # breaks unless all four are listed at once
            yield page_of([prefix + "x"])

    assert len(keys_of(pages_at_once(pages, "in/", never))) == 4


def test_no_more_pages_wait_than_are_taken():
    made = threading.Semaphore(0)

    def pages(prefix, Delimiter=None):  # noqa: N803
        for _ in range(1000):
            made.release()
            yield page_of()

    listed = pages_at_once(pages, "", never)
    next(listed)
    listed.close()
    assert sum(made.acquire(blocking=False) for _ in range(1000)) < 100


def test_an_error_of_one_stream_ends_the_listing():
    def pages(prefix, Delimiter=None):  # noqa: N803
        if prefix:
            raise UnavailableError("no answer")
        yield page_of(folders=["a/", "b/"])

    with pytest.raises(UnavailableError, match="no answer"):
        list(pages_at_once(pages, "", never))


def test_a_bucket_lists_the_same_in_order_and_at_once(s3):
    store = open_store(f"{s3}/in")
    for key in ("a/1", "a/2/3", "b/1", "c", "a-b/x y", "ä/1"):
        store.write(key, b"x")
    ordered = [row for batch in store.list() for row in batch.to_pylist()]
    at_once = [row for batch in store.list(in_order=False) for row in batch.to_pylist()]
    assert [row["uri"] for row in ordered] == sorted(row["uri"] for row in ordered)
    assert sorted(at_once, key=lambda row: row["uri"]) == ordered
    assert len(ordered) == 6
