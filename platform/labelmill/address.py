"""How the address of a folder, an object or a picture is read and written: the one place that knows.

An address is a path, or `file://` and a path whose odd bytes are percent-encoded (RFC 8089), or `s3://bucket/key`,
`gs://bucket/key` or `az://container/key` with the key as it is: in a bucket `a//b`, `x/../y` and `%20` are names like
any other. A path is written plainly, and with `file://` only where its bytes are not UTF-8, since no string column
could hold them.
"""

import os
import posixpath
import re
from urllib.parse import quote, unquote_to_bytes

from labelmill.errors import StorageError

__all__ = [
    "ABSOLUTE",
    "BUCKETS",
    "beginnings",
    "key_below",
    "lies_inside",
    "path_uri",
    "plain",
    "real_uri",
    "split_uri",
    "table_fault",
    "tidied",
]

BUCKETS = ("s3", "gs", "az")
"""What an address in an object store begins with, before `://`."""

_WITH_SCHEME = "[A-Za-z][A-Za-z0-9+.-]*://|(?i:s3|gs|az|file):/"
ABSOLUTE = f"^(?:{_WITH_SCHEME}|/)"
_SCHEME = re.compile(_WITH_SCHEME)
_UNTIDY_PATH = re.compile(r"/\.{0,2}(/|\Z)")
_NOT_FOR_A_TABLE = {
    # Delta's clients take an address for a URL: what follows "#" or "?" is lost, and an escape becomes what it means.
    "bucket": re.compile(r"#|\?|%[0-9A-Fa-f]{2}|[\x00-\x1f\x7f]|(?<=/)\.{0,2}(?=/|\Z)"),
    "/": re.compile(r"\\|%[0-9A-Fa-f]{2}|[\x00-\x1f\x7f\udc80-\udcff]"),
}


def split_uri(uri: str) -> tuple[str, str]:
    """The widest root and the key below it: ("s3://bucket", "path/to/key") or ("/", "abs/path").

    >>> split_uri("s3://bucket/a b/c#1.jpg")
    ('s3://bucket', 'a b/c#1.jpg')
    """
    if "\0" in uri:
        raise StorageError(f"expected an address without a zero byte, got {uri!r}")
    if uri.startswith("/") and not _UNTIDY_PATH.search(uri):
        return "/", uri[1:]
    scheme = _SCHEME.match(uri)
    if scheme and scheme[0].removesuffix("://") in BUCKETS:
        bucket, _, key = uri[scheme.end() :].partition("/")
        if re.fullmatch(r"[A-Za-z0-9._-]+", bucket):
            return f"{scheme[0]}{bucket}", key
    elif scheme and uri.startswith("file:///"):
        return split_uri(os.path.abspath(os.fsdecode(unquote_to_bytes(uri.removeprefix("file://")))))  # noqa: PTH100
    elif uri and not scheme:
        return "/", os.path.abspath(os.path.expanduser(uri)).lstrip("/")  # noqa: PTH100, PTH111
    shown = re.sub("(?<=://)[^/@]*@", "…@", uri)  # who writes keys into an address does not want them in a log
    raise StorageError(
        f"expected a folder ('./x', '/x', 'file:///x'), 's3://bucket/prefix', 'gs://bucket/prefix' or "
        f"'az://container/prefix', got {shown!r}"
    )


def path_uri(path: str) -> str:
    """The address of an absolute path."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "file://" + quote(os.fsencode(path))
    return path


def tidied(uri: str, base: str) -> str:
    """The address as a listing writes it, so that a picture is the same one whoever names it; a relative one starts at
    `base`. What no store could open stays as it is: whoever opens it says why."""
    try:
        if re.match(ABSOLUTE, uri):
            root, key = split_uri(uri)
        else:
            root, below = split_uri(base)
            key = _joined(below, uri) if root != "/" else posixpath.normpath(f"/{below}/{uri}").lstrip("/")
    except StorageError:
        return uri
    return path_uri(f"/{key}") if root == "/" else f"{root}/{key}"


def _joined(prefix: str, relative: str) -> str:
    """A key below a prefix: "." and ".." lead where they lead, while an empty part is a part of a key."""
    parts = prefix.rstrip("/").split("/") if prefix else []
    for part in relative.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def key_below(uri: str, root: str) -> str:
    """What follows the root in the address of something below it, as text; bytes that are not UTF-8 as \\x.."""
    key = split_uri(uri)[1][len(split_uri(root)[1]) :].lstrip("/")
    return key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def real_uri(uri: str) -> str:
    """The address of a file by its path without links; any other as it is."""
    root, key = split_uri(uri)
    return path_uri(os.path.realpath(f"/{key}")) if root == "/" else uri


def plain(uri: str) -> str:
    """The address without percent-encoding, for a pattern to meet; a byte that is not UTF-8 is one odd character."""
    if not uri.startswith("file://"):
        return uri
    return re.sub("[\udc80-\udcff]", "\ufffd", os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))))


def beginnings(root: str) -> tuple[str, ...]:
    """With what the addresses of all that lies below `root` begin: those of names that are not UTF-8, otherwise than
    their neighbours'."""
    place, key = split_uri(root)
    if place != "/":
        return (f"{root.rstrip('/')}/",)
    path = f"/{key.rstrip('/')}/".replace("//", "/")
    return tuple(dict.fromkeys((path_uri(path), "file://" + quote(os.fsencode(path)))))


def lies_inside(inner: str, outer: str) -> bool:
    """Whether the address `inner` is `outer` or below it."""
    (root, key), (place, prefix) = split_uri(inner), split_uri(outer)
    return root == place and f"{key.rstrip('/')}/".startswith(f"{prefix.rstrip('/')}/".lstrip("/"))


def table_fault(uri: str) -> str | None:
    """What in this address deltalake takes otherwise than we do, so that a table's log and its files would come apart;
    None where it does not (tried with 1.6, on a disk and on a server)."""
    root, key = split_uri(uri)
    found = _NOT_FOR_A_TABLE["/" if root == "/" else "bucket"].search(f"/{key.rstrip('/')}" if key.rstrip("/") else "")
    return (found[0] or "//") if found else None
