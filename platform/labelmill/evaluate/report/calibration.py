"""Whether a confidence means what it says."""

from collections.abc import Mapping
from typing import Any

from labelmill.page.charts import Bar, bar_chart
from labelmill.page.curves import Curve, curve_chart, key
from labelmill.page.document import Section, figures

__all__ = ["calibration_section"]

_SHARES = [(0.0, "0"), (0.25, "0.25"), (0.5, "0.5"), (0.75, "0.75"), (1.0, "1")]
_NOW, _BEFORE, _IDEAL = 1, 3, 0


def calibration_section(evaluation: Mapping[str, Any]) -> Section:
    """A reliability diagram (Guo et al., 2017), before and after calibration, and how often each confidence occurs."""
    now, before = evaluation["reliability"], evaluation["uncalibrated"]
    curves = [Curve([(0.0, 0.0), (1.0, 1.0)], _IDEAL, dashed=True), _curve(now, _NOW)]
    legend = key(_NOW, f"as answered, error {now['ece']:.3f}") + key(_IDEAL, "ideal", "dashed")
    if before is not None:
        curves.insert(1, _curve(before, _BEFORE, dashed=True))
        legend += key(_BEFORE, f"before calibration, error {before['ece']:.3f}", "dashed")
    diagram = curve_chart(curves, "Reliability diagram: accuracy over confidence", x_ticks=_SHARES, y=(0.0, 1.0))
    charts = [(diagram, legend), (_histogram(now), "How often each confidence occurs")]
    return Section("calibration", "Calibration", f"<p>{_words(evaluation)}</p>{figures(charts)}")


def _words(evaluation: Mapping[str, Any]) -> str:
    right = (
        "the share of pictures whose top label is right"
        if evaluation["task"] == "multi_class"
        else "the share of labels that are there"
    )
    said = f"Among answers of one confidence, {right} should be that confidence."
    match evaluation["calibration"]:
        case None:
            return f"{said} The model is not calibrated."
        case {"temperature": temperature}:
            return f"{said} Calibrated by one temperature, {temperature:.3f}."
    return f"{said} Calibrated label by label (Platt)."


def _curve(found: Mapping[str, Any], colour: int, *, dashed: bool = False) -> Curve:
    points = [(bin_["confidence"], bin_["accuracy"]) for bin_ in found["bins"]]
    words = [f"confidence {x:.2f}, right {y:.2f}" for x, y in points]
    counts = [f"{bin_['count']:,} answers" for bin_ in found["bins"]]
    dots = [(x, y, f"{said}, {count}") for (x, y), said, count in zip(points, words, counts, strict=True)]
    return Curve(points, colour, dashed=dashed, dots=() if dashed else dots)


def _histogram(found: Mapping[str, Any]) -> str:
    width = found["bins"][0]["high"] - found["bins"][0]["low"]
    number = round(1 / width)
    counts = {round(bin_["low"] / width): bin_["count"] for bin_ in found["bins"]}
    bars = [
        Bar(counts.get(index, 0), f"{index * width:.2f} to {(index + 1) * width:.2f}: {counts.get(index, 0):,}")
        for index in range(number)
    ]
    return bar_chart(bars, [(share * number, text) for share, text in _SHARES], "How often each confidence occurs")
