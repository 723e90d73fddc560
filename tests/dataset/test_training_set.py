import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labelmill.dataset import Examples, TrainingSet, load_examples, load_training_set
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


def test_a_training_is_not_repeated_for_a_chmod_nor_for_the_form_of_etags(images: Path):
    def fingerprint() -> str:
        return load_training_set(spec_for(images, csv_file(images, good_rows()))).fingerprint

    first = fingerprint()
    (images / "00.jpg").chmod(0o600)
    assert fingerprint() == first
    parts = load_training_set(spec_for(images, csv_file(images, good_rows()))).splits().values()
    rows = sorted((uri, number) for number, part in enumerate(parts) for uri in part.uris.to_pylist())
    digest = hashlib.sha256(repr(("cat", "dog", "small")).encode())
    for uri, _ in rows:
        digest.update(f"{uri}\0".encode())
    for uri, _ in rows:  # as it was before etags had a time of change
        found = Path(uri).stat()
        digest.update(f"{found.st_mtime_ns // 1000:x}-{found.st_size:x}\0".encode())
    words = [({"cat"}, {"dog", "small"})[Path(uri).stem in {f"{n:02d}" for n in range(0, 40, 2)}] for uri, _ in rows]
    digest.update(bytes(label in word for word in words for label in ("cat", "dog", "small")))
    digest.update(bytes(number for _, number in rows))
    assert digest.hexdigest() == first


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
        (
            "multi_label",
            "uri,labels,split",
            [*(f"{row},train" for row in good_rows()[:-1]), "39.jpg,lynx,test"],
            r"without a training picture: 'lynx' \(test, 1 pictures\)",
        ),
        ("multi_label", "uri,labels,split", [f"{row},holdout" for row in good_rows()], "holds 'holdout' in 40 rows"),
        (
            "multi_label",
            "uri,labels,split,group",
            [
                f"{row},{'train' if number % 3 else 'test'},patient {number // 20}"
                for number, row in enumerate(good_rows())
            ],
            r"groups 'patient 0', 'patient 1' have pictures in more than one split",
        ),
        (
            "multi_label",
            "uri,labels,group",
            [*(f"{row},{number}" for number, row in enumerate(good_rows())), "00.jpg,dog;small,another"],
            "00.jpg stand there more than once, with different labels or groups",
        ),
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


def names_of(examples: Examples) -> set[str]:
    return {Path(uri).name for uri in examples.uris.to_pylist()}


