import logging
from pathlib import Path

import pytest

from dataset.test_training_set import csv_file, names_of, spec_for
from labelmill.dataset import TrainingSet, inspect, load_training_set
from labelmill.errors import DataError
from labelmill.spec import TrainSpec
from pictures import encoded, jpeg_bytes, png_bytes, scene


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty pictures; 01 is 00 byte for byte, and 02 and 03 show the same in another size and format."""
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02d}.jpg").write_bytes(jpeg_bytes(64, 48, seed=number, quality=95))
    (folder / "01.jpg").write_bytes((folder / "00.jpg").read_bytes())
    (folder / "03.jpg").write_bytes(encoded(scene(128, 96, seed=2), "JPEG", quality=60))
    return folder


def loaded(images: Path, splits: dict[int, str], labels: dict[int, str]) -> tuple[TrainSpec, TrainingSet]:
    """Cats and dogs, in training where `splits` says nothing else."""
    rows = [f"{n:02d}.jpg,{labels.get(n, 'cat' if n % 4 < 2 else 'dog')},{splits.get(n, 'train')}" for n in range(40)]
    spec = spec_for(images, csv_file(images, rows, "uri,labels,split"), "multi_class")
    return spec, load_training_set(spec)


SPLITS = (
    {1: "test", 3: "validation"} | dict.fromkeys(range(20, 24), "validation") | dict.fromkeys(range(30, 40), "test")
)


def test_pictures_of_one_look_in_two_splits_are_told(images: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, logger="labelmill"):
        found = inspect(*loaded(images, SPLITS, {})).content["duplicates"]
    assert found["num_in_train"] == {"validation": 1, "test": 1}
    assert (found["num_exact"], found["num_near"], found["num_groups"], found["num_conflicting"]) == (1, 1, 2, 0)
    exact, near = sorted(found["groups"], key=lambda group: not group["exact"])
    assert [(Path(row["uri"]).name, row["split"], row["labels"]) for row in exact["pictures"]] == [
        ("00.jpg", "train", ["cat"]),
        ("01.jpg", "test", ["cat"]),
    ]
    assert [Path(row["uri"]).name for row in near["pictures"]] == ["02.jpg", "03.jpg"]
    assert exact["across_splits"] and near["across_splits"] and not near["exact"]
    assert "1 validation pictures and 1 test pictures look like a training picture" in caplog.text


def test_twins_with_different_labels_are_told(images: Path):
    found = inspect(*loaded(images, SPLITS, {1: "dog"})).content["duplicates"]
    assert found["num_conflicting"] == 1
    assert [row["labels"] for row in found["groups"][0]["pictures"]] == [["cat"], ["dog"]]


def test_twins_that_all_train_flatter_nobody(images: Path, caplog: pytest.LogCaptureFixture):
    splits = {n: word for n, word in SPLITS.items() if n not in (1, 3)}
    found = inspect(*loaded(images, splits, {})).content["duplicates"]
    assert found["num_in_train"] == {"validation": 0, "test": 0}
    assert found["num_groups"] == 2 and not any(group["across_splits"] for group in found["groups"])
    assert "look like" not in caplog.text


def test_labels_with_few_pictures_to_measure_them_are_told(images: Path, caplog: pytest.LogCaptureFixture):
    spec, training_set = loaded(images, SPLITS, {5: "owl"})
    assert inspect(spec, training_set).content["rare_labels"] == [
        {"label": "cat", "train": 12, "validation": 2, "test": 5},
        {"label": "dog", "train": 11, "validation": 3, "test": 6},
        {"label": "owl", "train": 1, "validation": 0, "test": 0},
    ]
    assert "3 labels have fewer than 10 test pictures, too few to say how good they are: cat, dog, owl" in caplog.text


def test_what_cannot_be_read_is_known_before_training(images: Path):
    (images / "09.jpg").write_bytes(b"no picture")
    assert {Path(uri).name for uri in inspect(*loaded(images, SPLITS, {})).unreadable} == {"09.jpg"}


def test_nobody_looks_at_the_pictures_when_duplicates_are_ignored(images: Path):
    spec, training_set = loaded(images, SPLITS, {})
    for picture in images.glob("*.jpg"):
        picture.unlink()
    data = spec.data.model_copy(update={"duplicates": "ignore"})
    found = inspect(spec.model_copy(update={"data": data}), training_set)
    assert found.content["duplicates"] is None and not found.unreadable


@pytest.mark.parametrize("seed", range(5))
def test_twins_can_be_kept_in_one_split(images: Path, seed: int):
    rows = csv_file(images, [f"{n:02d}.jpg,{'cat' if n % 2 else 'dog'}" for n in range(40)])
    split = {"train": 0.4, "validation": 0.3, "test": 0.3, "seed": seed}
    spec = spec_for(images, rows, "multi_class", duplicates="together", split=split)
    training_set = load_training_set(spec)
    for names in map(names_of, training_set.splits().values()):
        assert ("00.jpg" in names) == ("01.jpg" in names)
        assert ("02.jpg" in names) == ("03.jpg" in names)
    assert not any(inspect(spec, training_set).content["duplicates"]["num_in_train"].values())


def test_twins_cannot_be_moved_where_the_splits_are_given(images: Path):
    rows = csv_file(images, [f"{n:02d}.jpg,cat;dog,train" for n in range(40)], "uri,labels,split")
    with pytest.raises(DataError, match=r"set data.duplicates: report"):
        load_training_set(spec_for(images, rows, duplicates="together"))


def test_a_source_is_told_with_its_share(images: Path, tmp_path: Path):
    folder = tmp_path / "synthetic" / "cat"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}.png").write_bytes(png_bytes(seed=100 + number))
    (folder / "copy.jpg").write_bytes((images / "30.jpg").read_bytes())
    rows = csv_file(
        images,
        [f"{n:02d}.jpg,{'cat' if n % 2 else 'dog'},{SPLITS.get(n, 'train')}" for n in range(40)],
        "uri,labels,split",
    )
    source = {"images": str(folder.parent), "labels": "folders", "weight": 0.25}
    spec = spec_for(images, rows, "multi_class", sources=[source])
    content = inspect(spec, load_training_set(spec)).content
    assert content["sources"] == [{"images": str(folder.parent), "weight": 0.25, "num_pictures": 4, "share": 0.2}]
    assert content["duplicates"]["num_in_train"]["test"] == 2, "a source may hold what the test pictures hold"
