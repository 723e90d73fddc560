"""Converted networks on this machine, and what was measured of them when they were converted.

Reading what is there imports neither torch nor OpenVINO: the process that starts a run asks for it, too.
"""

import hashlib
import json
import logging
import os
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np

from labelmill.errors import BundleError
from labelmill.model.bundle import WEIGHTS_NAME, Bundle
from labelmill.model.cache import is_kept, kept
from labelmill.model.engines import EngineName, PrecisionName
from labelmill.model.engines.child import run_in_child
from labelmill.model.engines.precision import Comparison, same_decisions
from labelmill.model.quantized import int8_graph, is_quantized

__all__ = [
    "BFLOAT16_SPEED",
    "GRAPH_NAME",
    "PROBE_NAME",
    "SPEEDS_NAME",
    "converted_graph",
    "faster_engine",
    "has_bfloat16",
    "is_at_hand",
    "takes_bfloat16",
]

logger = logging.getLogger(__name__)

GRAPH_NAME = "graph.xml"
SPEEDS_NAME = "speeds.json"
BFLOAT16_SPEED = "openvino_bfloat16"  # is missing there where bfloat16 is not to be had
PROBE_NAME = "probe.npz"  # logits of made pictures, in float32 and in bfloat16; missing likewise

# Raised whenever convert.py makes another graph of the same bundle, so that no old one is taken from a cache.
_CONVERSION = 4
_CLEARLY = 1.25


@cache
def has_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16 (AVX-512 BF16, AMX), and not merely converts to it and back."""
    import openvino as ov

    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def takes_bfloat16(bundle: Bundle, graph: Path, asked: PrecisionName) -> bool:
    """Whether OpenVINO computes this bundle in bfloat16 here. A warning says why it does not, to who asked for it."""
    if asked == "float32" or is_quantized(bundle):
        return False
    compared = _comparison(bundle, graph)
    if compared is not None:
        return compared.takes(asked)
    if asked == "bfloat16":
        why = (
            "where it was converted its answers in bfloat16 differed too much"
            if has_bfloat16()
            else "this CPU has no bfloat16"
        )
        logger.warning("%s computes in float32: %s", bundle.reference, why)
    return False


def _comparison(bundle: Bundle, graph: Path) -> Comparison | None:
    """As measured at the conversion; None where bfloat16 is not to be had."""
    speeds = _speeds(graph)
    if BFLOAT16_SPEED not in speeds or not has_bfloat16():
        return None
    with np.load(graph.with_name(PROBE_NAME), allow_pickle=False) as probe:
        same = same_decisions(bundle, probe["float32"], probe["bfloat16"])
    return Comparison(speeds[BFLOAT16_SPEED] / speeds["openvino"], 0.0, same)  # the converter looked at the difference


def _speeds(graph: Path) -> dict[str, float]:
    """Pictures a second on one thread, as measured at the conversion; in bfloat16 where the network can do with it."""
    speeds: dict[str, float] = json.loads(graph.with_name(SPEEDS_NAME).read_text())
    return speeds


def faster_engine(bundle: Bundle, precision: PrecisionName = "auto") -> Literal["openvino", "torch"]:
    """The faster engine for this bundle on one core of this machine, as measured when the bundle was converted.

    torch has to win clearly: a worker pays 4 to 5 s and 700 MB to import it. Only OpenVINO computes in 8-bit integers,
    and torch is measured in float32.
    """
    if is_quantized(bundle):
        return "openvino"
    graph = converted_graph(bundle)
    speeds, compared = _speeds(graph), _comparison(bundle, graph)
    own = speeds[BFLOAT16_SPEED] if compared is not None and compared.takes(precision) else speeds["openvino"]
    return "torch" if speeds["torch"] > _CLEARLY * own else "openvino"


def converted_graph(bundle: Bundle, *, embeddings: bool = False) -> Path:
    """The bundle's network as an OpenVINO graph on this machine: converted once per content and OpenVINO version, or
    the graph that a quantized bundle carries. With `embeddings` its second output are the pooled features.

    Any number of processes may ask at once: one converts, the others wait for it. What is converted while a model is
    measured serves the published bundle as well, and so does one that differs in its thresholds alone.
    """
    if is_quantized(bundle):
        return int8_graph(bundle)
    make = partial(_convert_in_child, bundle, embeddings=embeddings)
    return kept("openvino", _key(bundle, embeddings=embeddings), make) / GRAPH_NAME


def is_at_hand(bundle: Bundle, engine: EngineName, *, embeddings: bool = False) -> bool:
    """Whether such an engine finds here what it computes with, and need not write it into the cache."""
    converted = is_kept("openvino", _key(bundle, embeddings=embeddings))
    weights = is_kept("weights", bundle.files[WEIGHTS_NAME].sha256)
    return (converted and engine != "torch") or (weights and engine != "openvino")


def _key(bundle: Bundle, *, embeddings: bool) -> str:
    outputs = "-embeddings" if embeddings else ""
    return f"{_network_digest(bundle)}-{version('openvino')}-{_CONVERSION}{outputs}"


def _network_digest(bundle: Bundle) -> str:
    """sha256 of all that decides the graph."""
    content = {
        "architecture": bundle.architecture,
        "num_logits": len(bundle.labels),
        "preprocessing": bundle.preprocessing.to_json(),
        "weights": bundle.files[WEIGHTS_NAME].sha256,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _convert_in_child(bundle: Bundle, folder: Path, *, embeddings: bool) -> None:
    reason = run_in_child("labelmill.model.engines.convert", bundle, folder=str(folder), embeddings=embeddings)
    if reason is None:
        return
    _check_room(folder, bundle.files[WEIGHTS_NAME].size_bytes)
    raise BundleError(
        f"{bundle.reference} ({bundle.architecture}) could not be converted to OpenVINO: {reason}. "
        "Write engine: torch, or choose another architecture."
    )


def _check_room(folder: Path, size_bytes: int) -> None:
    """OSError, if a graph as large as the weights does not fit there. Tried, since no quota and no limit of a file's
    size shows in what a disk says; and only once a conversion failed, of which OpenVINO does not say why."""
    for file in folder.iterdir():
        file.unlink()
    with (folder / GRAPH_NAME).open("wb") as trial:
        os.posix_fallocate(trial.fileno(), 0, size_bytes)
