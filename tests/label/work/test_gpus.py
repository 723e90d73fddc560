"""A chunk on its way over a GPU, step by step and without Ray. What torch does on a GPU, it does here on the CPU."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from label.work.made import assert_alike, todo
from labelmill.errors import NodeError
from labelmill.label.work.chunk import Chunk
from labelmill.label.work.cores import ChunkLabeler
from labelmill.label.work.gpus import Fetcher, Networks, Writer
from labelmill.label.work.spent import newly_spent
from labelmill.model.engines import torch_engine
from labelmill.storage import Traffic, open_store, traffic
from pictures import jpeg_bytes


def rows_of(stage, chunk):
    return pq.read_table(f"{stage.output}/{chunk.file.path}").to_pylist()


def over_a_gpu(stage):
    """The chunk that comes out of the three steps."""
    return Writer(stage).write(Networks(stage).show(Fetcher(stage).fetch(0)))


@pytest.fixture
def seen(monkeypatch):
    """What the GPU is given: JPEGs, and pixels for each network."""
    calls = []

    class Watched(torch_engine.TorchOnGpu):
        def forward(self, jpegs, sizes_bytes, pixels_bhwc):
            calls.append((len(sizes_bytes), *map(len, pixels_bhwc)))
            return super().forward(jpegs, sizes_bytes, pixels_bhwc)

    monkeypatch.setattr(torch_engine, "TorchOnGpu", Watched)
    return calls


@pytest.fixture
def stage(stage, tmp_path):
    """With a picture that no GPU decodes, and one that is none."""
    images = open_store(str(tmp_path / "images"))
    images.write("00.jpg", jpeg_bytes(60, 40, progressive=True))
    items = pa.Table.from_batches(images.list()).sort_by("uri")
    made = todo(tmp_path, items, [3] * 12, "000000004-test")
    return replace(stage, embeddings=True, engines=("torch", "torch"), todo=made)


def test_pictures_that_a_gpu_decodes_get_the_rows_that_they_get_on_the_cores(stage, seen):
    expected = rows_of(stage, ChunkLabeler(stage).label(0))
    stage = replace(stage, run_id="000000002-test")
    newly_spent()
    before = traffic()
    chunk = over_a_gpu(stage)
    spent = traffic() - before
    assert_alike(rows_of(stage, chunk), expected)
    assert sorted(seen) == [(0, 1, 1), (5, 0, 0), (5, 0, 0)]  # in batches of 5
    assert (chunk.num_rows, chunk.statuses) == (12, {"ok": 11, "unsupported": 1})
    assert chunk.seconds.keys() == {"fetch", "decode", "forward", "write"}
    assert len(chunk.spent) == 3
    assert sum((step.traffic for step in chunk.spent), Traffic()) == spent  # though all of them ran in one process
    assert spent.read_bytes > 0
    assert not list(open_store(stage.todo.folder).keys("attempts"))


def test_after_a_death_each_is_decoded_alone_where_it_can_be_watched(stage, seen):
    expected = rows_of(stage, ChunkLabeler(stage).label(0))
    stage = replace(stage, run_id="000000002-test")
    open_store(stage.todo.folder).write("attempts/00000000-network/1", b"")
    assert_alike(rows_of(stage, over_a_gpu(stage)), expected)
    assert seen == [(0, 1, 1)] * 11


def test_pictures_that_a_gpu_cannot_decode_are_decoded_on_the_cores(stage, monkeypatch):
    class Refusing(torch_engine.TorchOnGpu):
        def forward(self, jpegs, sizes_bytes, pixels_bhwc):
            return None if sizes_bytes else super().forward(jpegs, sizes_bytes, pixels_bhwc)

    monkeypatch.setattr(torch_engine, "TorchOnGpu", Refusing)
    expected = rows_of(stage, ChunkLabeler(stage).label(0))
    stage = replace(stage, run_id="000000002-test")
    assert_alike(rows_of(stage, over_a_gpu(stage)), expected)


def test_a_chunk_without_any_picture_that_can_be_shown_gets_its_rows(stage, tmp_path):
    images = open_store(str(tmp_path / "images"))
    for index in range(12):
        images.write(f"{index:02d}.jpg", b"no picture")
    items = pa.Table.from_batches(images.list()).sort_by("uri")
    stage = replace(stage, todo=todo(tmp_path, items, [3] * 12, "000000005-test"))
    chunk = over_a_gpu(stage)
    assert chunk.statuses == {"unsupported": 12}
    assert len(rows_of(stage, chunk)) == 24


def test_a_chunk_whose_file_an_earlier_attempt_left_is_not_labelled_again(stage, seen):
    first = over_a_gpu(stage)
    seen.clear()
    again = Fetcher(stage).fetch(0)
    assert isinstance(again, Chunk)
    assert again.file.path == first.file.path
    assert seen == []


def test_models_that_could_not_be_loaded_ahead_are_loaded_with_the_first_chunk(stage, monkeypatch):
    failures = [NodeError("the registry is away")]

    class Flaky(torch_engine.TorchEngine):
        def __init__(self, *args, **kwargs):
            if failures:
                raise failures.pop()
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(torch_engine, "TorchEngine", Flaky)
    assert over_a_gpu(stage).statuses == {"ok": 11, "unsupported": 1}
    assert not failures


def test_models_that_cannot_be_loaded_are_an_error_of_the_chunk(stage, monkeypatch):
    def away(*_, **__):
        raise NodeError("the registry is away")

    monkeypatch.setattr(torch_engine, "TorchEngine", away)
    with pytest.raises(NodeError, match="the registry is away"):
        over_a_gpu(stage)
