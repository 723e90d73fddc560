"""What a network computes in. Where this CPU has no bfloat16, everything is shown to stay in float32."""

import json

import numpy as np
import pytest

from bundles import make_bundle
from labelmill.label.todo.precision import faster_in_bfloat16
from labelmill.model.engines import choose_engine, convert, openvino_engine, torch_engine
from labelmill.model.engines.openvino_engine import (
    SPEEDS_NAME,
    OpenVinoEngine,
    bfloat16_gain,
    converted_graph,
    has_bfloat16,
)
from labelmill.model.engines.torch_engine import PixelsToLogits
from labelmill.model.labeler import Labeler
from labelmill.spec import LabelSpec

LOW = "bfloat16" if has_bfloat16() else "float32"
ON_BFLOAT16 = pytest.mark.skipif(not has_bfloat16(), reason="this CPU has no bfloat16")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("registry"), architecture="timm/resnet18", image_size_px=64)


@pytest.fixture(autouse=True)
def cache(session_cache, monkeypatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(session_cache))


def noise(count=11):
    return np.random.default_rng(3).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_bfloat16_is_taken_when_asked_for_and_answers_alike(bundle, engine):
    labelers = {
        asked: Labeler(bundle, engine, precision=asked, num_threads=1, embeddings=True)
        for asked in ("auto", "float32", "bfloat16")
    }
    assert [labeler.precision for labeler in labelers.values()] == ["float32", "float32", LOW]
    outputs = {asked: labeler._engine.forward(noise()) for asked, labeler in labelers.items()}
    for low, full, same in zip(outputs["bfloat16"], outputs["float32"], outputs["auto"], strict=True):
        np.testing.assert_array_equal(full, same)
        assert low.dtype == np.float32
        assert (np.abs(low - full).max() > 0) == has_bfloat16()  # it is another arithmetic
        assert np.abs(low - full).max() <= 4e-2 * np.abs(full).max()  # 2e-2 on the pictures that were tried


@ON_BFLOAT16
def test_a_network_that_bfloat16_changes_computes_in_float32(bundle, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path))
    monkeypatch.setattr(torch_engine, "TOLERANCE", 1e-9)
    assert Labeler(bundle, "torch", precision="bfloat16").precision == "float32"
    assert "computes in float32" in caplog.text
    caplog.clear()

    def convert_here(bundle, folder, *, embeddings):
        monkeypatch.setattr(convert, "TOLERANCE", 1e-9)
        module = PixelsToLogits.load(
            bundle.architecture, len(bundle.labels), bundle.preprocessing, bundle.weights_path(), embeddings=embeddings
        )
        convert.convert(module, bundle.preprocessing.image_size_px, folder)

    monkeypatch.setattr(openvino_engine, "_convert_in_child", convert_here)
    engine = OpenVinoEngine(bundle, precision="bfloat16")
    assert engine.precision == "float32"
    np.testing.assert_array_equal(engine.forward(noise())[0], OpenVinoEngine(bundle).forward(noise())[0])
    assert bfloat16_gain(bundle) == 1.0
    assert "computes in float32: where it was converted its answers in bfloat16 differed" in caplog.text


def test_a_cpu_without_bfloat16_computes_in_float32(bundle, monkeypatch, caplog):
    monkeypatch.setattr(openvino_engine, "has_bfloat16", lambda: False)
    for engine in ("openvino", "torch"):
        assert Labeler(bundle, engine, precision="bfloat16").precision == "float32"
    assert "this CPU has no bfloat16" in caplog.text
    assert bfloat16_gain(bundle) == 1.0


def test_speeds_are_measured_at_the_conversion_and_choose_the_engine(bundle, monkeypatch):
    speeds = json.loads(converted_graph(bundle).with_name(SPEEDS_NAME).read_text())
    assert set(speeds) == {"openvino", "torch"} | ({"openvino_bfloat16"} if has_bfloat16() else set())
    assert min(speeds.values()) > 0
    monkeypatch.setattr(openvino_engine, "has_bfloat16", lambda: True)
    monkeypatch.setattr(openvino_engine, "_speeds", lambda graph: speeds)
    for torch_speed, expected in ((110, "openvino openvino"), (150, "torch openvino"), (400, "torch torch")):
        speeds |= {"openvino": 100, "openvino_bfloat16": 300, "torch": torch_speed}
        chosen = [choose_engine(bundle, precision) for precision in ("auto", "bfloat16")]
        assert " ".join(chosen) == expected


def test_advice_converts_no_network_anew(bundle, monkeypatch):
    monkeypatch.setattr(openvino_engine, "has_bfloat16", lambda: True)
    speeds = {"openvino": 100, "openvino_bfloat16": 200, "torch": 1}
    monkeypatch.setattr(openvino_engine, "_speeds", lambda graph: speeds)
    asked = []
    monkeypatch.setattr(openvino_engine, "converted_graph", lambda bundle, **which: asked.append(which))
    for embeddings in (True, False):
        fields = {"kind": "label", "name": "n", "registry": "r", "model": "m@1", "images": "i", "output": "o"}
        spec = LabelSpec.model_validate(fields | {"embeddings": embeddings})
        assert "2.0 times" in faster_in_bfloat16(spec, [bundle], ["openvino"])
        assert asked.pop() == {"embeddings": embeddings} and not asked  # the graph that the run itself labels by


def test_who_chose_no_precision_is_told_when_bfloat16_is_much_faster(bundle, monkeypatch):
    monkeypatch.setattr(openvino_engine, "has_bfloat16", lambda: True)

    def told(gain, engine="openvino", **fields):
        speeds = {"openvino": 100, "openvino_bfloat16": 100 * gain, "torch": 1}
        monkeypatch.setattr(openvino_engine, "_speeds", lambda graph: speeds)
        fields = {"kind": "label", "name": "n", "registry": "r", "model": "m@1", "images": "i", "output": "o"} | fields
        return faster_in_bfloat16(LabelSpec.model_validate(fields), [bundle], [engine])

    assert told(6.0).startswith("this CPU runs the network 6.0 times as fast with `precision: bfloat16`")
    assert told(1.1) == told(6.0, precision="float32") == told(6.0, precision="bfloat16") == told(6.0, "torch") == ""
