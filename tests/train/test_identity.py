"""Which run a training is: nothing that decides the result may be left out, and no finished run may be repeated."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bundles import make_draft
from labelmill.errors import LabelmillError
from labelmill.model.bundle import Bundle, BundleDraft
from labelmill.model.registry import Registry
from labelmill.spec import load_spec
from labelmill.train.identity import Identity, identity_of
from train.runs import shapes_source
from train.shapes import LABELS, write_shapes

DATA = "d" * 64  # the fingerprint of the labelled pictures
LONG_AGO = 1_000_000_000
DRAFTS: dict[int, BundleDraft] = {}


@pytest.fixture(scope="module", autouse=True)
def drafts(tmp_path_factory: pytest.TempPathFactory) -> None:
    for seed in (0, 1):
        DRAFTS[seed] = make_draft(tmp_path_factory.mktemp("draft"), labels=LABELS, seed=seed)


def identity(folder: Path, environ: dict[str, str] | None = None, fingerprint: str = DATA, **changes: Any) -> Identity:
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(shapes_source(folder) | changes))
    return identity_of(load_spec(path, environ=environ or {}), fingerprint)


def digest_of_the_version_before(folder: Path, fingerprint: str = DATA) -> str:
    """As that version computed it: of the spec as it was written, and of the data."""
    left_out = ("workers", "promote", "tracking", "max_accuracy_loss")
    source = yaml.safe_load((folder / "train.yaml").read_text())
    source["data"]["split"].pop("way", None)  # that version had one, and no word for it
    kept = {
        key: {name: part for name, part in value.items() if name not in left_out} if isinstance(value, dict) else value
        for key, value in source.items()
        if key not in left_out
    }
    return hashlib.sha256(json.dumps([kept, fingerprint], sort_keys=True).encode()).hexdigest()


def test_how_much_the_store_is_spared_decides_no_run(tmp_path: Path):
    assert identity(tmp_path, max_requests_per_s=20).digest == identity(tmp_path).digest


def test_another_value_of_a_variable_is_another_run(tmp_path: Path):
    model = {"architecture": "${ARCH}", "weights": "scratch", "image_size_px": 32}
    changes = {"model": model, "optimize": {"epochs": "${EPOCHS}", "learning_rate": "${LR:-0.003}"}}
    environs = [
        {"ARCH": "timm/test_resnet", "EPOCHS": "2"},
        {"ARCH": "timm/resnet18", "EPOCHS": "2"},
        {"ARCH": "timm/test_resnet", "EPOCHS": "30"},
        {"ARCH": "timm/test_resnet", "EPOCHS": "2", "LR": "0.1"},
    ]
    digests = [identity(tmp_path, environ, **changes).digest for environ in environs]
    assert len(set(digests)) == 4
    written = {"epochs": 2, "learning_rate": 0.003}
    plain = identity(tmp_path, model=model | {"architecture": "timm/test_resnet"}, optimize=written)
    assert plain.digest == digests[0] == identity(tmp_path, {**environs[0], "LR": "3e-3"}, **changes).digest


def test_a_variable_whose_name_sounds_like_a_secret_decides_the_run_and_stands_nowhere(tmp_path: Path):
    model = {"architecture": "${KEYPOINT_ARCH}", "weights": "scratch", "image_size_px": 32}
    one, other = (
        identity(tmp_path, {"KEYPOINT_ARCH": f"timm/{name}"}, model=model) for name in ("test_resnet", "resnet18")
    )
    assert one.digest != other.digest
    assert one.source == other.source
    assert one.digest == identity(tmp_path, model=model | {"architecture": "timm/test_resnet"}).digest


@pytest.mark.parametrize("registry", ["plain", "${STORE}", "${STORE:-./elsewhere}/models"])
def test_a_spec_without_other_variables_keeps_the_identity_it_had(tmp_path: Path, registry: str):
    """Where the registry lies decides nothing: it is in the digest as it is written."""
    now = identity(tmp_path, {"STORE": str(tmp_path / "somewhere")}, registry=registry)
    assert now.digest == now.earlier == digest_of_the_version_before(tmp_path)
    assert now.digest == identity(tmp_path, {"STORE": str(tmp_path / "moved")}, registry=registry).digest
    assert now.digest != identity(tmp_path, {"STORE": "x"}, "other pictures", registry=registry).digest


def weights(folder: Path, seed: int) -> None:
    shutil.copy(DRAFTS[seed].folder / "weights.safetensors", folder / "start.safetensors")


def pictures(folder: Path, seed: int) -> None:
    write_shapes(folder / "target", 3 + seed, seed=seed)


def model(folder: Path, seed: int) -> None:
    """The same number in a registry that was made anew."""
    shutil.rmtree(folder / "registry", ignore_errors=True)
    Registry(str(folder / "registry")).publish("other", DRAFTS[seed])


TRAINED = {"architecture": "timm/test_resnet", "image_size_px": 32}
ORIGINS = {
    "file": (weights, {"model": {**TRAINED, "weights": "start.safetensors"}}),
    "version": (model, {"model": {**TRAINED, "weights": "other@1"}}),
    "teacher": (model, {"distill": {"teachers": ["other@1"]}}),
    "pruned": (model, {"approach": "prune", "prune": {"model": "other@1"}, "model": None}),
    "quantized": (model, {"approach": "quantize", "quantize": {"model": "other@1"}}),
    "adapted": (model, {"approach": "adapt", "adapt": {"model": "other@1", "images": "target"}}),
    "target": (pictures, {"approach": "adapt", "adapt": {"model": "other@1", "images": "target"}}),
}


@pytest.fixture(params=ORIGINS)
def origin(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").touch()
    make, changes = ORIGINS[request.param]
    model(tmp_path, 0)
    pictures(tmp_path, 0)
    make(tmp_path, 0)
    return make, changes


def of_origin(folder: Path, changes: dict[str, Any]) -> Identity:
    source = shapes_source(folder)
    if "approach" in changes:
        dropped = {"model"} if changes["approach"] == "prune" else {"model", "optimize", "workers"}
        source = {key: value for key, value in source.items() if key not in dropped}
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in (source | changes).items() if value is not None}))
    return identity_of(load_spec(path, environ={}), DATA)


def test_another_content_of_what_a_run_starts_from_is_another_run(tmp_path: Path, origin: Any):
    make, changes = origin
    first = of_origin(tmp_path, changes)
    assert first.digest == of_origin(tmp_path, changes).digest != digest_of_the_version_before(tmp_path)
    assert first.earlier == digest_of_the_version_before(tmp_path)
    make(tmp_path, 1)
    assert of_origin(tmp_path, changes).digest != first.digest


def finished(folder: Path, metrics: dict[str, Any]) -> Bundle:
    return Registry(str(folder / "registry")).publish("shapes", replace(DRAFTS[0], metrics=metrics))


def test_a_finished_run_is_found_when_what_it_started_from_is_gone(tmp_path: Path, origin: Any):
    make, changes = origin
    bundle = finished(tmp_path, of_origin(tmp_path, changes).noted())
    registry = Registry(str(tmp_path / "registry"))
    gone = {weights: "start.safetensors", pictures: "target", model: "registry/other"}[make]
    shutil.rmtree(tmp_path / gone) if (tmp_path / gone).is_dir() else (tmp_path / gone).unlink()
    now = of_origin(tmp_path, changes)
    found = now.published(registry)
    assert found is not None
    assert found.digest == bundle.digest
    with pytest.raises(LabelmillError, match=r"start.safetensors|other|target"):
        now.check_origins()


def test_a_finished_run_of_the_version_before_is_found_unless_its_start_was_replaced_since(tmp_path: Path, origin: Any):
    make, changes = origin
    registry = Registry(str(tmp_path / "registry"))
    for path in tmp_path.rglob("*"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    now = of_origin(tmp_path, changes)
    bundle = finished(tmp_path, {"run": now.earlier})
    claim = tmp_path / "registry/shapes/1/claim.json"
    found = now.published(registry)
    assert found is not None
    assert found.digest == bundle.digest
    if make is model:
        claim.write_text(
            '{"claimed_at": "2001-01-01T00:00:00+00:00"}'
        )  # before the model that it starts from was there
    else:
        claim.write_text('{"claimed_at": "2020-01-01T00:00:00+00:00"}')
        make(tmp_path, 1)
    assert of_origin(tmp_path, changes).published(registry) is None


BY_VARIABLES = {
    "model": {"architecture": "${ARCH}", "weights": "scratch", "image_size_px": "${SIDE}"},
    "optimize": {"epochs": "${EPOCHS}", "learning_rate": "${LR}"},
}
VALUES = {"ARCH": "timm/test_resnet", "SIDE": "32", "EPOCHS": "2", "LR": "0.003"}


def test_a_finished_run_of_the_version_before_is_not_repeated_unless_it_says_otherwise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    registry = Registry(str(tmp_path / "registry"))
    now = identity(tmp_path, VALUES, **BY_VARIABLES)
    assert now.earlier == digest_of_the_version_before(tmp_path) != now.digest
    bundle = finished(tmp_path, {"run": now.earlier, "epochs": 2})
    found = now.published(registry)
    assert found is not None
    assert found.digest == bundle.digest
    assert "did not note what the variables in optimize.epochs, optimize.learning_rate were" in caplog.text
    for other in ({"ARCH": "timm/resnet18"}, {"SIDE": "64"}, {"EPOCHS": "30"}):
        assert identity(tmp_path, VALUES | other, **BY_VARIABLES).published(registry) is None
    assert identity(tmp_path, VALUES, "other pictures", **BY_VARIABLES).published(registry) is None


def test_a_run_that_this_version_finished_is_found_by_its_values_alone(tmp_path: Path):
    registry = Registry(str(tmp_path / "registry"))
    now = identity(tmp_path, VALUES, **BY_VARIABLES)
    finished(tmp_path, now.noted())
    assert now.published(registry) is not None
    assert identity(tmp_path, VALUES | {"LR": "0.1"}, **BY_VARIABLES).published(registry) is None


def test_a_damaged_version_hides_no_finished_run(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    registry = Registry(str(tmp_path / "registry"))
    now = identity(tmp_path)
    finished(tmp_path, now.noted())
    finished(tmp_path, {"run": "of another"})
    (tmp_path / "registry/shapes/2/bundle.json").write_text('{"format_version": 1, "dig')
    found = now.published(registry)
    assert found is not None
    assert found.version == 1
    assert "passed over: " in caplog.text


def test_when_a_training_runs_and_who_hears_of_it_decides_nothing(tmp_path: Path):
    plain = identity(tmp_path)
    schedule, notify = {"cron": "0 2 * * *", "overlap": "replace"}, {"url": "https://hooks.example/a"}
    for changes in ({"schedule": schedule}, {"notify": notify}, {"schedule": schedule, "notify": notify}):
        assert identity(tmp_path, **changes).digest == plain.digest
        assert identity(tmp_path, **changes).earlier == plain.earlier
    assert identity(tmp_path, schedule=None, notify=None).digest == plain.digest


def test_how_the_learning_rate_falls_decides_a_training(tmp_path: Path):
    """A word of the same name."""
    falling = [identity(tmp_path, optimize={"epochs": 4, "schedule": name}) for name in ("cosine", "constant")]
    assert falling[0].digest != falling[1].digest
    assert falling[1].earlier == digest_of_the_version_before(tmp_path)
