"""Numbered objects, `<folder>/000017.json`, that are only ever created: the rows of aliases, leases and versions.

Whatever else lies among them, a file of the operating system or half of a copy, is none of them.
"""

import re
from collections.abc import Iterable

from labelmill.storage.store import Store

__all__ = ["numbered", "numbered_keys"]

_NAME = re.compile(r"([0-9]+)\.json")


def numbered_keys(store: Store, folder: str) -> dict[int, str]:
    """The key of every numbered object of the folder, by its number, in order; none when the folder is not there."""
    return numbered(store.keys(f"{folder}/"), folder)


def numbered(keys: Iterable[str], folder: str) -> dict[int, str]:
    """Those among `keys` that are numbered objects of the folder."""
    found = [(_NAME.fullmatch(key.removeprefix(f"{folder}/")), key) for key in keys if key.startswith(f"{folder}/")]
    return dict(sorted((int(name[1]), key) for name, key in found if name))
