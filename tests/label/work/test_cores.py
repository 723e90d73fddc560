"""A chunk on one core, without Ray: pictures in, a data file out."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from label.work.made import todo
from labelmill.errors import BundleError, ClusterError, CredentialsError, ForbiddenError, NodeError
from labelmill.label.work import fetch, finish
from labelmill.label.work.cores import ChunkLabeler
from labelmill.model.engines import openvino_engine
from labelmill.model.labeler import Labeler
from labelmill.storage import open_store


def rows_of(stage, number=0):
    chunk = ChunkLabeler(stage).label(number)
    return chunk, pq.read_table(f"{stage.output}/{chunk.file.path}").to_pylist()


def test_each_model_says_in_a_shared_pass_what_it_says_alone(stage):
    chunk, rows = rows_of(stage)
    assert chunk.num_rows == 12  # pictures, not rows
    assert chunk.statuses == {"ok": 11, "unsupported": 1}
    for bundle in stage.bundles:
        own = [row for row in rows if row["bundle_digest"] == bundle.digest]
        assert [row["uri"] for row in own] == stage.todo.read(0)["uri"].to_pylist()
        images = [open_store("/").read(row["uri"][1:]) for row in own]
        for row, answer in zip(
            own, Labeler(bundle, "openvino", num_threads=1, batch_size=5).label(images), strict=True
        ):
            assert row["status"] == answer.status
            if answer.confidences is not None:
                assert {pair["label"]: pair["confidence"] for pair in row["scores"]} == dict(
                    zip(bundle.labels, answer.confidences.tolist(), strict=True)
                )


def test_model_that_has_a_row_already_gets_no_second_one(stage, tmp_path):
    items = stage.todo.read(0).drop_columns("lacking")
    _, rows = rows_of(replace(stage, todo=todo(tmp_path, items, [1, 2, 3, 3] * 3, "000000002-test")))
    by_model = {
        bundle.digest: [row for row in rows if row["bundle_digest"] == bundle.digest] for bundle in stage.bundles
    }
    assert [len(own) for own in by_model.values()] == [9, 9]
    assert items["uri"].to_pylist()[1] not in [row["uri"] for row in by_model[stage.bundles[0].digest]]


def test_a_worker_computes_in_what_the_run_asks_for(stage, monkeypatch):
    monkeypatch.setattr(openvino_engine, "takes_bfloat16", lambda bundle, graph, asked: asked == "bfloat16")
    for asked, expected in (("auto", "float32"), ("float32", "float32"), ("bfloat16", "bfloat16")):
        labelers = ChunkLabeler(replace(stage, precision=asked))._labelers
        assert [labeler.precision for labeler in labelers] == [expected] * 2


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_embeddings_are_the_features_that_the_last_layer_sees(stage, engine):
    stage = replace(stage, embeddings=True, engines=(engine, engine))
    _, rows = rows_of(stage)
    from labelmill.model.network import build_network, head_of, load_weights

    for bundle in stage.bundles:
        network = build_network(
            bundle.architecture, len(bundle.labels), image_size_px=bundle.preprocessing.image_size_px
        )
        load_weights(network, bundle.weights_path())
        head = head_of(network)
        weight, bias = head.weight.detach().numpy(), head.bias.detach().numpy()
        for row in rows:
            if row["bundle_digest"] != bundle.digest:
                continue
            if row["status"] != "ok":
                assert row["embedding"] is None
                continue
            features = np.array(row["embedding"], np.float32)
            np.testing.assert_array_equal(features, features.astype(np.float16).astype(np.float32))
            logits = features @ weight.T + bias
            powers = np.exp(logits - logits.max())
            said = powers / powers.sum() if bundle.task == "multi_class" else 1 / (1 + np.exp(-logits))
            kept = {pair["label"]: pair["confidence"] for pair in row["scores"]}
            np.testing.assert_allclose([kept[label] for label in bundle.labels], said, atol=5e-3)


def test_chunk_that_kills_every_worker_ends_the_run_instead_of_going_on_for_ever(stage):
    notes = open_store(stage.todo.folder)
    for number in range(4):
        notes.write(f"attempts/00000000/{number}", b"")
    with pytest.raises(ClusterError, match=r"died 4 times.*memory"):
        ChunkLabeler(stage).label(0)


def test_second_attempt_answers_as_the_first_would_have(stage):
    open_store(stage.todo.folder).write("attempts/00000000/1", b"")
    _, careful = rows_of(stage)
    assert not list(open_store(stage.todo.folder).keys("attempts"))
    _, usual = rows_of(replace(stage, run_id="000000002-test"))
    for one, other in zip(careful, usual, strict=True):
        assert (one["uri"], one["status"], one["error"]) == (other["uri"], other["status"], other["error"])
        for mine, theirs in zip(one["scores"] or [], other["scores"] or [], strict=True):
            assert mine["label"] == theirs["label"]
            assert mine["confidence"] == pytest.approx(theirs["confidence"], abs=1e-4)


@pytest.fixture
def on_a_strange_node(stage, tmp_path):
    """A stage whose worker may doubt its node, and ways to take from it what it needs."""
    return replace(stage, alone=False, doubts_its_node=True)


def test_a_worker_that_reads_no_picture_leaves_its_chunk_to_another_node(on_a_strange_node, tmp_path):
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    labeler = ChunkLabeler(on_a_strange_node)
    with pytest.raises(NodeError, match="images"):
        labeler.label(0)
    assert not list((tmp_path / "labels").rglob("*-test-*.parquet"))
    assert not list(open_store(on_a_strange_node.todo.folder).keys("attempts"))
    (tmp_path / "elsewhere").rename(tmp_path / "images")
    assert labeler.label(0).statuses == {"ok": 11, "unsupported": 1}


@pytest.fixture
def later(on_a_strange_node, tmp_path):
    """A worker that has read pictures, and the second half of them as its next chunk."""
    labeler = ChunkLabeler(on_a_strange_node)
    labeler.label(0)
    items = on_a_strange_node.todo.read(0).drop_columns("lacking").slice(6)
    stage = replace(on_a_strange_node, run_id="000000002-test", todo=todo(tmp_path, items, [3] * 6, "000000002-test"))
    labeler._finisher._stage = labeler._stage = stage
    return labeler


def test_a_worker_that_can_still_read_what_it_read_believes_that_others_are_missing(later, tmp_path):
    for number in range(6, 12):
        (tmp_path / "images" / f"{number:02d}.jpg").unlink()
    assert later.label(0).statuses == {"missing": 6}


def test_a_worker_whose_folder_is_gone_all_at_once_leaves_its_chunk_to_another_node(later, tmp_path):
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(NodeError, match="images") as found:
        later.label(0)
    assert not found.value.certain


def test_a_node_with_pictures_of_its_own_under_the_same_names_is_not_believed(on_a_strange_node, tmp_path):
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"another")
    with pytest.raises(NodeError, match="was listed as"):
        ChunkLabeler(on_a_strange_node).label(0)
    assert ChunkLabeler(replace(on_a_strange_node, doubts_its_node=False)).label(0).statuses == {"changed": 12}


def test_a_worker_that_cannot_write_leaves_its_chunk_to_another_node(on_a_strange_node, monkeypatch):
    def refuse(*_):
        raise ForbiddenError("the disk is read-only")

    labeler = ChunkLabeler(on_a_strange_node)
    monkeypatch.setattr(finish, "put_data_file", refuse)
    with pytest.raises(NodeError, match="read-only") as found:
        labeler.label(0)
    assert found.value.certain


def test_access_denied_to_all_is_not_a_row_of_each_until_somebody_has_looked(stage, monkeypatch):
    alone = replace(stage, doubts_its_node=True)
    denied = [ForbiddenError("AccessDenied")] * 5
    monkeypatch.setattr(fetch, "read_pictures", lambda items: denied[: len(items)])
    with pytest.raises(NodeError, match="AccessDenied") as found:
        ChunkLabeler(alone).label(0)
    assert not found.value.certain
    assert ChunkLabeler(replace(alone, doubts_its_node=False)).label(0).statuses == {"forbidden": 12}


def test_keys_that_are_refused_end_no_picture_even_where_no_node_is_doubted(stage, monkeypatch):
    labeler = ChunkLabeler(stage)
    labeler.label(0)
    labeler._finisher._stage = labeler._stage = replace(stage, run_id="000000002-test")

    def refuse(items):
        raise CredentialsError("ExpiredToken")

    monkeypatch.setattr(fetch, "read_pictures", refuse)
    with pytest.raises(NodeError, match="ExpiredToken") as found:
        labeler.label(0)
    assert found.value.certain


def test_a_worker_that_sees_no_table_writes_nothing(on_a_strange_node, tmp_path):
    strange = replace(on_a_strange_node.todo, folder=str(tmp_path / "nowhere"))
    with pytest.raises(NodeError, match="nowhere"):
        ChunkLabeler(replace(on_a_strange_node, todo=strange)).label(0)
    assert not (tmp_path / "nowhere").exists()


def test_a_worker_that_sees_no_registry_leaves_its_chunk_to_another_node(on_a_strange_node, tmp_path, monkeypatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path / "cache"))
    bundles = tuple(replace(bundle, uri=str(tmp_path / "nowhere")) for bundle in on_a_strange_node.bundles)
    with pytest.raises(NodeError, match="nowhere"):
        ChunkLabeler(replace(on_a_strange_node, bundles=bundles)).label(0)
    with pytest.raises(BundleError, match="nowhere"):
        ChunkLabeler(replace(on_a_strange_node, bundles=bundles, doubts_its_node=False)).label(0)
