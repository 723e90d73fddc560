"""The objects of a lease in their folder: for each number a claim, a heartbeat, and perhaps a wish that it ends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from labelmill.errors import FencedError, NotFoundError
from labelmill.storage import Store, open_store
from labelmill.storage.lease.holder import Holder
from labelmill.storage.numbered import numbered, numbered_keys

__all__ = ["LEASE_FOLDER", "RELEASED", "TOLD", "Fence", "Row", "newest", "rows"]

LEASE_FOLDER = "lease"
RELEASED = "released"  # the last beat of who gave its lease back
TOLD = "told"  # in place of the last beat of who did not, once somebody has been told


@dataclass(frozen=True)
class Row:
    """One number of a lease."""

    store: Store
    number: int

    def claim(self, holder: Holder) -> bool:
        """Whether it is ours now. A wish to an earlier holder of the number, whose rows are gone, is none to us."""
        self.store.delete(self._key("stop"))
        return self.store.write_if_absent(self._key("json"), holder.to_json())

    def holder(self) -> Holder | None:
        try:
            return Holder.from_json(self.store.read(self._key("json")))
        except (NotFoundError, ValueError):
            return None  # released and swept, or written by another version: then only its beat can tell

    def beat(self) -> str:
        try:
            return self.store.read(self._key("beat")).decode(errors="replace")
        except NotFoundError:
            return ""

    def write_beat(self, beat: str) -> None:
        self.store.write(self._key("beat"), beat.encode())

    def last_seen(self) -> datetime | None:
        """When it last beat, by the clock of the store."""
        try:
            return self.store.info(self._key("beat")).modified_at
        except NotFoundError:
            return None

    def ask_to_stop(self, newcomer: Holder) -> None:
        self.store.write_if_absent(self._key("stop"), newcomer.to_json())

    def look(self) -> tuple[bool, bool]:
        """Whether it is still the newest, and whether it is asked to stop: one listing tells both."""
        keys = list(self.store.keys(f"{LEASE_FOLDER}/"))
        return max(numbered(keys, LEASE_FOLDER), default=0) == self.number, self._key("stop") in keys

    def asked_by(self) -> Holder | None:
        try:
            return Holder.from_json(self.store.read(self._key("stop")))
        except (NotFoundError, ValueError):
            return None

    def remove(self) -> None:
        for ending in ("json", "beat", "stop"):
            self.store.delete(self._key(ending))

    def _key(self, ending: str) -> str:
        return f"{LEASE_FOLDER}/{self.number:06d}.{ending}"


@dataclass(frozen=True)
class Fence:
    """What the holder of a lease gives to its workers: which lease it is, and of what."""

    uri: str
    number: int
    of: str

    def check(self) -> None:
        """FencedError once another run took the lease."""
        if newest(open_store(self.uri)) != self.number:
            raise FencedError(
                f"another run took over the lease of this {self.of}. What this run committed stays; nothing more of it "
                "will be. Run the same command again when the other has ended."
            )


def newest(store: Store) -> int:
    return max(numbered_keys(store, LEASE_FOLDER), default=0)


def rows(store: Store) -> list[Row]:
    """All that there are, in order."""
    return [Row(store, number) for number in numbered_keys(store, LEASE_FOLDER)]
