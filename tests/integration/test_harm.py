"""Pictures that crash or hang the process that decodes them cost only themselves."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from bundles import make_bundle
from running import label_spec, labelmill, rows_of


def picture(seed):
    out = io.BytesIO()
    colours = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(colours).resize((60, 40), Image.Resampling.BICUBIC).save(out, "JPEG")
    return out.getvalue()


def test_pictures_that_crash_or_hang_their_process_cost_only_themselves(tmp_path, harmful_decoder):
    make_bundle(tmp_path / "registry")
    images = tmp_path / "images"
    images.mkdir()
    for index in range(150):
        (images / f"{index:03d}.jpg").write_bytes(picture(index))
    (images / "040.jpg").write_bytes(picture(40) + harmful_decoder.CRASH)
    (images / "050.jpg").write_bytes(picture(50) + harmful_decoder.HANG)
    spec = label_spec(
        tmp_path / "label.yaml",
        registry=tmp_path / "registry",
        model="tiny@1",
        images=images,
        output=tmp_path / "labels",
        timeout_s=3,
    )
    done = labelmill("run", spec)
    assert done.returncode == 0, done.stderr
    rows = {Path(row["uri"]).name: row for row in rows_of(tmp_path / "labels")}
    assert len(rows) == len(rows_of(tmp_path / "labels")) == 150
    assert Counter(row["status"] for row in rows.values()) == {"ok": 148, "crashed": 1, "timed_out": 1}
    assert (rows["040.jpg"]["status"], rows["050.jpg"]["status"]) == ("crashed", "timed_out")
    assert "SIGSEGV" in rows["040.jpg"]["error"] and "timeout_s" in rows["050.jpg"]["error"]
    left = [path for path in (tmp_path / "labels" / "_labelmill" / "runs").rglob("*") if path.is_file()]
    assert left == []  # neither chunks nor the notes of attempts

    again = labelmill("run", spec)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout  # what did harm once is not tried again without being asked
