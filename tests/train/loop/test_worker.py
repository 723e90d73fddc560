"""What a worker cannot reach is said with the node that it is on: the line stands on another machine's terminal."""

import pytest

from labelmill.errors import CredentialsError, DataError, NodeError, UnavailableError
from labelmill.train.loop import worker


@pytest.mark.parametrize("reason", [CredentialsError("ExpiredToken"), UnavailableError("no answer"), NodeError("gone")])
def test_what_a_worker_cannot_reach_is_said_with_its_node(monkeypatch, reason):
    def fail(*_):
        raise reason

    monkeypatch.setattr(worker, "_take_part", fail)
    with pytest.raises(NodeError, match=rf"^node [\d.]+: {reason}\. Every node needs"):
        worker.take_part(*[None] * 6)


def test_what_is_no_nodes_fault_is_said_as_it_is(monkeypatch):
    def fail(*_):
        raise DataError("none of 3 pictures")

    monkeypatch.setattr(worker, "_take_part", fail)
    with pytest.raises(DataError, match="none of 3"):
        worker.take_part(*[None] * 6)
