"""Who trains, validates and tests, from a spec and a real folder."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelmill.dataset import TrainingSet, load_training_set
from labelmill.spec import TrainSpec


def spec_for(images: Path, labels: str | Path = "folders", task: str = "multi_class", **data: object) -> TrainSpec:
    data = {"images": str(images), "labels": str(labels), **data}
    model = {"architecture": "timm/resnet10t", "weights": "scratch"}
    registry = str(images.parent / "registry")
    return TrainSpec(kind="train", name="a", registry=registry, task=task, data=data, model=model)


def write_empty(images: Path, count: int, label: str, prefix: str = "") -> None:
    (images / label).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (images / label / f"{prefix}{number:04d}.jpg").touch()


def splits_of(training_set: TrainingSet, root: Path) -> dict[str, str]:
    return {
        uri.removeprefix(f"{root}/"): name
        for name, examples in training_set.splits().items()
        for uri in examples.uris.to_pylist()
    }


def moved(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {uri for uri in before.keys() & after.keys() if before[uri] != after[uri]}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for label in "abcde":
        write_empty(tmp_path / "images", 40, label)
    return tmp_path / "images"


def test_pictures_that_come_and_go_and_a_new_label_move_none(images: Path):
    before = splits_of(load_training_set(spec_for(images)), images)
    assert set(before.values()) == {"train", "validation", "test"}
    write_empty(images, 1, "a", "00a")
    assert not moved(before, splits_of(load_training_set(spec_for(images)), images))
    for label in "abcde":
        write_empty(images, 4, label, "00b")
    write_empty(images, 30, "aa")
    (images / "c" / "0007.jpg").unlink()
    after = splits_of(load_training_set(spec_for(images)), images)
    assert len(after) == len(before) + 50
    assert not moved(before, after)


def test_a_store_that_moves_takes_its_splits_along(images: Path, tmp_path: Path):
    before = splits_of(load_training_set(spec_for(images)), images)
    shutil.move(images, tmp_path / "elsewhere" / "store")
    after = splits_of(load_training_set(spec_for(tmp_path / "elsewhere" / "store")), tmp_path / "elsewhere" / "store")
    assert after == before


def test_one_picture_more_reshuffles_the_way_that_is_called_stratified(images: Path):
    stratified = {"train": 0.8, "validation": 0.1, "test": 0.1, "way": "stratified"}
    before = splits_of(load_training_set(spec_for(images, split=stratified)), images)
    assert sorted(before.values()).count("test") == 20
    write_empty(images, 1, "a", "00a")
    assert moved(before, splits_of(load_training_set(spec_for(images, split=stratified)), images))


def test_a_group_that_grows_stays_where_it_is(images: Path, tmp_path: Path):
    def splits(rows: list[str]) -> dict[str, str]:
        (tmp_path / "labels.csv").write_text("\n".join(["uri,labels,group", *rows]) + "\n")
        return splits_of(load_training_set(spec_for(images, tmp_path / "labels.csv", "multi_label")), images)

    def row(number: int, group: str) -> str:
        return f"a/{number:04d}.jpg,cat,{group}"

    before = splits([row(number, f"patient {number % 7}" if number < 20 else "") for number in range(36)])
    after = splits(
        [row(number, f"patient {number % 7}" if number < 20 or number >= 36 else "") for number in range(40)]
    )
    assert not moved(before, after)
    for patient in range(7):
        assert len({split for uri, split in after.items() if is_of(uri, patient)}) == 1
    assert len({before[f"a/{number:04d}.jpg"] for number in range(20, 36)}) > 1, "the others are free"


def is_of(uri: str, patient: int) -> bool:
    number = int(Path(uri).stem)
    return number % 7 == patient and (number < 20 or number >= 36)


def write_noise(path: Path, seed: int, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    small = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (5, 5, 3), dtype=np.uint8))
    small.resize((64, 64), Image.Resampling.BICUBIC).save(path, **{"quality": 95, **options})


def test_a_twin_joins_the_picture_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path / "cache"))
    images = tmp_path / "images"
    for number in range(40):
        write_noise(images / "ab"[number % 2] / f"{number:04d}.jpg", number)
    spec = spec_for(images, duplicates="together", split={"train": 0.5, "validation": 0.25, "test": 0.25})
    before = splits_of(load_training_set(spec), images)
    assert set(before.values()) == {"train", "validation", "test"}
    for number in range(20):
        write_noise(images / "ab"[number % 2] / f"{number:04d}-again.jpg", number, quality=80)
        shutil.copy(images / "ab"[number % 2] / f"{number:04d}.jpg", images / "b" / f"copy-of-{number:04d}.jpg")
    after = splits_of(load_training_set(spec), images)
    assert not moved(before, after)
    for number in range(20):
        first = f"{'ab'[number % 2]}/{number:04d}"
        assert after[f"{first}.jpg"] == after[f"{first}-again.jpg"] == after[f"b/copy-of-{number:04d}.jpg"]


def test_what_is_moved_for_want_of_pictures_is_said(images: Path, caplog: pytest.LogCaptureFixture):
    for number in range(12):
        write_empty(images, 1, f"rare{number:02d}")
    training_set = load_training_set(spec_for(images))
    assert all(training_set.num_positives()[f"rare{number:02d}"]["train"] == 1 for number in range(12))
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "so few pictures show 'rare" in line
    assert "were moved where training cannot do without them" in line
