"""Whose fault it is that nodes give chunks back is found out by looking, not by who said it."""

import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from label.work.conftest import bundles, stage  # noqa: F401 - fixtures
from labelmill.errors import CredentialsError, ForbiddenError, NodeError
from labelmill.label import verdict
from labelmill.label.verdict import are_the_pictures_to_blame, no_node
from labelmill.label.work import fetch
from labelmill.label.work.cores import ChunkLabeler
from labelmill.table.writer import TableWriter


def refused(certain=False, address="10.0.0.1"):
    return SimpleNamespace(chunk=0, certain=certain, address=address, reason="no such file: '/x'")


@pytest.fixture
def denied(monkeypatch):
    """Access is denied to all pictures but those in a set."""
    allowed = set()

    def read(items, *_):
        return [Path(uri).read_bytes() if uri in allowed else ForbiddenError("AccessDenied") for uri, *_ in items]

    monkeypatch.setattr(fetch, "read_pictures", read)
    monkeypatch.setattr(verdict, "read_ranges", read)
    return allowed


def test_pictures_that_can_be_read_here_are_the_nodes_fault(stage):  # noqa: F811
    assert not are_the_pictures_to_blame(stage, [refused()])


def test_pictures_that_are_gone_here_too_are_not(stage, tmp_path):  # noqa: F811
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    assert are_the_pictures_to_blame(stage, [refused()])
    assert not are_the_pictures_to_blame(stage, [refused(certain=True)])  # which says nothing of pictures


def test_keys_that_are_refused_here_too_are_no_pictures_fault(stage, monkeypatch):  # noqa: F811
    def refuse(items):
        raise CredentialsError("ExpiredToken")

    monkeypatch.setattr(fetch, "read_pictures", refuse)
    assert not are_the_pictures_to_blame(stage, [refused()])


def test_access_denied_to_all_is_the_keys_fault_and_to_some_it_is_theirs(stage, denied):  # noqa: F811
    writer = TableWriter(stage.output)
    with pytest.raises(NodeError, match=socket.gethostname()):
        are_the_pictures_to_blame(stage, [refused()])
    uris = stage.todo.read(0)["uri"].to_pylist()
    denied.add(uris[-1])  # which is not among those of the chunk that are tried
    assert are_the_pictures_to_blame(stage, [refused()])

    denied.update(uris)
    writer.commit([ChunkLabeler(stage).label(0).file])
    denied.clear()
    denied.add(uris[0])  # nothing of the to-do list, but of what was labelled before
    others = stage.todo.read(0).slice(1)
    later = replace(stage, todo=SimpleNamespace(read=lambda chunk: others, sample=lambda count: others))
    assert are_the_pictures_to_blame(later, [refused()])


def test_the_line_names_each_node_and_its_cause_or_this_machine(stage):  # noqa: F811
    nodes = [refused(address=f"10.0.0.{number}") for number in (1, 1, 2)]
    said = str(no_node(replace(stage, alone=False), nodes))
    assert "10.0.0.1: no such file: '/x'; 10.0.0.2: no such file: '/x'" in said
    assert said.count("10.0.0.1") == 1
    assert "\n" not in said
    assert f"this machine, {socket.gethostname()}, cannot read" in str(no_node(stage, nodes))
