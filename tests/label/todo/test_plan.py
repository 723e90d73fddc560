"""What is left to do, against tables and listings in which something is odd."""

import datetime as dt
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from labelmill.errors import StorageError
from labelmill.label.inventory.item import ITEM_SCHEMA
from labelmill.label.todo import difference, hashing, room
from labelmill.label.todo.plan import plan_todo
from labelmill.label.todo.settings import Settings
from labelmill.label.todo.todo import Todo
from labelmill.spec import LabelSpec
from labelmill.storage import open_store
from labelmill.table.data_file import put_data_file
from labelmill.table.row import DATA_SCHEMA, FINAL
from labelmill.table.table import LabelTable
from labelmill.table.writer import TableWriter
from other_tools import delete_by_vector

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
DAY = "2026-03-01"
PREFIX = "s3://bucket/photos/"


def item(name: str, etag: str = "e1", **more: object) -> dict[str, object]:
    return {"uri": PREFIX + name, "etag": etag, "size_bytes": 1, "modified_at": NOW, **more}


class Night:
    """A table to which each run adds its rows, and the plans that would be made against it."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        TableWriter(uri)

    def put(self, *rows: dict[str, object], model: str = "a@1", status: str = "ok", settings: str = "s") -> None:
        writer = TableWriter(self.uri)
        same = {"status": status, "model": model, "bundle_digest": f"digest of {model}", "settings_digest": settings}
        made = [{**row, **same, "run_id": writer.run_id, "labelled_at": NOW, "labels": []} for row in rows]
        table = pa.Table.from_pylist(made, schema=DATA_SCHEMA)
        writer.commit([put_data_file(open_store(self.uri), f"labelled_on={DAY}/{writer.run_id}.parquet", table, DAY)])

    def plan(
        self,
        *items: dict[str, object],
        models: tuple[str, ...] = ("a@1",),
        settings: Settings = Settings("s"),  # noqa: B008 - a value
        **options: object,
    ) -> Todo:
        batches = [
            pa.RecordBatch.from_pylist(list(items[n : n + 3]), schema=ITEM_SCHEMA) for n in range(0, len(items), 3)
        ]
        digests = [f"digest of {model}" for model in models]
        store = open_store(f"{self.uri}/_labelmill")
        more = {"models": models, "store": store, "run_id": f"{random.random()}", **options}
        return plan_todo(iter(batches), LabelTable(self.uri), digests, settings, **more)


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(str(tmp_path / "labels"))


def rows(todo: Todo) -> Iterator[dict[str, object]]:
    for chunk in range(todo.num_chunks):
        yield from todo.read(chunk).to_pylist()


def names(todo: Todo) -> list[str]:
    return [row["uri"].removeprefix(PREFIX) for row in rows(todo)]


def gone(todo: Todo) -> list[tuple[str, str, int]]:
    return [(r["uri"].removeprefix(PREFIX), r["etag"], r["model"]) for part in todo.unread() for r in part.to_pylist()]


def test_of_what_could_not_be_looked_at_nothing_is_concluded(night: Night) -> None:
    kept = ["nas", "nas/1.jpg", "nas/deep/2.jpg", "file", "nas.old/5.jpg", "na/3.jpg"]
    night.put(item("stays"), *map(item, kept), item("nas-2/4.jpg"), item("nas.jpg"), item("files"))
    unseen = [f"{PREFIX}{name}" for name in ("nas", "file", "nas.old", "na", "elsewhere")]
    todo = night.plan(item("stays"), below=PREFIX, unseen=lambda: unseen)
    assert sorted(name for name, _, _ in gone(todo)) == ["files", "nas-2/4.jpg", "nas.jpg"]
    assert todo.num_gone == 3
    assert night.plan(item("stays"), below=PREFIX).num_gone == 9


def test_only_final_rows_of_this_version_bundle_and_settings_count_as_done(night: Night) -> None:
    night.put(item("done"), item("changed", "e0"))
    night.put(item("damaged"), status="unreadable")
    night.put(item("missed"), status="fetch_failed")
    night.put(item("other model"), model="a@2")
    night.put(item("other settings"), settings="t")
    every = ["changed", "damaged", "done", "missed", "new", "other model", "other settings"]
    todo = night.plan(*map(item, every))
    assert names(todo) == ["changed", "missed", "new", "other model", "other settings"]
    assert (todo.listed, todo.num_rows, todo.num_gone) == (7, 5, 0)
    assert [row["etag"] for row in rows(todo)] == ["e1"] * 5


@pytest.mark.parametrize("status", ["ok", "unreadable", "fetch_failed", "deleted", "ok but for one"])
@pytest.mark.parametrize(("model", "settings"), [("a@1", "s"), ("a@1", "t"), ("a@2", "s"), ("b@1", "s")])
def test_a_table_of_one_file_whose_rows_are_alike_is_subtracted(
    night: Night, model: str, settings: str, status: str
) -> None:
    """What a file's statistics say of all its rows, a planner may take for a constant: right after a backfill, or a
    compaction, there is one file, and all its rows are of another version."""
    shared = [item(f"{number}") for number in range(4)]
    odd = [item("odd", "e0")] if status == "ok but for one" else []
    night.put(*shared, *odd, model=model, settings=settings, status="ok" if odd else status)
    models = ("b@1", "a@1") if model == "b@1" else ("a@1",)
    for below in (None, PREFIX, "s3://bucket/other/"):
        todo = night.plan(*shared, item("odd"), item("new"), models=models, below=below)
        final = (status in FINAL and status != "deleted") or odd
        done = {"0", "1", "2", "3"} if (model, settings) in (("a@1", "s"), ("b@1", "s")) and final else set()
        lacking = {row["uri"].removeprefix(PREFIX): row["lacking"] for row in rows(todo)}
        of_others = 1 if len(models) == 1 else 0b10
        assert lacking == dict.fromkeys(done if len(models) > 1 else (), of_others) | {
            name: 2 ** len(models) - 1 for name in {"0", "1", "2", "3", "odd", "new"} - done
        }
        assert todo.num_gone == 0
    todo = night.plan(item("0"), models=models, below=PREFIX)
    assert todo.num_gone == (0 if status == "deleted" else 3 + len(odd))


EVERY = [f"{number}" for number in range(6)]


def empty(night: Night) -> None:
    TableWriter(night.uri)


def one_file(night: Night) -> None:
    night.put(*map(item, EVERY))


def many_files(night: Night) -> None:
    for name in EVERY:
        night.put(item(name))


def compacted(night: Night) -> None:
    many_files(night)
    assert TableWriter(night.uri).compact(dt.date.fromisoformat(DAY), from_files=2) == len(EVERY) - 1


def two_models_in_one_file(night: Night) -> None:
    night.put(*map(item, EVERY), model="b@7")
    night.put(*map(item, EVERY[:3]))
    assert TableWriter(night.uri).compact(dt.date.fromisoformat(DAY), from_files=2) == 1


def some_deleted(night: Night) -> None:
    one_file(night)
    night.put(item("0"), item("1"), status="deleted")
    night.put(item("1"))  # it came back


def of_old_settings(night: Night) -> None:
    night.put(*map(item, EVERY), settings="t")
    night.put(item("0"))


def some_to_try_again(night: Night) -> None:
    night.put(*map(item, EVERY), status="fetch_failed")
    night.put(item("0"), status="unreadable")


def with_a_cleaned_log(night: Night) -> None:
    many_files(night)
    table = DeltaTable(night.uri)
    table.create_checkpoint()
    for number in range(table.version()):
        Path(night.uri, "_delta_log", f"{number:020d}.json").unlink()


def some_deleted_by_another_tool(night: Night) -> None:
    one_file(night)
    DeltaTable(night.uri).delete(f"uri = '{PREFIX}0'")
    [data_file] = LabelTable(night.uri)._snapshot.files
    delete_by_vector(night.uri, data_file.path.rpartition("/")[2], [1])


def after_another_new_version(night: Night) -> None:
    compacted(night)
    night.put(*map(item, EVERY[:4]), model="a@3")


STATES: dict[Callable[[Night], None], list[str]] = {
    empty: EVERY,
    one_file: [],
    many_files: [],
    compacted: [],
    two_models_in_one_file: EVERY[3:],
    some_deleted: [],  # "0" comes back as it was: its row is copied
    of_old_settings: EVERY[1:],
    some_to_try_again: EVERY[1:],
    with_a_cleaned_log: [],
    some_deleted_by_another_tool: ["0", "2"],
    after_another_new_version: [],
}
"""How a table came about, and what of it the first version lacks."""


@pytest.mark.parametrize("below", [None, PREFIX])
@pytest.mark.parametrize("state", STATES)
def test_a_new_version_labels_all_once_in_every_state_of_a_table_and_a_rollback_nothing(
    night: Night, state: Callable[[Night], None], below: str | None
) -> None:
    state(night)

    def lacking(*models: str) -> dict[str, int]:
        todo = night.plan(*map(item, EVERY), models=models, below=below)
        assert todo.num_gone == 0
        return {row["uri"].removeprefix(PREFIX): row["lacking"] for row in rows(todo)}

    assert lacking("a@1") == dict.fromkeys(STATES[state], 1)
    assert lacking("a@2") == dict.fromkeys(EVERY, 1)
    both = lacking("a@1", "a@2")
    assert both == {name: 0b11 if name in STATES[state] else 0b10 for name in EVERY}
    night.put(*map(item, EVERY[:2]), model="a@2")  # and then it was killed
    assert lacking("a@2") == dict.fromkeys(EVERY[2:], 1)
    night.put(*map(item, EVERY[2:]), model="a@2")
    assert lacking("a@2") == {}
    assert lacking("a@1") == dict.fromkeys(STATES[state], 1)  # rolled back
    TableWriter(night.uri).compact(dt.date.fromisoformat(DAY), from_files=2)
    assert lacking("a@2") == {}
    assert lacking("a@1") == dict.fromkeys(STATES[state], 1)


def spec_of(**fields: object) -> LabelSpec:
    needed = {"kind": "label", "name": "n", "registry": "r", "model": "m@1", "images": "i", "output": "o"}
    return LabelSpec.model_validate(needed | fields)


# What a table holds that was labelled before the digest held what was asked for: the digests of what a machine computed
# in, with the other settings as they come.
F32, BF16, INT8 = "37cd65436c6db53c", "f06af6680c6b33ed", "22f45126f0eda8d9"


@pytest.mark.parametrize(
    ("precision", "final"), [("auto", {F32, BF16, INT8}), ("float32", {F32, INT8}), ("bfloat16", {BF16, INT8})]
)
def test_a_table_labelled_before_stays_final(night: Night, precision: str, final: set[str]) -> None:
    settings = Settings.of(spec_of(precision=precision))
    other = Settings.of(spec_of(precision=precision, max_pixels=10**6))
    for digest in (F32, BF16, INT8, settings.digest, other.digest):
        night.put(item(digest), settings=digest)
    todo = night.plan(*map(item, (F32, BF16, INT8, settings.digest, other.digest)), settings=settings)
    assert set(names(todo)) == {F32, BF16, INT8, other.digest} - final


def test_settings_hold_what_was_asked_for_and_not_what_a_machine_takes() -> None:
    digests = {name: Settings.of(spec_of(precision=name)).digest for name in ("auto", "float32", "bfloat16")}
    assert len(set(digests.values())) == 3
    for engine in ("auto", "openvino", "torch"):
        assert Settings.of(spec_of(engine=engine)).digest == digests["auto"]
    assert Settings.of(spec_of(max_requests_per_s=20)).digest == digests["auto"]
    for field, value in (("scores", "all"), ("embeddings", True), ("max_pixels", 10**6)):
        assert Settings.of(spec_of(**{field: value})).digest not in digests.values()


def test_a_table_with_nothing_in_it_leaves_everything_to_do(night: Night) -> None:
    todo = night.plan(item("b"), item("a"))
    assert names(todo) == ["a", "b"]
    nothing = plan_todo(iter(()), None, ["d"], Settings("s"), models=["a@1"], store=open_store(night.uri), run_id="x")
    assert (nothing.listed, nothing.num_rows, nothing.num_chunks) == (0, 0, 0)


def test_a_slow_listing_tells_of_the_first_picture_to_label_before_it_is_through(night: Night) -> None:
    told = threading.Event()
    told_in_time = []

    def listing() -> Iterator[pa.RecordBatch]:
        for name in ("a", "b", "c"):
            if name == "c":
                told_in_time.append(told.wait(10))
            yield pa.RecordBatch.from_pylist([item(name)], schema=ITEM_SCHEMA)
            time.sleep(1.1)

    store = open_store(night.uri)
    todo = plan_todo(listing(), None, ["d"], Settings("s"), models=["a@1"], store=store, run_id="x", on_first=told.set)
    assert told_in_time == [True]
    assert names(todo) == ["a", "b", "c"]


def test_each_model_of_a_run_lacks_its_own_rows(night: Night) -> None:
    night.put(item("both"), item("first"), model="a@1")
    night.put(item("both"), item("second"), model="b@7")
    todo = night.plan(*map(item, ("both", "first", "neither", "second")), models=("a@1", "b@7"))
    assert [(row["uri"].removeprefix(PREFIX), row["lacking"]) for row in rows(todo)] == [
        ("first", 0b10),
        ("neither", 0b11),
        ("second", 0b01),
    ]


def test_two_versions_of_one_model_and_a_bundle_named_twice(night: Night) -> None:
    night.put(item("x"), model="a@1")
    assert [row["lacking"] for row in rows(night.plan(item("x"), models=("a@1", "a@2")))] == [0b10]
    assert names(night.plan(item("x"), models=("a@1", "a@1"))) == []


def test_many_models_have_a_bit_each(night: Night) -> None:
    models = tuple(f"m{n}@1" for n in range(16))
    night.put(item("x"), model="m0@1")
    night.put(item("x"), model="m15@1")
    assert [row["lacking"] for row in rows(night.plan(item("x"), models=models))] == [0b0111_1111_1111_1110]


def test_retry_forces_final_statuses_and_those_only(night: Night) -> None:
    night.put(item("damaged"), status="unreadable")
    night.put(item("hung"), status="timed_out")
    night.put(item("fine"))
    every = [item("damaged"), item("fine"), item("hung")]
    assert names(night.plan(*every)) == []
    assert names(night.plan(*every, retry=["unreadable"])) == ["damaged"]
    night.put(item("damaged"))  # and this time it could be read
    assert names(night.plan(*every, retry=["unreadable"])) == []


def test_a_picture_listed_twice_is_one(night: Night) -> None:
    night.put(item("old"))
    newer = item("new", "e2", modified_at=NOW + dt.timedelta(1))
    todo = night.plan(item("old"), item("new"), newer, item("old"), item("new", "e3"), item("other"), item("other"))
    assert [(row["uri"].removeprefix(PREFIX), row["etag"]) for row in rows(todo)] == [("new", "e2"), ("other", "e1")]
    assert todo.listed == 3


UNDATED = {"modified_at": None}


@pytest.mark.parametrize("batch_rows", [2, 1_000_000])
def test_of_two_rows_of_a_manifest_the_later_counts(
    night: Night, monkeypatch: pytest.MonkeyPatch, batch_rows: int
) -> None:
    """Whether they are looked up together or not, and whichever of them has its row."""
    monkeypatch.setattr(hashing, "_BATCH_ROWS", batch_rows)
    night.put(item("done", "e2"), item("old", "e1"), item("twice", "e3"), item("known", "e0"))
    listed = [
        ("done", "e1"),
        ("old", "e1"),
        ("new", "e9"),
        ("twice", "e1"),
        ("known", "e9"),
        ("done", "e2"),
        ("old", "e2"),
        ("new", "e1"),
        ("twice", "e2"),
        ("known", "e1"),
        ("twice", "e3"),
    ]
    todo = night.plan(*(item(name, etag, **UNDATED) for name, etag in listed))
    assert [(row["uri"].removeprefix(PREFIX), row["etag"]) for row in rows(todo)] == [
        ("known", "e1"),
        ("new", "e1"),
        ("old", "e2"),
    ]
    assert (todo.listed, todo.num_done) == (5, 2)


def test_what_lies_in_an_archive_gets_one_row_until_it_lies_there_no_more(night: Night) -> None:
    night.put(item("done"))
    night.put(item("told"), status="archived")
    frozen = {"archive": "DEEP_ARCHIVE"}
    todo = night.plan(item("done", **frozen), item("told", **frozen), item("new", **frozen), item("plain"))
    assert (names(todo), todo.num_archived, todo.num_done, todo.listed) == (["plain"], 1, 2, 4)
    (row,) = [row for part in todo.unread() for row in part.to_pylist()]
    assert (row["uri"], row["archive"], row["model"]) == (PREFIX + "new", "DEEP_ARCHIVE", 0)
    assert names(night.plan(item("told"))) == ["told"]
    assert night.plan(item("told", "e2", **frozen)).num_archived == 1
    both = night.plan(item("told", **frozen), models=("a@1", "b@1"))
    assert (both.num_archived, both.num_rows) == (1, 0)
    assert [row["model"] for part in both.unread() for row in part.to_pylist()] == [1]
    assert gone(night.plan(item("done"), below=PREFIX)) == [("told", "e1", 0)]
    night.put(item("told"), status="deleted")
    assert night.plan(item("told", **frozen), below=PREFIX).num_archived == 1


def test_members_of_a_shard_follow_each_other_as_they_lie_in_it(night: Night) -> None:
    members = [item(f"b.tar#{n}.jpg", offset=1000 - n) for n in range(4)]
    todo = night.plan(*members, item("a.jpg"), item("b.jpg"), item("c#d.jpg"))
    assert names(todo) == ["a.jpg", "b.jpg", "b.tar#3.jpg", "b.tar#2.jpg", "b.tar#1.jpg", "b.tar#0.jpg", "c#d.jpg"]


def returned(todo: Todo) -> list[dict[str, object]]:
    return [row for part in todo.returned() for row in part.to_pylist()]


def test_a_picture_that_is_gone_is_told_once_and_its_row_is_there_again_when_it_is_back(night: Night) -> None:
    night.put(item("stays"), item("goes"))
    assert night.plan(item("stays")).num_gone == 0  # a manifest cannot tell
    todo = night.plan(item("stays"), below=PREFIX)
    assert (gone(todo), names(todo)) == ([("goes", "e1", 0)], [])
    night.put(item("goes"), status="deleted")
    assert night.plan(item("stays"), below=PREFIX).num_gone == 0
    for below in (PREFIX, None):  # by whatever listing
        back = night.plan(item("stays"), item("goes"), below=below)
        assert (names(back), back.num_gone, back.listed, back.num_done, back.num_returned) == ([], 0, 2, 1, 1)
        assert [(row["uri"], row["status"]) for row in returned(back)] == [(PREFIX + "goes", "ok")]
    changed = night.plan(item("stays"), item("goes", "e2"), below=PREFIX)
    assert (names(changed), changed.num_returned) == (["goes"], 0)
    night.put(item("goes"))
    done = night.plan(item("stays"), item("goes"), below=PREFIX)
    assert (names(done), done.num_gone, done.num_returned, done.num_done) == ([], 0, 0, 2)
    assert gone(night.plan(item("stays"), below=PREFIX)) == [("goes", "e1", 0)]


def test_what_comes_back_is_the_last_final_row_of_this_version_and_these_settings(night: Night) -> None:
    night.put(item("x", size_bytes=1))
    night.put(item("x", size_bytes=2))  # the last of it
    night.put(item("x", size_bytes=3), status="fetch_failed")
    night.put(item("x", "e2", size_bytes=4))
    night.put(item("x", size_bytes=5), settings="t")
    night.put(item("x", size_bytes=6), model="a@2")
    night.put(item("x", size_bytes=7), model="b@1")
    night.put(item("tried"), status="fetch_failed")
    night.put(item("damaged"), status="unreadable")
    names_of = ("x", "tried", "damaged")
    for model in ("a@1", "b@1"):
        night.put(*map(item, names_of), model=model, status="deleted")
    night.put(item("x", size_bytes=8), status="missing")  # of a run that met it again, and could not read it
    todo = night.plan(*map(item, names_of), models=("a@1", "b@1"), below=PREFIX)
    assert [(row["uri"].removeprefix(PREFIX), row["lacking"]) for row in rows(todo)] == [("damaged", 2), ("tried", 3)]
    assert [(row["size_bytes"], row["model"], row["status"]) for row in sorted(returned(todo), key=str)] == [
        (1, "a@1", "unreadable"),
        (2, "a@1", "ok"),
        (7, "b@1", "ok"),
    ]
    assert (todo.listed, todo.num_done, todo.num_returned, todo.num_gone) == (3, 0, 3, 0)
    again = night.plan(item("damaged"), retry=["unreadable"])
    assert (names(again), again.num_returned) == (["damaged"], 0)
    assert names(night.plan(item("x"), settings=Settings("u"))) == ["x"]


def test_more_rows_come_back_than_one_part_holds(night: Night) -> None:
    many = [item(f"{number:05d}") for number in range(5000)]
    night.put(*many)
    night.put(*many, status="deleted")
    todo = night.plan(*many, below=PREFIX)
    assert (todo.num_rows, todo.num_returned) == (0, 5000)
    assert sorted(row["uri"] for row in returned(todo)) == sorted(row["uri"] for row in many)
    assert {part.num_rows for part in todo.returned()} == {2048, 904}
    todo.remove()
    assert list(open_store(todo.folder).keys()) == []


@pytest.mark.parametrize("model", ["a@1", "a@2", "b@1"])
def test_so_many_pictures_may_vanish_and_no_more(night: Night, model: str) -> None:
    folders = {f"site{n}/{picture:02d}": n for n in range(10) for picture in range(30)}
    night.put(*map(item, folders), item("deep/er/x"), model="a@1")
    night.put(item("deep/er/x"), status="deleted")  # which it holds no more
    night.put({**item("x"), "uri": "s3://bucket/other/x"})
    listed = [item(name) for name, site in folders.items() if site == 0]

    def plan(*items: dict[str, object], rate: float, below: str | None = PREFIX) -> Todo:
        return night.plan(*items, models=(model,), below=below, max_vanished_rate=rate)

    todo = plan(*listed, rate=0.1)
    if model == "b@1":  # of which the table holds nothing
        assert (todo.vanished, todo.num_gone) == (None, 0)
        return
    assert todo.vanished
    assert (todo.vanished.num_gone, todo.vanished.num_held) == (270, 300)
    assert todo.vanished.folders == tuple((f"{PREFIX}site{n}/", 30) for n in range(1, 10))
    assert todo.num_gone == 270
    assert not list(open_store(night.uri).keys("_labelmill/runs"))
    assert "90.0%" in str(todo.vanished)
    assert "site4/ 30, " in str(todo.vanished)
    assert "--set max_vanished_rate=1" in str(todo.vanished)
    assert plan(*listed, rate=0.9).vanished is None
    assert len(gone(plan(*listed, rate=1.0))) == 270
    assert plan(*listed, rate=0.1, below=None).vanished is None
    one_site = [item(name) for name, site in folders.items() if site != 3]
    assert plan(*one_site, rate=0.1).vanished is None
    assert plan(*one_site, rate=0.09).vanished.folders == ((f"{PREFIX}site3/", 30),)


def test_a_small_table_may_lose_all(night: Night) -> None:
    night.put(*(item(f"{number:03d}") for number in range(199)))
    assert len(gone(night.plan(item("000"), below=PREFIX, max_vanished_rate=0.1))) == 198
    night.put(item("199"))
    assert night.plan(item("000"), below=PREFIX, max_vanished_rate=0.1).vanished.folders == ((PREFIX, 199),)


def test_gone_is_a_matter_of_the_models_name_and_of_the_prefix(night: Night) -> None:
    night.put(item("x", "e1"), model="a@1")
    night.put(item("x", "e2"), model="a@2")  # the picture as it was last seen
    night.put(item("x", "e2"), model="b@1", status="fetch_failed")
    night.put(item("x", "e2"), model="c@1")  # not a model of the run
    night.put({**item("x"), "uri": "s3://bucket/other/x"}, model="a@2")
    assert gone(night.plan(item("y"), models=("b@1", "a@2"), below=PREFIX.rstrip("/"))) == [
        ("x", "e2", 0),
        ("x", "e2", 1),
    ]
    night.put(item("x", "e2"), model="a@2", status="deleted")
    assert gone(night.plan(item("y"), models=("b@1", "a@3"), below=PREFIX)) == [("x", "e2", 0)]
    older = night.plan(item("x", "e1"), models=("a@1",))  # an older version forgot it too
    assert (names(older), older.num_returned) == ([], 1)


def test_a_listing_of_names_that_no_prefix_shows_is_done_when_it_is_done(night: Night) -> None:
    """A file whose name is not UTF-8 is listed as file://… below a folder that is named without it."""
    odd = {**item("x"), "uri": "file:///data/%FF.jpg"}
    night.put(odd)
    todo = night.plan(odd, below="/data")
    assert (todo.num_rows, todo.num_gone, todo.listed) == (0, 0, 1)


