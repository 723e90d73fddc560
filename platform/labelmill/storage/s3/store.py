"""A bucket with a prefix as an object store: Amazon S3 and the servers that speak its protocol.

Pictures are read and asked for through obstore (0.35 ms of CPU a request, botocore 2.4 ms); all else goes through
botocore, which addresses every key a bucket can hold. object_store refuses keys with empty, "." or ".." segments or
control characters, drops a slash at either end, and one refused key ends its whole listing; such keys are read through
botocore too.
"""

import builtins
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from typing import Any, TypeVar

import obstore
import pyarrow as pa
from botocore.exceptions import ClientError
from obstore.exceptions import BaseError
from obstore.store import S3Store as ObstoreS3

from labelmill.errors import CredentialsError, ForbiddenError, StorageError, UnavailableError
from labelmill.storage.credentials import Environment, current_environment, with_keys_that_hold
from labelmill.storage.patience import one_try_s, pace_of, patiently
from labelmill.storage.probe import is_honoured
from labelmill.storage.s3.connection import client_for, explained, reader_for
from labelmill.storage.s3.listing import Listing
from labelmill.storage.s3.page import Page
from labelmill.storage.s3.sessions import NO_KEYS, keys_of
from labelmill.storage.store import ObjectInfo, Store
from labelmill.storage.traffic import note_traffic
from labelmill.storage.version import check_unchanged, version_of

__all__ = ["S3Store"]

T = TypeVar("T")
_Version = tuple[str | None, int, datetime]  # etag, size and date

# What object_store cannot address as it stands (observed with obstore 0.12).
_REFUSED = re.compile(r"status code: 40[03] ")
_ODD_KEY = re.compile(r"[\x00-\x1f\x7f]|(^|/)\.{0,2}(/|\Z)")


