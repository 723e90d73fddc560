"""One set of tests for a folder and for a server of each cloud; then what only one of them can do."""

import asyncio
import errno
import json
import multiprocessing
import os
import pickle
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unicodedata
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from labelmill.errors import (
    ChangedError,
    CredentialsError,
    ForbiddenError,
    NotFoundError,
    StorageError,
    UnavailableError,
)
from labelmill.storage import (
    LISTING_SCHEMA,
    Store,
    delta_options,
    etags_before,
    open_object,
    open_store,
    read_infos,
    read_pictures,
    read_ranges,
    split_uri,
)

ON_MOTO = "LABELMILL_TEST_S3_ENDPOINT" not in os.environ

ODD_NAMES = [
    *(
        "a b.jpg",
        "a#b",
        "a%b",
        "a%20b",
        "a?b=c",
        "a+b",
        "a&b",
        "a:b",
        "*",
        "~x",
        "'quote\"",
        "<>|",
        "back\\slash",
        "{[^`]}",
    ),
    *(unicodedata.normalize("NFC", "é.jpg"), unicodedata.normalize("NFD", "é.jpg"), "猫/😀.jpg", " ", " x "),
    *(".lead", "..lead", "x/...", "tab\tx", "\x01", "\x7f", "\x85"),
]
LINE_ENDS = ["new\nline", "car\rriage", "end\n", "x/\n"]  # moto's router knows none of these
ONLY_IN_BUCKETS = ["a//b", "/lead", "//", "./dot", "x/../y", "x/./z", "..", "trail/"]


