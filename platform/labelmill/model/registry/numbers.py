"""The numbers of versions: each is given once, and never again, whatever became of the version."""

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime

from labelmill.errors import RegistryError
from labelmill.model.bundle import MANIFEST_NAME
from labelmill.model.registry.alias import Alias, aliases_of
from labelmill.model.registry.foreign import passed_over
from labelmill.storage import Store
from labelmill.storage.numbered import numbered_keys

__all__ = ["CLAIM_NAME", "claim_number", "published_numbers"]

CLAIM_NAME = "claim.json"

_VERSION = re.compile(r"[1-9][0-9]*")
_MAX_LOST_RACES = 100


def published_numbers(store: Store, name: str) -> list[int]:
    """The versions of a model that are there, complete, in order."""
    parts = [key.split("/", 2) for key in store.keys(f"{name}/")]
    files = [(int(part[1]), part[2]) for part in parts if len(part) == 3 and _VERSION.fullmatch(part[1])]
    numbers = {number for number, file in files if file == MANIFEST_NAME}
    halves = [f"{name}/{number}/{file}" for number, file in files if _is_half(file) and number not in numbers]
    passed_over("half of a version", store.uri, halves)
    return sorted(numbers)


def claim_number(store: Store, name: str) -> int:
    """A number for a version that is about to be published. RegistryError: others took a hundred before us."""
    first = max(_given(store, name), default=0) + 1
    claim = json.dumps({"claimed_at": datetime.now(UTC).isoformat(timespec="seconds")}).encode()
    for number in range(first, first + _MAX_LOST_RACES):
        # The claim within the version as well: it is all that an older labelmill looks at.
        keys = (f"{name}/numbers/{number:06d}.json", f"{name}/{number}/{CLAIM_NAME}")
        if all(store.write_if_absent(key, claim) for key in keys):
            return number
    raise RegistryError(f"no version number of {name!r} could be claimed in {store.uri}: try again.")


def _given(store: Store, name: str) -> Iterable[int]:
    """The numbers that are known to have been given, the highest among them. A version that is deleted leaves its row
    behind, and the rows of the aliases that pointed to it; those alone tell of the time before there were such rows."""
    rows = set(numbered_keys(store, f"{name}/numbers"))
    folders = {int(folder) for folder in store.folders(name) if _VERSION.fullmatch(folder)}
    aliases = aliases_of(store, name).values()
    looked_at = [Alias(store, {alias.number: alias.keys[alias.number]}) for alias in aliases] if rows else aliases
    return rows | folders | {row.version for alias in looked_at for row in alias.history()}


def _is_half(file: str) -> bool:
    return file.startswith(MANIFEST_NAME) and file != MANIFEST_NAME
