"""The registry: numbered versions of models and the aliases that point to them, in any object store.

    <name>/numbers/000003.json              written only if absent: the number is given, and never again
    <name>/<version>/claim.json             when it was given, to whom looks at the version alone
    <name>/<version>/bundle.json            written last: the version is there; a claim without it is skipped
    <name>/aliases/<alias>/000017.json      written only if absent: the highest number counts, the row is the history

Nothing is ever overwritten, so two trainers or two people at once cannot lose each other's work. What lies among these
and is none of them counts for nothing.
"""

from labelmill.model.registry.alias import AliasRow
from labelmill.model.registry.registry import Registry, check_alias, check_name

__all__ = ["AliasRow", "Registry", "check_alias", "check_name"]
