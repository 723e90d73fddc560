"""A machine that lacks something is one line that names the setting which helps, or does not matter."""

import errno
import getpass
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from labelmill import machine
from labelmill.errors import NoRayError, StorageError
from labelmill.machine import on_this_machine, ray_folder


@pytest.fixture(autouse=True)
def as_a_new_process(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)  # what TMPDIR said when it was asked for first
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (OSError(errno.EMFILE, "Too many open files", "/a"), r"^/a could not be opened.*ulimit -n 4096\.$"),
        (OSError(errno.ENFILE, "Too many open files in system"), r"^a file could not be opened.*ulimit -n 4096\.$"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            r"^no room left.*TMPDIR \(now .*\) to a folder with more\.$",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/a"), r"^no room left for /a.*TMPDIR"),
        (OSError(errno.EROFS, "Read-only file system", "/a"), r"^not allowed to access '/a' as user \d+: Read-only"),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), r"^not allowed to access '/a' as user \d+"),
    ],
)
def test_what_no_code_can_mend_is_one_line(fault, said):
    with pytest.raises(StorageError, match=said), on_this_machine():
        raise fault


@pytest.mark.parametrize(
    "fault", [FileNotFoundError(errno.ENOENT, "No such file", "/a"), ConnectionError(), OSError("x")]
)
def test_a_mistake_of_ours_keeps_its_traceback(fault):
    with pytest.raises(type(fault)) as caught, on_this_machine():
        raise fault
    assert caught.value is fault


def test_no_folder_for_temporary_files_is_one_line(monkeypatch):
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/nowhere", "/proc/nothing"])
    with (
        pytest.raises(StorageError, match=r"^no folder for temporary files.*/proc/nowhere.*Set TMPDIR"),
        on_this_machine(),
    ):
        tempfile.gettempdir()


NO_HOME = """
import os
from labelmill.machine import on_this_machine
os.getuid = lambda: 123456
with on_this_machine():
    import ray.train
    import torch._inductor.runtime.cache_dir_utils as torch_cache
    torch_cache.default_cache_dir()
    print(os.environ["HOME"], os.environ["USER"])
"""


@pytest.mark.parametrize("given", ["/tmp/cache", None])
def test_a_user_without_home_and_name_gets_both(given):
    """Ray and torch ask for them when they are imported."""
    environ = {n: v for n, v in os.environ.items() if n not in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME")}
    environ |= {"LABELMILL_CACHE": given} if given else {}
    done = subprocess.run([sys.executable, "-c", NO_HOME], env=environ, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [given or "/nonexistent", "123456"], done.stderr


def test_who_has_a_home_and_a_name_keeps_them(monkeypatch):
    home, name = Path.home(), getpass.getuser()
    with on_this_machine():
        assert (Path.home(), getpass.getuser()) == (home, name)


def test_as_many_files_are_opened_as_may_be():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    with on_this_machine():
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(4096, hard), hard)


# The folder of a local Ray.


def test_a_ray_has_its_files_in_tmpdir(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_LONGEST_PLACE", 200)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert ray_folder().parent == tmp_path


def test_a_place_too_long_for_a_socket_is_passed_over(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    place = tmp_path / ("x" * 30)
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    folder = ray_folder()
    assert str(folder.parent) in ("/tmp", "/var/tmp")
    folder.rmdir()
    assert (
        f"the files of Ray go to {folder.parent} instead of TMPDIR, which is {place}: a path of more than"
        in caplog.text
    )


def test_the_longest_place_is_the_longest():
    """By Ray's own check, at the largest number that Linux gives a process."""
    from ray._private.utils import validate_socket_filepath

    session = "session_2026-11-30_19-16-59_640651_4194304"
    rest = f"/labelmill-12345678/ray/{session}/sockets/plasma_store"
    validate_socket_filepath("/" + "x" * (machine._LONGEST_PLACE - 1) + rest)
    with pytest.raises(OSError, match="cannot exceed"):
        validate_socket_filepath("/" + "x" * machine._LONGEST_PLACE + rest)


def test_a_place_without_room_is_passed_over_and_none_at_all_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(
            NoRayError, match=r"^Ray finds no folder[^\n]*/tmp: [^\n]*Set TMPDIR to a folder with 16 MB"
        ):
            ray_folder()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", list)
    monkeypatch.setattr(tempfile, "tempdir", None)
    folder = ray_folder()  # the system's own
    folder.rmdir()


def test_too_few_open_files_are_told_of_before_ray_starts():
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "from labelmill.machine import ray_folder\n"
        "ray_folder()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("this process may open 64. Allow more: ulimit -n 4096.")
