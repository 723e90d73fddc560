import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labelmill.dataset.training_set import TrainingSet, load_training_set
from labelmill.errors import DataError, NotFoundError
from labelmill.spec import TrainSpec


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Forty empty files: the labels are checked before a picture is opened."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02d}.jpg").write_bytes(b"")
    return folder


def spec_for(images: Path, labels: str | Path, task: str = "multi_label", **data: object) -> TrainSpec:
    return TrainSpec.model_validate(
        {
            "kind": "train",
            "name": "shapes",
            "registry": str(images.parent / "registry"),
            "task": task,
            "data": {"images": str(images), "labels": str(labels), **data},
            "model": {"architecture": "timm/resnet10t", "weights": "scratch"},
            "optimize": {"epochs": 1, "batch_size": 4, "learning_rate": 0.001},
            "workers": {"count": 1},
        }
    )


def csv_file(images: Path, rows: list[str], head: str = "uri,labels") -> Path:
    path = images.parent / "labels.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def good_rows() -> list[str]:
    return [f"{number:02d}.jpg,{'cat' if number % 2 else 'dog;small'}" for number in range(40)]


def labels_by_name(training_set: TrainingSet) -> dict[str, set[str]]:
    return {
        Path(uri).name: {label for label, there in zip(training_set.labels, row, strict=True) if there}
        for examples in training_set.splits().values()
        for uri, row in zip(examples.uris.to_pylist(), examples.targets, strict=True)
    }


def test_csv_gives_each_picture_its_labels(images: Path):
    rows = [*good_rows()[:-2], "38.jpg,", f"{images}/39.jpg, cat ; dog ;"]
    training_set = load_training_set(spec_for(images, csv_file(images, rows)))
    assert training_set.labels == ("cat", "dog", "small")
    found = labels_by_name(training_set)
    assert len(found) == 40
    assert found["00.jpg"] == {"dog", "small"}
    assert found["38.jpg"] == set()
    assert found["39.jpg"] == {"cat", "dog"}
    assert [len(examples) for examples in training_set.splits().values()] == [32, 4, 4]
    assert all(training_set.train.etags.to_pylist())


def test_csv_jsonl_and_parquet_say_the_same(images: Path):
    fingerprints = {load_training_set(spec_for(images, csv_file(images, good_rows()))).fingerprint}
    names = [row.split(",")[0] for row in good_rows()]
    lists = [row.split(",")[1].split(";") for row in good_rows()]
    jsonl = images.parent / "labels.jsonl"
    jsonl.write_text(
        "".join(json.dumps({"uri": uri, "labels": words}) + "\n" for uri, words in zip(names, lists, strict=True))
    )
    for column in (pa.array(lists), pa.array([";".join(words) for words in lists])):
        pq.write_table(pa.table({"uri": names, "labels": column}), images.parent / "labels.parquet")
        fingerprints.add(load_training_set(spec_for(images, images.parent / "labels.parquet")).fingerprint)
    fingerprints.add(load_training_set(spec_for(images, jsonl)).fingerprint)
    assert len(fingerprints) == 1


def test_fingerprint_follows_labels_content_and_split(images: Path):
    def fingerprint(rows: list[str], seed: int = 0) -> str:
        split = {"train": 0.8, "validation": 0.1, "test": 0.1, "seed": seed}
        return load_training_set(spec_for(images, csv_file(images, rows), split=split)).fingerprint

    first = fingerprint(good_rows())
    assert fingerprint(good_rows()[::-1]) != "" and fingerprint(good_rows()) == first
    assert fingerprint(good_rows(), seed=1) != first
    assert fingerprint([*good_rows()[:-1], "39.jpg,dog"]) != first
    (images / "00.jpg").write_bytes(b"another picture")
    assert fingerprint(good_rows()) != first


def test_folders_are_labels(tmp_path: Path):
    for number in range(30):
        picture = tmp_path / "images" / "deeper" / ("cat" if number % 3 else "dog") / f"{number}.JPG"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(b"")
    (tmp_path / "images" / "notes.txt").write_text("no picture")
    training_set = load_training_set(spec_for(tmp_path / "images", "folders", "multi_class"))
    assert training_set.labels == ("cat", "dog")
    assert labels_by_name(training_set)["0.JPG"] == {"dog"}
    binary = load_training_set(spec_for(tmp_path / "images", "folders", "binary", positive="dog"))
    assert binary.labels == ("dog",)
    assert sum(int(examples.targets.sum()) for examples in binary.splits().values()) == 10


