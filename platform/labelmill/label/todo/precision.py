"""What a label job computes in, and when another choice would be faster."""

from collections.abc import Sequence

from labelmill.model.bundle import Bundle
from labelmill.model.quantized import is_quantized
from labelmill.spec import LabelSpec

__all__ = ["faster_in_bfloat16", "precision_asked"]

_WORTH_SAYING = 1.3


def precision_asked(spec: LabelSpec, bundle: Bundle, num_gpus: int) -> str:
    """What a run by this spec computes in. It is the same whatever the machines are that compute: a table that is
    labelled by an older CPU one night and by a newer one the next is not labelled anew."""
    on_gpu = num_gpus > 0 and spec.engine != "openvino"
    if is_quantized(bundle) and not on_gpu and spec.engine != "torch":
        return "int8"
    if spec.precision == "auto":
        return "bfloat16" if on_gpu else "float32"
    return spec.precision


def faster_in_bfloat16(spec: LabelSpec, bundles: Sequence[Bundle], engines: Sequence[str]) -> str:
    """What to say to somebody who chose no precision, where this CPU runs the networks much faster in bfloat16; or
    nothing. The networks are converted already."""
    if spec.precision != "auto" or set(engines) != {"openvino"}:
        return ""
    from labelmill.model.engines.openvino_engine import bfloat16_gain

    gain = min(bfloat16_gain(bundle, embeddings=spec.embeddings) for bundle in bundles)
    if gain < _WORTH_SAYING:
        return ""
    return (
        f"this CPU runs the network {gain:.1f} times as fast with `precision: bfloat16`; `kind: evaluate` with it says "
        "what that costs in accuracy. A table that is labelled in float32 is then labelled anew"
    )
