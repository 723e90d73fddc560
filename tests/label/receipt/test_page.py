"""The receipt's page, in a real browser."""

import json
from pathlib import Path

import pytest

from label.work.test_samples import OK, PICTURE, frozen
from labelmill.label.receipt.clock import Clock, NodeShare
from labelmill.label.receipt.page import receipt_html
from labelmill.label.receipt.receipt import Receipt
from labelmill.label.receipt.sheet import Sheet
from labelmill.label.work.chunk import Chunk
from labelmill.label.work.samples import Sampler
from labelmill.label.work.spent import Spent
from labelmill.model.labeler import Answer
from labelmill.spec import Prices
from labelmill.storage import Traffic, open_store
from labelmill.table.data_file import DataFile
from labelmill.table.receipts import keep_receipt, past_receipts

HOSTILE = "<img src=x onerror=alert(1)>"
LABELS = (HOSTILE, "cat & dog", '"eel" </title><script>alert(2)</script>')


def run(tmp_path, outcome="complete", chunks=40, prices=None) -> tuple[Receipt, Path]:
    """A run of two workers that labelled `chunks` of 64 pictures, and its page."""
    now = [0.0]
    clock, sheet = Clock(lambda: now[0]), Sheet(6)
    receipt = Receipt(
        run_id="000000001-x",
        job="nightly",
        model="tiny@1",
        bundle_digest="d" * 64,
        table=str(tmp_path),
        images=f"s3://bucket/{HOSTILE}",
        engine="openvino",
        precision="float32",
        workers="2 workers of 1 core",
        cores=2.0,
        pictures_listed=64 * chunks,
        outcome=outcome,
        spec={"name": "</pre><script>alert(3)</script>"},
    )
    with clock.step("starting Ray"):
        now[0] += 6.0
    clock.start_labelling(2)
    sampler = Sampler(6, frozen)
    for number in range(chunks):
        now[0] += 0.5
        chunk = made(number, sampler)
        clock.add(chunk)
        receipt.add(chunk)
        sheet.add(chunk.samples, receipt.labels)
    now[0] += 1.0
    receipt.close(clock, cpu_s=41.0, peak_memory_bytes=2**30, prices=prices)
    receipt.failures = sheet.reasons()
    aside = open_store(str(tmp_path / "_labelmill"))
    keep_receipt(aside, receipt.run_id, receipt.to_json(), receipt_html(receipt, sheet))
    return receipt, tmp_path / "_labelmill" / "receipts" / "000000001-x.html"


def made(number, sampler) -> Chunk:
    for label in LABELS:
        sampler.offer([f"/in/{label}{number}.jpg"], [OK], [[(label, 0.91), ("dog", 0.5)]], lambda _: PICTURE)
    sampler.offer([f"/in/{HOSTILE}-{number}"], [Answer("unreadable", f"broken: {HOSTILE}")], [[]], lambda _: b"")
    return Chunk(
        number,
        DataFile("f", 1, "2026-01-01", "{}"),
        64,
        {"ok": 63, "unreadable": 1},
        dict.fromkeys(LABELS, 21),
        seconds={"fetch": 0.1, "decode": 0.6, "forward": 0.2, "write": 0.01},
        busy_s=1.0,
        spent=[Spent("host:1", 0.9, 2**28, 0, Traffic(gets=64, puts=1, read_bytes=64_000))],
        histograms={
            "confidence": {"10": 20, "19": 43},
            "size_bytes": {"10": 60, "13": 4},
            "long_side_px": {"8": 63},
        },
        samples=sampler.hand_over(),
    )


def test_names_from_outside_are_shown_and_not_run(tmp_path, page):
    _, file = run(tmp_path)
    page.goto(file.as_uri())
    text = page.locator("body").inner_text()
    for words in (*LABELS, f"broken: {HOSTILE}", f"s3://bucket/{HOSTILE}"):
        assert words in text
    assert page.locator("script").count() == 0
    assert page.locator("img[src=x]").count() == 0