@pytest.fixture(params=["folder", "s3", "gs", "az"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param != "folder":
        return f"{request.getfixturevalue(request.param)}/some/prefix"
    (tmp_path / "some/prefix").mkdir(parents=True)
    return f"{tmp_path}/some/prefix"


@pytest.fixture
def store(root: str) -> Store:
    return open_store(root)


def listed(store: Store, prefix: str = "") -> dict[str, dict]:
    return {row["uri"]: row for batch in store.list(prefix) for row in batch.to_pylist()}


def keys_listed(store: Store, prefix: str = "") -> set[str]:
    return {uri.removeprefix(store.uri + "/") for uri in listed(store, prefix)}


def test_what_is_written_is_listed_and_read(store: Store) -> None:
    store.write("a/one.jpg", b"one")
    store.write("two.jpg", b"second")
    for batch in store.list():
        assert batch.schema == LISTING_SCHEMA
    rows = listed(store)
    assert set(rows) == {store.address("a/one.jpg"), store.address("two.jpg")}
    assert rows[store.address("two.jpg")]["size_bytes"] == 6
    assert abs(rows[store.address("two.jpg")]["modified_at"].timestamp() - time.time()) < 120
    assert store.read("a/one.jpg") == b"one"
    assert asyncio.run(store.fetch("a/one.jpg")) == b"one"


def test_list_and_info_agree_on_every_field(store: Store) -> None:
    store.write("x.jpg", b"12345")
    row, info = listed(store)[store.address("x.jpg")], store.info("x.jpg")
    assert (row["uri"], row["size_bytes"], row["etag"]) == (info.uri, info.size_bytes, info.etag)
    assert abs(row["modified_at"] - info.modified_at).total_seconds() < 1  # Last-Modified has whole seconds
    assert info.modified_at.utcoffset() is not None
    assert '"' not in info.etag


def test_odd_names_survive_list_uri_and_read(store: Store) -> None:
    bucket, folder = store.uri.startswith("s3:"), store.uri.startswith("/")
    names = ODD_NAMES + (LINE_ENDS if folder or not ON_MOTO else []) + (ONLY_IN_BUCKETS if bucket else [])
    if store.uri.startswith(("gs:", "az:")):  # what object_store can address; Azure takes a backslash for a slash
        names = [name for name in ODD_NAMES if not re.search(r"[\x00-\x1f\x7f\\]", name)]
    for name in names:
        store.write(name, name.encode())
    rows = listed(store)
    assert {uri.removeprefix(store.uri + "/") for uri in rows} == set(names)
    items = [(uri, row["etag"]) for uri, row in rows.items()]
    assert read_pictures(items) == [uri.removeprefix(store.uri + "/").encode() for uri in rows]
    assert set(store.keys()) == set(names)
    for name in names:
        assert store.read(name) == name.encode()
        assert store.info(name).uri == store.address(name)
        assert not store.write_if_absent(name, b"")
        store.delete(name)
    assert not listed(store)


def test_a_prefix_is_whole_segments(store: Store) -> None:
    for key in ("inbox/a", "inbox/b/c", "inbox2/a", "inbox"[:4], "z"):
        store.write(key, b"")
    assert keys_listed(store, "inbox") == keys_listed(store, "inbox/") == {"inbox/a", "inbox/b/c"}
    assert set(store.keys("inbox/b")) == {"inbox/b/c"}
    assert keys_listed(store) == {"inbox/a", "inbox/b/c", "inbox2/a", "inbo", "z"}
    assert keys_listed(open_store(store.uri + "/inbox/")) == {"inbox/a"[6:], "b/c"}
    assert keys_listed(store, "nothing") == set()


def test_folders_are_the_next_level_only(store: Store) -> None:
    for key in ("m/1/bundle.json", "m/2/bundle.json", "m/10/x/y", "m/file", "n/1/x"):
        store.write(key, b"")
    assert store.folders() == ["m", "n"]
    assert store.folders("m") == store.folders("m/") == ["1", "10", "2"]
    assert store.folders("nothing") == []


def test_absent_objects_are_not_found(store: Store) -> None:
    for attempt in (store.read, store.info, lambda key: asyncio.run(store.fetch(key))):
        with pytest.raises(NotFoundError, match=re.escape("no/such.jpg")):
            attempt("no/such.jpg")
    assert not store.exists("no/such.jpg")
    store.delete("no/such.jpg")


def test_a_root_not_yet_there_has_no_keys_and_takes_writes(store: Store) -> None:
    new = open_store(store.uri + "/registry")
    assert list(new.keys()) == list(new.keys("m")) == new.folders() == []
    assert not new.exists("m/1/x")
    assert new.write_if_absent("m/1/x", b"1")
    assert list(new.keys()) == ["m/1/x"]


def test_a_range_is_the_version_asked_for_and_ends_with_the_object(store: Store) -> None:
    for key in ("x.bin", *([] if store.uri.startswith(("gs:", "az:")) else ["odd\x01"])):
        store.write(key, bytes(range(100)))
        etag = store.info(key).etag
        assert store.read_range(key, 10, 5, etag=etag) == bytes(range(10, 15))
        assert store.read_range(key, 90, 50) == bytes(range(90, 100))
        assert store.read_range(key, 0, 0) == b""
        store.write(key, bytes(99))
        with pytest.raises(ChangedError, match=etag):
            store.read_range(key, 10, 5, etag=etag)
        store.delete(key)  # moto cannot empty a bucket of such names
    with pytest.raises(NotFoundError):
        store.read_range("none", 0, 1)


def test_many_ranges_and_infos_keep_their_order_and_their_errors(store: Store) -> None:
    store.write("a", b"0123456789")
    there, gone = store.address("a"), store.address("gone")
    first, second, third = read_ranges([(there, None, 2, 3), (gone, None, 0, 1), (there, "other", 0, 1)])
    assert first == b"234"
    assert isinstance(second, NotFoundError)
    assert isinstance(third, ChangedError)
    found, missing = read_infos([there, gone])
    assert found == store.info("a")
    assert isinstance(missing, NotFoundError)


def test_a_ranged_file_reads_like_a_file(store: Store) -> None:
    data = bytes(index * 7 % 251 for index in range(300_000))
    store.write("f", data)
    with open_object(store.address("f")) as file:
        for start, length in ((0, 10), (5, 5), (16_000, 1_000), (299_990, 100), (100_000, 150_000), (0, 300_000)):
            file.seek(start)
            assert file.read(length) == data[start : start + length]
        assert file.seek(-3, 2) == 299_997
        assert file.read() == data[-3:]
        assert file.read(1) == b""
    with open_object(store.address("f")) as file:
        store.write("f", data[::-1])
        with pytest.raises(ChangedError):
            file.read(1)


def test_write_replaces_and_changes_the_etag(store: Store) -> None:
    store.write("x", b"old")
    etag = store.info("x").etag
    store.write("x", b"newer")
    assert store.read("x") == b"newer"
    assert store.info("x").etag != etag
    with pytest.raises(ChangedError, match=etag):
        store.read("x", etag=etag)


def test_write_if_absent_keeps_what_is_there(store: Store) -> None:
    assert store.write_if_absent("v/000001.json", b"first")
    assert not store.write_if_absent("v/000001.json", b"second")
    assert store.read("v/000001.json") == b"first"


def test_of_twenty_racing_threads_one_wins(store: Store) -> None:
    with ThreadPoolExecutor(20) as pool:
        for number in range(3):
            bodies = [f"{number} {who}".encode() * 1000 for who in range(20)]
            won = list(pool.map(lambda body, key=f"r/{number}": store.write_if_absent(key, body), bodies))
            assert won.count(True) == 1
            assert store.read(f"r/{number}") == bodies[won.index(True)]
    assert keys_listed(store) == {"r/0", "r/1", "r/2"}


def test_the_probe_of_write_if_absent_leaves_nothing_behind(store: Store) -> None:
    assert store.honours_write_if_absent()
    assert keys_listed(store) == set()


def test_a_pickled_store_works_on_the_other_side(store: Store) -> None:
    store.write("x", b"1")
    store.read("x")
    again = pickle.loads(pickle.dumps(store))
    assert again == store
    assert again.read("x") == b"1"


def test_read_pictures_keeps_order_and_gives_errors_in_their_place(store: Store) -> None:
    for number in range(50):
        store.write(f"{number}.jpg", b"%d" % number)
    etags = {uri: row["etag"] for uri, row in listed(store).items()}
    items = [(store.address(f"{number}.jpg"), etags[store.address(f"{number}.jpg")]) for number in range(50)]
    items[7] = (store.address("gone.jpg"), None)
    items[9] = (items[9][0], "another")
    items[11] = ("ftp://host/x.jpg", None)
    store.write("13.jpg", b"changed meanwhile")
    results = read_pictures(items, concurrency=8)
    expected = {7: NotFoundError, 9: ChangedError, 11: StorageError, 13: ChangedError}
    for number, result in enumerate(results):
        if number in expected:
            assert type(result) is expected[number]
        else:
            assert result == b"%d" % number
    assert read_pictures([]) == []


def test_an_empty_object_is_read_as_empty(store: Store) -> None:
    store.write("empty", b"")
    assert read_pictures([(uri, row["etag"]) for uri, row in listed(store).items()]) == [b""]


def test_delta_tables_are_written_and_raced_for_with_delta_options(store: Store) -> None:
    uri = store.address("table")
    options = delta_options(uri)
    write_deltalake(uri, pa.table({"x": [0]}), storage_options=options)

    def append(number: int) -> None:
        write_deltalake(uri, pa.table({"x": [number]}), mode="append", storage_options=options)

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(append, range(1, 6)))
    table = DeltaTable(uri, storage_options=options)
    assert sorted(table.to_pyarrow_table()["x"].to_pylist()) == [0, 1, 2, 3, 4, 5]
    assert table.version() == 5
    assert set(store.folders("table")) == {"_delta_log"}


# ---- uris


@pytest.mark.parametrize(
    ("uri", "root"),
    [
        ("/a/b/", "/a/b"),
        ("/a//b/../c", "/a/c"),
        ("file:///a/b%20c", "/a/b c"),
        ("/", "/"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a b/c/", "s3://bucket/a b/c"),
    ],
)
def test_a_store_has_an_absolute_uri_without_trailing_slash(uri: str, root: str) -> None:
    assert open_store(uri).uri == root


def test_a_relative_folder_is_taken_from_where_we_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store("./x").uri == open_store("x/").uri == f"{tmp_path}/x"
    monkeypatch.setenv("HOME", "/home/somebody")
    assert open_store("~/x").uri == "/home/somebody/x"


BAD_URIS = [
    "",
    "ftp://x/y",
    "gcs://b/x",
    "gs://",
    "az:///key",
    "az:/c/x",
    "s3://",
    "s3:///key",
    "s3:/bucket/x",
    "file://host/x",
    "http://x",
]


@pytest.mark.parametrize("uri", BAD_URIS)
def test_other_uris_are_refused_with_what_is_allowed(uri: str) -> None:
    with pytest.raises(StorageError, match=r"s3://bucket/prefix.*" + re.escape(repr(uri))):
        open_store(uri)


@pytest.mark.parametrize("uri", ["https://me:secret@host/x", "s3://KEY:secret@bucket/x"])
def test_keys_in_an_address_are_not_repeated(uri: str) -> None:
    with pytest.raises(StorageError, match=r"got '\w+://…@\w+/x'"):
        open_store(uri)


def test_a_picture_uri_splits_into_a_root_and_a_key_as_it_is() -> None:
    assert split_uri("s3://b/a%20b?c#d//e") == ("s3://b", "a%20b?c#d//e")
    assert split_uri("s3://b//e") == ("s3://b", "/e")
    assert split_uri("/a/b c#d") == ("/", "a/b c#d")


def test_importing_storage_for_folders_imports_no_client() -> None:
    code = (
        "import sys, labelmill.storage; labelmill.storage.open_store('/')\n"
        "print([name for name in ('boto3', 'torch', 'ray') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# ---- folders


def test_a_missing_folder_is_not_found_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"inbox.*create it, or correct the path"):
        next(open_store(f"{tmp_path}/inbox").list())


def test_links_to_files_are_followed_and_loops_of_folders_end(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "a/b").mkdir(parents=True)
    (outside / "deep").mkdir(parents=True)
    for file in (root / "a/x.jpg", outside / "o.jpg", outside / "deep/d.jpg"):
        file.write_bytes(b"x")
    (root / "x.jpg").symlink_to(root / "a/x.jpg")
    (root / "a/b/up").symlink_to(root)
    (root / "latest").symlink_to(root / "a")
    (root / "around").symlink_to(tmp_path)
    (root / "elsewhere").symlink_to(outside)
    (outside / "deep/again").symlink_to(outside)
    (root / "broken").symlink_to(root / "nothing")
    (root / "self").symlink_to(root / "self")
    expected = {"a/x.jpg", "x.jpg", "elsewhere/o.jpg", "elsewhere/deep/d.jpg"}
    store = open_store(str(root))
    assert keys_listed(store) == expected
    unseen: list[str] = []
    assert sum(page.num_rows for page in store.list(unseen=unseen)) == 4
    assert sorted(unseen) == [store.address("broken"), store.address("self")]
    assert set(store.keys("elsewhere")) == {"elsewhere/o.jpg", "elsewhere/deep/d.jpg"}
    assert read_pictures([(store.address(key), None) for key in sorted(expected)]) == [b"x"] * 4


def test_names_that_are_not_utf8_are_listed_and_read(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9 1.jpg")).write_bytes(b"latin")
    (tmp_path / "plain.jpg").write_bytes(b"plain")
    rows = listed(open_store(str(tmp_path)))
    assert set(rows) == {f"file://{tmp_path}/caf%E9%201.jpg", f"{tmp_path}/plain.jpg"}
    assert sorted(read_pictures([(uri, row["etag"]) for uri, row in rows.items()])) == [b"latin", b"plain"]


def test_a_picture_that_takes_anothers_name_size_and_time_is_another_version(tmp_path: Path) -> None:
    """As `cp -p`, `rsync -t` and `unzip` leave it."""
    store = open_store(str(tmp_path))
    store.write("x.jpg", b"cat")
    os.utime(tmp_path / "x.jpg", (1_600_000_000, 1_600_000_000))
    before = store.info("x.jpg").etag
    time.sleep(0.02)  # a tick of the system's clock
    (tmp_path / "x.jpg").write_bytes(b"dog")
    os.utime(tmp_path / "x.jpg", (1_600_000_000, 1_600_000_000))
    after = listed(store)[store.address("x.jpg")]["etag"]
    assert before != after == store.info("x.jpg").etag
    assert [type(data) for data in read_pictures([(store.address("x.jpg"), before)])] == [ChangedError]
    assert read_pictures([(store.address("x.jpg"), after)]) == [b"dog"]


@pytest.mark.parametrize("mtime_s", [1_600_000_000.25, -3, 0])
def test_an_etag_from_before_goes_on_to_count_as_long_as_size_and_time_agree(tmp_path: Path, mtime_s: float) -> None:
    store = open_store(str(tmp_path))
    store.write("x.jpg", b"cat")
    os.utime(tmp_path / "x.jpg", (mtime_s, mtime_s))
    before = f"{round(mtime_s * 10**6):x}-3"
    now, bucket = store.info("x.jpg").etag, "5d41402abc4b2a76b9719d911017c592-7"
    uris = [store.address("x.jpg"), f"file://{tmp_path}/%E9", "s3://b/x", "/odd"]
    assert etags_before(pa.array(uris), pa.array([now, now, f"{now}-1", bucket])).to_pylist() == [
        before,
        before,
        None,
        None,
    ]
    assert store.read("x.jpg", etag=before) == b"cat"
    for other in (f"{round(mtime_s * 10**6):x}-4", "3", "", f"{now}-1", f"{before}-"):
        with pytest.raises(ChangedError):
            store.read("x.jpg", etag=other)


def test_pipes_and_folders_are_not_pictures_and_nobody_waits_for_them(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    store = open_store(str(tmp_path))
    assert keys_listed(store) == set()
    for key in ("pipe", "folder"):
        assert not store.exists(key)
        with pytest.raises(NotFoundError, match="expected a file"):
            store.read(key)


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "", "a//b", "a/", ".", "a\0b"])
def test_no_key_leaves_its_folder(tmp_path: Path, key: str) -> None:
    store = open_store(str(tmp_path))
    for attempt in (store.read, store.info, store.delete, lambda key: store.write(key, b"")):
        with pytest.raises(StorageError, match="expected a path below"):
            attempt(key)


def test_a_listing_shows_no_half_written_file(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    seen: list[set[str]] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.append({(key, len(store.read(key))) for key in store.keys("")})

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(20):
        store.write("big", b"x" * 3_000_000)
    stop.set()
    watcher.join()
    assert set().union(*seen) == {("big", 3_000_000)}
    assert [path.name for path in tmp_path.iterdir()] == ["big"]


def _race(root: str, who: int, start: "multiprocessing.Barrier") -> int:
    store = open_store(root)
    start.wait()
    return sum(store.write_if_absent(f"v/{number:06d}", b"%d" % who * 100_000) for number in range(20))


def _run_race(root: str, who: int, start, wins) -> None:
    wins.put(_race(root, who, start))


def test_of_eight_racing_processes_one_wins_each_key(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, wins = context.Barrier(8), context.Queue()
    racers = [context.Process(target=_run_race, args=(str(tmp_path), who, start, wins)) for who in range(8)]
    for racer in racers:
        racer.start()
    total = sum(wins.get(timeout=60) for _ in racers)
    for racer in racers:
        racer.join()
    assert total == 20
    for number in range(20):
        assert len((tmp_path / f"v/{number:06d}").read_bytes()) == 100_000


def test_a_file_system_without_hard_links_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: str) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    store = open_store(str(tmp_path))
    assert not store.honours_write_if_absent()
    with pytest.raises(StorageError, match="file system with hard links"):
        store.write_if_absent("x", b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.EROFS, ForbiddenError, "not allowed to write .*: Read-only file system. Mount it writable"),
        (errno.ENOSPC, StorageError, "no room for"),
        (errno.EACCES, ForbiddenError, "not allowed to access"),
    ],
)
def test_a_folder_that_cannot_be_written_is_not_said_to_lack_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StorageError], said: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "makedirs", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    for attempt in (
        open_store(str(tmp_path)).honours_write_if_absent,
        lambda: open_store(str(tmp_path)).write("x", b""),
    ):
        with pytest.raises(kind, match=said):
            attempt()


