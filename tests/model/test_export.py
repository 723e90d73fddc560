import json

import numpy as np
import onnx
import pytest

from bundles import make_bundle
from labelmill.errors import BundleError, StorageError
from labelmill.model import export as export_module
from labelmill.model.engines import precision
from labelmill.model.engines.openvino_engine import compile_graph
from labelmill.model.export import export_bundle
from labelmill.model.labeler import Labeler

PIXELS = np.random.default_rng(5).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def calibrated(tmp_path):
    return make_bundle(tmp_path / "registry", "tiny", "multi_class", calibration={"temperature": 2.5})


@pytest.mark.long
@pytest.mark.parametrize("form", ["onnx", "openvino"])
@pytest.mark.parametrize(
    ("architecture", "task"),
    [("timm/test_resnet", "multi_class"), ("timm/test_vit", "multi_label"), ("torchvision/swin_t", "binary")],
)
def test_an_exported_model_answers_as_the_bundle(tmp_path, architecture, task, form):
    labels = ("cat",) if task == "binary" else ("cat", "dog", "eel")
    bundle = make_bundle(
        tmp_path / "registry", "tiny", task, labels, architecture=architecture, calibration={"temperature": 2.5}
    )
    done = export_bundle(bundle, tmp_path / "out", form)
    assert done.difference <= 1e-3
    found = compile_graph(done.graph, len(PIXELS), 1)([PIXELS])
    np.testing.assert_allclose(
        found["confidences"], Labeler(bundle, "torch", precision="float32").confidences(PIXELS), atol=1e-3
    )
    card = json.loads((tmp_path / "out" / "model.json").read_text())
    assert (card["model"], card["labels"]) == ("tiny@1", list(labels))
    assert card["input"]["shape"] == ["batch", 32, 32, 3]


def test_an_export_is_compared_with_the_bundle_in_float32(tmp_path, calibrated, monkeypatch):
    monkeypatch.setattr(precision, "_WORTH_IT", 0)  # bfloat16, wherever the CPU has it
    assert export_bundle(calibrated, tmp_path / "out", "openvino").difference <= 1e-5


@pytest.mark.long
def test_an_onnx_file_says_by_itself_what_it_takes_and_gives(tmp_path, calibrated):
    graph = onnx.load(export_bundle(calibrated, tmp_path / "out", "onnx").graph)
    onnx.checker.check_model(graph, full_check=True)
    [given], [answered] = graph.graph.input, graph.graph.output
    assert (given.name, answered.name) == ("pixels", "confidences")
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [side.dim_param or side.dim_value for side in given.type.tensor_type.shape.dim] == ["batch", 32, 32, 3]
    [properties] = [json.loads(item.value) for item in graph.metadata_props if item.key == "labelmill"]
    assert properties["labels"] == ["cat", "dog", "eel"]


@pytest.mark.long
def test_a_graph_that_answers_otherwise_is_never_handed_over(tmp_path, calibrated, monkeypatch):
    monkeypatch.setattr(
        export_module, "lines", lambda _, n: (np.ones(n, "f4"), np.zeros(n, "f4"))
    )  # forget the calibration
    with pytest.raises(BundleError, match=r"tiny@1 as openvino answers otherwise than the bundle: .* 0.001 is allowed"):
        export_bundle(calibrated, tmp_path / "out", "openvino")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["registry"]


def test_nothing_is_written_over(tmp_path, tiny_bundle):
    (tmp_path / "mine.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(StorageError, match="expected an empty or a new folder"):
            export_bundle(tiny_bundle, place, "openvino")
