"""What is remembered of pictures is what was seen, or is not remembered at all; and there is not ever more of it."""

import os
import sqlite3

import numpy as np
import pytest

from labelmill.dataset import sights as sights_module
from labelmill.dataset.sights import SIGHT, remembered_sights

ITEMS = [(f"s3://bucket/{number}.jpg", "etag") for number in range(3000)]


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sights-2.sqlite"


def sight(number):
    found = np.zeros(1, SIGHT)
    found["bytes"], found["hash"] = number, 2**63 + number
    return found[0]


def remember(items=ITEMS):
    with remembered_sights() as known:
        for number, item in enumerate(items):
            known.keep(item, sight(number))


def recalled(items=ITEMS):
    with remembered_sights() as known:
        return dict(known.of(items))


def zeroed(file):
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


@pytest.mark.parametrize(
    "damage",
    [
        zeroed,
        lambda file: os.truncate(file, file.stat().st_size // 2 + 100),
        lambda file: os.truncate(file, 0),
        lambda file: file.write_bytes(b"no database" * 1000),
        lambda file: file.unlink(),
    ],
    ids=["half zeros", "cut short", "empty", "no database", "absent"],
)
def test_a_damaged_memory_says_nothing_false_and_works_again(file, damage):
    remember()
    assert len(recalled()) == len(ITEMS)
    damage(file)
    assert all(found == sight(number) for number, found in recalled().items())
    remember()
    assert len(recalled()) == len(ITEMS)


def test_a_row_that_changed_is_not_recalled(file):
    remember(ITEMS[:3])
    with sqlite3.connect(file) as connection:
        [(key, row)] = connection.execute("SELECT key, sight FROM sights LIMIT 1").fetchall()
        connection.execute("UPDATE sights SET sight = ? WHERE key = ?", (bytes(20) + row[20:], key))
    connection.close()
    assert len(recalled(ITEMS[:3])) == 2


def test_damage_that_is_found_while_sights_are_kept_loses_no_later_one(file):
    remember(ITEMS[:1000])
    with remembered_sights() as known:
        file.write_bytes(b"no database" * 10_000)
        for number, item in enumerate(ITEMS):
            known.keep(item, sight(number))
    assert len(recalled()) == len(ITEMS)


def test_what_was_not_asked_for_longest_goes(file, monkeypatch):
    remember(ITEMS[:1000])
    monkeypatch.setattr(sights_module, "_DAY_S", 43_200)  # a later day
    with remembered_sights() as known:
        assert len(dict(known.of(ITEMS[:500]))) == 500
        for number, item in enumerate(ITEMS[1000:2000]):
            known.keep(item, sight(number))
    monkeypatch.setattr(sights_module, "_MOST_BYTES", 1000)
    recalled([])
    monkeypatch.setattr(sights_module, "_MOST_BYTES", 2**30)
    left = set(recalled(ITEMS[:2000]))
    assert len(left) == 1500
    assert left >= set(range(500)), "what was asked for again stays"


def test_the_memory_of_an_earlier_version_goes(file):
    file.parent.mkdir()
    file.with_name("sights-1.sqlite").write_bytes(b"old")
    remember(ITEMS[:1])
    assert [path.name for path in file.parent.iterdir()] == [file.name]
