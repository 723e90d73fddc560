"""How many requests a second a process sends, as a server counts them."""

import threading
import time
from collections.abc import Callable

import pytest

from labelmill.storage import open_store, part_of_driver, part_of_worker, read_pictures, requests_limited
from labelmill.storage.limit import Limit
from proxy import FaultyProxy


@pytest.fixture
def counted(behind: Callable[..., FaultyProxy]) -> list[float]:
    """When each request came."""
    came: list[float] = []
    behind(lambda *_: came.append(time.monotonic()))
    return came


def most_within(came: list[float], window_s: float) -> int:
    return max(sum(start <= at < start + window_s for at in came) for start in came)


def test_many_threads_and_a_listing_together_send_no_more_than_the_limit(s3: str, counted: list[float]) -> None:
    store = open_store(f"{s3}/in")
    for number in range(40):
        store.write(f"{number % 20}/{number}.jpg", b"1")
    uris = [(uri, None) for batch in store.list() for uri in batch["uri"].to_pylist()]
    counted.clear()
    with requests_limited(25):
        listing = threading.Thread(target=lambda: list(open_store(f"{s3}/in").list(in_order=False)))
        listing.start()
        read = read_pictures(uris * 2, concurrency=32)
        listing.join()
    assert read == [b"1"] * 80
    assert len(counted) >= 90
    assert most_within(counted, 1.0) <= 27  # the proxy may see two closer together than they were sent
    assert len(counted) / (counted[-1] - counted[0]) > 20


def test_without_a_limit_nobody_waits(s3: str, counted: list[float]) -> None:
    store = open_store(s3)
    store.write("a", b"1")
    with requests_limited(5):
        store.read("a")
    started = time.monotonic()
    read_pictures([(store.address("a"), None)] * 40)
    assert time.monotonic() - started < 4


def test_a_lease_does_not_wait_and_is_counted(s3: str, counted: list[float]) -> None:
    store = open_store(s3)
    for number in range(30):
        store.write(f"{number}.jpg", b"1")
    counted.clear()
    with requests_limited(10):
        reading = threading.Thread(target=read_pictures, args=([(store.address(f"{n}.jpg"), None) for n in range(30)],))
        reading.start()
        time.sleep(0.5)
        started = time.monotonic()
        for beat in range(5):
            list(open_store(f"{s3}/lease").keys())
            store.write("lease/000001.beat", b"%d" % beat)
        assert time.monotonic() - started < 1
        reading.join()
    assert len(counted) == 40
    assert counted[-1] - counted[0] > 3.5  # forty requests at ten a second, the urgent ones among them


def test_a_share_that_shrinks_holds_for_those_who_wait_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelmill.storage.limit._ASKED_EVERY_S", 0.2)
    limit, share = Limit(), [100.0]
    limit.set(lambda: share[0])
    sent: list[float] = []

    def send() -> None:
        for _ in range(20):
            limit.wait()
            sent.append(time.monotonic())

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    share[0] = 20.0
    changed_at = time.monotonic()
    for thread in threads:
        thread.join()
    later = [at for at in sent if at > changed_at + 0.25]
    assert len(later) > 10
    assert most_within(later, 1.0) <= 21


def test_shares_add_up_to_the_whole() -> None:
    for whole in (5.0, 50.0, 1000.0):
        for num_workers in (1, 3, 64):
            together = part_of_driver(whole) + num_workers * part_of_worker(whole, num_workers)
            assert together == pytest.approx(whole)
            assert part_of_worker(whole, num_workers) > 0
