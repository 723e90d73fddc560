"""The label job's promise on a real Ray: every listed picture ends as exactly one row, and as its own."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundles import make_bundle
from labelmill.model.labeler import Labeler
from labelmill.model.registry import Registry
from labelmill.storage import open_store
from running import label_spec, labelmill, rows_of


def picture(seed, size=(60, 40), kind="JPEG"):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize(size, Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


def fill(folder, count):
    folder.mkdir(parents=True)
    for index in range(count):
        (folder / f"{index:04d}.jpg").write_bytes(picture(index))
    return folder


def spec(tmp_path, registry, images, **more):
    table = tmp_path / "labels"
    return table, label_spec(
        tmp_path / "label.yaml", registry=registry, model="tiny@1", images=images, output=table, **more
    )


def receipt_of(table):
    """Of the only run so far."""
    [file] = table.glob("_labelmill/receipts/*.json")
    return json.loads(file.read_text())


def huge_png():
    """40,000 x 40,000 pixels in a few hundred bytes: a header, and next to nothing behind it."""
    import struct
    import zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def test_rows_out_are_pictures_in_and_each_row_is_its_own(tmp_path, registry):
    images = fill(tmp_path / "images", 130)
    table, job = spec(tmp_path, registry, images)
    first = labelmill("run", job)
    assert first.returncode == 0, first.stderr
    clean = {row["uri"]: row for row in rows_of(table)}
    assert sorted(clean) == sorted(str(path) for path in images.iterdir())

    # What a bundle says straight away, without Ray and without a table.
    labeler = Labeler(Registry(registry).resolve("tiny@1"), "openvino", num_threads=1)
    for uri, answer in zip(clean, labeler.label([Path(uri).read_bytes() for uri in clean]), strict=True):
        row = clean[uri]
        assert row["status"] == answer.status == "ok"
        assert (row["width_px"], row["height_px"]) == (60, 40)
        assert [p["label"] for p in row["labels"]] == [label for label, _ in labeler.bundle.decide(answer.confidences)]
        by_label = {pair["label"]: pair["confidence"] for pair in row["scores"]}
        np.testing.assert_allclose(
            [by_label[label] for label in labeler.bundle.labels], answer.confidences, rtol=0, atol=1e-5
        )

    receipt = receipt_of(table)
    assert (receipt["engine"], receipt["precision"]) == ("openvino", "auto")
    assert list(receipt["computed_in"].values()) in (["float32"], ["bfloat16"])
    assert sum(receipt["wall_by_stage_s"].values()) == pytest.approx(receipt["wall_s"], rel=0.02)
    assert receipt["wall_by_stage_s"].keys() >= {"start-up", "fetch", "decode", "forward", "write", "idle", "commit"}
    assert sum(receipt["pictures_by_bucket"]) == pytest.approx(130, abs=1)
    assert sum(receipt["histograms"]["long_side_px"].values()) == 130
    assert receipt["traffic"]["read_bytes"] >= sum(path.stat().st_size for path in images.iterdir())
    page = next(table.glob("_labelmill/receipts/*.html")).read_text()
    assert page.count("data:image/jpeg;base64,") >= 4
    assert f"receipt: {next(table.glob('_labelmill/receipts/*.html'))}" in first.stdout

    again = labelmill("run", job)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    shown = labelmill("labels", table, "--limit", 0)
    assert len([line for line in shown.stdout.splitlines() if line.endswith(".html")]) == 2

    # The same pictures, and five that are none, into another table.
    bad = {
        "0001a.jpg": (b"", "unreadable"),
        "0002a.jpg": (picture(1)[:300], "unreadable"),
        "0003a.jpg": (picture(3, kind="PNG"), "ok"),
        "0004a.jpg": (b"<!DOCTYPE html><html><body>not here</body></html>", "unsupported"),
        "0005a.png": (huge_png(), "too_large"),
    }
    for name, (data, _) in bad.items():
        (images / name).write_bytes(data)
    (tmp_path / "second").mkdir()
    table, job = spec(tmp_path / "second", registry, images)
    mixed = labelmill("run", job)
    assert mixed.returncode == 0, mixed.stderr
    rows = {row["uri"]: row for row in rows_of(table)}
    assert len(rows) == len(rows_of(table)) == 135
    for name, (_, status) in bad.items():
        row = rows.pop(str(images / name))
        assert row["status"] == status
        assert (row["error"] is None) == (status == "ok")
        assert bool(row["labels"]) <= (status == "ok")
    own = ("uri", "etag", "size_bytes", "modified_at", "status", "error", "width_px", "height_px", "labels")
    for uri, row in rows.items():
        assert [row[name] for name in own] == [clean[uri][name] for name in own]


def test_a_changed_picture_and_a_new_model_are_labelled_again_and_nothing_else(tmp_path, registry):
    images = fill(tmp_path / "images", 20)
    table, job = spec(tmp_path, registry, images)
    assert labelmill("run", job).returncode == 0
    (images / "0003.jpg").write_bytes(picture(999))
    (images / "new.jpg").write_bytes(picture(1000))
    assert labelmill("run", job).returncode == 0
    counts = Counter(Path(row["uri"]).name for row in rows_of(table))
    assert counts.pop("0003.jpg") == 2
    assert set(counts.values()) == {1}
    assert len(counts) == 20

    make_bundle(registry, seed=7)
    assert labelmill("run", job, "--set", "model=tiny@2").returncode == 0
    assert Counter(row["model"] for row in rows_of(table)) == {"tiny@1": 22, "tiny@2": 21}
    shown = labelmill("labels", table, "--current", "--limit", 50)
    assert shown.stdout.count("tiny@2  20") == 21  # one current row a picture, each with its date
    assert "tiny@1" not in shown.stdout

    # Rolled back: nothing is labelled, and the labels are those of before, but for whoever asks for others.
    assert "nothing to do" in labelmill("run", job).stdout
    assert len(rows_of(table)) == 43
    shown = labelmill("labels", table, "--current", "--limit", 50)
    assert shown.stdout.count("tiny@1  20") == 21
    assert "tiny@2" not in shown.stdout
    assert "'tiny@1'" in labelmill("labels", "view", table, "--for", "spark").stdout
    shown = labelmill("labels", table, "--current", "--model", "tiny@2", "--limit", 50)
    assert shown.stdout.count("tiny@2  20") == 21


def test_two_models_label_in_one_pass_what_each_lacks(tmp_path, registry):
    images = fill(tmp_path / "images", 20)
    table, job = spec(tmp_path, registry, images)
    assert labelmill("run", job).returncode == 0
    second = make_bundle(registry, "second", "multi_class", ("ant", "bee"), seed=3).reference
    (images / "new.jpg").write_bytes(picture(1000))
    job.write_text(job.read_text().replace("model: tiny@1", f"models: [tiny@1, {second}]\nembeddings: false"))
    both = labelmill("run", job)
    assert both.returncode == 0, both.stderr
    rows = rows_of(table)
    assert Counter(row["model"] for row in rows) == {"tiny@1": 21, second: 21}
    assert len({(row["uri"], row["model"]) for row in rows}) == 42
    assert "21 pictures to label" in both.stderr  # each once, whichever models lack it
    assert "nothing to do" in labelmill("run", job).stdout


def test_the_same_job_on_an_object_store(tmp_path, s3):
    make_bundle(f"{s3}/models")
    store = open_store(f"{s3}/inbox")
    names = ["a.jpg", "deep/er/b c.jpg", "odd #%+&?.jpg", "ümläut.jpg", "broken.jpg"]
    for index, name in enumerate(names):
        store.write(name, picture(index) if name != "broken.jpg" else b"no")
    _, job = spec(tmp_path, f"{s3}/models", f"{s3}/inbox")
    table = f"{s3}/tables/labels"
    done = labelmill("run", job, "--set", f"output={table}")
    assert done.returncode == 0, done.stderr
    rows = rows_of(table)
    assert [row["uri"] for row in rows] == sorted(f"{s3}/inbox/{name}" for name in names)
    assert Counter(row["status"] for row in rows) == {"ok": 4, "unsupported": 1}
    aside = open_store(f"{table}/_labelmill/receipts")
    [name] = [key for key in list(aside.keys()) if key.endswith(".json")]
    asked = json.loads(aside.read(name))["traffic"]
    assert asked["lists"] >= 1
    assert asked["gets"] >= 5
    assert asked["puts"] >= 1
    assert "nothing to do" in labelmill("run", job, "--set", f"output={table}").stdout


def test_too_many_failures_stop_the_run_and_keep_what_was_done(tmp_path, registry):
    images = fill(tmp_path / "images", 300)
    for index in range(0, 300, 5):
        (images / f"{index:04d}.jpg").write_bytes(b"not a picture")
    table, job = spec(tmp_path, registry, images)
    stopped = labelmill("run", job)
    assert stopped.returncode == 3
    assert "max_failure_rate allows 5.0%: unsupported" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    kept = rows_of(table)
    assert 200 <= len(kept) <= 300
    again = labelmill("run", job)  # whether or not there is anything left to do
    assert again.returncode == 3, again.stderr
    assert "in runs that stopped" in again.stderr
    assert labelmill("run", job, "--set", "max_failure_rate=0.5").returncode == 0
    assert Counter(row["uri"] for row in rows_of(table)) == Counter(str(path) for path in images.iterdir())
