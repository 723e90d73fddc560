from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import labelmill.train
from bundles import make_bundle
from labelmill.errors import LabelmillError
from labelmill.model.bundle import Bundle
from labelmill.model.engines.torch_engine import PixelsToLogits
from labelmill.model.network import build_network
from labelmill.spec import TrainSpec, load_spec
from labelmill.train.approaches.adapt import _estimate, _mix, _normalisations, _statistics, make
from labelmill.train.feed.feed import Feed
from train.published import trained_bundle
from train.runs import job_of, shapes_source, shapes_spec
from train.shapes import LABELS, write_labels, write_shapes


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def adapt_source(folder: Path, bundle: Bundle, **changes: object) -> dict[str, object]:
    unread = ("model", "optimize", "workers")
    source = {name: value for name, value in shapes_source(folder).items() if name not in unread}
    return source | {
        "approach": "adapt",
        "registry": bundle.uri.removesuffix(f"/{bundle.name}/{bundle.version}"),
        "adapt": {"model": bundle.reference, "images": str(folder / "images"), "prior_pictures": 0},
        **changes,
    }


def refused(folder: Path, bundle: Bundle, **changes: object) -> str:
    shapes_spec(folder)
    job, training_set = job_of(TrainSpec.model_validate(adapt_source(folder, bundle, **changes)))
    with pytest.raises(LabelmillError) as caught:
        make(job, training_set, folder)
    return str(caught.value)


def test_other_labels_and_networks_without_statistics_are_refused(tmp_path: Path):
    other = make_bundle(tmp_path / "registry", "shapes", labels=("blue", "green", "pink"))
    assert "shapes@1 knows the labels blue, green, pink" in refused(tmp_path, other)
    vit = make_bundle(tmp_path / "registry", "vit", labels=LABELS, architecture="timm/test_vit")
    assert "timm/test_vit, which has no batch normalisation" in refused(tmp_path, vit)


def test_the_statistics_are_those_of_the_pictures_mixed_with_the_old_ones(tmp_path: Path):
    spec = shapes_spec(tmp_path)
    bundle = make_bundle(tmp_path / "registry", "shapes", labels=LABELS)
    network = build_network(bundle.architecture, 3, str(bundle.weights_path()), image_size_px=32)
    pictures = job_of(spec)[1].train
    feed = Feed.alone(spec, bundle.preprocessing, pictures, num_pictures=len(pictures))
    layers = _normalisations(network, bundle)
    first, inputs = layers[0], []
    first.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    assert _estimate(PixelsToLogits(network, bundle.preprocessing), layers, feed.validation_batches()) == len(pictures)
    [seen] = inputs
    torch.testing.assert_close(first.running_mean, seen.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(first.running_var, seen.var(dim=(0, 2, 3)))
    assert not network.training
    old, estimated = (
        (torch.full_like(first.running_mean, 5.0), torch.full_like(first.running_mean, 2.0)),
        _statistics(first),
    )
    _mix([first], [old], share_of_old=0.25)
    torch.testing.assert_close(first.running_mean, 0.75 * estimated[0] + 1.25)
    torch.testing.assert_close(first.running_var, 0.75 * estimated[1] + 0.5)


@pytest.mark.long
def test_adaptation_lowers_the_error_on_pictures_taken_in_the_dark(tmp_path: Path):
    bundle = trained_bundle(tmp_path / "day")
    by_night = tmp_path / "night"
    labels = write_shapes(by_night / "images", 150, seed=1)
    write_labels(by_night / "labels.csv", labels)
    for path in (by_night / "images").iterdir():
        darken(path)
    spec = adapt_source(by_night, bundle)
    (tmp_path / "adapt.yaml").write_text(yaml.safe_dump(spec))
    result = labelmill.train.run(load_spec(str(tmp_path / "adapt.yaml")))
    found = result.bundle.metrics["findings"]["adapt"]
    assert found["model"] == bundle.reference and found["num_pictures"] >= 128
    assert found["after"] == pytest.approx(result.bundle.metrics["test"]["map"])
    assert found["after"] > found["before"] + 0.05


def darken(path: Path) -> None:
    pixels = np.asarray(Image.open(path)).astype(float)
    Image.fromarray((255 * (pixels / 255) ** 2 * [0.25, 0.3, 0.45]).astype(np.uint8)).save(path, quality=95)
