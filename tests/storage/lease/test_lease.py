"""One run at a time on a table, and no run for ever."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from labelmill.errors import BusyError, FencedError, StorageError
from labelmill.storage import Store, open_store
from labelmill.storage.lease import hold_lease
from labelmill.storage.lease import lease as lease_module
from labelmill.storage.lease import newcomer as newcomer_module
from labelmill.storage.lease.holder import Holder, this_process

on_linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "table" / "_labelmill"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "BEAT_S", 0.2)
    monkeypatch.setattr(newcomer_module, "LEASE_S", 2.0)


ELSEWHERE = Holder("elsewhere", "another machine", 4242, "0", "nightly")


def claim(store: Store, number: int, holder: Holder = ELSEWHERE) -> None:
    store.write(f"lease/{number:06d}.json", holder.to_json())
    store.write(f"lease/{number:06d}.beat", b"7")


def beating(store: Store) -> subprocess.Popen[bytes]:
    """A process that keeps the lease of number 1 alive."""
    script = (
        "import sys, time\n"
        "from labelmill.storage import open_store\n"
        "store = open_store(sys.argv[1])\n"
        "for count in range(1000):\n"
        "    store.write('lease/000001.beat', str(count).encode()); time.sleep(0.2)\n"
        "    print(count, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, store.uri], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    return process


def test_second_run_is_refused_and_told_who_holds_the_table(store: Store) -> None:
    refused = pytest.raises(BusyError, match=f"job 'first', process {os.getpid()}")
    with hold_lease(store, "first"), refused, hold_lease(store, "second"):
        pass


def test_a_released_lease_is_free_at_once(store: Store) -> None:
    with hold_lease(store, "first"):
        pass
    with hold_lease(store, "second"):
        pass


def test_a_lease_is_released_when_its_run_fails(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), hold_lease(store, "first"):
        raise ZeroDivisionError
    with hold_lease(store, "second"):
        pass


def test_a_killed_run_on_this_machine_is_replaced_at_once(store: Store, tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from labelmill.storage.lease import hold_lease\n"
        "from labelmill.storage import open_store\n"
        "with hold_lease(open_store(sys.argv[1]), 'killed'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, store.uri], check=False)
    assert killed.returncode == -9
    with hold_lease(store, "next"):
        pass


@pytest.mark.parametrize("name", [".DS_Store", "desktop.ini", "._000001.json", "000009.json.part", "old/000009.json"])
def test_a_foreign_file_among_the_leases_is_no_lease(store: Store, name: str) -> None:
    with hold_lease(store, "first"):
        pass
    store.write(f"lease/{name}", b"")
    with hold_lease(store, "second") as lease:
        lease.check()
        assert store.exists("lease/000002.json")


@pytest.mark.usefixtures("quick")
def test_a_silent_holder_elsewhere_is_waited_out(store: Store) -> None:
    claim(store, 1)
    with hold_lease(store, "next"):
        assert store.exists("lease/000002.json")


@pytest.mark.usefixtures("quick")
def test_a_living_holder_elsewhere_is_left_alone(store: Store) -> None:
    claim(store, 1)
    with beating(store) as holder:
        try:
            with pytest.raises(BusyError, match="4242 on elsewhere"), hold_lease(store, "next"):
                pass
        finally:
            holder.kill()


@on_linux
def test_a_clock_that_is_set_makes_nobody_of_a_living_holder(store: Store, set_clock: Callable[[], None]) -> None:
    """As it is after a boot or when a virtual machine is resumed; all that then changes is since when it has run."""
    with hold_lease(store, "first"):
        set_clock()
        with pytest.raises(BusyError, match="job 'first'"), hold_lease(store, "second"):
            pass


@on_linux
def test_a_later_process_of_the_same_number_is_not_the_holder(store: Store) -> None:
    claim(store, 1, replace(this_process("before"), began="7"))
    with hold_lease(store, "next"):
        assert store.exists("lease/000002.json")


@on_linux
def test_a_holder_that_ended_and_was_not_asked_for_is_replaced_at_once(store: Store) -> None:
    """A parent that waits for none of its children, as the first process of a container may, leaves them listed."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        stat = Path(f"/proc/{process.pid}/stat")
        claim(store, 1, replace(this_process("killed"), pid=process.pid, began=stat.read_text().split()[21]))
        with pytest.raises(BusyError, match="job 'killed'"), hold_lease(store, "next"):
            pass
        process.kill()
        while stat.read_text().split()[2] != "Z":
            time.sleep(0.01)
        started = time.monotonic()
        with hold_lease(store, "next"):
            assert time.monotonic() - started < newcomer_module.LEASE_S / 2


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("holder_lives", [True, False])
def test_a_process_that_cannot_be_told_is_judged_by_its_beat(store: Store, holder_lives: bool) -> None:
    """On a system without /proc, or which hides the processes of others."""
    claim(store, 1, replace(this_process("hidden"), began=None))
    if not holder_lives:
        with hold_lease(store, "next"):
            assert store.exists("lease/000002.json")
        return
    with beating(store) as holder:
        try:
            with pytest.raises(BusyError, match="job 'hidden'"), hold_lease(store, "next"):
                pass
        finally:
            holder.kill()


@pytest.mark.usefixtures("quick")
def test_a_run_of_the_version_before_is_not_replaced_while_it_lives(store: Store) -> None:
    """Its claim tells when the process began by the wall clock."""
    here = this_process("of before")
    old = {"host": here.host, "machine": here.machine, "pid": here.pid, "process_started_at": 1.0, "job": here.job}
    store.write("lease/000001.json", json.dumps(old).encode())
    with beating(store) as holder:
        try:
            with pytest.raises(BusyError, match="job 'of before'"), hold_lease(store, "next"):
                pass
        finally:
            holder.kill()
    store.write("lease/000001.json", json.dumps(old | {"pid": holder.pid}).encode())
    with hold_lease(store, "next"):  # it is gone
        pass


@pytest.mark.usefixtures("quick")
def test_a_newcomer_that_is_stopped_while_it_looks_looks_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    claim(store, 1)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += 3600  # stopped right here, and the holder's next beat comes a moment later
        if len(slept) == 2:
            store.write("lease/000001.beat", b"8")

    now = [time.monotonic()]
    monkeypatch.setattr(newcomer_module.time, "sleep", sleep)
    monkeypatch.setattr(newcomer_module.time, "monotonic", lambda: now[0])
    with pytest.raises(BusyError), hold_lease(store, "next"):
        pass


def test_what_lies_among_the_leases_is_not_one(store: Store) -> None:
    store.write("lease/desktop.json", b"{}")
    store.write("lease/000001.json", b"[]")
    store.write("lease/000001.beat", b"released")
    with hold_lease(store, "next"):
        assert store.exists("lease/000002.json")


def test_a_lease_whose_first_beat_fails_is_given_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write, failed = type(store).write, threading.Event()

    def once(self: Store, key: str, data: bytes) -> None:
        if not failed.is_set():
            failed.set()
            raise StorageError("full")
        write(self, key, data)

    monkeypatch.setattr(type(store), "write", once)
    with pytest.raises(StorageError, match="full"), hold_lease(store, "first"):
        pass
    with hold_lease(store, "second"):
        assert store.exists("lease/000002.json")


@pytest.mark.usefixtures("quick")
def test_a_run_learns_that_it_was_replaced(store: Store) -> None:
    with hold_lease(store, "slow") as lease:
        lease.check()
        claim(store, 2)
        lease._thread.join(5)
        with pytest.raises(FencedError, match="took over the lease"):
            lease.check()