def test_a_folder_we_may_not_read_is_forbidden() -> None:
    code = (
        "import os, sys; from labelmill.storage import open_store; import pyarrow\n"
        "if os.getuid() == 0: os.seteuid(65534)\n"  # root may read everything
        "for root in sys.argv[1], sys.argv[1] + '/closed/inbox':\n"
        "    try: list(open_store(root).list())\n"
        "    except Exception as exc: print(type(exc).__name__, exc)"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        Path(folder, "closed").mkdir(mode=0o000)
        found = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
        Path(folder, "closed").chmod(0o700)
    assert [line.partition(" ")[0] for line in found.stdout.splitlines()] == ["ForbiddenError"] * 2
    assert f"{folder}/closed" in found.stdout


def test_nobody_looks_into_a_folder_that_is_left_out() -> None:
    """A folder that may not be read, a link to one, and a file in a folder of which only the names may be read."""
    code = (
        "import os, sys; from labelmill.storage import open_store; import pyarrow\n"
        "if os.getuid() == 0: os.seteuid(65534)\n"  # root may read everything
        "store = open_store(sys.argv[1])\n"
        "def listed(*names):\n"
        "    try: pages = list(store.list(left_out=lambda key: key in names))\n"
        "    except Exception as exc: return type(exc).__name__\n"
        "    return [uri.removeprefix(store.uri) for page in pages for uri in page['uri'].to_pylist()]\n"
        "print(listed('a/closed', 'link', 'names/x'))\n"
        "for names in (('link', 'names/x'), ('a/closed', 'names/x'), ('a/closed', 'link')): print(listed(*names))\n"
    )
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as elsewhere:
        for name in ("a/closed", "names"):
            Path(folder, name).mkdir(parents=True)
        for name in ("a/x.jpg", "names/x"):
            Path(folder, name).write_bytes(b"1")
        Path(folder, "link").symlink_to(elsewhere)
        modes = {folder: 0o755, f"{folder}/a": 0o755, f"{folder}/a/closed": 0, f"{folder}/names": 0o744, elsewhere: 0}
        for path, mode in modes.items():
            Path(path).chmod(mode)
        found = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
        for path in modes:
            Path(path).chmod(0o755)
    assert found.stdout.splitlines() == ["['/a/x.jpg']", *["ForbiddenError"] * 3]


# ---- S3


def test_a_missing_bucket_is_not_found_with_what_to_do(s3: str) -> None:
    store = open_store("s3://labelmill-no-such-bucket/x")
    for attempt in (lambda: next(store.list()), lambda: store.write("x", b""), store.honours_write_if_absent):
        with pytest.raises(NotFoundError, match=r"no such bucket.*create it"):
            attempt()
    with pytest.raises(NotFoundError):
        store.read("x")


def test_wrong_keys_are_forbidden(s3: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(s3).write("x", b"")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    if ON_MOTO:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    with moto_checks_keys(s3_endpoint) if ON_MOTO else _nothing():
        store = open_store(s3)
        tries = (
            lambda: next(store.list()),
            lambda: store.read("x"),
            lambda: store.info("x"),
            lambda: store.write("x", b""),
        )
        for attempt in tries:
            with pytest.raises(CredentialsError, match="check the credentials"):
                attempt()
        with pytest.raises(CredentialsError):  # it is no picture's
            read_pictures([(f"{s3}/x", None)])


def test_no_keys_at_all_is_forbidden_with_what_to_set(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(s3).write("x", b"1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with pytest.raises(CredentialsError, match="AWS_ACCESS_KEY_ID"):
        open_store(s3).read("x")
    with pytest.raises(CredentialsError, match="AWS_ACCESS_KEY_ID"):
        read_pictures([(f"{s3}/x", None)])


def test_profiles_name_keys_and_endpoint(
    s3: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text(
        f"[profile lab]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\nendpoint_url = {s3_endpoint}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    open_store(s3).write("x", b"1")
    assert open_store(s3).read("x") == b"1"
    assert delta_options(s3)["AWS_ENDPOINT_URL"] == s3_endpoint


def test_keys_that_expire_are_renewed_by_whoever_uses_them(
    s3: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expires = (datetime.now(UTC) + timedelta(minutes=20)).strftime("%Y-%m-%dT%H:%M:%SZ")
    keys = {"Version": 1, "AccessKeyId": "AWS_ACCESS_KEY_ID", "SecretAccessKey": "AWS_SECRET_ACCESS_KEY"}
    keys = {name: os.environ.get(str(value), value) for name, value in keys.items()} | {"Expiration": expires}
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    profile = f"[profile lab]\ncredential_process = /bin/cat {tmp_path}/keys.json\nendpoint_url = {s3_endpoint}\n"
    (tmp_path / "config").write_text(profile)
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    open_store(s3).write("x", b"1")
    assert open_store(s3).read("x") == b"1"
    options = delta_options(f"{s3}/table")
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} & set(options)
    write_deltalake(f"{s3}/table", pa.table({"x": [1]}), storage_options=options)
    assert DeltaTable(f"{s3}/table", storage_options=options).version() == 0


def test_an_unknown_profile_is_one_clear_error(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    with pytest.raises(CredentialsError, match="no-such-profile"):
        open_store(s3).read("x")


def test_markers_of_empty_folders_are_no_pictures(s3: str) -> None:
    store = open_store(f"{s3}/p")
    store.write("folder/", b"")
    store.write("folder/x", b"1")
    assert keys_listed(store) == set(store.keys("")) == {"folder/x"}
    assert store.folders() == ["folder"]


def test_listings_of_more_than_one_page_are_whole(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def page(handler: BaseHTTPRequestHandler, number: int) -> None:
        entry = (
            "<Contents><Key>{}</Key><Size>1</Size><ETag>&quot;e&quot;</ETag><LastModified>{}</LastModified></Contents>"
        )
        entries = "".join(entry.format(f"{number}-{row}", "2026-11-23T18:00:00.5Z") for row in range(3))
        more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{number}</NextContinuationToken>"
        space = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
        answer(handler, 200, f"<ListBucketResult {space}>{entries}{more * (number < 2)}</ListBucketResult>".encode())

    with server(page) as (endpoint, hits):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        rows = listed(open_store("s3://b"))
        assert list(rows) == [f"s3://b/{page}-{row}" for page in range(3) for row in range(3)]
        assert rows["s3://b/2-0"]["modified_at"].isoformat() == "2026-11-23T18:00:00.500000+00:00"
        assert [re.findall(r"continuation-token=(\d)", path) for _, path in hits] == [[], ["0"], ["1"]]


def test_one_request_a_picture(monkeypatch: pytest.MonkeyPatch, s3: str) -> None:
    with server(lambda handler, number: answer(handler, 200, b"x", ETag='"abc"')) as (endpoint, hits):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        items = [(f"s3://b/{number}", "abc") for number in range(20)]
        assert read_pictures(items) == [b"x"] * 20
        assert len(hits) == 20


@pytest.mark.parametrize("method", ["GET", "PUT", "LIST"])
@pytest.mark.parametrize("status", [500, 503, 429])
def test_passing_faults_are_tried_again(method: str, status: int, monkeypatch: pytest.MonkeyPatch, s3: str) -> None:
    listing = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"

    def respond(handler: BaseHTTPRequestHandler, number: int) -> None:
        body = {"GET": b"x", "PUT": b"", "LIST": listing}[method]
        code = b"<Error><Code>SlowDown</Code></Error>"
        answer(handler, 200, body, ETag='"abc"') if number else answer(handler, status, code)

    with server(respond) as (endpoint, hits):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        store = open_store("s3://b")
        if method == "GET":
            assert read_pictures([("s3://b/x", "abc")]) == [b"x"]
        elif method == "PUT":
            assert store.write_if_absent("x", b"x")
        else:
            assert list(store.keys()) == []
        assert len(hits) == 2


def test_a_lost_answer_does_not_turn_a_winner_into_a_loser(monkeypatch: pytest.MonkeyPatch, s3: str) -> None:
    def respond(handler: BaseHTTPRequestHandler, number: int) -> None:
        if handler.command == "GET":
            answer(handler, 200, b"mine", ETag='"abc"')
        elif number == 0:  # written, and the answer lost
            handler.connection.shutdown(socket.SHUT_RDWR)
        else:
            answer(handler, 412, b"<Error><Code>PreconditionFailed</Code></Error>")

    with server(respond) as (endpoint, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        assert open_store("s3://b").write_if_absent("x", b"mine")
    with server(respond) as (endpoint, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        assert not open_store("s3://b").write_if_absent("x", b"another's")


def test_a_body_that_ends_early_is_completed_or_an_error_never_short(monkeypatch: pytest.MonkeyPatch, s3: str) -> None:
    whole = bytes(range(256)) * 400

    def cut(handler: BaseHTTPRequestHandler, number: int, always: bool) -> None:
        start = int(re.findall(r"\d+", handler.headers["Range"])[0]) if "Range" in handler.headers else 0
        part = {"Content-Range": f"bytes {start}-{len(whole) - 1}/{len(whole)}"} if start else {}
        head = {"ETag": '"abc"', "Last-Modified": "Mon, 23 Nov 2026 18:00:00 GMT", **part}
        stop = start + 1000 if always or number == 0 else len(whole)
        answer(handler, 206 if start else 200, whole[start:stop], length=len(whole) - start, **head)
        handler.close_connection = True

    for always in (False, True):
        with server(lambda handler, number, always=always: cut(handler, number, always)) as (endpoint, _):
            monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
            if always:
                with pytest.raises(UnavailableError):
                    open_store("s3://b", timeout_s=5).read("x")
            else:
                assert open_store("s3://b", timeout_s=5).read("x") == whole


@pytest.mark.parametrize("listener", ["nobody", "mute"])
def test_a_server_that_does_not_answer_is_unavailable_in_time(
    listener: str, monkeypatch: pytest.MonkeyPatch, s3: str
) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        if listener == "mute":
            mute.listen()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{mute.getsockname()[1]}")
        store = open_store("s3://b", timeout_s=2)
        attempts: list[Callable[[], object]] = [
            lambda: store.read("x"),
            lambda: store.write_if_absent("x", b""),
            lambda: next(store.list()),
            store.honours_write_if_absent,
        ]
        for attempt in attempts:
            began = time.monotonic()
            with pytest.raises(UnavailableError, match=r"127\.0\.0\.1"):
                attempt()
            assert time.monotonic() - began < 6  # of these, 4 for a busy machine


def test_a_store_that_ignores_the_condition_is_found_out(monkeypatch: pytest.MonkeyPatch, s3: str) -> None:
    with server(lambda handler, number: answer(handler, 204 if handler.command == "DELETE" else 200)) as (
        endpoint,
        hits,
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        assert not open_store("s3://b").honours_write_if_absent()
        assert not open_store("s3://b").honours_write_if_absent()
        assert [method for method, _ in hits] == ["PUT", "PUT", "DELETE"]


def test_a_store_that_knows_no_conditions_is_found_out(monkeypatch: pytest.MonkeyPatch, s3: str) -> None:
    refuse = b"<Error><Code>NotImplemented</Code></Error>"
    with server(lambda handler, number: answer(handler, 501, refuse)) as (endpoint, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        assert not open_store("s3://b").honours_write_if_absent()
        with pytest.raises(StorageError, match="NotImplemented"):
            open_store("s3://b").write_if_absent("x", b"")


def test_something_else_than_s3_is_named(monkeypatch: pytest.MonkeyPatch, s3: str) -> None:
    with server(lambda handler, number: answer(handler, 200, b"<html><p>Welcome</p></html>")) as (endpoint, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(StorageError, match="expected a listing from an S3 server"):
            list(open_store("s3://b").list())


def answer(
    handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", length: int | None = None, **headers: str
) -> None:
    handler.send_response(status)
    headers = {"Last-Modified": "Mon, 23 Nov 2026 18:00:00 GMT", "Content-Length": str(length or len(body)), **headers}
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def server(
    respond: Callable[[BaseHTTPRequestHandler, int], None],
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """An HTTP server that answers its n-th request with `respond(handler, n)`; its address, and the requests it got."""
    hits: list[tuple[str, str]] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with lock:
                hits.append((self.command, self.path))
                number = len(hits) - 1
            respond(self, number)

        do_GET = do_PUT = do_DELETE = do_HEAD = handle_any  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    thread = threading.Thread(target=running.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}", hits
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


@contextmanager
def moto_checks_keys(endpoint: str) -> Iterator[None]:
    # urllib keeps the proxy that the first request of the whole session found, and one test names a dead one.
    ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def after(requests: bytes) -> None:
        url, head = f"{endpoint}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        ask(urllib.request.Request(url, data=requests, headers=head)).read()

    after(b"0")
    try:
        yield
    finally:
        after(b"inf")


@contextmanager
def _nothing() -> Iterator[None]:
    yield
