"""A newer run takes the place of an older one that lives, and a run that vanished is not forgotten."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from labelmill.errors import BusyError
from labelmill.storage import Store, open_store
from labelmill.storage.lease import hold_lease
from labelmill.storage.lease import newcomer as newcomer_module
from labelmill.storage.lease.holder import Holder

ELSEWHERE = Holder("elsewhere", "another machine", 4242, "0", "nightly")
QUICK = (
    "import os, signal, sys, time\n"
    "from labelmill.ending import ended_by_signals\n"
    "from labelmill.storage import open_store\n"
    "from labelmill.storage.lease import hold_lease, lease, newcomer\n"
    "lease.BEAT_S = 0.2\n"
)
HOLDER = QUICK + (
    "with ended_by_signals() as ending:\n"
    "    try:\n"
    "        with hold_lease(open_store(sys.argv[1]), 'older'):\n"
    "            print('held', flush=True)\n"
    "            try:\n"
    "                time.sleep(600)\n"
    "            finally:\n"
    "                time.sleep(float(sys.argv[2]))\n"  # what it takes to commit what it has
    "                print('committed', flush=True)\n"
    "    except SystemExit:\n"
    "        print(ending.error.exit_code, ending.error, flush=True)\n"
)
NEWCOMER = QUICK + (
    "from labelmill.errors import BusyError\n"
    "try:\n"
    "    with hold_lease(open_store(sys.argv[1]), 'newer', replaces=True):\n"
    "        print('went on', flush=True); time.sleep(5)\n"
    "except BusyError: print('busy', flush=True)\n"
)
KILLED = QUICK + (
    "for _ in range(int(sys.argv[2])):\n"
    "    if not os.fork():\n"
    "        with hold_lease(open_store(sys.argv[1]), 'killed'): os.kill(os.getpid(), signal.SIGKILL)\n"
    "    os.wait()\n"
)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    root = str(tmp_path) if request.param == "folder" else request.getfixturevalue("s3")
    return open_store(f"{root}/table/_labelmill")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newcomer_module, "LEASE_S", 2.0)
    monkeypatch.setattr(newcomer_module, "GIVES_WAY_S", 6.0)


def start(script: str, store: Store, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, store.uri, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def holder(store: Store, takes_s: float = 0.0) -> subprocess.Popen[str]:
    process = start(HOLDER, store, str(takes_s))
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def look_foreign(store: Store) -> None:
    """As if the holder ran on another machine, where nobody here can see whether its process lives."""
    claim = json.loads(store.read("lease/000001.json"))
    store.write("lease/000001.json", json.dumps(claim | {"machine": "another"}).encode())


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_holder_that_is_asked_to_ends_as_by_a_signal_and_the_newcomer_goes_on(store: Store, where: str) -> None:
    with holder(store, 1.0) as older:
        if where == "elsewhere":
            look_foreign(store)
        with hold_lease(store, "newer", replaces=True) as lease:
            said, _ = older.communicate(timeout=20)
            assert lease.vanished == []  # it has gone in order
    committed, last = said.splitlines()
    assert committed == "committed"
    assert last.startswith("5 a newer run took the place of this one (overlap: replace): job 'newer', process")
    assert older.returncode == 0
    assert {key for key in store.keys("lease/") if "000001" in key} == set()


def test_a_newcomer_that_may_not_replace_leaves_the_holder_alone(store: Store) -> None:
    with holder(store) as older:
        with pytest.raises(BusyError), hold_lease(store, "newer"):
            pass
        assert not store.exists("lease/000001.stop")
        time.sleep(0.5)
        assert older.poll() is None
        older.kill()


def test_of_two_newcomers_at_once_one_goes_on_and_the_other_is_busy(store: Store) -> None:
    with holder(store, 1.0) as older:
        newcomers = [start(NEWCOMER, store) for _ in range(2)]
        said = sorted(process.communicate(timeout=40)[0] for process in newcomers)
        older.communicate(timeout=20)
    assert said == ["busy\n", "went on\n"]


@pytest.mark.usefixtures("quick")
def test_a_dead_holder_elsewhere_is_waited_out_by_one_that_would_replace_it(store: Store) -> None:
    store.write("lease/000001.json", ELSEWHERE.to_json())
    store.write("lease/000001.beat", b"7")
    with hold_lease(store, "newer", replaces=True):
        assert store.exists("lease/000002.json")


@pytest.mark.usefixtures("quick")
def test_a_holder_that_dies_while_it_gives_way_is_not_waited_for(store: Store) -> None:
    with holder(store, 600) as older:
        killer = threading.Timer(2.0, older.kill)
        killer.start()
        with hold_lease(store, "newer", replaces=True) as lease:
            assert [one.holder.job for one in lease.vanished if one.holder] == ["older"]


@pytest.mark.usefixtures("quick")
def test_a_holder_that_knows_nothing_of_the_wish_is_waited_for_only_so_long(store: Store) -> None:
    store.write("lease/000001.json", ELSEWHERE.to_json())
    beats, done = iter(range(1000)), threading.Event()

    def beat() -> None:
        while not done.wait(0.2):
            store.write("lease/000001.beat", str(next(beats)).encode())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        refused = pytest.raises(BusyError, match="6 s after it was asked to give way")
        with refused, hold_lease(store, "newer", replaces=True):
            pass
    finally:
        done.set()
        thread.join()


def test_a_wish_to_an_earlier_holder_of_the_number_ends_nobody(store: Store) -> None:
    """A training's rows go with it, and the count begins anew; who asked may have been killed."""
    store.write("lease/000001.stop", ELSEWHERE.to_json())
    with holder(store) as process:
        time.sleep(1)
        assert process.poll() is None
        process.kill()


def test_runs_that_vanished_are_known_until_somebody_was_told(store: Store) -> None:
    subprocess.run([sys.executable, "-c", KILLED, store.uri, "2"], check=True)
    with hold_lease(store, "labels compact") as lease:  # tells nobody
        assert len(lease.vanished) == 2
    with hold_lease(store, "next") as lease:
        first, second = lease.vanished
        assert first.holder
        assert (first.holder.job, first.row.number, second.row.number) == ("killed", 1, 2)
        assert first.holder.since
        assert first.last_seen
        lease.told(first)
        assert lease.vanished == [second]
    with hold_lease(store, "next") as lease:
        assert lease.vanished == [second]
        lease.told(second)
    with hold_lease(store, "next") as lease:
        assert lease.vanished == []
    assert sorted(store.keys("lease/")) == ["lease/000006.beat", "lease/000006.json"]


def test_what_a_run_was_told_before_it_was_killed_is_not_told_again(store: Store) -> None:
    subprocess.run([sys.executable, "-c", KILLED, store.uri, "1"], check=True)
    teller = QUICK + (
        "with hold_lease(open_store(sys.argv[1]), 'teller') as lease:\n"
        "    lease.told(lease.vanished[0]); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", teller, store.uri], check=False).returncode == -signal.SIGKILL
    with hold_lease(store, "next") as lease:
        assert [one.holder.job for one in lease.vanished if one.holder] == ["teller"]


def test_a_claim_of_the_version_before_is_read(store: Store) -> None:
    claim = json.loads(ELSEWHERE.to_json())
    del claim["since"]
    assert Holder.from_json(json.dumps(claim).encode()) == ELSEWHERE
