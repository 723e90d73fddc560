"""The stage without Ray: chunks in, data files out."""

import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bundles import make_bundle
from labelmill.errors import ClusterError
from labelmill.label.todo.todo import Todo
from labelmill.label.work.stage import ChunkLabeler, Stage
from labelmill.model.engines import openvino_engine
from labelmill.model.engines.torch_engine import TorchEngine, TorchOnGpu
from labelmill.model.labeler import Labeler
from labelmill.storage import open_store
from pictures import jpeg_bytes


def picture(seed, size=(60, 40)):
    out = io.BytesIO()
    colours = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    registry = tmp_path_factory.mktemp("registry")
    return (
        make_bundle(registry, "first"),
        make_bundle(registry, "second", "multi_class", ("ant", "bee"), seed=3, image_size_px=48),
    )


@pytest.fixture
def stage(tmp_path, bundles):
    images = open_store(str(tmp_path / "images"))
    for index in range(12):
        images.write(f"{index:02d}.jpg", picture(index) if index != 5 else b"no picture")
    [listed] = images.list()
    items = pa.Table.from_batches([listed]).sort_by("uri")
    return Stage(
        bundles=bundles,
        engines=("openvino", "openvino"),
        precision="auto",
        todo=todo(tmp_path, items, [3] * 12),
        output=str(tmp_path / "labels"),
        run_id="000000001-test",
        labelled_on="2026-01-01",
        settings_digests=("0" * 16, "1" * 16),
        scores="all",
        embeddings=False,
        max_pixels=10**8,
        timeout_s=60,
        batch_size=5,
        names_are_exclusive=True,
    )


def todo(tmp_path, items, lacking, run_id="000000001-test"):
    """One chunk, as the plan writes it."""
    folder = tmp_path / "labels" / "_labelmill" / "runs" / run_id
    out = io.BytesIO()
    if "offset" not in items.column_names:
        items = items.append_column("offset", pa.nulls(items.num_rows, pa.int64()))
    pq.write_table(items.append_column("lacking", pa.array(lacking, pa.int64())), out)
    open_store(str(folder)).write("todo-000000.parquet", out.getvalue())
    return Todo(str(folder), items.num_rows, 64, items.num_rows)


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
    monkeypatch.setattr(openvino_engine, "takes_bfloat16", lambda bundle, graph: True)
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


def test_pictures_that_a_gpu_decodes_get_the_rows_that_they_get_on_the_cores(stage, tmp_path):
    images = open_store(str(tmp_path / "images"))
    images.write("00.jpg", jpeg_bytes(60, 40, progressive=True))
    items = pa.Table.from_batches(images.list()).sort_by("uri")
    stage = replace(
        stage, embeddings=True, engines=("torch", "torch"), todo=todo(tmp_path, items, [3] * 12, "000000004-test")
    )
    seen = []

    class Watched(TorchOnGpu):  # on the CPU, as everything here
        def forward(self, jpegs, sizes_bytes, pixels_bhwc):
            seen.append((len(sizes_bytes), *map(len, pixels_bhwc)))
            return super().forward(jpegs, sizes_bytes, pixels_bhwc)

    def on_gpu(stage):
        gpu = Watched([TorchEngine(bundle, embeddings=True) for bundle in stage.bundles])
        return pq.read_table(f"{stage.output}/{ChunkLabeler(stage, gpu).label(0).file.path}").to_pylist()

    _, expected = rows_of(stage)
    assert_alike(on_gpu(replace(stage, run_id="000000002-test")), expected)
    assert seen == [(4, 1, 1), (4, 0, 0), (2, 0, 0)]  # in batches of 5, one progressive and one that is no picture
    seen.clear()
    open_store(stage.todo.folder).write("attempts/00000000/1", b"")
    assert_alike(on_gpu(replace(stage, run_id="000000003-test")), expected)
    assert seen == [(0, 1, 1)] * 11  # after a death each alone, and decoded where it can be watched


def test_pictures_that_a_gpu_cannot_decode_are_decoded_on_the_cores(stage):
    class Refusing(TorchOnGpu):
        def forward(self, jpegs, sizes_bytes, pixels_bhwc):
            return None if sizes_bytes else super().forward(jpegs, sizes_bytes, pixels_bhwc)

    stage = replace(stage, engines=("torch", "torch"))
    _, expected = rows_of(stage)
    refusing = Refusing([TorchEngine(bundle) for bundle in stage.bundles])
    chunk = ChunkLabeler(replace(stage, run_id="000000002-test"), refusing).label(0)
    assert_alike(pq.read_table(f"{stage.output}/{chunk.file.path}").to_pylist(), expected)


def assert_alike(rows, expected):
    assert [(row["uri"], row["bundle_digest"], row["status"]) for row in rows] == [
        (row["uri"], row["bundle_digest"], row["status"]) for row in expected
    ]
    for row, wanted in zip(rows, expected, strict=True):
        assert (row["error"], row["width_px"], row["height_px"]) == tuple(
            wanted[name] for name in ("error", "width_px", "height_px")
        )
        for found, other in zip(row["scores"] or [], wanted["scores"] or [], strict=True):
            assert found["label"] == other["label"]
            assert found["confidence"] == pytest.approx(other["confidence"], abs=0.02)
        assert (row["embedding"] is None) == (wanted["embedding"] is None)


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
