"""What the tests of a chunk's way share: two models, and a dozen pictures."""

import pyarrow as pa
import pytest

from bundles import make_bundle
from label.work.made import picture, todo
from labelmill.label.work.stage import Stage
from labelmill.storage import open_store


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
        settings_digest="0" * 16,
        scores="all",
        embeddings=False,
        max_pixels=10**8,
        timeout_s=60,
        batch_size=5,
        names_are_exclusive=True,
    )