@pytest.mark.parametrize("root", ["/data/in", "file:///caf%E9"])
def test_a_picture_whose_name_is_not_utf8_is_gone_when_it_is_gone(night: Night, root: str) -> None:
    odd, other = ({**item("x"), "uri": f"{place}/%FF.jpg"} for place in (uri_of(root), "file:///data/in2"))
    plain = {**item("x"), "uri": f"{root}/x.jpg"}
    night.put(odd, plain, other)
    todo = night.plan(plain, below=root)
    assert (gone(todo), names(todo)) == ([(odd["uri"], "e1", 0)], [])
    night.put(odd, status="deleted")
    assert night.plan(plain, below=root).num_gone == 0


def uri_of(root: str) -> str:
    return root if root.startswith("file:") else f"file://{root}"


@pytest.mark.parametrize("resident_rows", [10_000_000, 2])
def test_a_files_row_from_before_etags_had_its_time_of_change_goes_on_to_count(
    night: Night, monkeypatch: pytest.MonkeyPatch, resident_rows: int
) -> None:
    monkeypatch.setattr(difference, "memory_bytes", lambda: resident_rows * 4 * 18)

    def file(name: str, etag: str, uri: str = "/in") -> dict[str, object]:
        return {**item(name, etag), "uri": f"{uri}/{name}"}

    night.put(
        *(file(name, "5d-a") for name in ("same", "larger", "later", "of another model")),
        file("%E9", "5d-a", "file:///in"),
        file("x", "5d-a", "s3://b"),
        file("before 1970", "-5d-a"),
        file("replaced", "5d-a-c1"),
        file("still", "5d-a-c1"),
        file("manifest", "5d-a"),
    )
    listed = [
        *(file(name, "5d-a-c2") for name in ("same", "replaced", "of another model", "new")),
        file("larger", "5d-b-c2"),
        file("later", "5e-a-c2"),
        file("%E9", "5d-a-c2", "file:///in"),
        file("x", "5d-a-c2", "s3://b"),
        file("before 1970", "-5d-a-c2"),
        file("still", "5d-a-c1"),
        file("manifest", "5d-a"),
    ]
    expected = {"/in/larger", "/in/later", "/in/new", "/in/replaced", "s3://b/x"}
    assert {row["uri"] for row in rows(night.plan(*listed))} == expected
    night.put(file("of another model", "5d-a"), model="b@1")
    todo = night.plan(*listed, models=("a@1", "b@1"), below="/in")
    assert {row["uri"]: row["lacking"] for row in rows(todo) if row["lacking"] != 0b10} == dict.fromkeys(expected, 3)
    assert "/in/of another model" not in {row["uri"] for row in rows(todo)}
    night.put(file("same", "5d-a"), status="deleted")
    assert "/in/same" in {row["uri"] for row in rows(night.plan(*listed))}


