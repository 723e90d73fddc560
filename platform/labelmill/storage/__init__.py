"""The one door to object stores: list, read, write, write only if absent.

A store is a folder or a bucket with a prefix, `open_store(uri)` gives either. `read_pictures` reads many objects at
once and is what bulk labelling calls.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any, TypeVar

from labelmill.address import path_uri, split_uri, table_fault
from labelmill.errors import CredentialsError, StorageError
from labelmill.storage.addresses import as_listed
from labelmill.storage.files.folder import FolderStore
from labelmill.storage.files.version import etags_before
from labelmill.storage.limit import limit_requests, part_of_driver, part_of_worker, requests_limited
from labelmill.storage.patience import num_retries
from labelmill.storage.ranged import RangedFile
from labelmill.storage.store import LISTING_SCHEMA, ObjectInfo, Store
from labelmill.storage.traffic import Traffic, traffic

__all__ = [
    "LISTING_SCHEMA",
    "ObjectInfo",
    "RangedFile",
    "Store",
    "Traffic",
    "as_listed",
    "delta_options",
    "etags_before",
    "is_signed",
    "limit_requests",
    "num_retries",
    "open_object",
    "open_store",
    "part_of_driver",
    "part_of_worker",
    "read_infos",
    "read_pictures",
    "read_ranges",
    "requests_limited",
    "split_uri",
    "traffic",
]

T = TypeVar("T")


def open_store(uri: str, *, timeout_s: float = 60.0) -> Store:
    """The store at "./folder", "/folder", "file:///folder", "s3://bucket/prefix", "gs://bucket/prefix" or
    "az://container/prefix". Nothing is reached for yet.

    Each later call on a bucket gives up after about `timeout_s`, its retries included (the look-up of a host name,
    which nobody can interrupt, and the bytes of an object that do arrive not counted).
    """
    root, key = split_uri(uri)
    if root == "/":
        return FolderStore(path_uri(f"/{key}".rstrip("/") or "/"), timeout_s)
    if root.startswith("s3://"):
        from labelmill.storage.s3.store import S3Store  # boto3 takes 0.2 s to import, and a job on folders needs it not

        return S3Store(f"{root}/{key}".rstrip("/"), timeout_s)
    from labelmill.storage.cloud import CloudStore

    return CloudStore(f"{root}/{key}".rstrip("/"), timeout_s)


def open_object(uri: str, *, timeout_s: float = 60.0) -> RangedFile:
    """The object at `uri`, in the version that is there now, as a file to seek in."""
    root, key = split_uri(uri)
    store = open_store(root, timeout_s=timeout_s)
    found = store.info(key)
    return RangedFile(store, key, found.size_bytes, found.etag)


def delta_options(uri: str) -> dict[str, str] | None:
    """`storage_options` with which `deltalake` opens a table at this uri; None for a folder, which needs none.

    StorageError: deltalake would take the address for another.
    """
    if fault := table_fault(uri):
        raise StorageError(
            f"expected for a label table an address that every reader of Delta tables takes alike, got {uri!r}: choose "
            f"one without {fault!r}"
        )
    root = split_uri(uri)[0]
    if root == "/":
        return None
    if root.startswith("s3://"):
        from labelmill.storage.s3 import connection

        return connection.delta_options(uri)
    from labelmill.storage import cloud

    return cloud.delta_options(uri)


def is_signed(uri: str) -> bool:
    """Whether there are keys with which requests to this address are signed, so far as that is known: of S3."""
    if not uri.startswith("s3://"):
        return True
    from labelmill.storage.credentials import current_environment
    from labelmill.storage.s3.sessions import keys_of

    return keys_of(current_environment()) is not None


def read_pictures(
    items: Sequence[tuple[str, str | None]], concurrency: int = 32, *, timeout_s: float = 60.0
) -> list[bytes | StorageError]:
    """Read many (uri, etag) at once, in one request each; the results in their order, an error in its picture's place.
    CredentialsError is raised, since it is no picture's.

    An etag of None accepts any version; otherwise a picture that changed since it was listed is a ChangedError.
    `timeout_s` is each picture's, as in `open_store`. `num_retries` tells how many requests had to be sent again.
    Threads that share obstore's connections: measured against Ceph, 0.35 ms of CPU a picture of 10 KB, where an event
    loop takes 0.60 and botocore 2.4.
    """
    return _ask_many(lambda store, key, etag: store.read(key, etag=etag), items, concurrency, timeout_s)


def read_ranges(items: Sequence[tuple[str, str | None, int, int]], concurrency: int = 32) -> list[bytes | StorageError]:
    """Read a part each of many objects, (uri, etag, start, length), as `read_pictures` does."""
    return _ask_many(
        lambda store, key, etag, start, length: store.read_range(key, start, length, etag=etag), items, concurrency
    )


def read_infos(uris: Sequence[str], concurrency: int = 32) -> list[ObjectInfo | StorageError]:
    """Size and version of many objects, or why there are none, in the order of their uris."""
    return _ask_many(lambda store, key: store.info(key), [(uri,) for uri in uris], concurrency)


def _ask_many(
    ask: Callable[..., T], items: Sequence[tuple[Any, ...]], concurrency: int, timeout_s: float = 60.0
) -> list[T | StorageError]:
    """`ask(store, key, *rest)` of each (uri, *rest)."""
    results: list[Any] = [None] * len(items)
    waiting = iter(enumerate(items))  # shared: a free thread takes the next, so one slow picture delays no others
    stores: dict[str, Store] = {}

    def work() -> None:
        for index, item in waiting:
            try:
                results[index] = _ask(ask, stores, timeout_s, *item)
            except CredentialsError:
                deque(waiting, maxlen=0)  # the others would be refused too
                raise

    at_work = [_threads(concurrency).submit(work) for _ in range(min(concurrency, len(items)))]
    wait(at_work)  # all of them: none goes on when its keys were refused and the caller is told so
    for done in at_work:
        done.result()
    return results


def _ask(ask: Callable[..., T], stores: dict[str, Store], timeout_s: float, uri: str, *rest: Any) -> T | StorageError:
    try:
        root, key = split_uri(uri)
        if root not in stores:
            stores[root] = open_store(root, timeout_s=timeout_s)
        return ask(stores[root], key, *rest)
    except CredentialsError:
        raise
    except StorageError as exc:
        return exc.with_traceback(None)


@cache
def _threads(concurrency: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(concurrency, thread_name_prefix="labelmill-read")
