"""The registry: numbered versions of models and the aliases that point to them, in any object store.

    <name>/<version>/claim.json             written only if absent: the number is taken
    <name>/<version>/bundle.json            written last: the version is there; a claim without it is skipped
    <name>/aliases/<alias>/000017.json      written only if absent: the highest number counts, the row is the history

Nothing is ever overwritten, so two trainers or two people at once cannot lose each other's work.
"""

import difflib
import json
import logging
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from labelmill.errors import BundleError, NotFoundError, RegistryError
from labelmill.model.bundle import MANIFEST_NAME, Bundle, BundleDraft, read_bundle
from labelmill.storage import Store, open_store

__all__ = ["AliasRow", "Registry", "check_alias", "check_name"]

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_ROW = re.compile(r"/[0-9]+\.json$")
_MAX_LOST_RACES = 100


@dataclass(frozen=True, slots=True)
class AliasRow:
    """One promotion: the alias's `number`-th. `restores` is the row that a rollback went back to."""

    number: int
    version: int
    digest: str
    promoted_at: str
    reason: str
    restores: int | None = None


class Registry:
    """The models under one folder or prefix of a store."""

    def __init__(self, uri: str) -> None:
        self._store: Store = open_store(uri)
        self.uri = self._store.uri

    def __repr__(self) -> str:
        return f"Registry({self.uri})"

    def names(self) -> list[str]:
        """Models with at least one version, sorted."""
        try:
            folders = self._store.folders()
        except NotFoundError:
            return []
        return sorted(name for name in folders if _NAME.fullmatch(name) and self.versions(name))

    def versions(self, name: str) -> list[int]:
        """Published versions of a model, oldest first; none when there is no such model."""
        return self._numbers(name, f"/{MANIFEST_NAME}")

    def aliases(self, name: str) -> dict[str, int]:
        """Each alias of a model and the version it points to."""
        prefix = f"{check_name(name)}/aliases/"
        aliases = sorted({key.removeprefix(prefix).partition("/")[0] for key in self._keys(prefix)})
        return {alias: self.resolve_alias_row(name, alias).version for alias in aliases}

    def history(self, name: str, alias: str = "current") -> list[AliasRow]:
        """Every promotion of an alias, oldest first; none when it was never promoted."""
        return [self._row(key) for key in self._row_keys(name, alias)]

    def resolve_alias_row(self, name: str, alias: str = "current") -> AliasRow:
        """Where an alias points now: a listing and one small read. RegistryError when there is no such alias."""
        keys = self._row_keys(name, alias)
        if not keys:
            raise self._unknown(name, alias)
        return self._row(keys[-1])

    def resolve(self, reference: str) -> Bundle:
        """The bundle of "name@3" or "name@current". RegistryError with near misses; BundleError when it is damaged."""
        name, _, version = reference.partition("@")
        if not version:
            raise RegistryError(f"a model is written <name>@<version> or <name>@<alias>, got {reference!r}.")
        check_name(name)
        if version.isdecimal():
            return self._bundle(name, int(version))
        row = self.resolve_alias_row(name, check_alias(version))
        bundle = self._bundle(name, row.version)
        _check_digest(bundle, row)
        return bundle

    def publish(self, name: str, draft: BundleDraft) -> Bundle:
        """Upload a draft as the model's next version. It becomes visible at once, complete, or not at all."""
        check_name(name)
        self._require_conditional_writes()
        manifest = draft.manifest()
        version = self._claim_version(name)
        for file_name in manifest["files"]:
            self._store.write(f"{name}/{version}/{file_name}", (draft.folder / file_name).read_bytes())
        data = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False).encode()
        if not self._store.write_if_absent(f"{name}/{version}/{MANIFEST_NAME}", data):
            raise RegistryError(f"{name}@{version} in {self.uri} was published by another program: publish again.")
        logger.info("published %s@%d digest=%s in %s", name, version, manifest["digest"], self.uri)
        return self._bundle(name, version)

    def promote(self, reference: str, alias: str = "current", *, reason: str = "") -> AliasRow:
        """Point an alias to a version, once every file of that version is the one that was published.

        BundleError when one is not: the alias stays where it was. Of two promotions at once both are in the history,
        and the later row counts.
        """
        check_alias(alias)
        self._require_conditional_writes()
        bundle = self.resolve(reference)
        bundle.verify()
        for _ in range(_MAX_LOST_RACES):
            rows = self._row_keys(bundle.name, alias)
            row = self._write_row(bundle, alias, number=_number(rows[-1]) + 1 if rows else 1, reason=reason)
            if row:
                return row
        raise RegistryError(f"alias {alias!r} of {bundle.name!r} is being moved by others all the time: try again.")

    def rollback(self, name: str, alias: str = "current", *, reason: str = "rollback") -> AliasRow:
        """Point an alias to the version before the present one. Again: to the one before that, as an editor's undo.

        RegistryError at the first version, and when somebody moves the alias meanwhile. BundleError when the older
        version is damaged. In each case the alias stays where it was.
        """
        self._require_conditional_writes()
        rows = self.history(name, alias)
        if not rows:
            raise self._unknown(name, alias)
        target = _before(rows)
        if target is None:
            raise RegistryError(
                f"{name}@{alias} cannot go back: version {rows[-1].version} is the first it pointed to. "
                f"Versions: {self._list_versions(name)}; promote one of them by number."
            )
        bundle = self._bundle(name, target.version)
        _check_digest(bundle, target)
        bundle.verify()
        row = self._write_row(bundle, alias, number=rows[-1].number + 1, reason=reason, restores=target.number)
        if row is None:
            raise RegistryError(
                f"{name}@{alias} was moved by somebody else during the rollback and now points to version "
                f"{self.resolve_alias_row(name, alias).version}: nothing was changed, look and decide again."
            )
        return row

    def _write_row(
        self, bundle: Bundle, alias: str, *, number: int, reason: str, restores: int | None = None
    ) -> AliasRow | None:
        """The new row, or None when its number is taken."""
        promoted_at = datetime.now(UTC).isoformat(timespec="seconds")
        row = AliasRow(number, bundle.version, bundle.digest, promoted_at, reason, restores)
        data = json.dumps(asdict(row), ensure_ascii=False).encode()
        if not self._store.write_if_absent(f"{bundle.name}/aliases/{alias}/{number:06d}.json", data):
            return None
        logger.info("promoted %s to %s in %s (row %d)", bundle.reference, alias, self.uri, number)
        return row

    def _claim_version(self, name: str) -> int:
        version = max(self._numbers(name, ""), default=0) + 1
        claim = json.dumps({"claimed_at": datetime.now(UTC).isoformat(timespec="seconds")}).encode()
        for number in range(version, version + _MAX_LOST_RACES):
            if self._store.write_if_absent(f"{name}/{number}/claim.json", claim):
                return number
        raise RegistryError(f"no version number of {name!r} could be claimed in {self.uri}: try again.")

    def _require_conditional_writes(self) -> None:
        if not self._store.honours_write_if_absent():
            raise RegistryError(
                f"{self.uri} ignores the condition of a write (PUT with If-None-Match: *), so two trainers could "
                "overwrite each other's version there unseen. Keep the registry in a folder or in a store that "
                "honours it (S3, MinIO, Ceph, GCS, Azure); pictures and tables may stay where they are."
            )

    def _bundle(self, name: str, version: int) -> Bundle:
        try:
            return read_bundle(self._store, name, version)
        except NotFoundError as exc:
            raise self._unknown(name, str(version)) from exc

    def _unknown(self, name: str, version: str) -> RegistryError:
        """The error for a reference that leads nowhere, with what there is instead."""
        if not self.versions(name):
            names = self.names()
            near = difflib.get_close_matches(name, names, n=3)
            there = f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(names) or 'no models yet'}."
            return RegistryError(f"no model {name!r} in {self.uri}: {there}")
        aliases = list(self.aliases(name))
        near = difflib.get_close_matches(version, aliases, n=3)
        hint = f"did you mean {name}@{near[0]}? " if near else ""
        return RegistryError(
            f"no {name}@{version} in {self.uri}: {hint}versions: {self._list_versions(name)}; "
            f"aliases: {', '.join(aliases) or f'none; labelmill models promote {name}@<version> makes one'}."
        )

    def _list_versions(self, name: str) -> str:
        return ", ".join(map(str, self.versions(name)))

    def _numbers(self, name: str, suffix: str) -> list[int]:
        prefix = f"{check_name(name)}/"
        parts = [key.removeprefix(prefix).partition("/") for key in self._keys(prefix)]
        return sorted({int(head) for head, slash, tail in parts if head.isdecimal() and f"/{tail}".startswith(suffix)})

    def _row_keys(self, name: str, alias: str) -> list[str]:
        keys = self._keys(f"{check_name(name)}/aliases/{check_alias(alias)}/")
        return sorted((key for key in keys if _ROW.search(key)), key=_number)

    def _keys(self, prefix: str) -> list[str]:
        try:
            return list(self._store.keys(prefix))
        except NotFoundError:
            return []

    def _row(self, key: str) -> AliasRow:
        try:
            return AliasRow(**json.loads(self._store.read(key)))
        except (ValueError, TypeError) as exc:
            raise RegistryError(
                f"{self._store.address(key)} is not a row of an alias ({exc}): remove it, and the row before counts."
            ) from exc


