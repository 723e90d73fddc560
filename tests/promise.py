"""What a label table holds whatever happened on the way: the promise of exactly one final row a picture."""

import json
from collections import Counter

from labelmill.storage import open_store
from labelmill.table.row import FINAL
from running import rows_of

__all__ = ["assert_the_promise"]


def assert_the_promise(table, uris):
    """Exactly one final row for each of these pictures and for no other, each file committed once and there, whole."""
    rows = rows_of(table)
    final = Counter(row["uri"] for row in rows if row["status"] in FINAL and row["status"] != "deleted")
    assert final == Counter(map(str, uris))
    _assert_every_committed_file_is_there_once(str(table))
    return rows


def _assert_every_committed_file_is_there_once(table):
    store = open_store(table)
    added, live = Counter(), {}
    for key in sorted(key for key in store.keys("_delta_log") if key.endswith(".json")):
        for action in map(json.loads, store.read(key).splitlines()):
            if "add" in action:
                added[action["add"]["path"]] += 1
                live[action["add"]["path"]] = action["add"]["size"]
            elif "remove" in action:
                del live[action["remove"]["path"]]
    assert live
    assert set(added.values()) == {1}
    assert {path: store.info(path).size_bytes for path in live} == live
