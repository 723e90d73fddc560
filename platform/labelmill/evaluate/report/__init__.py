"""What people read of an evaluation: sections drawn from the JSON values that `labelmill.evaluate.evaluation`
describes, of which both the training report and the page of `kind: evaluate` are made."""

from collections.abc import Mapping, Sequence
from typing import Any

from labelmill.evaluate.report.calibration import calibration_section
from labelmill.evaluate.report.confusions import confusion_section
from labelmill.evaluate.report.curves import threshold_section
from labelmill.evaluate.report.labels import label_section
from labelmill.evaluate.report.mistakes import Looked, mistake_section
from labelmill.evaluate.report.overview import overview
from labelmill.evaluate.report.robustness import robustness_section
from labelmill.evaluate.report.slices import slice_section
from labelmill.page.document import Section

__all__ = ["Looked", "evaluation_sections", "overview"]


def evaluation_sections(evaluation: Mapping[str, Any], looked: Sequence[Looked] = ()) -> list[Section]:
    """Every section that the evaluation has something to say in. `looked`: its worst mistakes."""
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
