"""The page, in a real browser."""

import socket
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import uvicorn
from playwright.sync_api import Page, expect

from labelmill.serve.app import build_app
from labelmill.serve.auth import digest_key, loopback_hosts
from labelmill.serve.metrics import Metrics


@pytest.fixture
def serve_page(endpoint_settings, loaded_once):
    servers = []

    def serve(*, keys: tuple[str, ...] = (), follower=None) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        digests, hosts = tuple(map(digest_key, keys)), loopback_hosts("127.0.0.1", port)
        settings = replace(endpoint_settings, key_digests=digests, hosts=hosts)
        app = build_app(settings, follower or loaded_once, Metrics())
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        servers.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return f"http://127.0.0.1:{port}/"

    yield serve
    for server, thread in servers:
        server.should_exit = True
        thread.join()


def choose(page: Page, *files: tuple[str, bytes]) -> None:
    chosen = [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in files]
    page.set_input_files("#files", chosen)


def test_pictures_get_their_labels_and_bad_ones_their_reason(page, serve_page, png, loaded_once):
    page.goto(serve_page())
    choose(page, ("first.png", png(1)), ("broken.png", png(2)[:300]), ("third.png", png(3)))
    expect(page.locator(".card:not(.waiting)")).to_have_count(3)
    assert page.locator("h2").all_inner_texts() == ["first.png", "broken.png", "third.png"]
    assert page.locator(".status").nth(1).inner_text() == "unreadable"
    assert page.locator(".problem").nth(1).is_visible()
    assert "tiny@1" in page.locator("#model").inner_text()
    bundle, [answer] = loaded_once.model.bundle, loaded_once.model.label([png(1)])
    shown = page.locator(".card").first.locator(".scores li")
    expected = [f"{100 * confidence:.1f} %" for _, confidence in bundle.top(answer.confidences, None)]
    assert [shown.nth(i).locator(".percent").inner_text() for i in range(3)] == expected
    decided = [label for label, _ in bundle.decide(answer.confidences)]
    assert page.locator(".card").first.locator(".decided .label").all_inner_texts() == decided
    assert page.locator(".card").first.locator(".tick:visible").count() == 3


def test_names_from_outside_are_shown_and_not_run(page, serve_page, png):
    page.goto(serve_page())
    choose(page, ("<img src=x onerror=alert(1)>.png", png(1)))
    page.wait_for_selector(".scores li")
    assert page.locator("h2").inner_text() == "<img src=x onerror=alert(1)>.png"
    assert "<img src=x onerror=alert(1)>" in page.locator(".scores .label").all_inner_texts()
    assert page.locator(".scores img").count() == 0


def test_page_asks_for_the_key_and_then_sends_what_waited(page, serve_page, png):
    page.goto(serve_page(keys=("sesame",)))
    page.wait_for_selector("#key")
    choose(page, ("early.png", png(1)))
    page.fill("#key", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector(".key.wrong")
    page.fill("#key", "sesame")
    page.keyboard.press("Enter")
    page.wait_for_selector(".scores li")
    assert not page.locator("#key-form").is_visible()
    assert page.evaluate("Object.keys(localStorage).length") == 0
    assert page.evaluate("document.cookie") == ""


def test_promotion_that_failed_is_told(page, serve_page, loaded_once):
    error = "version 2 was not loaded: damaged"
    follower = SimpleNamespace(model=loaded_once.model, wanted=loaded_once.wanted, error=error)
    page.goto(serve_page(follower=follower))
    page.wait_for_selector("#notice:visible")
    assert page.locator("#notice").inner_text() == "tiny@1 goes on answering: version 2 was not loaded: damaged"


def test_page_fits_a_phone(browser, serve_page, png):
    page = browser.new_page(viewport={"width": 360, "height": 700})
    page.goto(serve_page())
    choose(page, ("a picture with a name that is far too long for any phone.png", png(1)))
    page.wait_for_selector(".scores li")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.close()
