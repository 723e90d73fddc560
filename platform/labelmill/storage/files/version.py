"""The version of a file's content, for want of an etag: time of writing, size, and time of change.

A picture that takes another's name with its size and its time of writing (`cp -p`, `rsync -t`, `unzip`) is told by the
time at which the system saw the file change (ctime), which nobody can set. What changes that time and not the content,
a restore from a backup, chmod, chown, another hard link, makes a version of its own, too: such a picture is labelled
anew, once. It is taken as the file system tells it: where that has whole seconds, two changes within one are told apart
by time of writing and size alone; where it has none of its own and repeats the time of writing (sshfs, rclone,
gcsfuse, FAT), nothing is gained and nothing lost. A server that makes it up anew at each mount would have all labelled
at each: a manifest helps, whose etags are in the form from before, which leaves it out.
"""

import os

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["etag_of", "etags_before", "is_version"]


def etag_of(found: os.stat_result) -> str:
    """Microseconds of writing, size in bytes, microseconds of change, each in hex."""
    return f"{found.st_mtime_ns // 1000:x}-{found.st_size:x}-{found.st_ctime_ns // 1000:x}"


def is_version(etag: str, found: os.stat_result) -> bool:
    """Whether this was the file's etag, in the form of now or in that from before, time of writing and size alone."""
    now = etag_of(found)
    return etag == now or f"{etag}-{found.st_ctime_ns // 1000:x}" == now


def etags_before(uris: pa.Array, etags: pa.Array) -> pa.Array:
    """The etags of files in the form from before; null where there is none: of objects in a bucket."""
    mine = pc.or_(pc.starts_with(uris, "/"), pc.starts_with(uris, "file://"))
    if not pc.any(mine).as_py():
        return pa.nulls(len(uris), pa.string())
    before = pc.replace_substring_regex(etags, "^(-?[0-9a-f]+-[0-9a-f]+)--?[0-9a-f]+$", r"\1")
    return pc.if_else(pc.and_(mine, pc.not_equal(before, etags)), before, pa.scalar(None, pa.string()))
