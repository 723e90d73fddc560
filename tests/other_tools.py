"""What other tools do to a Delta table in a folder, where none of them is here to do it: by its protocol, in its log.

https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

import json
import struct
import time
import uuid
import zlib
from pathlib import Path

__all__ = ["change_metadata", "delete_by_vector", "set_features"]

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def delete_by_vector(table, name, rows, *, inline=False):
    """Delete rows, by their places in the file of this name, as Spark does: by a deletion vector, inline or a file."""
    added = _actions(table, "add")[name]
    vector = _bitmap(rows)
    entry = {"sizeInBytes": len(vector), "cardinality": len(rows)}
    if inline:
        entry |= {"storageType": "i", "pathOrInlineDv": _z85(vector + b"\0" * (-len(vector) % 4))}
    else:
        key = uuid.uuid4()
        checksum = struct.pack(">I", zlib.crc32(vector))
        data = b"\1" + struct.pack(">I", len(vector)) + vector + checksum
        Path(table, f"deletion_vector_{key}.bin").write_bytes(data)
        entry |= {"storageType": "u", "pathOrInlineDv": _z85(key.bytes), "offset": 1}
    now_ms = int(time.time() * 1000)
    same = {"path": added["path"], "partitionValues": added["partitionValues"], "size": added["size"]}
    removed = same | {"deletionTimestamp": now_ms, "dataChange": True, "extendedFileMetadata": True}
    _commit(table, _protocol("deletionVectors"), {"remove": removed}, {"add": added | {"deletionVector": entry}})


def set_features(table, *features):
    """Make the table one that only readers and writers who know these features may touch."""
    _commit(table, _protocol(*features))


def change_metadata(table, **changes):
    """Write the table's metadata anew, with these fields (`configuration` is added to)."""
    [(_, metadata)] = _actions(table, "metaData").items()
    configuration = metadata["configuration"] | changes.pop("configuration", {})
    _commit(table, {"metaData": metadata | changes | {"configuration": configuration}})


def _protocol(*features):
    writing = [*features, "appendOnly", "invariants"]
    versions = {"minReaderVersion": 3, "minWriterVersion": 7}
    return {"protocol": versions | {"readerFeatures": list(features), "writerFeatures": writing}}


def _actions(table, kind):
    """The newest of each name."""
    lines = [line for path in sorted(_log(table).glob("*.json")) for line in path.read_text().splitlines()]
    found = [action[kind] for action in map(json.loads, lines) if kind in action]
    return {action.get("path", "").rpartition("/")[2]: action for action in found}


def _commit(table, *actions):
    number = max(int(path.stem) for path in _log(table).glob("*.json")) + 1
    path = _log(table) / f"{number:020d}.json"
    path.write_text("".join(json.dumps(action) + "\n" for action in actions))


def _log(table):
    return Path(table, "_delta_log")


def _bitmap(rows):
    """A RoaringBitmapArray of one portable bitmap with one container, an array."""
    container = struct.pack("<HHI", 0, len(rows) - 1, 16) + struct.pack(f"<{len(rows)}H", *sorted(rows))
    return struct.pack("<IQI", 1681511377, 1, 0) + struct.pack("<II", 12346, 1) + container


def _z85(data):
    """https://rfc.zeromq.org/spec/32/"""
    text = ""
    for start in range(0, len(data), 4):
        number, digits = int.from_bytes(data[start : start + 4], "big"), ""
        for _ in range(5):
            number, digit = divmod(number, 85)
            digits = _Z85[digit] + digits
        text += digits
    return text
