"""What people read of an evaluation: sections drawn from the JSON values that `labelmill.evaluate.evaluation`
describes, of which both the training report and the page of `kind: evaluate` are made."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from labelmill.evaluate.report.calibration import calibration_section
from labelmill.evaluate.report.confusions import confusion_section
from labelmill.evaluate.report.curves import threshold_section
from labelmill.evaluate.report.data import unreadable_pictures
from labelmill.evaluate.report.labels import label_section
from labelmill.evaluate.report.made import spec_section
from labelmill.evaluate.report.mistakes import mistake_section
from labelmill.evaluate.report.overview import overview
from labelmill.evaluate.report.pictures import Looked
from labelmill.evaluate.report.robustness import robustness_section
from labelmill.evaluate.report.slices import slice_section
from labelmill.page.document import Section, document, sections

__all__ = ["REPORT_NAME", "evaluation_html", "evaluation_sections"]

REPORT_NAME = "report.html"


def evaluation_html(
    name: str,
    evaluation: Mapping[str, Any],
    looked: Sequence[Looked],
    spec: Mapping[str, Any],
    library_versions: Mapping[str, str],
) -> str:
    """The page of `kind: evaluate`. Everything that comes from outside (labels, addresses, the spec) is escaped."""
    model = evaluation["model"]
    head = f"<h1>{escape(name)}</h1><p>{escape(model['name'])}@{model['version']} on labelled pictures</p>"
    parts = evaluation_sections(evaluation, looked)
    parts.append(Section("unreadable", "Unreadable pictures", unreadable_pictures(evaluation)))
    parts.append(spec_section(spec, library_versions))
    return document(f"{name}: evaluation", [head, overview(evaluation), sections(parts)])


def evaluation_sections(evaluation: Mapping[str, Any], looked: Sequence[Looked]) -> list[Section]:
    """Every section that the evaluation has something to say in. `looked` are its worst mistakes."""
    made = [
        label_section(evaluation),
        mistake_section(looked),
        confusion_section(evaluation),
        threshold_section(evaluation),
        calibration_section(evaluation),
        slice_section(evaluation),
        robustness_section(evaluation),
    ]
    return [section for section in made if section is not None]
