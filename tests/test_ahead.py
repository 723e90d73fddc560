"""What comes out of threads, and how they end."""

import threading
import time

import pytest

from labelmill.ahead import ahead, with_ticks


def test_ahead_gives_the_same_items_and_raises_what_was_raised():
    def items():
        yield from range(5)
        raise ValueError("no more")

    found = ahead(items(), 2)
    assert [next(found) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="no more"):
        next(found)


def test_ticks_come_while_items_are_waited_for():
    go, stopped = threading.Event(), []

    def items():
        yield 1
        go.wait(10)
        yield 2

    found = with_ticks(items(), 0.01, lambda: stopped.append(True) or True)
    assert next(found) == 1
    assert next(found) is None
    go.set()
    assert [item for item in found if item is not None] == [2]
    assert stopped == [True]


def test_what_takes_is_stopped_and_ended_before_it_is_left():
    end = threading.Event()

    def items():
        yield 1
        end.wait(10)

    found = with_ticks(items(), 10, lambda: end.set() or True)
    next(found)
    [thread] = [thread for thread in threading.enumerate() if thread.name == "take"]
    found.close()
    assert not thread.is_alive()


@pytest.mark.parametrize("begins", [False, True], ids=["too late", "in time"])
def test_a_signal_while_the_thread_starts_leaves_none_behind(monkeypatch, begins):
    """An exception in `start`, as a handler raises it there: the thread runs then or later, or not at all."""
    asked, end, start = threading.Event(), threading.Event(), threading.Thread.start
    threads = []

    def interrupted(thread):
        threads.append(thread)
        if begins:
            start(thread)
            assert asked.wait(10)
        raise KeyboardInterrupt

    def items():
        asked.set()
        end.wait(10)
        yield 1

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(with_ticks(items(), 10, lambda: end.set() or True))
    [thread] = threads
    if not begins:
        start(thread)
        time.sleep(0.1)
    assert not thread.is_alive()
    assert asked.is_set() == begins
