"""What is kept on a machine is what was written, or is made anew; and it does not grow for ever."""

import errno
import json
import os
import re
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bundles import make_bundle
from labelmill.check import check
from labelmill.errors import BundleError, StorageError
from labelmill.model import cache, room
from labelmill.model.cache import cache_folder, check_cache, kept
from labelmill.model.engines.graphs import converted_graph
from labelmill.model.labeler import Labeler
from labelmill.spec import load_spec
from pictures import jpeg_bytes

HELPS = r"^the cache .* cannot be written: .+\. Set LABELMILL_CACHE to a folder that can be, and has room\.$"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Empty, and unknown to this process."""
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path / "cache"))
    forget()
    return tmp_path / "cache"


def forget():
    """As a process that has just started."""
    for used in cache._used.values():
        os.close(used.lock)
    cache._used.clear()


def write(folder, size_bytes=1000):
    (folder / "a.bin").write_bytes(bytes([7]) * size_bytes)
    (folder / "b.json").write_text("{}")


def entries():
    return sorted(path for path in cache_folder().glob("*/*") if path.suffix != ".lock")


def zeroed(file):
    """What a power cut leaves: the length is right, the bytes are not."""
    half, whole = file.stat().st_size // 2, file.stat().st_size
    os.truncate(file, half)
    os.truncate(file, whole)


DAMAGE = {
    "half zeros": lambda folder: zeroed(folder / "a.bin"),
    "cut short": lambda folder: os.truncate(folder / "a.bin", 10),
    "empty": lambda folder: os.truncate(folder / "b.json", 0),
    "absent": lambda folder: (folder / "a.bin").unlink(),
    "a folder in its place": lambda folder: ((folder / "b.json").unlink(), (folder / "b.json").mkdir()),
    "no digests": lambda folder: (folder / "digests.json").unlink(),
    "empty digests": lambda folder: os.truncate(folder / "digests.json", 0),
    "zeroed digests": lambda folder: zeroed(folder / "digests.json"),
    "digests of nothing": lambda folder: (folder / "digests.json").write_text("{}"),
    "digests of another kind": lambda folder: (folder / "digests.json").write_text("[1]"),
    "all of it": lambda folder: [file.unlink() for file in folder.iterdir()],
}


@pytest.mark.parametrize("is_known", [True, False], ids=["the process that made it", "another process"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_made_anew(damage, is_known, monkeypatch):
    made = []
    kept("weights", "key", lambda folder: (made.append(1), write(folder)))
    if not is_known:
        forget()
    DAMAGE[damage](kept("weights", "key", write))
    if not is_known:
        forget()
    folder = kept("weights", "key", lambda folder: (made.append(2), write(folder)))
    if "digests" not in damage or not is_known:  # who compared the files needs the digests no more
        assert made == [1, 2]
    assert (folder / "a.bin").read_bytes() == bytes([7]) * 1000
    assert (folder / "b.json").read_text() == "{}"


def test_an_entry_is_compared_once_in_each_process(monkeypatch):
    compared = []
    digest = cache._digest
    monkeypatch.setattr(cache, "_digest", lambda file: (compared.append(file.name), digest(file))[1])
    kept("weights", "key", write)
    forget()
    del compared[:]
    for _ in range(3):
        kept("weights", "key", write)
    assert compared == ["a.bin", "b.json"]


def test_files_that_somebody_has_open_are_not_changed(monkeypatch):
    folder = kept("weights", "key", write)
    zeroed(folder / "a.bin")
    with (folder / "a.bin").open("rb") as file:
        size_bytes, inode = os.fstat(file.fileno()).st_size, os.fstat(file.fileno()).st_ino
        again = kept("weights", "key", write)
        assert (os.fstat(file.fileno()).st_size, os.fstat(file.fileno()).st_ino) == (size_bytes, inode)
    assert (again / "a.bin").stat().st_ino != inode


TAKE = """
import sys, time
from pathlib import Path
from labelmill.model.cache import kept
def make(folder):
    (Path(sys.argv[1]) / str(time.time_ns())).touch()
    time.sleep(0.5)
    (folder / "a.bin").write_bytes(bytes([7]) * 1000)
