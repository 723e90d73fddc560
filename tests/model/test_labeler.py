import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from bundles import make_bundle
from labelmill.errors import BundleError
from labelmill.model.engines import choose_engine, convert
from labelmill.model.engines.child import child_environment, untold
from labelmill.model.engines.torch_engine import PixelsToLogits, TorchEngine
from labelmill.model.labeler import Answer, Labeler

ENGINES = ["openvino", "torch"]


def picture(seed, width_px=60, height_px=40):
    """A JPEG of a few large coloured squares, another for each seed."""
    squares = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(squares).resize((width_px, height_px), Image.Resampling.NEAREST).save(out, "JPEG", quality=95)
    return out.getvalue()


@pytest.fixture(scope="module", params=ENGINES)
def labeler(request, tiny_bundle, session_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABELMILL_CACHE", str(session_cache))
        return Labeler(tiny_bundle, request.param, num_threads=1, batch_size=4)


def test_bad_pictures_keep_their_own_answers_and_never_a_neighbours(labeler):
    good = [picture(seed) for seed in range(9)]
    alone = [labeler.label([image])[0].confidences for image in good]
    assert np.ptp(np.stack(alone), axis=0).min() > 0.05  # else a mistaken neighbour would not show
    bad = [b"", b"no picture at all", good[0][:200]]
    mixed = [bad[0], *good[:3], bad[1], *good[3:7], bad[2], bad[0], *good[7:]]
    answers = labeler.label(mixed)
    assert [answer.status == "ok" for answer in answers] == [image in good for image in mixed]
    found = [answer for answer in answers if answer.status == "ok"]
    for answer, confidences in zip(found, alone, strict=True):
        np.testing.assert_allclose(answer.confidences, confidences, atol=1e-5)
        assert (answer.error, answer.width_px, answer.height_px) == (None, 60, 40)
        assert answer.confidences.dtype == np.float32
    for answer in answers:
        if answer.status != "ok":
            assert answer.error and (answer.width_px, answer.height_px, answer.confidences) == (None, None, None)
    assert {answer.status for answer in answers} == {"ok", "unreadable", "unsupported"}


def test_embeddings_are_those_of_the_batch_when_several_threads_ask_at_once(tiny_bundle):
    engine = TorchEngine(tiny_bundle, precision="float32", num_threads=1, embeddings=True)
    size_px = tiny_bundle.preprocessing.image_size_px
    batches = np.random.default_rng(3).integers(0, 256, (40, 5, size_px, size_px, 3), dtype=np.uint8)
    alone = [engine.forward(batch)[1] for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        together = [found for _, found in threads.map(engine.forward, batches)]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_nothing_and_nothing_but_bad_pictures_are_answered(labeler):
    assert labeler.label([]) == []
    answers = labeler.label([b"bad"] * 6)
    assert len(answers) == 6 and all(isinstance(answer, Answer) and answer.error for answer in answers)


def test_picture_over_the_limit_is_too_large(tiny_bundle):
    (answer,) = Labeler(tiny_bundle, "openvino", num_threads=1, max_pixels=60 * 40 - 1).label([picture(0)])
    assert answer.status == "too_large"


def test_threads_that_decode_change_no_answer(tiny_bundle):
    images = [picture(0), b"bad", picture(1), picture(2), picture(3)]
    one = Labeler(tiny_bundle, "openvino", num_threads=1).label(images)
    many = Labeler(tiny_bundle, "openvino", num_threads=1, decode_threads=3, batch_size=2).label(images)
    assert [answer.status for answer in many] == [answer.status for answer in one]
    for left, right in zip(one, many, strict=True):
        if left.confidences is not None:
            np.testing.assert_allclose(left.confidences, right.confidences, atol=1e-5)


def test_confidences_follow_the_task_and_the_temperature(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    how = {"engine": "torch", "num_threads": 1, "precision": "float32"}
    logits = Labeler(make_bundle(tmp_path, "raw"), **how)._engine.forward(pixels)[0].astype(np.float64)
    by_label = Labeler(make_bundle(tmp_path, "raw"), **how).confidences(pixels)
    np.testing.assert_allclose(by_label, 1 / (1 + np.exp(-logits)), atol=1e-6)
    by_class = Labeler(make_bundle(tmp_path, "class", "multi_class"), **how).confidences(pixels)
    np.testing.assert_allclose(by_class, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), atol=1e-6)
    warm = Labeler(make_bundle(tmp_path, "warm", calibration={"temperature": 2.0}), **how).confidences(pixels)
    np.testing.assert_allclose(warm, 1 / (1 + np.exp(-logits / 2)), atol=1e-6)


def test_binary_bundle_has_one_confidence(tmp_path):
    bundle = make_bundle(tmp_path, task="binary", labels=("cat",))
    (answer,) = Labeler(bundle, "torch", num_threads=1).label([picture(0)])
    assert answer.confidences.shape == (1,)


@pytest.mark.parametrize(
    ("given", "engine"), [(None, "openvino"), ("", "openvino"), ("-1", "openvino"), ("0", "torch")]
)
def test_auto_takes_a_gpu_only_where_one_is_given(tiny_bundle, monkeypatch, given, engine):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert choose_engine(tiny_bundle) == engine


def test_auto_takes_torch_for_a_network_that_openvino_cannot_take(tiny_bundle, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert Labeler(tiny_bundle, num_threads=1).engine_name == "torch"
    assert "could not be converted" in caplog.text


def test_batch_that_does_not_fit_into_memory_is_halved(tiny_bundle, monkeypatch):
    engine = TorchEngine(tiny_bundle, num_threads=1)
    pixels = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    expected, _ = engine.forward(pixels)
    run, sizes = engine._run, []

    def run_in_little_memory(pixels):
        sizes.append(len(pixels))
        if len(pixels) > 2:
            raise torch.OutOfMemoryError
        return run(pixels)

    monkeypatch.setattr(engine, "_run", run_in_little_memory)
    found, _ = engine.forward(pixels)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert sizes == [7, 4, 2, 2, 2, 1]
    engine.forward(pixels)
    assert sizes[6:] == [2, 2, 2, 1]  # what was too much is not tried again


LABEL_IN_A_CHILD = """
import sys
from labelmill.model.labeler import Labeler
from labelmill.model.registry import Registry
labeler = Labeler(Registry(sys.argv[1]).resolve("tiny@1"), num_threads=1)
print(labeler.engine_name, [answer.status for answer in labeler.label([b"bad"])], file=sys.stderr)
labeler.confidences(__import__("numpy").zeros((9, 32, 32, 3), "uint8"))
heavy = {"torch", "timm", "torchvision", "ray"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""


def label_in_a_child(registry_uri, cache):
    env = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    return subprocess.run(
        [sys.executable, "-c", LABEL_IN_A_CHILD, registry_uri],
        env=env | {"LABELMILL_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_cpu_labelers_import_no_torch_and_convert_once_for_all(tiny_bundle, tiny_registry, tmp_path):
    """Cold, three at once; then warm."""
    with ThreadPoolExecutor(3) as pool:
        cold = list(pool.map(lambda _: label_in_a_child(tiny_registry, tmp_path), range(3)))
    assert [(child.returncode, child.stderr) for child in cold] == [(0, "openvino ['unsupported']\n")] * 3
    (graph,) = (tmp_path / "openvino").glob("*/graph.xml")
    assert not [path for path in (tmp_path / "openvino").iterdir() if path not in (graph.parent, lock_of(graph))]
    converted_at = graph.stat().st_mtime_ns
    assert label_in_a_child(tiny_registry, tmp_path).returncode == 0
    assert graph.stat().st_mtime_ns == converted_at


def lock_of(graph):
    return graph.parent.with_name(f"{graph.parent.name.rpartition('.')[0]}.lock")


def test_graph_that_computes_something_else_is_never_used(tiny_bundle, tmp_path, monkeypatch):
    module = PixelsToLogits.load(
        tiny_bundle.architecture, len(tiny_bundle.labels), tiny_bundle.preprocessing, tiny_bundle.weights_path()
    )
    convert_model = convert.ov.convert_model

    def convert_and_change(given, **options):
        graph = convert_model(given, **options)
        given.network.get_classifier().bias = torch.nn.Parameter(torch.ones(3))
        return graph

    monkeypatch.setattr(convert.ov, "convert_model", convert_and_change)
    with pytest.raises(BundleError, match="answers otherwise than torch"):
        convert.convert(module, 32, tmp_path)


def test_a_child_tells_nobody_what_it_converts():
    before = os.environ.get("CI")
    ask = "import openvino_telemetry as t; assert not t.Telemetry('x', '1', 'y', 'ga4', False, True).consent"
    done = subprocess.run(
        [sys.executable, "-c", ask], env=child_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with untold():
        assert os.environ["CI"] == "true"
    assert os.environ.get("CI") == before


def test_failed_conversion_is_one_clear_error(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(BundleError, match=r"could not be converted to OpenVINO.*engine: torch"):
        Labeler(tiny_bundle, "openvino")
