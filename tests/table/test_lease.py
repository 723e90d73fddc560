"""One run at a time on a table, and no run for ever."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from labelmill.errors import FencedError, TableBusyError
from labelmill.storage import Store, open_store
from labelmill.table import lease as lease_module
from labelmill.table.lease import Holder, hold_lease


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "table" / "_labelmill"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "BEAT_S", 0.2)
    monkeypatch.setattr(lease_module, "LEASE_S", 2.0)


def claim(store: Store, number: int, **changes: object) -> None:
    holder = Holder("elsewhere", "another machine", 4242, 0.0, "nightly")
    store.write(f"lease/{number:06d}.json", json.dumps(asdict(holder) | changes).encode())
    store.write(f"lease/{number:06d}.beat", b"7")


def test_second_run_is_refused_and_told_who_holds_the_table(store: Store) -> None:
    refused = pytest.raises(TableBusyError, match=f"job 'first', process {os.getpid()}")
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
        "from labelmill.table.lease import hold_lease\n"
        "from labelmill.storage import open_store\n"
        "with hold_lease(open_store(sys.argv[1]), 'killed'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, store.uri], check=False)
    assert killed.returncode == -9
    with hold_lease(store, "next"):
        pass


@pytest.mark.usefixtures("quick")
def test_a_silent_holder_elsewhere_is_waited_out(store: Store) -> None:
    claim(store, 1)
    with hold_lease(store, "next"):
        assert store.exists("lease/000002.json")


@pytest.mark.usefixtures("quick")
def test_a_living_holder_elsewhere_is_left_alone(store: Store) -> None:
    script = (
        "import sys, time\n"
        "from labelmill.storage import open_store\n"
        "store = open_store(sys.argv[1])\n"
        "for count in range(100):\n"
        "    store.write('lease/000001.beat', str(count).encode()); time.sleep(0.2)\n"
    )
    claim(store, 1)
    beating = subprocess.Popen([sys.executable, "-c", script, store.uri])
    try:
        with pytest.raises(TableBusyError, match="4242 on elsewhere"), hold_lease(store, "next"):
            pass
    finally:
        beating.kill()
        beating.wait()


@pytest.mark.usefixtures("quick")
def test_a_run_learns_that_it_was_replaced(store: Store) -> None:
    with hold_lease(store, "slow") as lease:
        lease.check()
        claim(store, 2)
        lease._thread.join(5)
        with pytest.raises(FencedError, match="took over the lease"):
            lease.check()
