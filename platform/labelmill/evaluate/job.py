"""An evaluation: a published model and labelled pictures in, a report and its numbers out."""

import json
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from labelmill.allowance import cores_here
from labelmill.dataset import load_examples
from labelmill.errors import DataError, SpecError
from labelmill.evaluate.answers import Answers, answer
from labelmill.evaluate.evaluation import EVALUATION_NAME, evaluation_of
from labelmill.evaluate.report import REPORT_NAME, evaluation_html
from labelmill.evaluate.report.pictures import look_at_mistakes
from labelmill.evaluate.robustness import measure_robustness
from labelmill.model.bundle import Bundle
from labelmill.model.labeler import Labeler
from labelmill.model.registry import Registry
from labelmill.spec import EvaluateSpec, LoadedSpec
from labelmill.storage import open_store, requests_limited
from labelmill.unattended import note, turn_of

__all__ = ["EvaluateResult", "run"]

_SHOWN = ("accuracy", "macro_f1", "map", "ece")


@dataclass(frozen=True)
class EvaluateResult:
    """The numbers of `labelmill.evaluate.evaluation`, and where they lie; printed, it is a summary for people."""

    reference: str
    evaluation: dict[str, Any]
    output: str

    def __str__(self) -> str:
        metrics, bounds = self.evaluation["metrics"], self.evaluation["intervals"]
        lines = [f"{self.reference}  {metrics['num_pictures']} pictures"]
        for name in _SHOWN:
            if metrics[name] is not None:
                low_high = bounds.get(name)
                between = f"  (95 %: {low_high[0]:.4f} to {low_high[1]:.4f})" if low_high else ""
                lines.append(f"  {name:<9} {metrics[name]:.4f}{between}")
        for name, part in list(self.evaluation["slices"].items())[:10]:
            numbers = ", ".join(f"{key} {part[key]:.4f}" for key in _SHOWN[:3] if part[key] is not None)
            lines.append(f"  slice {name or '(none)'}: {numbers} on {part['num_pictures']} pictures")
        if self.evaluation["num_unreadable"]:
            lines.append(f"  {self.evaluation['num_unreadable']} pictures cannot be read, and are left out")
        where = [f"  report: {self.output}/{REPORT_NAME}", f"  numbers: {self.output}/{EVALUATION_NAME}"]
        return "\n".join([*lines, *where])


def run(loaded: LoadedSpec) -> EvaluateResult:
    """Label every picture, compare with the truth, and write the report and its numbers to the output.

    BusyError: another evaluation writes there. DataError, RegistryError, BundleError, StorageError, FencedError.
    """
    spec = loaded.spec
    if not isinstance(spec, EvaluateSpec):
        raise SpecError(f"{loaded.path}: expected kind: evaluate, got {spec.kind!r}")
    with requests_limited(spec.max_requests_per_s):
        return _run(loaded, spec)


def _run(loaded: LoadedSpec, spec: EvaluateSpec) -> EvaluateResult:
    bundle = Registry(spec.registry).resolve(spec.model)
    output = open_store(spec.output)
    with turn_of(spec, open_store(output.address("_labelmill")), of="evaluation") as lease:
        evaluation, html = _evaluated(loaded, spec, bundle)
        lease.check()
        output.write(EVALUATION_NAME, json.dumps(evaluation, allow_nan=False).encode())
        output.write(REPORT_NAME, html.encode())
    result = EvaluateResult(bundle.reference, evaluation, output.uri)
    metrics = {name: evaluation["metrics"][name] for name in _SHOWN}
    note(model=bundle.reference, output=output.uri, metrics=metrics, summary=str(result))
    return result


def _evaluated(loaded: LoadedSpec, spec: EvaluateSpec, bundle: Bundle) -> tuple[dict[str, Any], str]:
    examples = load_examples(spec.data.images, spec.data.labels, task=bundle.task, known=bundle.labels)
    labeler = Labeler(
        bundle, spec.engine, precision=spec.precision, max_pixels=spec.max_pixels, decode_threads=cores_here()
    )
    answers = answer(labeler, examples)
    _check_unreadable(spec, answers, len(examples))
    robustness = None
    if spec.robustness_pictures:
        robustness = measure_robustness(
            labeler, answers.examples, num_pictures=spec.robustness_pictures, max_pixels=spec.max_pixels
        )
    model = {"name": bundle.name, "version": bundle.version, "digest": bundle.digest}
    evaluation = evaluation_of(bundle, answers, split="all", model=model, robustness=robustness)
    looked = look_at_mistakes(bundle, evaluation["mistakes"], max_pixels=spec.max_pixels)
    made_with = {"labelmill": version("labelmill")}
    return evaluation, evaluation_html(spec.name, evaluation, looked, loaded.source, made_with)


def _check_unreadable(spec: EvaluateSpec, answers: Answers, num_pictures: int) -> None:
    if len(answers.unreadable) > spec.max_unreadable_rate * num_pictures:
        examples = [f"{uri}: {reason}" for uri, reason in list(answers.unreadable.items())[:5]]
        raise DataError(
            f"{len(answers.unreadable)} of {num_pictures} pictures cannot be read, and max_unreadable_rate allows "
            f"{spec.max_unreadable_rate:g}. Repair or remove them, or raise max_unreadable_rate. The first:",
            *examples,
        )