print(set((kept("weights", "key", make) / "a.bin").read_bytes()))
"""


def test_of_many_that_find_it_damaged_one_makes_it_anew_and_the_others_wait(tmp_path, monkeypatch):
    zeroed(kept("weights", "key", write) / "a.bin")
    (tmp_path / "made").mkdir()
    words = [sys.executable, "-c", TAKE, tmp_path / "made"]
    takers = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert [taker.communicate()[0] for taker in takers] == ["{7}\n"] * 6
    assert len(list((tmp_path / "made").iterdir())) == 1
    forget()
    kept("weights", "another", write)
    assert len(list(cache_folder().glob("weights/key.*/"))) == 2, "the damaged one was in use here"


def test_nothing_is_left_of_what_could_not_be_made():
    def fail(folder):
        write(folder)
        raise BundleError("no")

    with pytest.raises(BundleError):
        kept("weights", "key", fail)
    assert entries() == []


def test_what_is_written_is_on_disk_before_it_has_its_name(monkeypatch):
    """Files and their folder, then the name, then the folder that has it."""
    done = []
    fsync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(Path(f"/proc/self/fd/{file}").readlink()), fsync(file)))
    monkeypatch.setattr(Path, "rename", lambda path, to: (done.append("renamed"), rename(path, to))[1])
    kept("weights", "key", write)
    names = [getattr(path, "name", path) for path in done]
    at = names.index("renamed")
    assert sorted(names[: at - 1]) == ["a.bin", "b.json", "digests.json"]
    assert names[at - 1].startswith(".key.") and names[at + 1 :] == ["weights"]


# The cache is bounded.


HOLD = """
import sys
from labelmill.model.cache import kept
print(kept("weights", sys.argv[1], lambda folder: (folder / "a.bin").write_bytes(bytes(1000))), flush=True)
sys.stdin.read()
"""


def holder(key):
    """A process of its own that goes on using an entry, and the entry."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, key], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return process, Path(process.stdout.readline().strip())


def test_what_was_not_used_for_longest_goes_first_and_never_what_is_in_use(monkeypatch):
    monkeypatch.setattr(room, "_MOST_BYTES", 40_000)  # a folder counts, too
    process, held = holder("held")
    folders = {}
    for number in range(8):
        folders[number] = kept("weights", f"key{number}", write)
        os.utime(folders[number] / "digests.json", (1000 + number, 1000 + number))
        if number == 5:
            forget()
            kept("weights", "key0", write)  # used again: now the newest
            forget()
    os.utime(held / "digests.json", (1, 1))
    forget()
    kept("weights", "last", write)
    left = {path.name.partition(".")[0] for path in entries()}
    assert "held" in left and "last" in left and "key0" in left
    assert "key1" not in left
    assert sum(room._size_bytes(path) for path in entries()) <= 40_000
    process.communicate()
    forget()
    os.utime(held / "digests.json", (1, 1))
    kept("weights", "more", write)
    kept("weights", "still more", write)
    assert not held.exists()


def test_a_disk_is_never_filled_with_more_than_half_of_what_it_has(monkeypatch):
    monkeypatch.setattr(room, "free_bytes", lambda folder: 20_000)
    for number in range(10):
        kept("weights", f"key{number}", write)
        forget()
    assert 1 < len(entries()) < 6


def test_what_a_killed_process_left_half_made_goes_and_what_is_being_made_stays(monkeypatch, own_cache):
    left = own_cache / "openvino" / ".dead.abc"
    left.mkdir(parents=True)
    write(left)
    beside = []

    def make(folder):
        write(folder)
        kept("weights", "other", write)
        beside.extend(path.name for path in entries())

    kept("weights", "key", make)
    assert not left.exists()
    assert any(name.startswith(".key.") for name in beside)


def test_what_an_earlier_version_kept_goes_when_room_is_wanted(monkeypatch, own_cache):
    (own_cache / "openvino" / "old-4").mkdir(parents=True)
    write(own_cache / "openvino" / "old-4")
    (own_cache / "weights").mkdir()
    (own_cache / "weights" / "0123.safetensors").write_bytes(bytes(1000))
    placed = own_cache / "pretrained" / "timm" / "resnet18.safetensors"
    placed.parent.mkdir(parents=True)
    placed.write_bytes(bytes(1000))
    monkeypatch.setattr(room, "_MOST_BYTES", 0)
    folder = kept("weights", "key", write)
    assert entries() == sorted([folder, placed.parent])
    assert placed.exists()


# A cache that cannot be written is one line that names the setting.


def a_file_in_its_place(folder, monkeypatch):
    folder.write_text("no folder")


def a_file_in_the_place_of_a_part(folder, monkeypatch):
    folder.mkdir()
    (folder / "weights").write_text("no folder")


def a_link_that_leads_nowhere(folder, monkeypatch):
    folder.symlink_to(folder.with_name("nowhere") / "at" / "all")


