"""The 8-bit graph that a quantized bundle carries beside its float weights.

`int8/graph.xml` and `int8/graph.bin` are OpenVINO's own format: data, no code. On a CPU they are what answers. The
float weights stay in the bundle for what 8-bit integers cannot do: a GPU, an explanation, a network that starts from
them.
"""

from pathlib import Path

from labelmill.model.bundle import Bundle

__all__ = ["INT8_GRAPH", "INT8_WEIGHTS", "int8_graph", "is_quantized"]

INT8_GRAPH, INT8_WEIGHTS = "int8/graph.xml", "int8/graph.bin"


def is_quantized(bundle: Bundle) -> bool:
    return INT8_GRAPH in bundle.files


def int8_graph(bundle: Bundle) -> Path:
    """The graph as a local file, its weights beside it, fetched once a machine. Its outputs are logits and pooled
    features. BundleError: a file is missing or damaged."""
    return bundle.local_files(INT8_GRAPH, INT8_WEIGHTS, kind="int8")[0]
