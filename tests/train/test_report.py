from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from bundles import make_draft
from labelmill.images.transform import Preprocessing
from labelmill.metrics import evaluate
from labelmill.train.progress import Epoch, Progress
from labelmill.train.report import report_html

LABELS = ("<script>alert(1)</script>", "cat & dog", '"eel"')
VOID = {"meta", "line", "polyline", "circle"}


class Page(HTMLParser):
    """Checks that tags are balanced, and gathers what stands between them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def page(tmp_path: Path, *, split: str = "test", epochs: int = 3, metrics: dict | None = None) -> tuple[str, Page]:
    rng = np.random.default_rng(0)
    targets = np.stack([np.arange(30) % 2, np.arange(30) % 3 == 0, np.zeros(30)], axis=1)
    measured = evaluate("multi_label", LABELS, targets, rng.random((30, 3)), [0.5] * 3)
    draft = make_draft(
        tmp_path,
        labels=LABELS,
        spec={"name": "shapes", "data": {"labels": "</pre><img src=x>"}},
        metrics={
            "headline": {"name": "map", "value": measured["map"], "split": split},
            split: measured,
            "epochs": epochs,
            "best_epoch": 1,
            "num_pictures": {"train": 200, "validation": 30, "test": 30},
            "num_positives": {label: {"train": 90, "validation": 12, "test": 12} for label in LABELS},
            "num_unreadable": 2,
            "unreadable": {"/pictures/<b>.jpg": "damaged: <i>"},
        }
        | (metrics or {}),
    )
    curve = ((5, 0.7, 1e-3), (10, 0.5, 5e-4))
    records = tuple(Epoch(number, 0.6, 0.9, 5e-4, 100.0, 2, curve, 0.7, 0.8) for number in range(1, epochs + 1))
    html = report_html("shapes", draft, Progress(Preprocessing(32), records))
    parsed = Page()
    parsed.feed(html)
    assert not parsed.open
    return html, parsed


def test_names_from_outside_are_text_never_markup(tmp_path: Path):
    html, parsed = page(tmp_path)
    assert not parsed.seen & {"script", "img", "b2", "i"}
    for words in (*LABELS, "</pre><img src=x>", "/pictures/<b>.jpg", "damaged: <i>"):
        assert words in parsed.text.replace("\\", "")
    assert "nan" not in html.lower()


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path):
    html, parsed = page(tmp_path)
    assert "://" not in html
    assert "default-src 'none'" in html
    assert not parsed.seen & {"link", "script", "iframe", "img"}
    assert html.count("<svg") == 3
    assert 'name="viewport"' in html


def test_numbers_from_validation_pictures_say_so(tmp_path: Path):
    assert "which training never saw" in page(tmp_path / "a")[1].text
    assert "flatter the model" in page(tmp_path / "b", split="validation")[1].text


def test_one_epoch_is_enough_for_a_page(tmp_path: Path):
    assert page(tmp_path, epochs=1)[0].count('class="mark"') >= 1


def test_a_label_without_test_pictures_shows_a_dash_not_a_zero(tmp_path: Path):
    assert "<td>-</td>" in page(tmp_path)[0]
