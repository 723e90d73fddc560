"""Ways in which the listing of a bucket misbehaves: each is an `alter` for `faulty_proxy`."""

import itertools
import re
from collections.abc import Callable
from urllib.parse import parse_qs, quote, unquote_plus, urlsplit

from proxy import Alter, Headers

__all__ = ["altered", "as_path", "every_other", "for_ever", "names_are", "no_etag", "with_more"]

Change = Callable[[bytes], bytes]


def altered(change: Change, *, but_the_first: int = 0) -> Alter:
    """What `change` makes of each listing's body, after the first so many."""
    numbers = itertools.count()

    def alter(method: str, path: str, headers: Headers, body: bytes) -> tuple[Headers, bytes] | None:
        if not _is_listing(method, path) or next(numbers) < but_the_first:
            return None
        return headers, change(body)

    return alter


def for_ever(*, fresh_tokens: bool, keys: bool) -> Alter:
    """The first page of each listing again and again, or pages without keys, with the same token or always another."""
    first: dict[str, bytes] = {}
    numbers = itertools.count()

    def alter(method: str, path: str, headers: Headers, body: bytes) -> tuple[Headers, bytes] | None:
        if not _is_listing(method, path):
            return None
        page = body if keys else re.sub(rb"<(Contents|CommonPrefixes)>.*</\1>", b"", body, flags=re.S)
        listing = re.sub(r"continuation-token=[^&]*&?", "", path)
        token = b"token-%d" % (next(numbers) if fresh_tokens else 0)
        return headers, with_more(first.setdefault(listing, page), token)

    return alter


def with_more(body: bytes, token: bytes) -> bytes:
    body = re.sub(rb"<(NextContinuationToken|IsTruncated)>.*?</\1>", b"", body)
    more = b"<IsTruncated>true</IsTruncated><NextContinuationToken>%s</NextContinuationToken>" % token
    return body.replace(b"</ListBucketResult>", more + b"</ListBucketResult>")


def names_are(keys: Callable[[str], str], folders: Callable[[str], str], *, echo: bool = True) -> Alter:
    """Names written so, whatever encoding was asked for; `echo`: the server says nevertheless that it encodes them."""

    def change(body: bytes) -> bytes:
        body = re.sub(rb"(<Contents>\s*<Key>)(.*?)(</Key>)", lambda found: _renamed(found, keys), body)
        body = re.sub(rb"(<CommonPrefixes>\s*<Prefix>)(.*?)(</Prefix>)", lambda found: _renamed(found, folders), body)
        return body if echo else re.sub(rb"<EncodingType>.*?</EncodingType>", b"", body)

    return altered(change)


def _renamed(found: re.Match[bytes], write: Callable[[str], str]) -> bytes:
    name = write(unquote_plus(found[2].decode()))
    return found[1] + name.replace("&", "&amp;").replace("<", "&lt;").encode() + found[3]


def as_path(name: str) -> str:
    """As Go's url.PathEscape and others do: a plus stays."""
    return quote(name, safe="/+")


def no_etag(instead: bytes, *, in_listing: Callable[[int], bool], in_heads: bool, in_gets: bool) -> Alter:
    """No etags, or others `instead`, of the objects whose number in the listing is chosen; none in HEADs and GETs."""

    def alter(method: str, path: str, headers: Headers, body: bytes) -> tuple[Headers, bytes] | None:
        if _is_listing(method, path):
            numbers = itertools.count()
            return headers, re.sub(
                rb"<ETag>.*?</ETag>", lambda found: instead if in_listing(next(numbers)) else found[0], body
            )
        if not {"HEAD": in_heads, "GET": in_gets}.get(method, False) or not any(
            n.lower() == "etag" for n, _ in headers
        ):
            return None
        return [(name, value) for name, value in headers if name.lower() != "etag"], body

    return alter


def every_other(number: int) -> bool:
    return number % 2 == 0


def _is_listing(method: str, path: str) -> bool:
    return method == "GET" and "list-type" in parse_qs(urlsplit(path).query)
