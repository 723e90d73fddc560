"""What is told of a job's end, whatever ended it."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from labelmill.errors import BusyError, FailureBudgetError, SpecError
from labelmill.spec import Spec, load_spec
from labelmill.unattended import note, told_of_end
from webhook import Webhook, webhook


def spec(folder: Path, hook: Webhook, **notify: str) -> Spec:
    source = {
        "kind": "evaluate",
        "name": "again",
        "registry": str(folder),
        "model": "tiny@1",
        "data": {"images": str(folder), "labels": str(folder / "labels.csv")},
        "output": str(folder / "out"),
        "notify": {"url": hook.url, **notify},
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(source))
    return load_spec(folder / "spec.yaml").spec


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BusyError("another runs"), ("skipped", 5, "another runs")),
        (FailureBudgetError("too many", "a detail"), ("stopped", 3, "too many")),
        (SpecError("no such option\nof timm"), ("stopped", 2, "no such option of timm")),
        (RuntimeError("a bug\nof ours"), ("stopped", 1, "RuntimeError: a bug of ours")),
        (KeyError(), ("stopped", 1, "KeyError: KeyError")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_told_in_one_line_and_goes_on_its_way(tmp_path: Path, error: Exception, expected: Any) -> None:
    with webhook(200) as hook:
        with pytest.raises(type(error)) as caught, told_of_end(spec(tmp_path, hook)):
            note(run_id="7")
            raise error
        [message] = hook.got
    assert caught.value is error
    assert (message["outcome"], message["exit_code"], message["error"]) == expected
    assert (message["job"], message["kind"], message["run_id"]) == ("again", "evaluate", "7")
    assert message["text"].splitlines()[1] == expected[2]


def test_a_job_is_told_nothing_of_the_one_before_it(tmp_path: Path) -> None:
    with webhook(200) as hook:
        for _ in range(2):
            with told_of_end(spec(tmp_path, hook)):
                if not hook.got:
                    note(model="tiny@1")
    assert [message.get("model") for message in hook.got] == ["tiny@1", None]


def test_failures_alone_are_told_to_who_wants_them(tmp_path: Path) -> None:
    with webhook(200) as hook:
        wanted = spec(tmp_path, hook, when="failure")
        with told_of_end(wanted):
            pass
        assert hook.got == []
        with pytest.raises(BusyError), told_of_end(wanted):
            raise BusyError("another runs")
        assert len(hook.got) == 1


JOB = (
    "import os, signal, sys, time\n"
    "from labelmill.ending import end_main_thread, ended_by_signals\n"
    "from labelmill.errors import NoRayError\n"
    "from labelmill.spec import load_spec\n"
    "from labelmill.unattended import told_of_end\n"
    "with ended_by_signals(), told_of_end(load_spec(sys.argv[1]).spec):\n"
    "    try:\n"
    "        if sys.argv[2] == 'lost': end_main_thread(NoRayError('Ray is gone'))\n"
    "        else: os.kill(os.getpid(), signal.SIGTERM)\n"
    "        time.sleep(30)\n"
    "    except SystemExit: raise RuntimeError('what a library makes of it')\n"
)


@pytest.mark.parametrize(
    ("how", "code", "error"),
    [("lost", 6, "Ray is gone"), ("signal", 143, "stopped by SIGTERM")],
    ids=["lost", "signal"],
)
def test_a_signal_and_a_lost_ray_are_what_they_are_whatever_a_library_makes_of_them(
    tmp_path: Path, how: str, code: int, error: str
) -> None:
    with webhook(200) as hook:
        spec(tmp_path, hook)
        command = [sys.executable, "-c", JOB, str(tmp_path / "spec.yaml"), how]
        subprocess.run(command, check=False, capture_output=True)
        [message] = hook.got
    assert (message["exit_code"], message["error"]) == (code, error)


def test_after_a_signal_a_dead_webhook_holds_nobody_for_long(tmp_path: Path) -> None:
    with webhook(503) as hook:
        spec(tmp_path, hook)
        began = time.monotonic()
        command = [sys.executable, "-c", JOB, str(tmp_path / "spec.yaml"), "signal"]
        subprocess.run(command, check=False, capture_output=True)
        assert time.monotonic() - began < 9
        assert len(hook.got) > 1


def test_a_long_error_is_cut_and_words_that_would_call_everybody_do_not(tmp_path: Path) -> None:
    with webhook(200) as hook:
        with pytest.raises(BusyError), told_of_end(spec(tmp_path, hook)):
            raise BusyError("<!channel> " + "x" * 10_000)
        [message] = hook.got
    assert "&lt;!channel&gt;" in message["text"]
    assert len(message["text"]) < 2000