def check_name(name: str) -> str:
    """The name of a model, if it may be one. RegistryError otherwise."""
    if not _NAME.fullmatch(name):
        raise RegistryError(f"a model's name is lower-case letters, digits and _ . - after the first, got {name!r}.")
    return name


def check_alias(alias: str) -> str:
    """An alias, if it may be one. RegistryError otherwise."""
    if not _NAME.fullmatch(alias) or alias.isdecimal():
        raise RegistryError(
            f"an alias is lower-case letters, digits and _ . - after the first, and not a number, got {alias!r}."
        )
    return alias


def _number(key: str) -> int:
    return int(key.rpartition("/")[2].removesuffix(".json"))


def _before(rows: list[AliasRow]) -> AliasRow | None:
    """The row that a rollback restores: the nearest earlier one with another version. Rollbacks themselves are skipped
    over, so that a second one goes further back and does not return to what the first one left."""
    by_number = {row.number: row for row in rows}
    present = rows[-1]
    row = present
    while row.version == present.version:
        original = by_number.get(row.restores or row.number)
        earlier = [] if original is None else [other for other in rows if other.number < original.number]
        if not earlier:
            return None
        row = earlier[-1]
    return by_number.get(row.restores or row.number)


def _check_digest(bundle: Bundle, row: AliasRow) -> None:
    if bundle.digest != row.digest:
        raise BundleError(
            f"{bundle.reference} at {bundle.uri} is not what was promoted: expected digest {row.digest}, found "
            f"{bundle.digest}. Promote a version by number, or restore the bundle from a copy."
        )
