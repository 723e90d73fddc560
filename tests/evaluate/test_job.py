import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from bundles import make_bundle
from evaluate.measured import write_pictures
from labelmill.errors import BusyError, DataError, FencedError, RegistryError
from labelmill.evaluate import job, run
from labelmill.evaluate.answers import answer
from labelmill.model.labeler import Labeler
from labelmill.spec import load_spec
from labelmill.storage import open_store
from labelmill.storage.lease import hold_lease
from labelmill.storage.lease.holder import this_process
from labelmill.unattended import told_of_end
from webhook import webhook

SPEC = """\
kind: evaluate
name: again
registry: {folder}/registry
model: tiny@1
data:
  images: {folder}/pictures
  labels: {folder}/labels.csv
output: {folder}/out
engine: torch
robustness_pictures: 4
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def folder(tmp_path):
    """A registry, pictures, and a labels file that says what the model says, the last four upside down."""
    bundle = make_bundle(tmp_path / "registry", calibration={"temperature": 2.0}, thresholds=(0.4, 0.5, 0.6))
    paths = write_pictures(tmp_path / "pictures", 20)
    labeler = Labeler(bundle, "torch", num_threads=1)
    answers = labeler.label([open(path, "rb").read() for path in paths])  # noqa: PTH123, SIM115
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["uri", "labels", "slice"])
        for number, found in enumerate(answers):
            given = {label for label, _ in bundle.decide(found.confidences)}
            labels = given if number < 16 else set(bundle.labels) - given
            rows.writerow([f"{number:03d}.jpg", ";".join(sorted(labels)), "right" if number < 16 else "wrong"])
    (tmp_path / "spec.yaml").write_text(SPEC.format(folder=tmp_path))
    return tmp_path


def evaluate(folder, *overrides):
    return run(load_spec(folder / "spec.yaml", overrides))


def test_an_evaluation_answers_as_bulk_labelling_does(folder):
    result = evaluate(folder)
    written = json.loads((folder / "out" / "evaluation.json").read_text())
    assert written == json.loads(json.dumps(result.evaluation))
    assert written["metrics"]["num_pictures"] == 20
    assert written["metrics"]["accuracy"] == pytest.approx(16 / 20)
    assert written["slices"]["right"]["accuracy"] == 1.0
    assert written["slices"]["wrong"]["micro_recall"] == 0.0
    assert written["model"]["version"] == 1
    assert written["robustness"]["num_pictures"] == 4
    assert "accuracy  0.8000" in str(result)
    report = (folder / "out" / "report.html").read_text()
    assert report.count('<div class="look">') == 4
    assert all(f"/{number:03d}.jpg" in report for number in range(16, 20))
    assert "slice wrong: accuracy 0.0000" in str(result)


def test_labels_that_the_model_does_not_know_are_named(folder):
    with (folder / "labels.csv").open("a") as file:
        file.write("005.jpg,zebra,\n")
    text = (folder / "labels.csv").read_text().splitlines()
    (folder / "labels.csv").write_text(
        "\n".join(line for line in text if not line.startswith("005.jpg") or "zebra" in line)
    )
    with pytest.raises(DataError, match="zebra"):
        evaluate(folder)


def test_too_many_damaged_pictures_are_an_error_and_few_are_left_out(folder):
    (folder / "pictures" / "000.jpg").write_bytes(b"broken")
    result = evaluate(folder, "robustness_pictures=0")
    assert result.evaluation["num_unreadable"] == 1
    assert result.evaluation["metrics"]["num_pictures"] == 19
    assert result.evaluation["robustness"] is None
    assert "1 pictures cannot be read" in str(result)
    (folder / "pictures" / "001.jpg").write_bytes(b"broken")
    with pytest.raises(DataError, match="2 of 20 pictures cannot be read") as caught:
        evaluate(folder)
    assert "001.jpg" in str(caught.value)


def test_a_model_that_is_not_there_is_said_before_any_picture_is_read(folder):
    with pytest.raises(RegistryError, match="tiny@7"):
        evaluate(folder, "model=tiny@7")


def test_a_labelled_set_may_lack_labels_of_the_model(folder):
    (folder / "labels.csv").write_text("uri,labels\n" + "".join(f"{number:03d}.jpg,cat\n" for number in range(20)))
    found = evaluate(folder).evaluation
    assert found["metrics"]["per_label"]["eel"]["support"] == 0
    assert found["metrics"]["per_label"]["eel"]["recall"] is None
    assert np.isfinite(found["metrics"]["map"])


def written(folder):
    return {path.name: path.read_bytes() for path in (folder / "out").iterdir() if path.is_file()}


def test_two_evaluations_do_not_mix_their_halves(folder):
    """The one that comes second is told who writes there, and touches nothing."""
    evaluate(folder, "robustness_pictures=0")
    before = written(folder)
    with hold_lease(open_store(f"{folder}/out/_labelmill"), "other"):
        with pytest.raises(BusyError, match=r"the evaluation of .* is being written by job 'other'"):
            evaluate(folder, "robustness_pictures=0")
        assert written(folder) == before
    assert set(before) == {"evaluation.json", "report.html"}


def test_an_evaluation_that_lost_its_turn_writes_nothing_more(folder, monkeypatch):
    def take_over(*arguments, **options):
        open_store(f"{folder}/out/_labelmill").write("lease/000002.json", b"{}")
        return answer(*arguments, **options)

    monkeypatch.setattr(job, "answer", take_over)
    with pytest.raises(FencedError, match="took over the lease of this evaluation"):
        evaluate(folder, "robustness_pictures=0")
    assert written(folder) == {}


def test_an_evaluation_that_vanished_is_told_of_by_the_next_one_which_is_told_of_as_well(folder):
    killed = replace(this_process("again"), pid=2**22 + 1)
    open_store(f"{folder}/out/_labelmill").write("lease/000001.json", killed.to_json())
    with webhook(200) as hook:
        options = ["robustness_pictures=0", f"notify.url={hook.url}", "schedule.cron=0 2 * * *"]
        loaded = load_spec(folder / "spec.yaml", options)
        with told_of_end(loaded.spec):
            result = run(loaded)
    vanished, done = hook.got
    assert (vanished["outcome"], vanished["kind"], vanished["job"]) == ("killed", "evaluate", "again")
    assert vanished["output"] == f"{folder}/out"
    assert f"process {2**22 + 1} on" in vanished["text"]
    assert (done["outcome"], done["exit_code"], done["model"]) == ("complete", 0, "tiny@1")
    assert done["metrics"]["accuracy"] == result.evaluation["metrics"]["accuracy"]
    assert done["output"] == f"{folder}/out"
