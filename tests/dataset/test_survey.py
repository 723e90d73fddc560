from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from labelmill.dataset import survey as survey_module
from labelmill.dataset.survey import Survey, survey
from labelmill.errors import StorageError, UnavailableError
from labelmill.storage import LISTING_SCHEMA, open_store
from pictures import jpeg_bytes

NUM_PICTURES = 150


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pictures, one of them damaged, and a cache of its own."""
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(NUM_PICTURES):
        (folder / f"{number:03d}.jpg").write_bytes(jpeg_bytes(40, 30, seed=number))
    (folder / "007.jpg").write_bytes(b"no picture")
    return folder


def listed(folder: Path) -> pa.Table:
    return pa.Table.from_batches(open_store(str(folder)).list(), schema=LISTING_SCHEMA)


def look(listing: pa.Table) -> Survey:
    uris, etags = (listing.column(name).combine_chunks() for name in ("uri", "etag"))
    return survey(uris, etags, max_pixels=10**6)


def test_every_picture_keeps_its_own_place(pictures: Path):
    (pictures / "100.jpg").write_bytes((pictures / "050.jpg").read_bytes())
    listing = listed(pictures)
    (pictures / "060.jpg").unlink()
    seen = look(listing)
    assert {Path(uri).name for uri in seen.unreadable} == {"007.jpg", "060.jpg"}
    assert np.flatnonzero(~seen.readable).tolist() == [7, 60]
    assert seen.sights[50] == seen.sights[100]
    assert len(np.unique(seen.sights["bytes"][seen.readable])) == NUM_PICTURES - 3


def test_a_picture_is_looked_at_once_in_each_version(pictures: Path, monkeypatch: pytest.MonkeyPatch):
    first = look(listed(pictures))
    read: list[str] = []

    def counting(items: list[tuple[str, str]]) -> list[bytes | StorageError]:
        read.extend(Path(uri).name for uri, _ in items)
        return survey_module_read(items)

    survey_module_read = survey_module.read_pictures
    monkeypatch.setattr(survey_module, "read_pictures", counting)
    again = look(listed(pictures))
    assert read == ["007.jpg"], "only what had no sight to remember"
    assert (again.sights == first.sights).all()
    (pictures / "020.jpg").write_bytes(jpeg_bytes(41, 30, seed=999))
    changed = look(listed(pictures))
    assert read[1:] == ["007.jpg", "020.jpg"]
    assert (changed.sights != first.sights).nonzero()[0].tolist() == [20]


def test_a_store_that_is_down_ends_the_look(pictures: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(survey_module, "read_pictures", lambda items: [UnavailableError("no answer")] * len(items))
    with pytest.raises(UnavailableError):
        look(listed(pictures))


def test_a_cache_that_cannot_be_written_is_one_clear_error(pictures: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(pictures / "000.jpg"))
    with pytest.raises(StorageError, match=r"Set LABELMILL_CACHE to a folder"):
        look(listed(pictures))