def test_given_splits_win_over_the_seed(images: Path):
    words = ["train"] * 20 + ["validation"] * 10 + ["test"] * 10
    rows = [f"{row},{word}" for row, word in zip(good_rows(), words, strict=True)]
    training_set = load_training_set(spec_for(images, csv_file(images, rows, "uri,labels,split")))
    assert sorted(Path(uri).name for uri in training_set.test.uris.to_pylist()) == [
        f"{n:02d}.jpg" for n in range(30, 40)
    ]


def test_given_splits_without_validation_take_it_from_training_never_from_test(images: Path):
    words = ["train"] * 30 + ["test"] * 10
    rows = [f"{row},{word}" for row, word in zip(good_rows(), words, strict=True)]
    training_set = load_training_set(spec_for(images, csv_file(images, rows, "uri,labels,split")))
    assert [len(examples) for examples in training_set.splits().values()] == [26, 4, 10]


def test_binary_needs_to_know_what_means_yes(images: Path):
    rows = [f"{number:02d}.jpg,{'defect' if number % 4 == 0 else ''}" for number in range(40)]
    assert load_training_set(spec_for(images, csv_file(images, rows), "binary")).labels == ("defect",)
    rows = [f"{number:02d}.jpg,{'defect' if number % 4 == 0 else 'fine'}" for number in range(40)]
    with pytest.raises(DataError, match=r"data.positive is not set; labels here: 'defect', 'fine'"):
        load_training_set(spec_for(images, csv_file(images, rows), "binary"))
    assert load_training_set(spec_for(images, csv_file(images, rows), "binary", positive="fine")).labels == ("fine",)
    with pytest.raises(DataError, match=r"data.positive is 'fin'"):
        load_training_set(spec_for(images, csv_file(images, rows), "binary", positive="fin"))


@pytest.mark.parametrize(
    ("task", "head", "rows", "message"),
    [
        ("multi_label", "url,labels", good_rows(), "no column 'uri'; found"),
        ("multi_label", "uri,tags", good_rows(), "no column 'labels'"),
        ("multi_label", "uri,labels", [], "no rows"),
        ("multi_label", "uri,labels", ["00.jpg,", "01.jpg,"], "2 pictures and not one label"),
        ("multi_label", "uri,labels", [*good_rows(), "99.jpg,cat", "98.jpg,cat"], r"99.jpg, .*98.jpg are not below"),
        ("multi_label", "uri,labels", [*good_rows(), "00.jpg,cat"], "00.jpg stand there more than once"),
        ("multi_class", "uri,labels", good_rows(), r"00.jpg, .* and 15 more have no label or several"),
        ("multi_class", "uri,labels", [f"{n:02d}.jpg,cat" for n in range(40)], "only label"),
        ("multi_label", "uri,labels", [*good_rows()[:-1], "39.jpg,lynx"], r"'lynx' \(train, 1 pictures\)"),
        ("multi_label", "uri,labels,split", [f"{row},val" for row in good_rows()], "holds 'val' in 40 rows"),
        ("multi_label", "uri,labels,split", [f"{row},test" for row in good_rows()], "0 pictures to train"),
    ],
)
def test_a_labels_file_that_does_not_fit_is_one_clear_error(
    images: Path, task: str, head: str, rows: list[str], message: str
):
    with pytest.raises(DataError, match=message) as caught:
        load_training_set(spec_for(images, csv_file(images, rows, head), task))
    assert str(images.parent / "labels.csv") in str(caught.value)


def test_a_repeated_row_with_the_same_labels_counts_once(images: Path):
    training_set = load_training_set(spec_for(images, csv_file(images, [*good_rows(), "00.jpg,small;dog"])))
    assert training_set.num_pictures == 40


def test_a_damaged_or_missing_labels_file_is_named(images: Path):
    path = images.parent / "labels.parquet"
    path.write_bytes(b"PAR1 no longer")
    with pytest.raises(DataError, match=r"labels.parquet: cannot be read as parquet"):
        load_training_set(spec_for(images, path))
    with pytest.raises(NotFoundError):
        load_training_set(spec_for(images, images.parent / "nowhere.csv"))


def test_pictures_outside_any_folder_have_no_label_by_folders(images: Path):
    with pytest.raises(DataError, match=r"00.jpg, .* and 35 more lie in no folder"):
        load_training_set(spec_for(images, "folders", "multi_class"))


def test_counts_per_label_and_split_add_up(images: Path):
    training_set = load_training_set(spec_for(images, csv_file(images, good_rows())))
    counts = training_set.num_positives()
    assert {label: sum(parts.values()) for label, parts in counts.items()} == {"cat": 20, "dog": 20, "small": 20}
    assert counts["cat"]["train"] == int(np.sum(training_set.train.targets[:, 0]))
