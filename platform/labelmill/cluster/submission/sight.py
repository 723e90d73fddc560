"""Which folders of this machine the nodes of a cluster see."""

from pathlib import Path

from labelmill.address import split_uri
from labelmill.cluster.submission.dashboard import Dashboard
from labelmill.errors import SpecError

__all__ = ["Sight"]


class Sight:
    """What the nodes of one cluster see."""

    def __init__(self, dashboard: Dashboard) -> None:
        self._dashboard = dashboard
        self._shares_files: bool | None = None

    def address_there(self, field: str, address: str) -> str:
        """A relative path as an absolute one; any other address as it is. SpecError: the nodes do not see it."""
        root, key = split_uri(address)
        if root != "/" or address.startswith("file://"):
            return address  # whoever writes file:// means a folder that every node has
        if not self._is_shared():
            raise SpecError(
                f"{field}: {address!r} is a place on this machine, which the nodes of the cluster at "
                f"{self._dashboard.address} do not see: expected an address in an object store, or "
                f"file:///{key} where every node has that folder"
            )
        return f"/{key}"

    def _is_shared(self) -> bool:
        """Whether each node has its files where this machine has its own: where its socket is to be seen."""
        if self._shares_files is None:
            nodes = self._dashboard.nodes()
            self._shares_files = bool(nodes) and all(_is_there(node["rayletSocketName"]) for node in nodes)
        return self._shares_files


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # in a folder of another user: not a folder of our job's
        return False
