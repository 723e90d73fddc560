"""What commands print on a terminal: colours, widths, and times."""

import fcntl
import os
import pty
import struct
import sys
import termios
from pathlib import Path

import pyarrow as pa
import pytest

from labelmill import cli
from labelmill.storage import open_store
from labelmill.table.data_file import put_data_file
from labelmill.table.row import DATA_SCHEMA
from labelmill.table.writer import TableWriter

SPEC = "{kind: label, name: nightly, registry: r, model: 'a@1', images: ./inbox, output: ./labels}"
NAME = "/pictures/a-name-of-some-length/日本\x1b[31m\n.jpg"
FAR_S = 400_000_000_000  # the year 14645


@pytest.fixture
def on_a_terminal(tmp_path, monkeypatch):
    """Runs a command whose stdout is a terminal; returns what was written there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    Path("job.yaml").write_text(SPEC)

    def run_command(*arguments, columns=80):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        with os.fdopen(slave, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["labelmill", *arguments])
            patch.setattr(sys, "stdout", terminal)
            patch.setattr(sys, "__stdout__", terminal)  # of which shutil asks the size
            patch.setattr(sys, "stderr", terminal)
            with pytest.raises(SystemExit):
                cli.main()
            terminal.write("\0")
        written = b""
        while not written.endswith(b"\0"):
            written += os.read(master, 1_000_000)
        os.close(master)
        return written[:-1].decode().replace("\r\n", "\n")

    return run_command


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A label table with a row of today and one of a far day."""
    monkeypatch.chdir(tmp_path)
    writer = TableWriter("labels")
    facts = {"etag": "e", "size_bytes": 5, "model": "tiny@1", "bundle_digest": "d", "settings_digest": "s"}
    facts |= {"run_id": writer.run_id, "width_px": 64, "height_px": 48}
    made = [
        {"uri": NAME, "status": "unreadable", "error": "damaged", "labels": [], **facts},
        {"uri": "/pictures/b.jpg", "status": "ok", "labels": [{"label": "kät", "confidence": 0.5}], **facts},
    ]
    rows = pa.Table.from_pylist(made, schema=DATA_SCHEMA)
    times = pa.array([1_772_366_400_000_000, FAR_S * 1_000_000]).cast(pa.timestamp("us", "UTC"))
    for name in ("labelled_at", "modified_at"):
        rows = rows.set_column(rows.schema.get_field_index(name), name, times)
    writer.commit(
        [put_data_file(open_store("labels"), f"labelled_on=2026-03-01/{writer.run_id}.parquet", rows, "2026-03-01")]
    )
    return "labels"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("TERM", "")])
def test_colours_and_bold_letters_are_left_out_where_they_are_not_wanted(
    on_a_terminal, table, monkeypatch, name, value
):
    for command in ("check --offline job.yaml", "labels labels"):
        assert "\x1b[" in on_a_terminal(*command.split()), command
    monkeypatch.setenv(name, value)
    for command in ("check --offline job.yaml", "labels labels", "models architectures --filter resnet10t", "--help"):
        assert "\x1b" not in on_a_terminal(*command.split()), command


def test_colours_are_not_forced_upon_a_file(run_in_file, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in run_in_file("models", "architectures", "--filter", "resnet10t")


@pytest.fixture
def run_in_file(monkeypatch, capsys):
    def run_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["labelmill", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
        return capsys.readouterr().out

    return run_command


@pytest.mark.parametrize("columns", ["", "0", "-1", "wide", "20", "1"])
def test_a_narrow_terminal_still_shows_every_word(on_a_terminal, table, monkeypatch, columns):
    monkeypatch.setenv("NO_COLOR", "1")
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    shown = on_a_terminal("labels", table, columns=20)
    for word in ("unreadable", "tiny@1", "64x48", "damaged", "kät"):
        assert f"{word} " in shown
    assert "…" not in shown


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "GMT+3", "GMT-8", "JST", "Nowhere/Land", "America/St_Johns", ""])
def test_times_are_in_utc_and_say_so_in_every_zone(run_in_file, table, monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    lines = [line.rstrip() for line in run_in_file("labels", table).splitlines()]
    assert any(line.endswith("labelled (UTC)") for line in lines)
    assert [line[-17:].strip() for line in lines[-2:]] == ["2026-03-01 12:00", "14645-06-30 15:06"]


def test_a_name_from_outside_stands_on_one_line_of_a_table(run_in_file, table):
    assert "/日本\\x1b[31m\\n.jpg  unreadable" in run_in_file("labels", table)
