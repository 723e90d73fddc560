"""What a run says while it runs, in a file and on a terminal."""

import io
import logging
import os
import pty
from pathlib import Path

import pytest

from labelmill.terminal import log, log_to

logger = logging.getLogger("labelmill.test")


@pytest.fixture
def on_a_terminal(monkeypatch):
    """Calls a function with a terminal's stream; returns what was written to it."""
    monkeypatch.setenv("TERM", "xterm")

    def run(speak):
        master, slave = pty.openpty()
        written = b""
        with os.fdopen(slave, "w") as stream:
            speak(stream)
            stream.write("\0")
            stream.flush()
            while not written.endswith(b"\0"):  # a terminal hands over what it was given in parts
                written += os.read(master, 1_000_000)
        os.close(master)
        return written[:-1].decode()

    return run


def speak(stream):
    with log_to(stream):
        logger.info("listing")
        for number in range(20):
            logger.info("%d of 20", number, extra={"passing": True})
        logger.warning("slow")
        logger.info("20 of 20, %s", "x" * 500, extra={"passing": True})


def shown(written, width=80):
    """The lines that a terminal shows in the end: \\r goes to the line's start, \\x1b[K clears what follows."""
    lines = [""]
    for part in written.replace("\r\n", "\n").replace("\x1b[K", "\0").splitlines(keepends=True):
        for piece in part.rstrip("\n").split("\r"):
            text = piece.split("\0")[-1] if "\0" in piece else piece
            lines[-1] = text
        assert len(lines[-1]) < width
        if part.endswith("\n"):
            lines.append("")
    return lines


def test_progress_on_a_terminal_stays_on_one_line_and_makes_way(on_a_terminal):
    written = on_a_terminal(speak)
    assert "19 of 20" in written
    lines = shown(written)
    assert [line[11:] for line in lines] == ["listing", "slow  (warning of labelmill.test)", ""]


def test_progress_in_a_file_is_a_line_every_five_seconds_without_escapes(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with log_to(stream):
        for number in range(20):
            logger.info("%d of 20", number, extra={"passing": True})
            now[0] += 1.0
        logger.info("done")
    assert [line[11:] for line in stream.getvalue().splitlines()] == ["5 of 20", "10 of 20", "15 of 20", "done"]
    assert not {"\r", "\x1b"} & set(stream.getvalue())


def test_a_name_from_outside_cannot_steer_the_terminal(on_a_terminal):
    def speak(stream):
        with log_to(stream):
            logger.info("\x1b[2Jgone", extra={"passing": True})

    assert "\\x1b[2Jgone" in on_a_terminal(speak)


def test_when_the_run_is_over_nobody_listens_any_more():
    stream = io.StringIO()
    with log_to(stream):
        pass
    logger.warning("late")
    assert stream.getvalue() == ""


def test_a_line_says_the_time_in_utc_and_stays_one_line(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    log.time.tzset()
    stream = io.StringIO()
    before = log.time.time()
    with log_to(stream):
        logger.warning("%s: cannot be read", "a\nerror: b\u202e\udcff.jpg")
    monkeypatch.undo()
    log.time.tzset()
    said, name = stream.getvalue().split("  ", 1)
    assert name == "a\\nerror: b\\u202e\\xff.jpg: cannot be read  (warning of labelmill.test)\n"
    assert said in [log.time.strftime("%H:%M:%SZ", log.time.gmtime(before + late_s)) for late_s in range(3)]


def test_a_log_on_a_full_disk_ends_no_run(capfd):
    with Path("/dev/full").open("w") as full, log_to(full):
        logger.warning("nobody will know")
    assert capfd.readouterr() == ("", "")
