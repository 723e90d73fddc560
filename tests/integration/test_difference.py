"""What changes in a store between two nights, on real runs: pictures go and come back, and failures are tried again."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from bundles import make_bundle
from running import label_spec, labelmill, rows_of


def picture(seed):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def history(table):
    """Per picture, the statuses of its rows from the first run to the last."""
    found = {}
    for row in rows_of(table):
        found.setdefault(Path(row["uri"]).name, []).append(row["status"])
    return found


def receipts(table):
    return [json.loads(path.read_text()) for path in sorted(table.glob("_labelmill/receipts/*.json"))]


def test_a_picture_goes_and_comes_back_and_a_damaged_one_is_tried_again(tmp_path):
    make_bundle(str(tmp_path / "registry"))
    images, table = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    for name in ("stays.jpg", "goes.jpg"):
        (images / name).write_bytes(picture(1))
    (images / "damaged.jpg").write_bytes(picture(2)[:300])
    job = label_spec(
        tmp_path / "label.yaml", registry=tmp_path / "registry", model="tiny@1", images=images, output=table
    )
    first = labelmill("run", job)
    assert first.returncode == 0, first.stderr

    (images / "goes.jpg").rename(tmp_path / "goes.jpg")
    for _ in range(2):  # the second night has nothing new to say of it
        night = labelmill("run", job)
        assert night.returncode == 0, night.stderr
    assert history(table) == {"stays.jpg": ["ok"], "goes.jpg": ["ok", "deleted"], "damaged.jpg": ["unreadable"]}
    assert [receipt["pictures_deleted"] for receipt in receipts(table)] == [0, 1, 0]
    first_row, gone = (row for row in rows_of(table) if row["uri"].endswith("goes.jpg"))
    assert {name: gone[name] for name in ("etag", "size_bytes", "modified_at", "model", "labels", "width_px")} == {
        **{name: first_row[name] for name in ("etag", "size_bytes", "modified_at", "model")},
        "labels": [],
        "width_px": None,
    }
    assert "no longer in the store" in labelmill("labels", table, "--status", "deleted").stdout

    (tmp_path / "goes.jpg").rename(images / "goes.jpg")  # as it was: the same etag
    back = labelmill("run", job, "--set", "retry=[unreadable]")
    assert back.returncode == 0, back.stderr
    assert history(table) == {
        "stays.jpg": ["ok"],
        "goes.jpg": ["ok", "deleted", "ok"],
        "damaged.jpg": ["unreadable", "unreadable"],
    }
    assert "nothing to do" in labelmill("run", job).stdout
