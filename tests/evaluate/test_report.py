"""The sections of a report: what they say, and that nothing from outside is more than text in them."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from bundles import make_bundle
from evaluate.evaluations import made_evaluation
from labelmill.evaluate.report import evaluation_html, evaluation_sections
from labelmill.evaluate.report.confusions import confusion_section
from labelmill.evaluate.report.data import data_section, pictures_of
from labelmill.evaluate.report.made import other_section
from labelmill.evaluate.report.pictures import Looked, look_at_mistakes, thumbnails
from labelmill.evaluate.report.search import search_section
from labelmill.model.explain import Explanation
from labelmill.page.document import document, sections
from pictures import jpeg_bytes

LABELS = ("<script>alert(1)</script>", "cat & dog", '"eel"')
EVIL = '</pre><img src="https://elsewhere">'
VOID = {"meta", "img", "input", "br"}
SPEC = {"kind": "evaluate", "name": "made", "output": EVIL}


class Parsed(HTMLParser):
    """Checks that tags are balanced, and gathers text, tags and where pictures come from."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.sources: list[str] = []
        self.text = ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def looked_at(evaluation) -> list[Looked]:
    heat_hw = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(32, 32)
    pixels_hwc = np.full((168, 168, 3), 128, dtype=np.uint8)
    return [Looked(mistake, pixels_hwc, Explanation(heat_hw, "Grad-CAM")) for mistake in evaluation["mistakes"]]


def page_of(evaluation) -> str:
    return evaluation_html("<b>made", evaluation, looked_at(evaluation), SPEC, {"labelmill": "<1>"})


def section(evaluation, anchor: str) -> str:
    return {part.anchor: part.body for part in evaluation_sections(evaluation, looked_at(evaluation))}[anchor]


@pytest.mark.parametrize("task", ["binary", "multi_class", "multi_label"])
def test_what_comes_from_outside_is_text_never_markup(task):
    evaluation = made_evaluation(
        task,
        LABELS[:1] if task == "binary" else LABELS,
        slices=("<i>night", "day"),
        unreadable={"/<u>.jpg": "damaged: <s>"},
        uri="/<em>/{}.jpg",
    )
    html = page_of(evaluation)
    parsed = Parsed(html)
    assert not parsed.seen & {"script", "i", "u", "s", "em", "link", "iframe"}
    assert all(source.startswith(("data:image/", "#")) for source in parsed.sources)
    for words in ("<b>made", LABELS[0], "<i>night", "/<u>.jpg", "damaged: <s>", EVIL):
        assert words in parsed.text
    assert "nan" not in re.sub(r'"data:image[^"]*"', "", html).lower()


def test_sections_without_anything_to_say_are_left_out():
    bare = made_evaluation("multi_class", ("cat", "dog"))
    assert {"labels", "confusion", "calibration"} <= {part.anchor for part in evaluation_sections(bare, [])}
    assert not {"mistakes", "slices", "robustness"} & {part.anchor for part in evaluation_sections(bare, [])}
    full = made_evaluation("multi_class", ("cat", "dog"), slices=("day", "night"))
    assert {"mistakes", "slices", "robustness"} <= {part.anchor for part in evaluation_sections(full, looked_at(full))}


def test_every_link_of_the_contents_leads_to_a_section():
    html = page_of(made_evaluation("multi_label", LABELS, slices=("day",)))
    links = set(re.findall(r'href="#(\w+)"', html))
    assert len(links) >= 9
    assert links == set(re.findall(r'<section id="(\w+)"', html))


def test_the_confusion_matrix_shows_each_count_where_it_belongs():
    evaluation = made_evaluation("multi_class", ("cat", "dog", "eel"))
    counts, body = evaluation["confusion"]["counts"], section(evaluation, "confusion")
    assert counts[0][1] != counts[1][0]
    for row, true in enumerate(evaluation["labels"]):
        for column, called in enumerate(evaluation["labels"]):
            words = f"{counts[row][column]} of {sum(counts[row])} pictures of {true} were called {called}"
            assert f"<title>{words}</title>" in body