def a_name_too_long(folder, monkeypatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(folder / ("x" * 300)))


def in_a_system_folder(folder, monkeypatch):
    monkeypatch.setenv("LABELMILL_CACHE", "/proc/labelmill")


@pytest.mark.parametrize(
    "wrong",
    [
        a_file_in_its_place,
        a_file_in_the_place_of_a_part,
        a_link_that_leads_nowhere,
        a_name_too_long,
        in_a_system_folder,
    ],
)
def test_a_cache_that_cannot_be_written_is_one_line(wrong, own_cache, monkeypatch):
    wrong(own_cache, monkeypatch)
    with pytest.raises(StorageError, match=HELPS):
        kept("weights", "key", write)


@contextmanager
def files_of_at_most(size_bytes):
    """As on a full disk, where everybody can have it; for the processes started from here, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_line():
    with files_of_at_most(500), pytest.raises(StorageError, match=HELPS):
        kept("weights", "key", write)
    assert entries() == []


def test_a_cache_that_is_read_only_and_has_what_is_wanted_is_read(own_cache, monkeypatch):
    kept("weights", "key", write)
    forget()
    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert (kept("weights", "key", write) / "a.bin").exists()


def refuse(*_, **__):
    raise OSError(errno.EROFS, "Read-only file system")


def test_a_disk_without_locks_keeps_all_the_same(monkeypatch):
    def without_locks(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    kept("weights", "key", write)
    forget()
    monkeypatch.setattr("fcntl.flock", without_locks)
    monkeypatch.setattr(room, "_MOST_BYTES", 0)
    assert (kept("weights", "key", write) / "a.bin").exists()
    kept("weights", "other", write)
    assert len(entries()) == 2, "nobody can know what is in use there"


@pytest.mark.parametrize("home", [None, "/proc/nobody"])
def test_a_user_without_a_home_is_told_of_the_setting(home, monkeypatch):
    monkeypatch.delenv("LABELMILL_CACHE")
    monkeypatch.delenv("HOME")
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(os, "getuid", lambda: 123456)  # of whom /etc/passwd knows nothing
    with pytest.raises(StorageError, match=r"^[^\n]*Set LABELMILL_CACHE to a folder that can be[^\n]*$"):
        kept("weights", "key", write)
    with pytest.raises(StorageError, match="Set LABELMILL_CACHE"):
        check_cache()


# The converted network.


def labels_of(bundle):
    answers = Labeler(bundle, "openvino", precision="float32", num_threads=1).label([jpeg_bytes(seed=7)])
    return [answer.confidences for answer in answers]


def test_a_converted_network_that_lost_its_weights_labels_nothing(tmp_path, monkeypatch):
    bundle = make_bundle(tmp_path / "registry")
    [good] = labels_of(bundle)
    graph = converted_graph(bundle)
    covered = json.loads((graph.parent / "digests.json").read_text())
    assert set(covered) | {"digests.json"} == {file.name for file in graph.parent.iterdir()} > {"graph.bin"}
    forget()
    zeroed(graph.with_suffix(".bin"))
    [again] = labels_of(bundle)
    np.testing.assert_allclose(again, good, atol=1e-5)
    assert converted_graph(bundle) != graph and not graph.exists()


@pytest.mark.parametrize("more", ["kind: serve", "kind: evaluate, data: {images: i, labels: folders}, output: o"])
def test_a_cache_that_is_read_only_and_has_what_a_job_wants_passes_its_check(more, tmp_path, own_cache, monkeypatch):
    registry = tmp_path / "registry"
    bundle = make_bundle(registry)
    spec = tmp_path / "job.yaml"
    spec.write_text(f"{{{more}, name: n, registry: {registry}, model: tiny@1}}")

    def finding():
        [found] = [found for found in check(load_spec(str(spec)).spec) if found.subject == "cache"]
        return found.ok, found.detail

    assert finding() == (True, "writable")
    converted_graph(bundle)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert finding() == (True, "cannot be written, and has what is needed")
    make_bundle(registry, seed=1)
    spec.write_text(spec.read_text().replace("tiny@1", "tiny@2"))
    assert finding()[0] is False and re.match(HELPS, finding()[1])


def test_a_network_that_finds_no_room_is_not_blamed(tmp_path):
    bundle = make_bundle(tmp_path / "registry")
    size_bytes = bundle.weights_path().stat().st_size
    with files_of_at_most(size_bytes // 2), pytest.raises(StorageError, match=HELPS):
        converted_graph(bundle)
    assert not list(cache_folder().glob("openvino/[!.]*.*/")), "nothing half made counts"
