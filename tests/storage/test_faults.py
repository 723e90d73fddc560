"""What networks and overloaded stores do to requests, and that each picture ends as its bytes or its reason."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from labelmill.errors import (
    ChangedError,
    ForbiddenError,
    NotFoundError,
    SlowDownError,
    StorageError,
    UnavailableError,
)
from labelmill.storage import Store, num_retries, open_store, patience, read_pictures
from labelmill.storage.patience import Pace, pace_of, patiently
from proxy import by_chance

PASSING = ("slow_down", "error", "reset", "truncated", "stalled", "lost")


def pictures(bucket: str, count: int, size_bytes: int = 20_000) -> tuple[list[tuple[str, str]], list[bytes]]:
    """(uri, etag) of so many objects, and what they hold: no two alike."""
    contents = [bytes([number]) * size_bytes + b"%d" % number for number in range(count)]
    store = open_store(bucket)
    for number, content in enumerate(contents):
        store.write(f"{number:03d}.jpg", content)
    items = [(row["uri"], row["etag"]) for batch in store.list() for row in batch.to_pylist()]
    return items, contents


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_costs_a_retry_and_no_picture(s3, behind, fault):
    items, contents = pictures(s3, 12)
    proxy = behind(lambda method, key, number: fault if number == 0 and int(key[:3]) % 3 == 0 else None)
    before = num_retries()
    assert read_pictures(items, timeout_s=8 if fault == "stalled" else 40) == contents
    assert num_retries() - before == proxy.faults[fault] == 4
    assert (pace_of(proxy.endpoint, s3.removeprefix("s3://")).rate is not None) == (fault == "slow_down")
    assert sum(proxy.requests.values()) == 16


def test_faults_that_stay_are_errors_in_their_own_places_and_in_time(s3, behind):
    items, contents = pictures(s3, 9)
    always = {
        "001.jpg": ("slow_down", SlowDownError),
        "002.jpg": ("error", UnavailableError),
        "003.jpg": ("reset", UnavailableError),
        "004.jpg": ("truncated", UnavailableError),
        "005.jpg": ("stalled", UnavailableError),
        "006.jpg": ("forbidden", ForbiddenError),
    }
    proxy = behind(lambda method, key, number: always.get(key, (None,))[0])
    began = time.monotonic()
    results = read_pictures(items, timeout_s=6)
    assert time.monotonic() - began < 14  # of these, 8 for a busy machine
    assert [type(result) for result in results[1:7]] == [kind for _, kind in always.values()]
    assert all(s3 in str(result) and "\n" not in str(result) for result in results[1:7])
    assert results[:1] + results[7:] == contents[:1] + contents[7:]
    assert proxy.faults["forbidden"] == 1  # asking again for what is forbidden is no help
    assert all(proxy.faults[fault] > 1 for fault, _ in always.values() if fault != "forbidden")


def test_a_picture_replaced_or_deleted_since_it_was_listed_is_told_apart(s3, s3_buckets, behind):
    items, contents = pictures(s3, 4)
    bucket = s3_buckets.Bucket(s3.removeprefix("s3://"))

    def meddle(method: str, key: str, number: int) -> str | None:
        if key == "001.jpg":
            bucket.put_object(Key=key, Body=b"another")
        if key == "002.jpg":
            bucket.Object(key).delete()
        if key == "003.jpg" and number == 1:  # half of it came, and the rest would be another picture's
            bucket.put_object(Key=key, Body=b"another" * 5000)
        return "truncated" if key == "003.jpg" and number == 0 else None

    proxy = behind(meddle)
    results = read_pictures(items, timeout_s=40)
    assert [type(result) for result in results] == [bytes, ChangedError, NotFoundError, ChangedError]
    assert results[0] == contents[0]
    assert sum(proxy.requests.values()) == 5


@pytest.mark.parametrize("fault", ["error", "truncated", "lost", pytest.param("stalled", marks=pytest.mark.long)])
def test_writes_and_listings_survive_a_passing_fault(s3, behind, fault):
    proxy = behind(lambda method, key, number: fault if number == 0 else None)
    store = open_store(s3, timeout_s=6 if fault == "stalled" else 40)
    store.write("a", b"1")
    assert store.write_if_absent("b", b"2")  # also where the answer to the first try was lost
    assert not store.write_if_absent("b", b"3")
    assert sorted(store.keys()) == ["a", "b"]
    assert store.info("a").size_bytes == 1
    store.delete("a")
    assert list(store.keys()) == ["b"]
    assert store.read("b") == b"2"
    assert proxy.faults[fault] >= 5


@pytest.mark.parametrize(("fault", "kind"), [("forbidden", ForbiddenError), ("full", UnavailableError)])
def test_a_store_that_takes_no_more_says_so(s3, behind, fault, kind):
    store = open_store(s3, timeout_s=2)
    behind(lambda method, key, number: fault if method == "PUT" else None)
    for write in (store.write, store.write_if_absent):
        with pytest.raises(kind, match=s3):
            write("x", b"1")
    assert list(store.keys()) == []


def test_a_picture_is_whole_or_an_error_whatever_comes_together(s3, behind):
    items, contents = pictures(s3, 40)
    draw = by_chance(7, slow_down=0.05, error=0.1, reset=0.1, truncated=0.1, lost=0.05)
    proxy = behind(lambda method, key, number: draw(key, number))
    assert read_pictures(items, timeout_s=30) == contents
    assert set(proxy.faults) == {"slow_down", "error", "reset", "truncated", "lost"}


class LimitedStore:
    """Takes so many requests a second, and says SlowDown to the rest."""

    def __init__(self, requests_per_s: float) -> None:
        self.requests_per_s, self.taken, self.refused = requests_per_s, 0, 0
        self._began, self._lock = time.monotonic(), threading.Lock()

    def ask(self) -> str:
        with self._lock:
            if self.taken > 5 + self.requests_per_s * (time.monotonic() - self._began):
                self.refused += 1
                raise SlowDownError("please")
            self.taken += 1
            return "answer"


def test_the_whole_process_slows_down_for_a_store_that_asks_for_it_and_recovers():
    store, pace = LimitedStore(60), Pace()
    with ThreadPoolExecutor(32) as threads:
        asked = [threads.submit(patiently, store.ask, pace, timeout_s=30, one_try_s=1) for _ in range(240)]
        assert {future.result() for future in asked} == {"answer"}
        # Were each request to wait only for itself, more than half of all would be refused.
        assert store.refused < 0.3 * store.taken
        assert pace.rate is not None
        store.requests_per_s = 1e9
        until = time.monotonic() + 30
        while pace.rate is not None:
            assert time.monotonic() < until
            threads.submit(patiently, store.ask, pace, timeout_s=30, one_try_s=1).result()


def test_a_lease_does_not_queue_behind_pictures(s3: str):
    pace = Pace()
    pace.wait()
    pace.slow_down(time.monotonic())
    assert pace.rate == 1.0
    queue = [threading.Thread(target=patiently, args=(str, pace), kwargs=LONG) for _ in range(3)]
    for thread in queue:
        thread.start()
    began = time.monotonic()
    patiently(str, pace, **LONG, urgent=True)
    assert time.monotonic() - began < 0.3
    for thread in queue:
        thread.join()
    assert time.monotonic() - began > 0.9


LONG = {"timeout_s": 60.0, "one_try_s": 15.0}


def test_requests_refused_in_one_moment_cut_the_rate_once():
    pace = Pace()
    starts = []
    for _ in range(100):
        pace.wait()
        starts.append(time.monotonic())
    for started in starts:
        pace.slow_down(started)
    assert pace.rate == pytest.approx(70, rel=0.1)


def test_workers_do_not_come_back_in_step(monkeypatch):
    waits: list[list[float]] = []

    def fail() -> None:
        raise UnavailableError("no")

    monkeypatch.setattr(patience.time, "sleep", lambda wait_s: waits[-1].append(wait_s))
    for _ in range(200):
        waits.append([])
        with pytest.raises(UnavailableError):
            patiently(fail, Pace(), timeout_s=1000, one_try_s=15)
    assert {len(of_one) for of_one in waits} == {5}
    for number, together in enumerate(zip(*waits, strict=True)):
        ceiling = 0.2 * 2**number
        assert max(together) <= ceiling
        assert min(together) < 0.1 * ceiling < 0.9 * ceiling < max(together)


def test_a_stranger_is_given_up_sooner_than_a_store_that_has_answered(monkeypatch):
    monkeypatch.setattr(patience.time, "sleep", lambda wait_s: None)
    monkeypatch.setattr(patience, "_FIRST_WAIT_S", 0.0)
    tries = 0

    def fail_for_a_while() -> str:
        nonlocal tries
        tries += 1
        if tries % 21:
            raise UnavailableError("no")
        return "answer"

    pace = Pace()
    with pytest.raises(UnavailableError):
        patiently(fail_for_a_while, pace, **LONG)
    assert tries == 6
    pace.answered()
    assert patiently(fail_for_a_while, pace, **LONG) == "answer"
    assert tries == 21


def test_a_folder_without_room_says_what_to_do(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    store: Store = open_store(str(tmp_path))
    with pytest.raises(StorageError, match=r"no room.*free some"):
        store.write("x", b"1")
    assert list(tmp_path.iterdir()) == []