def test_of_many_labels_those_that_are_confused_stand_in_the_matrix():
    labels = tuple(f"label {number}" for number in range(45))
    counts = np.diag(np.full(45, 20))
    counts[40, 3] = 7
    found = {"counts": counts.tolist(), "pairs": [{"label": "label 40", "predicted": "label 3", "count": 7}]}
    body = confusion_section({"task": "multi_class", "labels": labels, "confusion": found}).body
    assert "The 30 of 45 labels that are confused most" in body
    assert body.count("<g>") == 30 * 30
    assert "7 of 27 pictures of label 40 were called label 3</title>" in body


def test_the_weakest_label_comes_first_and_one_with_few_pictures_says_so():
    evaluation = made_evaluation("multi_label", tuple("abcdefgh"), num_pictures=90)
    body, per_label = section(evaluation, "labels"), evaluation["metrics"]["per_label"]
    order = re.findall(r"<tr><td>(\w)", body)
    f1 = [per_label[label]["f1"] or 0 for label in order]
    assert f1 == sorted(f1) and len(set(f1)) > 3
    few = {label for label in per_label if per_label[label]["support"] < 10}
    assert few and set(re.findall(r'<td>(\w) <small class="bad">only', body)) == few


def test_a_label_without_pictures_shows_a_dash_not_a_zero():
    evaluation = made_evaluation("multi_label", ("cat", *"abcdefghijklmnopqrstuvw"), num_pictures=12)
    assert any(row["support"] == 0 for row in evaluation["metrics"]["per_label"].values())
    assert "<td>-</td>" in section(evaluation, "labels")


def test_a_slice_is_marked_only_when_its_whole_interval_is_lower():
    evaluation = made_evaluation("multi_class", ("cat", "dog"), slices=("day", "night"))
    slices, overall = evaluation["slices"], evaluation["metrics"]["accuracy"]
    slices["night"]["intervals"]["accuracy"] = [overall - 0.3, overall - 0.01]
    slices["day"]["intervals"]["accuracy"] = [overall - 0.3, overall + 0.01]
    marked = re.findall(r'<td>(\w+)</td>(?:(?!</tr>).)*class="bad">worse', section(evaluation, "slices"))
    assert marked == ["night"]


def test_calibration_is_shown_beside_what_it_was_before():
    evaluation = made_evaluation("multi_label", LABELS)
    assert "before calibration" in section(evaluation, "calibration")
    raw = made_evaluation("multi_label", LABELS, calibration=None)
    assert "before calibration" not in section(raw, "calibration")
    assert "is not calibrated" in section(raw, "calibration")


@pytest.mark.parametrize("task", ["binary", "multi_class", "multi_label"])
def test_a_mistake_says_what_was_answered_and_what_is_there(task):
    evaluation = made_evaluation(task, ("cat",) if task == "binary" else ("cat", "dog", "eel"))
    body, mistakes = section(evaluation, "mistakes"), evaluation["mistakes"]
    assert len(mistakes) == body.count("<figure") == 24
    assert body.count('class="heat"') == 24
    first = mistakes[0]
    caption = re.search(r"<figcaption>(.*?)</figcaption>", body)
    assert caption and first["label"] in caption[1] and f"{first['confidence']:.2f}" in caption[1]


def test_mistakes_are_explained_and_pictures_that_have_gone_are_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path / "cache"))
    bundle = make_bundle(str(tmp_path / "registry"))
    names = [tmp_path / f"{number}.jpg" for number in range(3)]
    names[0].write_bytes(jpeg_bytes(90, 60, seed=1))
    names[1].write_bytes(b"no longer a picture")
    mistakes = [{"uri": str(name), "label": "dog"} for name in names]
    (looked,) = look_at_mistakes(bundle, mistakes)
    assert looked.mistake["uri"] == str(names[0])
    assert looked.pixels_hwc.shape == (168, 168, 3)
    assert looked.explanation.heat_hw.shape == (32, 32)
    assert list(thumbnails([str(name) for name in names])) == [str(names[0])]


def data_metrics(findings) -> dict:
    return {
        "findings": findings,
        "num_pictures": {"train": 80, "validation": 10, "test": 10},
        "num_positives": {label: {"train": 30, "validation": 4, "test": 4} for label in LABELS},
        "num_unreadable": 1,
        "unreadable": {"/<u>.jpg": "<s>"},
    }


