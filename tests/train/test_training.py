"""What would end a run late is told of at its start."""

import pytest

from labelmill.errors import StorageError
from labelmill.spec import LoadedSpec
from labelmill.train import training
from train.runs import shapes_source, shapes_spec


def test_a_cache_that_cannot_be_written_is_told_of_before_anything_is_trained(tmp_path, monkeypatch):
    spec = shapes_spec(tmp_path)
    spec = spec.model_copy(update={"data": spec.data.model_copy(update={"duplicates": "ignore"})})  # no look, no cache
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(training, "make_candidate", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(StorageError, match="Set LABELMILL_CACHE"):
        training.run(LoadedSpec(spec=spec, source=shapes_source(tmp_path), path="train.yaml"))