def test_a_group_stays_in_one_split_and_pictures_without_one_are_free(images: Path):
    rows = [f"{row},{'' if number < 20 else number // 4}" for number, row in enumerate(good_rows())]
    training_set = load_training_set(spec_for(images, csv_file(images, rows, "uri,labels,group")))
    for examples in training_set.splits().values():
        grouped = [int(name[:2]) // 4 for name in names_of(examples) if int(name[:2]) >= 20]
        assert all(grouped.count(group) == 4 for group in grouped)
        assert names_of(examples), "no split is empty"
    free = [names_of(examples) & {f"{number:02d}.jpg" for number in range(20)} for examples in (training_set.train,)]
    assert 0 < len(free[0]) < 20


def test_groups_hold_when_validation_is_taken_from_given_training_pictures(images: Path):
    rows = [
        f"{row},{'train' if number < 32 else 'test'},patient {number // 4}" for number, row in enumerate(good_rows())
    ]
    split = {"train": 0.5, "validation": 0.25, "test": 0.25}
    training_set = load_training_set(spec_for(images, csv_file(images, rows, "uri,labels,split,group"), split=split))
    patients = [{int(name[:2]) // 4 for name in names_of(part)} for part in training_set.splits().values()]
    assert [len(part) for part in training_set.splits().values()] == [20, 12, 8]
    assert not patients[0] & patients[1]


def test_slices_stay_with_their_pictures(images: Path):
    rows = [f"{row},{'night' if number % 5 == 0 else ''}" for number, row in enumerate(good_rows())]
    training_set = load_training_set(spec_for(images, csv_file(images, rows, "uri,labels,slice")))
    for examples in training_set.splits().values():
        assert examples.slices is not None
        for uri, word in zip(examples.uris.to_pylist(), examples.slices.to_pylist(), strict=True):
            assert word == ("night" if int(Path(uri).stem) % 5 == 0 else "")
    without = load_training_set(spec_for(images, csv_file(images, good_rows())))
    assert without.test.slices is None
    assert without.fingerprint != training_set.fingerprint


def test_a_label_too_rare_to_measure_still_trains(images: Path):
    training_set = load_training_set(spec_for(images, csv_file(images, [*good_rows()[:-1], "39.jpg,lynx"])))
    assert training_set.num_positives()["lynx"] == {"train": 1, "validation": 0, "test": 0}


@pytest.mark.parametrize("validation", ["val", "valid", "Validation"])
def test_top_folders_named_like_splits_are_splits(tmp_path: Path, validation: str):
    for number in range(30):
        split = ("train", validation, "test")[number % 3]
        picture = tmp_path / split / ("cat" if number % 2 else "dog") / f"{number}.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(b"")
    training_set = load_training_set(spec_for(tmp_path, "folders", "multi_class"))
    assert training_set.labels == ("cat", "dog")
    assert names_of(training_set.test) == {f"{number}.jpg" for number in range(2, 30, 3)}
    assert names_of(training_set.validation) == {f"{number}.jpg" for number in range(1, 30, 3)}


def test_a_lone_folder_named_train_is_no_split(tmp_path: Path):
    for number in range(30):
        picture = tmp_path / "train" / ("cat" if number % 2 else "dog") / f"{number}.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(b"")
    training_set = load_training_set(spec_for(tmp_path, "folders", "multi_class"))
    assert len(training_set.train) == 24 and len(training_set.test) > 0


def test_a_label_that_is_called_train_is_no_split(tmp_path: Path):
    for number in range(30):
        picture = tmp_path / "store" / ("train" if number % 2 else "test") / f"{number}.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(b"")
    assert load_training_set(spec_for(tmp_path / "store", "folders", "multi_class")).labels == ("test", "train")


@pytest.fixture
def synthetic(tmp_path: Path) -> Path:
    for number in range(6):
        picture = tmp_path / "synthetic" / ("cat" if number % 2 else "small") / f"s{number}.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(b"")
    return tmp_path / "synthetic"


def test_further_sources_only_train_and_as_often_as_their_weight_says(images: Path, synthetic: Path):
    spec = spec_for(
        images,
        csv_file(images, good_rows()),
        sources=[{"images": str(synthetic), "labels": "folders", "weight": 0.5}],
    )
    training_set = load_training_set(spec)
    train = training_set.train
    assert [len(part) for part in training_set.splits().values()] == [38, 4, 4]
    assert training_set.num_extra == (6,)
    assert labels_by_name(training_set)["s0.jpg"] == {"small"}
    assert train.num_draws == 48
    drawn = np.bincount(train.order(np.random.default_rng(0)), minlength=len(train))
    assert (drawn[:32] == 1).all(), "every main picture once"
    assert drawn[32:].sum() == 16 and set(drawn[32:]) <= {2, 3}


def test_a_rate_below_one_takes_other_pictures_each_epoch(images: Path, synthetic: Path):
    source = {"images": str(synthetic), "labels": "folders", "weight": 3 / 32}
    train = load_training_set(spec_for(images, csv_file(images, good_rows()), sources=[source])).train
    rng = np.random.default_rng(0)
    epochs = [set(train.order(rng).tolist()) & set(range(32, 38)) for _ in range(20)]
    assert {len(epoch) for epoch in epochs} == {3}
    assert set.union(*epochs) == set(range(32, 38))


def test_a_source_must_share_labels_and_no_picture_with_the_main_one(images: Path, synthetic: Path):
    again = csv_file(images, ["39.jpg,cat"]).rename(images.parent / "again.csv")
    labels = csv_file(images, good_rows())
    with pytest.raises(DataError, match=r"39.jpg are among the pictures of .*labels.csv, too"):
        load_training_set(spec_for(images, labels, sources=[{"images": str(images), "labels": str(again)}]))
    (synthetic / "small").rename(synthetic / "tiny")
    with pytest.raises(DataError, match=r"'tiny' are not among the labels 'cat', 'dog', 'small'"):
        load_training_set(spec_for(images, labels, sources=[{"images": str(synthetic), "labels": "folders"}]))


def test_labelled_pictures_get_the_columns_of_a_given_model(images: Path):
    rows = csv_file(images, good_rows())
    examples = load_examples(str(images), str(rows), task="multi_label", known=("small", "lynx", "dog", "cat"))
    assert examples.targets[:2].tolist() == [[1, 0, 1, 0], [0, 0, 0, 1]]
    with pytest.raises(DataError, match=r"'cat', 'small' are not among the labels 'dog'"):
        load_examples(str(images), str(rows), task="multi_label", known=("dog",))
    binary = load_examples(str(images), str(rows), task="binary", known=("dog",))
    assert binary.targets[:2].tolist() == [[1], [0]]