def test_each_label_has_its_pictures_and_each_failure_its_reason(tmp_path, page):
    _, file = run(tmp_path)
    page.goto(file.as_uri())
    assert page.locator(".sheet").count() == 4  # dog, the second label of them all, has its own
    pictures = page.locator(".sheet img")
    assert pictures.count() == 24
    page.wait_for_function(
        "() => Array.from(document.querySelectorAll('.sheet img')).every(one => one.complete && one.naturalWidth > 0)"
    )
    assert page.locator(".sheet figcaption").first.inner_text().endswith("0.91 dog\xa00.50")
    assert "6 of 40" in page.locator("h3", has_text="unreadable").inner_text()


def test_several_nodes_and_what_ray_data_did_are_shown(tmp_path, page):
    receipt, file = run(tmp_path)
    page.goto(file.as_uri())
    assert page.locator("h2", has_text="Nodes").count() == 0  # one says nothing
    assert [round(node.pictures_per_s) for node in receipt.nodes.values()] == [125]  # 2,560 in 20.5 s
    receipt.nodes["10.0.0.2 <b>abc</b>"] = NodeShare(640, 10.0, 20.0)
    receipt.operators = {"MapBatches(LabelOnCore)": {"num_tasks_finished": 40, "obj_store_mem_spilled": 2e6}}
    file.write_text(receipt_html(receipt, Sheet(6)))
    page.reload()
    text = page.locator("body").inner_text()
    assert "10.0.0.2 <b>abc</b>\t640\t64\t10 s\t20 s" in text
    assert "MapBatches(LabelOnCore)\t40\t0\t0.0 s\t0 B\t2 MB" in text


def test_the_page_asks_for_nothing_and_fits_a_phone(tmp_path, browser):
    _, file = run(tmp_path, prices=Prices(core_hour=0.04))
    page, asked = browser.new_page(viewport={"width": 360, "height": 700}), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    assert page.locator("figure svg").count() == 4
    page.close()


def test_the_receipt_says_what_limited_the_run_and_what_would_limit_a_longer_one(tmp_path):
    long, _ = run(tmp_path / "long")
    assert (long.bottleneck, long.limited_by) == ("decode", "decode")
    short, _ = run(tmp_path / "short", chunks=6)
    assert (short.bottleneck, short.limited_by) == ("start-up", "decode")
    assert "most time went into: start-up (55%); while labelling: decode" in str(short)
    assert long.steady_pictures_per_s == pytest.approx(128, rel=0.05)
    assert long.pictures_per_core_s == pytest.approx(64, rel=0.05)


def test_money_is_cores_for_the_whole_run_and_what_the_store_was_asked(tmp_path):
    prices = Prices(core_hour=3.6, get_per_1000=0.1, put_per_1000=1.0, transfer_gb=10.0, currency="EUR")
    receipt, _ = run(tmp_path, prices=prices)
    cost = json.loads((tmp_path / "_labelmill/receipts/000000001-x.json").read_text())["cost"]
    assert cost["cores"] == pytest.approx(27.0 * 2 * 3.6 / 3600)
    assert cost["requests"] == pytest.approx(40 * 64 * 0.1 / 1000 + 40 * 1.0 / 1000)
    assert cost["transfer"] == pytest.approx(40 * 64_000 / 1e9 * 10)
    assert cost["per_million"] == pytest.approx(cost["total"] / 2560 * 1e6)
    assert "EUR per million pictures" in str(receipt)


def test_a_run_with_nothing_to_do_and_one_that_was_stopped_have_pages_too(tmp_path, page):
    for outcome, chunks, words in (("nothing to do", 0, "nothing to do"), ("stopped", 3, "Stopped before its end")):
        _, file = run(tmp_path / outcome, outcome=outcome, chunks=chunks)
        page.goto(file.as_uri())
        assert words in page.locator(".note").inner_text()


def test_a_damaged_receipt_does_not_hide_the_others(tmp_path):
    run(tmp_path)
    (tmp_path / "_labelmill/receipts/000000002-x.json").write_text("{")
    assert [receipt["run_id"] for receipt in past_receipts(str(tmp_path))] == ["000000001-x"]
    assert list(past_receipts(str(tmp_path / "nowhere"))) == []
