"""An alias of a model: a row of numbered objects, of which the highest counts and which is the alias's history."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from labelmill.errors import RegistryError
from labelmill.model.registry.foreign import passed_over
from labelmill.storage import Store
from labelmill.storage.numbered import numbered

__all__ = ["NAME", "Alias", "AliasRow", "aliases_of", "row_before"]

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class AliasRow:
    """One promotion: the alias's `number`-th. `restores` is the row that a rollback went back to."""

    number: int
    version: int
    digest: str
    promoted_at: str
    reason: str
    restores: int | None = None


@dataclass(frozen=True)
class Alias:
    """The rows of an alias: where they lie, by their numbers, in order; at least one."""

    store: Store
    keys: Mapping[int, str]

    @property
    def number(self) -> int:
        return max(self.keys)

    def newest(self) -> AliasRow:
        """The row that counts. RegistryError: it cannot be read, and no other may stand for it."""
        return self._row(self.number)

    def history(self) -> list[AliasRow]:
        """Every row that can be read, oldest first."""
        rows = []
        for number in self.keys:
            try:
                rows.append(self._row(number))
            except RegistryError as exc:
                passed_over("not readable", self.store.uri, [str(exc)])
        return rows

    def _row(self, number: int) -> AliasRow:
        key = self.keys[number]
        try:
            row = AliasRow(**json.loads(self.store.read(key)))
            if row.number != number or not isinstance(row.version, int):
                raise ValueError(f"it says number {row.number!r}, version {row.version!r}")
        except (ValueError, TypeError) as exc:
            raise RegistryError(
                f"{self.store.address(key)} is not a row of an alias ({exc}): remove it, and the row before counts; "
                "or promote a version by number."
            ) from exc
        return row


def aliases_of(store: Store, name: str) -> dict[str, Alias]:
    """The aliases of a model, sorted; what lies among their rows and is none is named in a warning."""
    top = f"{name}/aliases"
    keys = list(store.keys(f"{top}/"))
    names = sorted({key.split("/")[2] for key in keys if key.count("/") > 2})
    found = {alias: numbered(keys, f"{top}/{alias}") for alias in names if NAME.fullmatch(alias)}
    rows = {key for alias in found.values() for key in alias.values()}
    foreign = [key for key in keys if key not in rows and not key.endswith("/")]
    passed_over("no rows of an alias", store.uri, foreign)
    return {alias: Alias(store, numbers) for alias, numbers in found.items() if numbers}


def row_before(rows: Sequence[AliasRow], there: Collection[int]) -> AliasRow | None:
    """The row that a rollback restores: the nearest earlier one with another version that is still `there`. Rollbacks
    themselves are skipped over, so that a second one goes further back and does not return to what the first one left.
    """
    by_number = {row.number: row for row in rows}
    present = row = rows[-1]
    while row.version == present.version or row.version not in there:
        original = row.restores or row.number
        earlier = [other for other in rows if other.number < original]
        if not earlier:
            return None
        row = earlier[-1]
    return by_number.get(row.restores or row.number, row)
