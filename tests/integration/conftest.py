"""What the label job's tests share: a model, and pictures that take their time."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from bundles import make_bundle

SLOW_PICTURES = 384  # six chunks


@pytest.fixture(scope="session")
def registry(tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("registry"))
    make_bundle(uri)
    return uri


@pytest.fixture(scope="session")
def slow_store(tmp_path_factory):
    """Pictures that take long enough to decode that a run is caught in the middle: many names of one large file."""
    folder = tmp_path_factory.mktemp("slow")
    noise = np.random.default_rng(0).integers(0, 256, (1100, 1100, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    first = folder / "0000.png"
    first.write_bytes(buffer.getvalue())
    for index in range(1, SLOW_PICTURES):
        os.link(first, folder / f"{index:04d}.png")
    return folder