@pytest.mark.parametrize("resident_rows", [10_000_000, 700])
def test_a_table_of_any_size_gives_what_sets_give(
    night: Night, monkeypatch: pytest.MonkeyPatch, resident_rows: int
) -> None:
    """Against Python's own sets, with everything in memory and in groups that go through the disk."""
    monkeypatch.setattr(difference, "memory_bytes", lambda: resident_rows * 4 * 18)
    for module in (difference, hashing):
        monkeypatch.setattr(module, "_BATCH_ROWS", 500)
    pick = random.Random(7)
    table = {(f"{n:05d}.jpg", f"e{pick.randrange(3)}") for n in pick.sample(range(4000), 3000)}
    listing = {(f"{n:05d}.jpg", f"e{pick.randrange(3)}") for n in pick.sample(range(4000), 3000)}
    night.put(*(item(name, etag) for name, etag in sorted(table)))
    shuffled = [item(name, etag) for name, etag in listing]
    pick.shuffle(shuffled)
    todo = night.plan(*shuffled, *shuffled[:50], below=PREFIX)
    assert [(row["uri"].removeprefix(PREFIX), row["etag"]) for row in rows(todo)] == sorted(listing - table)
    assert {name for name, _, _ in gone(todo)} == {name for name, _ in table} - {name for name, _ in listing}
    assert todo.listed == 3000


