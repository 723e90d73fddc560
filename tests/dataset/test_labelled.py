"""Labels meet their pictures, however an address is written, and whatever its ending is."""

import os
from pathlib import Path

import pytest

from labelmill.dataset.labelled import load_labelled
from labelmill.errors import DataError
from labelmill.storage import open_store
from pictures import jpeg_bytes


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in #1"
    for name in (b"a b.jpg", b"deep/c%20d.heic", b"no-ending", b"caf\xe9.jfif", b"x.orig"):
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name)
    (folder / "link.jpg").symlink_to("a b.jpg")
    (folder / "latest").symlink_to("deep")
    (tmp_path / "way").symlink_to(folder)
    (tmp_path / "lake.jpg").write_bytes(b"elsewhere")
    (folder / "lake.jpg").symlink_to(tmp_path / "lake.jpg")
    return folder


def found(images: Path | str, labels: Path | str) -> dict[str, str]:
    labelled = load_labelled(str(images), str(labels))
    names = [labelled.labels[row.argmax()] for row in labelled.targets]
    return dict(zip(labelled.uris.to_pylist(), names, strict=True))


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("a b.jpg", "a b.jpg"),
        ("./deep/../a b.jpg", "a b.jpg"),
        ("deep//c%20d.heic", "deep/c%20d.heic"),
        ("{}/./a b.jpg", "a b.jpg"),
        ("file://{quoted}/a%20b.jpg", "a b.jpg"),
        ("file://{quoted}/deep/c%2520d.heic", "deep/c%20d.heic"),
        ("file://{quoted}/caf%E9.jfif", "file://{quoted}/caf%E9.jfif"),
        ("link.jpg", "link.jpg"),
        ("latest/c%20d.heic", "deep/c%20d.heic"),
        ("{tmp}/way/a b.jpg", "a b.jpg"),
        ("../way/no-ending", "no-ending"),
        ("{tmp}/lake.jpg", "lake.jpg"),
        ("x.orig", "x.orig"),
    ],
)
@pytest.mark.parametrize("root", ["plain", "link", "file"])
def test_a_labels_file_names_a_picture_in_any_way(
    images: Path, tmp_path: Path, root: str, written: str, name: str
) -> None:
    places = {"plain": str(images), "link": f"{tmp_path}/way", "file": f"file://{tmp_path}/in%20%231"}
    base = f"{tmp_path}/way" if root == "link" else str(images)
    quoted = base.replace(" #", "%20%23")
    more = {"tmp": tmp_path, "quoted": quoted}
    (tmp_path / "labels.csv").write_text(f'uri,labels\n"{written.format(images, **more)}",cat\n')
    name = name.format(**more)
    expected = name if name.startswith("file:") else f"{base}/{name}"
    assert found(places[root], f"file://{tmp_path}/labels.csv") == {expected: "cat"}


def test_two_names_of_one_picture_are_one_row_or_a_contradiction(images: Path, tmp_path: Path) -> None:
    rows = ["a b.jpg,cat", f"{tmp_path}/way/a b.jpg,cat", "./a b.jpg,cat"]
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(["uri,labels", *rows]))
    assert len(found(images, labels)) == 1
    labels.write_text("\n".join(["uri,labels", *rows, "deep/../a b.jpg,dog"]))
    with pytest.raises(DataError, match=r"a b\.jpg stand there more than once, with different labels"):
        found(images, labels)


@pytest.mark.parametrize(
    "written", ["a%20b.jpg", "file://host/a.jpg", "https://host/a.jpg", "s3://b/a.jpg", "../x.jpg", ""]
)
def test_what_lies_nowhere_below_the_images_is_named(images: Path, tmp_path: Path, written: str) -> None:
    (tmp_path / "labels.csv").write_text(f"uri,labels\na b.jpg,cat\n{written},dog\n")
    with pytest.raises(DataError, match="are not below images"):
        found(images, tmp_path / "labels.csv")


def test_a_relative_address_in_a_bucket_is_a_key(s3: str, tmp_path: Path) -> None:
    store = open_store(f"{s3}/in")
    for key in ("a.jpg", "b//c.jpg", "d%20e.jpg"):
        store.write(key, b"x")
    (tmp_path / "labels.csv").write_text(
        f"uri,labels\n./b/../a.jpg,cat\nb//c.jpg,cat\n{s3}/in/d%20e.jpg,cat\n./b//c.jpg,cat\n"
    )
    assert set(found(store.uri, tmp_path / "labels.csv")) == {
        store.address(k) for k in ("a.jpg", "b//c.jpg", "d%20e.jpg")
    }


def test_folders_take_what_the_label_job_takes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture = jpeg_bytes(seed=1)
    files = {
        b"cat/1.jfif": b"",
        b"cat/2.HEIC": b"",
        b"cat/3.heif": b"",
        b"cat/4": picture,
        b"dog/5.avif": b"",
        b"dog/README": b"a text",
        b"dog/.hidden": picture,
        b"dog/empty": b"",
        b"dog/6.txt": picture,
        b"k\xe4fer/caf\xe9.jpg": b"",
        b"LICENSE": b"a text",
    }
    for name, data in files.items():
        path = tmp_path / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    caplog.set_level("INFO")
    assert found(tmp_path, "folders") == {
        **{f"{tmp_path}/cat/{name}": "cat" for name in ("1.jfif", "2.HEIC", "3.heif", "4")},
        f"{tmp_path}/dog/5.avif": "dog",
        f"file://{tmp_path}/k%E4fer/caf%E9.jpg": "k\\xe4fer",
    }
    assert "5 files are no pictures, and left out: 3 without ending, 1 .hidden, 1 .txt" in caplog.text
