"""Buckets of Google Cloud Storage and containers of Azure Blob Storage as object stores, both by obstore.

Credentials come from each cloud's own chain, as object_store walks it: the GOOGLE_* or AZURE_* variables, the file of
application-default credentials, workload identity, and the machine's metadata server. object_store addresses no key
with empty, "." or ".." parts or control characters: one of these ends a listing with a line that names it.
"""

import builtins
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import obstore
import pyarrow as pa
import pyarrow.compute as pc
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import AzureStore, GCSStore

from labelmill.address import split_uri
from labelmill.errors import CredentialsError, NotFoundError
from labelmill.storage.credentials import Environment, current_environment, with_keys_that_hold
from labelmill.storage.limit import limit
from labelmill.storage.patience import one_try_s, pace_of, patiently
from labelmill.storage.probe import is_honoured
from labelmill.storage.refusals import line_of, refusal_of
from labelmill.storage.store import LISTING_SCHEMA, SCRATCH, ObjectInfo, Store
from labelmill.storage.traffic import note_traffic
from labelmill.storage.version import check_unchanged, version_of

__all__ = ["CloudStore", "delta_options"]

T = TypeVar("T")

_KEYS_A_PAGE = 1000
_TRIES_OF_A_PAGE = 10  # by object_store itself, since only that can ask for the middle of a listing again
_NAMES = {"gs": "Google Cloud Storage", "az": "Azure Blob Storage"}
_KINDS: dict[str, Any] = {"gs": GCSStore, "az": AzureStore}
_NEEDED = {
    "gs": "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT, or give the machine a service account",
    "az": "AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or what else it is reached with (AZURE_*)",
}


def delta_options(uri: str) -> dict[str, str]:
    """`storage_options` for `deltalake`, which reads the same variables and walks the same chain."""
    return {"allow_http": "true"}