FINDINGS = {
    "rare_labels": [{"label": LABELS[0], "train": 3, "validation": 1, "test": 1}],
    "sources": [{"images": "/<em>", "weight": 0.5, "num_pictures": 40, "share": 0.3333}],
    "suspects": {
        "num_pictures": 10,
        "num": 1,
        "pictures": [
            {"uri": "/<u>1", "split": "validation", "given": [LABELS[1]], "suggested": [LABELS[0]], "quality": 0.1}
        ],
    },
    "duplicates": {
        "num_exact": 1,
        "num_near": 2,
        "num_in_train": {"validation": 0, "test": 2},
        "num_conflicting": 1,
        "num_groups": 1,
        "groups": [
            {
                "num_pictures": 2,
                "exact": False,
                "across_splits": True,
                "conflicting": True,
                "pictures": [{"uri": "/<u>2", "split": "train", "labels": []}],
            }
        ],
    },
}


def test_findings_about_the_data_are_told_with_their_pictures():
    images = {uri: f'<img alt="" src="data:image/jpeg;base64,{uri[-1]}">' for uri in pictures_of({"data": FINDINGS})}
    assert list(images) == ["/<u>1", "/<u>2"]
    parsed = Parsed(data_section(data_metrics({"data": FINDINGS}), images).body)
    assert len(parsed.sources) == 2
    assert not parsed.seen & {"script", "u", "s", "em"}
    for words in ("Too rare to be measured", "2 test pictures have a twin in train", "33.3%", "labelled differently"):
        assert words in parsed.text
    assert f"validationlabelled {LABELS[1]}rather {LABELS[0]}" in parsed.text
    quiet = Parsed(data_section(data_metrics({}) | {"num_unreadable": 0}, {}).body).text
    assert "Every picture could be read" in quiet and "twin" not in quiet


def trial(number, rate, metric, **values):
    curve = [] if metric is None else [metric / 2, metric]
    facts = {"epochs": len(curve), "metric": metric, "curve": curve, "stopped_early": False, "failure": None}
    return {"number": number, "values": {"optimize.learning_rate": rate, "model.<b>": "x"}, **(facts | values)}


def test_a_search_shows_every_trial_and_which_one_became_the_bundle():
    trials = [trial(1, 1e-4, 0.4), trial(2, 1e-2, 0.8), trial(3, 1e-3, None, failure="<b>no memory")]
    found = {
        "metric": "accuracy",
        "best": 2,
        "fields": {"optimize.learning_rate": "log", "model.<b>": None},
        "trials": trials,
    }
    section = search_section({"search": found})
    assert section is not None and search_section({}) is None
    parsed = Parsed(section.body)
    assert re.findall(r"<tr><td>(\d)", section.body) == ["2", "1", "3"]
    assert "<b>no memory" in parsed.text and section.body.count('class="good">best') == 1
    assert section.body.count("<svg viewBox") == 2  # the curves, and the learning rate; not what is no number


def test_no_finding_is_kept_from_the_reader():
    assert other_section({"search": {}, "data": {"sources": [1]}, "thresholds": {"without_positives": []}}) is None
    found = other_section({"comparison": {"before": {"accuracy": 0.91234567}, "why": "<b>"}})
    assert found is not None
    text = Parsed(found.body).text
    assert "comparison: before accuracy" in text and "0.9123" in text and "<b>" in text


def test_the_page_fits_a_phone_and_the_heat_is_switched_without_a_script(page, tmp_path):
    evaluation = made_evaluation(
        "multi_label", ("a label with a very long name indeed", *"bcdefghijklmno"), slices=("day", "night")
    )
    (tmp_path / "report.html").write_text(page_of(evaluation), encoding="utf-8")
    page.goto(f"file://{tmp_path}/report.html")
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    heat = page.locator(".heat").first
    assert heat.is_visible()
    page.get_by_label("Show where it saw the label").uncheck()
    assert not heat.is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('svg .grid')).stroke") != "none"


def test_dark_and_light_rooms_get_their_own_colours(page, tmp_path):
    (tmp_path / "report.html").write_text(document("made", [sections([])]), encoding="utf-8")
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(f"file://{tmp_path}/report.html")
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] != colours[1]
