"""What a network computes in. Where this CPU has no bfloat16, everything is shown to stay in float32, and what another
one would choose is shown from speeds and answers that are given."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bundles import make_bundle
from labelmill.model.engines import choose_engine, convert, graphs, torch_engine
from labelmill.model.engines.graphs import (
    BFLOAT16_SPEED,
    PROBE_NAME,
    SPEEDS_NAME,
    converted_graph,
    has_bfloat16,
    takes_bfloat16,
)
from labelmill.model.engines.openvino_engine import OpenVinoEngine
from labelmill.model.engines.precision import Comparison, furthest, made_pictures, same_decisions
from labelmill.model.engines.torch_engine import PixelsToLogits
from labelmill.model.labeler import Labeler

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
        for asked in ("float32", "bfloat16")
    }
    alike = engine == "torch" or BFLOAT16_SPEED in json.loads(
        converted_graph(bundle).with_name(SPEEDS_NAME).read_text()
    )
    low = LOW if alike else "float32"  # one picture alone, on some CPUs, differs by a tenth in OpenVINO's bfloat16
    assert [labeler.precision for labeler in labelers.values()] == ["float32", low]
    outputs = {asked: labeler._engine.forward(noise()) for asked, labeler in labelers.items()}
    for found, full in zip(outputs["bfloat16"], outputs["float32"], strict=True):
        assert found.dtype == np.float32
        assert (np.abs(found - full).max() > 0) == (low == "bfloat16")  # it is another arithmetic
        assert np.abs(found - full).max() <= 4e-2 * np.abs(full).max()  # 2e-2 on the pictures that were tried


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_who_leaves_it_open_gets_what_this_cpu_does_better(bundle, engine):
    assert Labeler(bundle, engine, precision="auto", num_threads=1).precision in ("float32", LOW)


@ON_BFLOAT16
def test_a_network_that_bfloat16_changes_computes_in_float32(bundle, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path))
    monkeypatch.setattr("labelmill.model.engines.precision.TOLERANCE", 1e-9)
    assert Labeler(bundle, "torch", precision="bfloat16").precision == "float32"
    assert "computes in float32" in caplog.text
    caplog.clear()

    def convert_here(bundle, folder, *, embeddings):
        monkeypatch.setattr(convert, "TOLERANCE", 1e-9)
        module = PixelsToLogits.load(
            bundle.architecture, len(bundle.labels), bundle.preprocessing, bundle.weights_path(), embeddings=embeddings
        )
        convert.convert(module, bundle.preprocessing.image_size_px, folder)

    monkeypatch.setattr(graphs, "_convert_in_child", convert_here)
    engine = OpenVinoEngine(bundle, precision="bfloat16")
    assert engine.precision == "float32"
    np.testing.assert_array_equal(
        engine.forward(noise())[0], OpenVinoEngine(bundle, precision="float32").forward(noise())[0]
    )
    assert "computes in float32: where it was converted its answers in bfloat16 differed" in caplog.text


def test_a_cpu_without_bfloat16_computes_in_float32(bundle, monkeypatch, caplog):
    monkeypatch.setattr(graphs, "has_bfloat16", lambda: False)
    for engine in ("openvino", "torch"):
        assert Labeler(bundle, engine, precision="auto").precision == "float32"
    assert not caplog.text  # nobody asked for anything else
    for engine in ("openvino", "torch"):
        assert Labeler(bundle, engine, precision="bfloat16").precision == "float32"
    assert "this CPU has no bfloat16" in caplog.text


@pytest.mark.parametrize(
    ("gain", "difference", "same", "taken"),
    [
        (1.31, 0.019, 0.996, {"auto", "bfloat16"}),
        (6.2, 0.0, 1.0, {"auto", "bfloat16"}),
        (1.29, 0.0, 1.0, {"bfloat16"}),  # hardly faster
        (6.2, 0.0, 0.992, {"bfloat16"}),  # other decisions
        (6.2, 0.021, 1.0, set()),  # other answers
        (6.2, float("nan"), 1.0, set()),
    ],
)
def test_the_choice_goes_by_speed_answers_and_decisions(gain, difference, same, taken):
    compared = Comparison(gain, difference, same)
    assert {asked for asked in ("auto", "float32", "bfloat16") if compared.takes(asked)} == taken


def test_decisions_are_those_of_the_bundle(bundle):
    logits = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    assert same_decisions(bundle, logits, logits) == 1.0
    other = logits.copy()
    other[7] = -other[7]  # of one picture every label that was given is not, and the other way round
    assert same_decisions(bundle, logits, other) == 0.995
    never = replace(bundle, thresholds=(1.0, 1.0, 1.0))
    assert same_decisions(never, logits, other) == 1.0


def test_the_furthest_output_counts_and_no_number_is_infinitely_far():
    logits, features = np.zeros((2, 3), np.float32), np.full((2, 5), 10, np.float32)
    assert furthest([logits, features], [logits + 0.01, features]) == pytest.approx(0.01)
    assert furthest([logits, features], [logits, features + 0.5]) == pytest.approx(0.05)
    assert furthest([logits], [logits * np.nan]) == float("inf")


def test_made_pictures_differ_and_are_the_same_each_time(bundle):
    pictures = made_pictures(64, 64)
    np.testing.assert_array_equal(pictures, made_pictures(64, 64))
    logits, _ = OpenVinoEngine(bundle, precision="float32").forward(pictures)
    decided = {tuple(label for label, _ in bundle.decide(row)) for row in bundle.confidences(logits)}
    assert len(decided) >= 4  # of the eight that three labels make


def test_speeds_are_measured_at_the_conversion_and_choose_the_engine(bundle, monkeypatch, tmp_path):
    graph = converted_graph(bundle)
    speeds = json.loads(graph.with_name(SPEEDS_NAME).read_text())
    assert set(speeds) - {BFLOAT16_SPEED} == {"openvino", "torch"}
    assert min(speeds.values()) > 0
    assert graph.with_name(PROBE_NAME).exists() == (BFLOAT16_SPEED in speeds)
    assert has_bfloat16() or BFLOAT16_SPEED not in speeds
    monkeypatch.setattr(graphs, "has_bfloat16", lambda: True)
    monkeypatch.setattr(graphs, "_speeds", lambda graph: speeds)
    monkeypatch.setattr(graphs, "converted_graph", lambda bundle, **_: tmp_path / "graph.xml")
    logits = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    np.savez(tmp_path / PROBE_NAME, float32=logits, bfloat16=logits + np.float32(1e-6))
    for torch_speed, expected in (
        (110, "openvino openvino openvino"),
        (150, "torch openvino openvino"),
        (400, "torch " * 3),
    ):
        speeds |= {"openvino": 100, "openvino_bfloat16": 300, "torch": torch_speed}
        chosen = [choose_engine(bundle, precision) for precision in ("float32", "bfloat16", "auto")]
        assert " ".join(chosen) == expected.strip()
    assert takes_bfloat16(bundle, tmp_path / "graph.xml", "auto")
    np.savez(tmp_path / PROBE_NAME, float32=logits, bfloat16=-logits)
    assert not takes_bfloat16(bundle, tmp_path / "graph.xml", "auto")
    assert takes_bfloat16(bundle, tmp_path / "graph.xml", "bfloat16")


def test_torch_on_a_cpu_that_is_said_to_have_bfloat16_compares_before_it_takes_it(bundle, monkeypatch):
    monkeypatch.setattr(graphs, "has_bfloat16", lambda: True)
    compared = []

    class Seen(Comparison):
        def takes(self, asked):
            compared.append((asked, self))
            return super().takes(asked)

    monkeypatch.setattr(torch_engine, "Comparison", Seen)
    taken = Labeler(bundle, "torch", precision="auto").precision
    [(asked, found)] = compared
    assert asked == "auto" and found.gain > 0 and found.difference <= 2e-2
    assert (taken == "bfloat16") == found.takes("auto")
