"""What runs a network in a label job, chosen on the driver."""

from __future__ import annotations

from typing import Literal

from labelmill.label.spread.workers import Workers
from labelmill.model.bundle import Bundle
from labelmill.model.engines import choose_engine
from labelmill.spec import LabelSpec

__all__ = ["engine_for"]


def engine_for(bundle: Bundle, workers: Workers, spec: LabelSpec, *, alone: bool) -> Literal["openvino", "torch"]:
    """Chosen here and once. Workers that choose OpenVINO then find the network converted, and one that it cannot
    take is told of before they start. `alone`: they are on this machine."""
    if workers.gpus or spec.engine == "torch":
        if alone:
            bundle.weights_path()  # so that a cache which cannot keep them is told of here
        return "torch"
    if spec.engine == "auto" and choose_engine(bundle, spec.precision) == "torch":
        return "torch"
    # A run with nothing to do needs none of it.
    from labelmill.model.engines.graphs import converted_graph, takes_bfloat16

    graph = converted_graph(bundle, embeddings=spec.embeddings)
    if spec.precision == "bfloat16":
        takes_bfloat16(bundle, graph, "bfloat16")  # so that it is said here, and not only in the workers' logs
    return "openvino"