@dataclass(frozen=True)
class CloudStore(Store):
    """Objects below `gs://bucket/prefix` or `az://container/prefix`; the account of a container is what
    AZURE_STORAGE_ACCOUNT_NAME says. What stands for a folder, which consoles and Hadoop make, is not listed."""

    def list(
        self,
        prefix: str = "",
        *,
        in_order: bool = True,
        left_out: Callable[[str], bool] | None = None,
        unseen: builtins.list[str] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        self._ask("", lambda: next(self._batches(prefix, 0, 1), None))  # who is not there is found out by our patience
        limit.wait()
        listing = self._batches(prefix, _TRIES_OF_A_PAGE, _KEYS_A_PAGE)
        # A stream that has failed is over, and would look like a listing at its end: it is not asked again.
        while (batch := self._explained("", lambda: next(listing, None))) is not None:
            yield self._listed(batch)

    def keys(self, prefix: str = "") -> Iterator[str]:
        def attempt() -> builtins.list[str]:
            return [key for batch in self._batches(prefix, 0, _KEYS_A_PAGE) for key in batch["path"].to_pylist()]

        skip = len(self._key(""))
        yield from (key[skip:] for key in self._ask("", attempt, urgent=True) if SCRATCH not in key)

    def folders(self, prefix: str = "") -> builtins.list[str]:
        top = self._top(prefix)

        def attempt() -> builtins.list[str]:
            note_traffic(lists=1)
            return [*obstore.list_with_delimiter(self._store(0), top)["common_prefixes"]]

        return sorted(found.rpartition("/")[2] for found in self._ask("", attempt, urgent=True))

    def info(self, key: str) -> ObjectInfo:
        def attempt() -> ObjectInfo:
            note_traffic(gets=1)
            found = obstore.head(self._store(0), self._key(key))
            size_bytes, modified_at = found["size"], found["last_modified"]
            etag = version_of(found["e_tag"], size_bytes, modified_at)
            return ObjectInfo(self.address(key), size_bytes, etag, modified_at)

        return self._ask(key, attempt)

    def read(self, key: str, *, etag: str | None = None) -> bytes:
        return self._read(key, etag, None)

    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> bytes:
        return self._read(key, etag, (start, start + length)) if length else b""

    def _read(self, key: str, etag: str | None, span: tuple[int, int] | None) -> bytes:
        def attempt() -> bytes:
            note_traffic(gets=1)
            answer = obstore.get(self._store(0), self._key(key), options={"range": span} if span else None)
            meta = answer.meta
            check_unchanged(self.address(key), etag, meta["e_tag"], meta["size"], meta["last_modified"])
            data = answer.bytes().to_bytes()
            note_traffic(read_bytes=len(data))
            return data

        return self._ask(key, attempt)

    def write(self, key: str, data: bytes) -> None:
        self._ask(key, lambda: self._put(key, data, "overwrite"), urgent=True)

    def write_if_absent(self, key: str, data: bytes) -> bool:
        tries = 0

        def attempt() -> bool:
            nonlocal tries
            tries += 1
            try:
                self._put(key, data, "create")
            except AlreadyExistsError:
                # a repeated request may meet what it wrote itself when the first answer was lost
                return tries > 1 and self.read(key) == data
            return True

        return self._ask(key, attempt, urgent=True)

    def _put(self, key: str, data: bytes, mode: Any) -> None:
        note_traffic(puts=1, written_bytes=len(data))
        obstore.put(self._store(0), self._key(key), data, mode=mode, use_multipart=False)

    def honours_write_if_absent(self) -> bool:
        return is_honoured(self, current_environment())

    def delete(self, key: str) -> None:
        def attempt() -> None:
            obstore.delete(self._store(0), self._key(key))

        try:
            self._ask(key, attempt, urgent=True)
        except NotFoundError:
            return

    def __reduce__(self) -> tuple[type["CloudStore"], tuple[str, float]]:
        return CloudStore, (self.uri, self.timeout_s)

    def _ask(self, key: str, attempt: Callable[[], T], *, urgent: bool = False) -> T:
        """What `attempt` gives, tried again where that may help; errors in our words."""
        pace, one_try = pace_of(*self._place), one_try_s(self.timeout_s)

        def ask() -> T:
            return patiently(
                lambda: self._explained(key, attempt), pace, timeout_s=self.timeout_s, one_try_s=one_try, urgent=urgent
            )

        return with_keys_that_hold(ask, self._environment, lambda: self.__dict__.pop("_environment", None))

    def _explained(self, key: str, attempt: Callable[[], T]) -> T:
        scheme = self._place[0]
        try:
            return attempt()
        except (BaseError, FileNotFoundError, ValueError) as exc:
            raise refusal_of(exc, self.address(key), _NAMES[scheme], needed=_NEEDED[scheme]) from exc

    @cached_property
    def _place(self) -> tuple[str, str]:
        scheme, _, bucket = split_uri(self.uri)[0].partition("://")
        return scheme, bucket

    @cached_property
    def _environment(self) -> Environment:
        return current_environment()

    def _store(self, num_retries: int) -> Any:
        return _opened(*self._place, self.timeout_s, num_retries, self._environment)

    def _key(self, key: str) -> str:
        prefix = split_uri(self.uri)[1]
        return f"{prefix}/{key}" if prefix else key

    def _top(self, prefix: str) -> str:
        return self._key(prefix).rstrip("/")

    def _batches(self, prefix: str, num_retries: int, num_keys: int) -> Iterator[pa.RecordBatch]:
        store, top = self._store(num_retries), self._top(prefix)
        for batch in obstore.list(store, top, chunk_size=num_keys, return_arrow=True):
            note_traffic(lists=1)
            yield pa.record_batch(batch)
            limit.wait(urgent=num_retries == 0)

    def _listed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """LISTING_SCHEMA, without our own half-written objects and without those that stand for folders."""
        keys, sizes = batch["path"].to_pylist(), batch["size"].to_pylist()
        shown = [
            SCRATCH not in key and not (size == 0 and self._is_folder(key))
            for key, size in zip(keys, sizes, strict=True)
        ]
        batch = batch if all(shown) else batch.filter(pa.array(shown, pa.bool_()))
        scheme, bucket = self._place
        etags = [
            version_of(etag, size, modified_at)
            for etag, size, modified_at in zip(
                *(batch[name].to_pylist() for name in ("e_tag", "size", "last_modified")), strict=True
            )
        ]
        columns = [
            pc.binary_join_element_wise(f"{scheme}://{bucket}/", batch["path"].cast(pa.string()), ""),
            batch["size"].cast(pa.int64()),
            pa.array(etags, pa.string()),
            batch["last_modified"].cast(pa.timestamp("us", "UTC")),
            pa.nulls(batch.num_rows, pa.string()),
        ]
        return pa.record_batch(columns, schema=LISTING_SCHEMA)

    def _is_folder(self, full: str) -> bool:
        """Of an empty object: its name in the store ends in a slash, which obstore does not show, or it says so."""

        def attempt() -> bool:
            note_traffic(gets=1)
            return "hdi_isfolder" in obstore.get(self._store(0), full).attributes

        try:
            return self._ask(full.removeprefix(self._key("")), attempt)
        except NotFoundError:
            return True


@lru_cache(maxsize=64)
def _opened(scheme: str, bucket: str, timeout_s: float, num_retries: int, environment: Environment) -> Any:
    one_try = timedelta(seconds=one_try_s(timeout_s))
    try:
        return _KINDS[scheme](
            bucket,
            client_options={
                "allow_http": True,  # where a variable names an http endpoint, and nowhere else
                "connect_timeout": one_try,
                "read_timeout": one_try,  # without a byte
                "timeout": timedelta(hours=1),
            },
            retry_config={"max_retries": num_retries, "retry_timeout": timedelta(seconds=timeout_s)},
        )
    except BaseError as exc:
        raise CredentialsError(
            f"expected to find in the environment how {scheme}://{bucket} is reached: set {_NEEDED[scheme]}: "
            f"{line_of(exc)}"
        ) from exc
