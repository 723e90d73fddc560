"""Whose turn it is in a run's folder, and what is said of the runs that stay unfinished."""

import json
import logging
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from labelmill.errors import BusyError, FencedError, StorageError
from labelmill.images.transform import Preprocessing
from labelmill.model.registry import Registry
from labelmill.spec import load_spec
from labelmill.storage import open_store
from labelmill.storage.lease.holder import this_process
from labelmill.train.identity import Identity, identity_of
from labelmill.train.progress import Progress, RunFolder
from labelmill.train.unfinished import find_folder, held
from train.runs import epoch_record, shapes_source
from webhook import webhook

BY_VARIABLES = {"optimize": {"epochs": 4, "learning_rate": "${LR}"}}


@pytest.fixture(params=["folder", "s3"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    return Registry(str(tmp_path / "registry") if request.param == "folder" else request.getfixturevalue("s3"))


def identity(folder: Path, registry: Registry, rate: str = "0.003", data: str = "data", **changes: Any) -> Identity:
    path = folder / "train.yaml"
    source = shapes_source(folder) | BY_VARIABLES | {"registry": registry.uri}
    path.write_text(yaml.safe_dump(source | changes))
    return identity_of(load_spec(path, environ={"LR": rate}), data)


def keep(folder: RunFolder, num_epochs: int = 2, rate: float = 0.003) -> None:
    """What a run of so many epochs keeps, without its weights."""
    curve = ((1, 0.7, rate / 2), (2, 0.6, rate))
    epochs = tuple(epoch_record(number, curve) for number in range(1, num_epochs + 1))
    preprocessing = Preprocessing(32, 1.0, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    progress = Progress(preprocessing, epochs)
    open_store(folder.uri).write("progress.json", json.dumps(progress.to_json()).encode())


def begun_before(registry: Registry, run: Identity, **state: Any) -> RunFolder:
    """An unfinished run of the version before, which noted nothing but its progress."""
    folder = RunFolder(f"{registry.uri}/shapes/runs/{run.earlier[:16]}")
    keep(folder, **state)
    return folder


def leave_unfinished(registry: Registry, run: Identity) -> RunFolder:
    folder = find_folder(registry, run)
    with held(folder, registry, run):
        keep(folder)
    return folder


def test_the_same_run_is_refused_while_another_process_is_at_it(tmp_path: Path, registry: Registry):
    run = identity(tmp_path, registry)
    folder = find_folder(registry, run)
    refused = pytest.raises(BusyError, match=rf"training run of .*/runs/\w+ .* job 'shapes', process {os.getpid()} on")
    with held(folder, registry, run), refused as error, held(folder, registry, run):
        pass
    assert error.value.exit_code == 5
    another = identity(tmp_path, registry, "0.1")
    with held(folder, registry, run), held(find_folder(registry, another), registry, another):
        pass


def test_a_run_that_ends_before_it_has_anything_to_keep_leaves_nothing(tmp_path: Path, registry: Registry):
    run = identity(tmp_path, registry)
    with pytest.raises(ZeroDivisionError), held(find_folder(registry, run), registry, run):
        raise ZeroDivisionError
    assert list(open_store(registry.uri).keys()) == []


def test_a_finished_run_leaves_nothing_and_an_unfinished_one_is_free_at_once(tmp_path: Path, registry: Registry):
    run = identity(tmp_path, registry)
    folder = leave_unfinished(registry, run)
    assert find_folder(registry, run).uri == folder.uri
    assert folder.exists()
    with held(folder, registry, run):
        folder.remove()
    assert list(open_store(registry.uri).keys()) == []


def test_who_lost_the_lease_keeps_nothing_more_and_removes_nothing(tmp_path: Path, registry: Registry):
    run = identity(tmp_path, registry)
    folder = find_folder(registry, run)
    with held(folder, registry, run) as lease:
        lease.fence.check()
        open_store(folder.uri).write("lease/000002.json", b"{}")
        with pytest.raises(FencedError, match="took over the lease of this training run"):
            lease.fence.check()
    assert folder.noted() is not None
    assert open_store(folder.uri).exists("lease/000002.json")


def test_a_run_of_the_version_before_goes_on(tmp_path: Path, registry: Registry, caplog: pytest.LogCaptureFixture):
    run = identity(tmp_path, registry)
    before = begun_before(registry, run)
    assert find_folder(registry, run).uri == before.uri
    assert "did not note what the variables in optimize.learning_rate were" in caplog.text
    with held(before, registry, run):
        pass
    assert find_folder(registry, run).uri == before.uri
    # It is taken: the same spec with another value, however near, is another run.
    assert find_folder(registry, identity(tmp_path, registry, "0.0031")).uri != before.uri


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": "0.1"},
        {"rate": "0.001"},
        {"model": {"architecture": "timm/test_resnet", "weights": "scratch", "image_size_px": "${SIDE:-64}"}},
        {"optimize": {"epochs": "${EPOCHS:-1}", "learning_rate": "${LR}"}},
    ],
)
def test_a_run_of_the_version_before_does_not_go_on_with_what_it_cannot_have_had(tmp_path: Path, changes: Any):
    registry = Registry(str(tmp_path / "registry"))
    run = identity(tmp_path, registry, **changes)
    before = begun_before(registry, run)
    assert find_folder(registry, run).uri != before.uri


def test_a_run_of_the_version_before_does_not_go_on_from_weights_that_were_replaced(tmp_path: Path):
    registry = Registry(str(tmp_path / "registry"))
    start = tmp_path / "start.safetensors"
    start.write_bytes(b"weights")
    changes = {"model": {"architecture": "timm/test_resnet", "weights": str(start)}}
    os.utime(start, (1e9, 1e9))
    run = identity(tmp_path, registry, **changes)
    before = begun_before(registry, run)
    assert find_folder(registry, run).uri == before.uri
    start.write_bytes(b"others")
    os.utime(start, (4e9, 4e9))
    assert find_folder(registry, identity(tmp_path, registry, **changes)).uri != before.uri


def test_a_run_that_starts_anew_says_what_changed_and_what_becomes_of_the_other(
    tmp_path: Path, registry: Registry, caplog: pytest.LogCaptureFixture
):
    first = leave_unfinished(registry, identity(tmp_path, registry))
    caplog.clear()
    for changes, words in (
        ({"data": "others"}, "the labelled pictures were others"),
        ({"rate": "0.1"}, "optimize.learning_rate was another"),
    ):
        run = identity(tmp_path, registry, **changes)
        with held(find_folder(registry, run), registry, run):
            pass
        [told] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert told.startswith("this run starts anew, for another one of this model was left unfinished after epoch 2 ")
        assert f"in {first.uri}, and {words}. That one stays as it is" in told
        caplog.clear()
    assert first.exists()
    # One who wrote another value into the spec does not expect the run to go on.
    run = identity(tmp_path, registry, optimize={"epochs": 5})
    with held(find_folder(registry, run), registry, run):
        pass
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]


