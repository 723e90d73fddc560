"""The models under one folder or prefix of a store."""

import difflib
import json
import logging
from dataclasses import asdict
from datetime import UTC, datetime

from labelmill.errors import BundleError, NotFoundError, RegistryError
from labelmill.model.bundle import MANIFEST_NAME, Bundle, BundleDraft, read_bundle
from labelmill.model.registry.alias import NAME, Alias, AliasRow, aliases_of, row_before
from labelmill.model.registry.foreign import passed_over
from labelmill.model.registry.numbers import CLAIM_NAME, claim_number, published_numbers
from labelmill.storage import Store, open_store
from labelmill.storage.numbered import numbered_keys

__all__ = ["AliasRow", "Registry", "check_alias", "check_name"]

logger = logging.getLogger(__name__)

_MAX_LOST_RACES = 100


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
        return sorted(name for name in folders if NAME.fullmatch(name) and self.versions(name))

    def versions(self, name: str) -> list[int]:
        """Published versions of a model, oldest first; none when there is no such model."""
        return published_numbers(self._store, check_name(name))

    def published_at(self, bundle: Bundle) -> datetime:
        """When this version was given its number."""
        try:
            claim = json.loads(self._store.read(f"{bundle.name}/{bundle.version}/{CLAIM_NAME}"))
            return datetime.fromisoformat(claim["claimed_at"])
        except (NotFoundError, ValueError, TypeError, KeyError):
            return self._store.info(f"{bundle.name}/{bundle.version}/{MANIFEST_NAME}").modified_at

    def aliases(self, name: str) -> dict[str, int]:
        """Each alias of a model and the version it points to. One whose newest row cannot be read is left out, and
        named in a warning."""
        versions = {}
        for alias, rows in aliases_of(self._store, check_name(name)).items():
            try:
                versions[alias] = rows.newest().version
            except RegistryError as exc:
                passed_over("an alias that leads nowhere", self.uri, [str(exc)])
        return versions

    def has_alias(self, name: str, alias: str) -> bool:
        """Whether it was ever promoted, even if nobody can say where it points now."""
        return self._alias(name, alias) is not None

    def history(self, name: str, alias: str = "current") -> list[AliasRow]:
        """Every promotion of an alias, oldest first; none when it was never promoted."""
        rows = self._alias(name, alias)
        return rows.history() if rows else []

    def resolve_alias_row(self, name: str, alias: str = "current") -> AliasRow:
        """Where an alias points now: a listing and one small read. RegistryError when there is no such alias."""
        rows = self._alias(name, alias)
        if rows is None:
            raise self._unknown(name, alias)
        return rows.newest()

    def resolve(self, reference: str) -> Bundle:
        """The bundle of "name@3" or "name@current". RegistryError with near misses; BundleError when it is damaged."""
        name, _, version = reference.partition("@")
        if not version:
            raise RegistryError(f"a model is written <name>@<version> or <name>@<alias>, got {reference!r}.")
        check_name(name)
        if version.isdecimal():
            return self._bundle(name, int(version))
        row = self.resolve_alias_row(name, check_alias(version))
        try:
            bundle = read_bundle(self._store, name, row.version)
        except NotFoundError as exc:
            raise self._deleted(name, version, row) from exc
        _check_digest(bundle, row)
        return bundle

    def publish(self, name: str, draft: BundleDraft) -> Bundle:
        """Upload a draft as the model's next version. It becomes visible at once, complete, or not at all."""
        check_name(name)
        self._require_conditional_writes()
        manifest = draft.manifest()
        version = claim_number(self._store, name)
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
            rows = self._alias(bundle.name, alias)
            row = self._write_row(bundle, alias, number=rows.number + 1 if rows else 1, reason=reason)
            if row:
                return row
        raise RegistryError(f"alias {alias!r} of {bundle.name!r} is being moved by others all the time: try again.")

    def rollback(self, name: str, alias: str = "current", *, reason: str = "rollback") -> AliasRow:
        """Point an alias to the version before the present one. Again: to the one before that, as an editor's undo.
        Versions that were deleted are passed over.

        RegistryError at the first version, and when somebody moves the alias meanwhile. BundleError when the older
        version is damaged. In each case the alias stays where it was.
        """
        self._require_conditional_writes()
        self.resolve_alias_row(name, alias)  # where nobody can say what counts now, nobody can say what was before it
        rows, versions = self.history(name, alias), self.versions(name)
        target = row_before(rows, versions)
        if target is None:
            gone = any(row.version not in versions for row in rows[:-1])
            raise RegistryError(
                f"{name}@{alias} cannot go back: version {rows[-1].version} is the first it pointed to"
                f"{' of those that are still there' if gone else ''}. "
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

    def _alias(self, name: str, alias: str) -> Alias | None:
        keys = numbered_keys(self._store, f"{check_name(name)}/aliases/{check_alias(alias)}")
        return Alias(self._store, keys) if keys else None

    def _deleted(self, name: str, alias: str, row: AliasRow) -> RegistryError:
        flag = "" if alias == "current" else f" --alias {alias}"
        return RegistryError(
            f"{name}@{alias} points to version {row.version}, which is no longer in {self.uri}: roll back (labelmill "
            f"models rollback {name}{flag}), or promote one of those that are: {self._list_versions(name) or 'none'}."
        )


def check_name(name: str) -> str:
    """The name of a model, if it may be one. RegistryError otherwise."""
    if not NAME.fullmatch(name):
        raise RegistryError(f"a model's name is lower-case letters, digits and _ . - after the first, got {name!r}.")
    return name


def check_alias(alias: str) -> str:
    """An alias, if it may be one. RegistryError otherwise."""
    if not NAME.fullmatch(alias) or alias.isdecimal():
        raise RegistryError(
            f"an alias is lower-case letters, digits and _ . - after the first, and not a number, got {alias!r}."
        )
    return alias


def _check_digest(bundle: Bundle, row: AliasRow) -> None:
    if bundle.digest != row.digest:
        raise BundleError(
            f"{bundle.reference} at {bundle.uri} is not what was promoted: expected digest {row.digest}, found "
            f"{bundle.digest}. Promote a version by number, or restore the bundle from a copy."
        )