@dataclass(frozen=True)
class S3Store(Store):
    """Objects below `s3://bucket/prefix`, keys as they are: nothing in a uri is percent-encoded.

    Credentials, region and endpoint come from boto3's chain (environment, profile, instance), refreshed when they
    expire, and asked for anew when they are refused. A key that ends in a slash and holds nothing, which consoles make
    to show an empty folder, is not listed. An object of which the server tells no etag has its size and date as its
    version.
    """

    def list(
        self,
        prefix: str = "",
        *,
        in_order: bool = True,
        left_out: Callable[[str], bool] | None = None,
        unseen: builtins.list[str] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        listing, top = self._listing, self._top(prefix)
        for page in listing.pages(top) if in_order else listing.pages_at_once(top):
            yield page.shown().completed(self._info_if_told).batch(f"s3://{self._bucket}/")

    def keys(self, prefix: str = "") -> Iterator[str]:
        skip = len(self._key(""))
        for page in self._own_listing.pages(self._top(prefix)):
            yield from (key[skip:] for key in page.shown().keys)

    def folders(self, prefix: str = "") -> builtins.list[str]:
        top = self._top(prefix)
        return sorted(
            name[len(top) : -1] for page in self._own_listing.pages(top, Delimiter="/") for name in page.folders
        )

    def info(self, key: str) -> ObjectInfo:
        return self._info(self._key(key))

    def _info(self, full: str) -> ObjectInfo:
        key = full.removeprefix(self._key(""))

        def attempt() -> ObjectInfo:
            note_traffic(gets=1)
            if _ODD_KEY.search(full):
                head = self._client.head_object(Bucket=self._bucket, Key=full)
                size_bytes, etag, modified_at = head["ContentLength"], head.get("ETag"), head["LastModified"]
            else:
                found = self._head(full)
                size_bytes, etag, modified_at = found["size"], found["e_tag"], found["last_modified"]
            return ObjectInfo(self.address(key), size_bytes, version_of(etag, size_bytes, modified_at), modified_at)

        return self._ask(key, attempt)

    def read(self, key: str, *, etag: str | None = None) -> bytes:
        return self._read(key, etag, None)

    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> bytes:
        return self._read(key, etag, (start, start + length)) if length else b""

    def _read(self, key: str, etag: str | None, span: tuple[int, int] | None) -> bytes:
        full = self._key(key)

        def attempt() -> bytes:
            note_traffic(gets=1)
            found, body = self._read_odd(full, span) if _ODD_KEY.search(full) else self._read_plain(full, span)
            check_unchanged(self.address(key), etag, *found)
            data = body()
            note_traffic(read_bytes=len(data))
            return data

        return self._ask(key, attempt)

    def write(self, key: str, data: bytes) -> None:
        def attempt() -> None:
            note_traffic(puts=1, written_bytes=len(data))
            self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=data)

        self._ask(key, attempt, urgent=True)

    def write_if_absent(self, key: str, data: bytes) -> bool:
        tries = 0

        def attempt() -> bool:
            nonlocal tries
            tries += 1
            note_traffic(puts=1, written_bytes=len(data))
            try:
                self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=data, IfNoneMatch="*")
            except ClientError as exc:
                if exc.response["Error"]["Code"] not in ("PreconditionFailed", "412"):
                    raise
                # a repeated request may meet what it wrote itself when the first answer was lost
                return tries > 1 and self.read(key) == data
            return True

        return self._ask(key, attempt, urgent=True)

    def honours_write_if_absent(self) -> bool:
        return is_honoured(self, current_environment())

    def delete(self, key: str) -> None:
        self._ask(key, lambda: self._client.delete_object(Bucket=self._bucket, Key=self._key(key)), urgent=True)

    def __reduce__(self) -> tuple[type["S3Store"], tuple[str, float]]:
        return S3Store, (self.uri, self.timeout_s)

    def _ask(self, key: str, attempt: Callable[[], T], *, urgent: bool = False) -> T:
        """What `attempt` gives, tried again where that may help; errors in our words."""
        return with_keys_that_hold(
            lambda: self._ask_patiently(key, attempt, urgent),
            self._environment,
            lambda: self.__dict__.pop("_environment", None),
        )

    def _ask_patiently(self, key: str, attempt: Callable[[], T], urgent: bool) -> T:
        def explained_attempt() -> T:
            try:
                with explained(self.address(key), self._endpoint):
                    return attempt()
            except ForbiddenError as exc:
                if keys_of(self._environment) is None:
                    raise CredentialsError(f"{self.address(key)!r}: {NO_KEYS}") from exc
                raise

        return patiently(
            explained_attempt,
            pace_of(self._endpoint, self._bucket),
            timeout_s=self.timeout_s,
            one_try_s=one_try_s(self.timeout_s),
            urgent=urgent,
        )

    @cached_property
    def _bucket(self) -> str:
        return self.uri.removeprefix("s3://").partition("/")[0]

    @cached_property
    def _environment(self) -> Environment:
        return current_environment()

    @property
    def _client(self) -> Any:
        return client_for(self.timeout_s, self._environment)

    @property
    def _reader(self) -> ObstoreS3:
        return reader_for(self._bucket, self.timeout_s, self._environment)

    @cached_property
    def _endpoint(self) -> str:
        endpoint: str = self._client.meta.endpoint_url
        return endpoint

    def _key(self, key: str) -> str:
        prefix = self.uri.removeprefix("s3://").partition("/")[2]
        return f"{prefix}/{key}" if prefix else key

    def _top(self, prefix: str) -> str:
        return self._key(f"{prefix.removesuffix('/')}/" if prefix else "")

    def _read_plain(self, full: str, span: tuple[int, int] | None) -> tuple[_Version, Callable[[], bytes]]:
        answer = obstore.get(self._reader, full, options={"range": span} if span else None)
        meta = answer.meta
        return (meta["e_tag"], meta["size"], meta["last_modified"]), lambda: answer.bytes().to_bytes()

    def _read_odd(self, full: str, span: tuple[int, int] | None) -> tuple[_Version, Callable[[], bytes]]:
        part = {"Range": f"bytes={span[0]}-{span[1] - 1}"} if span else {}
        answer = self._client.get_object(Bucket=self._bucket, Key=full, **part)
        whole = answer.get("ContentRange", "").rpartition("/")[2]
        size_bytes = int(whole) if whole.isdecimal() else answer["ContentLength"]
        return (answer.get("ETag"), size_bytes, answer["LastModified"]), answer["Body"].read

    def _head(self, full: str) -> Any:
        try:
            return obstore.head(self._reader, full)
        except BaseError as exc:
            if _REFUSED.search(str(exc)):  # without a body, which says why: that of a GET does
                obstore.get_range(self._reader, full, start=0, end=1)
            raise

    @cached_property
    def _listing(self) -> Listing:
        return self._listing_of(urgent=False)

    @cached_property
    def _own_listing(self) -> Listing:
        """Of what a run cannot do without: a lease is not lost while its pictures are listed slowly."""
        return self._listing_of(urgent=True)

    def _listing_of(self, *, urgent: bool) -> Listing:
        def page(prefix: str, **more: Any) -> Page:
            note_traffic(lists=1)
            answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, **more)
            return Page.parsed(answer["UnparsedBody"], server)

        server = f"{self._endpoint} (bucket {self._bucket!r})"

        def ask(prefix: str, **more: Any) -> Page:
            return self._ask("", partial(page, prefix, **more), urgent=urgent)

        return Listing(ask, self._info_if_told, server)

    def _info_if_told(self, full: str) -> ObjectInfo | None:
        try:
            return self._info(full)
        except UnavailableError:
            raise
        except StorageError:  # removed meanwhile, or we may list and not read
            return None
