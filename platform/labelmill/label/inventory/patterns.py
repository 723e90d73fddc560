"""Which keys meet the patterns of a spec."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.address import plain
from labelmill.spec import pattern_regex

__all__ = ["keys_below", "left_out", "met"]


def keys_below(items: pa.RecordBatch, base: str) -> pa.Array:
    """What follows the base in each uri; of a member, its shard is a folder."""
    prefix = plain(base).rstrip("/") + "/"
    uris = _plain(items["uri"])
    below = pc.starts_with(uris, prefix)
    keys = pc.if_else(
        below, pc.utf8_slice_codeunits(uris, len(prefix)), pc.replace_substring_regex(uris, "^[a-z0-9]+://+|^/", "")
    )
    if "offset" not in items.schema.names:
        return keys
    as_members = pc.replace_substring_regex(keys, r"(?i)(\.(?:tar|parquet))#", r"\1/", max_replacements=1)
    return pc.if_else(pc.is_valid(items["offset"]), as_members, keys)


def met(keys: pa.Array, patterns: Sequence[str]) -> pa.Array:
    return pc.match_substring_regex(keys, "(?s)" + _regex(patterns))


def left_out(patterns: Sequence[str]) -> Callable[[str], bool] | None:
    """Whether nothing at this key and below it can count, be it a folder or a file: for whoever looks into folders."""
    if not patterns:
        return None
    found = re.compile(_regex(patterns), re.DOTALL)
    return lambda key: bool(found.search(f"{key}/"))


def _regex(patterns: Sequence[str]) -> str:
    return "|".join(f"(?:{pattern_regex(pattern)})" for pattern in patterns)


def _plain(uris: pa.Array) -> pa.Array:
    encoded = pc.starts_with(uris, "file://")
    if not pc.any(encoded).as_py():
        return uris
    # a "#" of the path itself is encoded, so the first one stands before a member
    parts = (uri.partition("#") for uri in uris.filter(encoded).to_pylist())
    texts = [f"{plain(path)}{mark}{member}" for path, mark, member in parts]
    return pc.replace_with_mask(uris, encoded, pa.array(texts, pa.string()))