def test_a_disk_without_room_for_what_a_plan_puts_aside_is_said_before_it_is_full(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    night.put(*(item(f"{n:03d}.jpg") for n in range(500)))
    monkeypatch.setattr(difference, "memory_bytes", lambda: 100 * 4 * 18)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda folder: SimpleNamespace(free=500 * 23))
    with pytest.raises(StorageError, match=r"takes about 0.1 MB of temporary files, .*has 0.0 MB free. Set TMPDIR"):
        night.plan(item("x"), below=PREFIX)


def test_a_disk_that_fills_up_while_a_plan_is_made_is_one_line(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    night.put(item("x"))
    monkeypatch.setattr(difference.TableKeys, "_file", lambda keys, number: Path("/dev/full"))
    with pytest.raises(StorageError, match=r"is full. Comparing the listing with the table takes .* Set TMPDIR"):
        night.plan(item("x"), below=PREFIX)


def test_the_table_is_read_through_the_store_where_duckdb_takes_its_name_for_a_pattern(tmp_path: Path) -> None:
    night = Night(str(tmp_path / "odd [x]" / "labels"))
    night.put(item("done"), item("goes"))
    todo = night.plan(item("done"), item("new"), below=PREFIX)
    assert (names(todo), gone(todo)) == (["new"], [("goes", "e1", 0)])


def test_file_names_that_differ_in_their_digits_only_are_told_apart(night: Night) -> None:
    """DuckDB's own `hash` gives some of these the hash of another."""
    listing = (
        pa.RecordBatch.from_pylist([item(f"00/0a/{n:010d}.jpg") for n in range(start, start + 10_000)], ITEM_SCHEMA)
        for start in range(0, 200_000, 10_000)
    )
    with duckdb.connect() as connection:
        hashes = [table["uri_hash"].to_numpy() for table in hashing.hashed(listing, connection, "salt")]
    assert len(np.unique(np.concatenate(hashes))) == 200_000