def test_half_a_record_of_progress_is_one_line(tmp_path: Path):
    registry = Registry(str(tmp_path / "registry"))
    run = identity(tmp_path, registry)
    folder = leave_unfinished(registry, run)
    open_store(folder.uri).write("progress.json", b'{"format": 2, "epo')
    with pytest.raises(StorageError, match=r"progress.json is damaged .*: remove .* to begin it anew"):
        folder.progress()


def test_what_another_run_left_damaged_stops_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    registry = Registry(str(tmp_path / "registry"))
    first = leave_unfinished(registry, identity(tmp_path, registry))
    for name in ("progress.json", "run.json"):
        open_store(first.uri).write(name, b"{")
        run = identity(tmp_path, registry, data="others")
        with held(find_folder(registry, run), registry, run):
            pass
        assert f"{name} is damaged" in caplog.text


@pytest.mark.parametrize("name", [".DS_Store", "desktop.ini", "._progress.json", "._weights-0001.safetensors"])
def test_a_foreign_file_is_no_unfinished_run(tmp_path: Path, name: str):
    registry = Registry(str(tmp_path / "registry"))
    run = identity(tmp_path, registry)
    folder = find_folder(registry, run)
    open_store(folder.uri).write(name, b"")
    (tmp_path / "registry/shapes/runs/.DS_Store").touch()
    assert not folder.exists()
    keep(folder)
    assert folder.exists()


def test_a_training_that_vanished_is_told_of_once_and_one_that_could_not_be_told_of_is_not_forgotten(
    tmp_path: Path, registry: Registry
):
    with webhook(404, 200) as hook:
        run = identity(tmp_path, registry, notify={"url": hook.url})
        folder = find_folder(registry, run)
        killed = replace(this_process("shapes"), pid=2**22 + 1)
        open_store(folder.uri).write("lease/000001.json", killed.to_json())
        for _ in range(3):
            with held(folder, registry, run):
                keep(folder)
    refused, told = hook.got
    assert refused == told
    assert (told["outcome"], told["exit_code"], told["kind"], told["job"]) == ("killed", 137, "train", "shapes")
    assert told["run"] == folder.uri
    assert told["started_at"] == killed.since


def test_a_newer_start_of_a_training_asks_the_older_one_to_end(tmp_path: Path, registry: Registry):
    run = identity(tmp_path, registry, schedule={"cron": "0 2 * * *", "overlap": "replace"})
    folder = find_folder(registry, run)
    store, released = open_store(folder.uri), threading.Event()

    def give_way() -> None:
        with held(folder, registry, identity(tmp_path, registry)):
            keep(folder)
            began.set()
            while not store.exists("lease/000001.stop"):
                released.wait(0.1)

    began = threading.Event()
    older = threading.Thread(target=give_way)
    older.start()
    began.wait(20)
    with held(folder, registry, run):
        older.join(20)
        assert not older.is_alive()
        assert store.exists("lease/000002.json")
    assert sorted(store.keys("lease/")) == ["lease/000002.beat", "lease/000002.json"]
