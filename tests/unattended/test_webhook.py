"""A message arrives if it can, within its time and nowhere else; if it does not, nothing of the address is shown."""

import socket
import threading
import time

import pytest

from labelmill.unattended import webhook as webhook_module
from labelmill.unattended.webhook import post
from running import free_port
from webhook import webhook


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_module, "_FIRST_WAIT_S", 0.05)


def said(caplog: pytest.LogCaptureFixture) -> str:
    [line] = caplog.messages
    assert "SECRET" not in line
    assert "127.0.0.1" not in line
    assert "http" not in line
    return line


def test_a_message_is_json_that_arrives_once(caplog: pytest.LogCaptureFixture) -> None:
    with webhook(200) as hook:
        assert post(hook.url, {"text": "é <done>", "exit_code": 0}, within_s=5)
    assert hook.got == [{"text": "é <done>", "exit_code": 0}]
    assert hook.paths == ["/services/T000/SECRET"]
    assert caplog.messages == []


@pytest.mark.parametrize("trouble", [500, 503, 429])
def test_a_server_in_trouble_is_asked_again(trouble: int) -> None:
    with webhook(trouble, trouble, 200) as hook:
        assert post(hook.url, {"text": "x"}, within_s=5)
    assert len(hook.got) == 3


def test_one_that_says_when_is_asked_then() -> None:
    with webhook((429, {"Retry-After": "1"}), 200) as hook:
        began = time.monotonic()
        assert post(hook.url, {"text": "x"}, within_s=5)
        assert time.monotonic() - began >= 1
    assert len(hook.got) == 2


def test_a_server_that_is_only_starting_is_asked_again() -> None:
    port = free_port()
    late = socket.socket()

    def start() -> None:
        late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        late.bind(("127.0.0.1", port))
        late.listen()
        connection, _ = late.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        connection.close()

    timer = threading.Timer(0.5, start)
    timer.start()
    assert post(f"http://127.0.0.1:{port}/", {"text": "x"}, within_s=10)
    timer.join()
    late.close()


@pytest.mark.parametrize("refusal", [400, 403, 404, 410])
def test_a_refusal_is_final_and_told_without_the_address(refusal: int, caplog: pytest.LogCaptureFixture) -> None:
    with webhook(refusal) as hook:
        assert not post(hook.url, {"text": "x"}, within_s=5)
    assert len(hook.got) == 1
    assert said(caplog) == f"the webhook of notify was not told: it answered {refusal}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_message_is_never_sent_on_to_another_address(status: int, caplog: pytest.LogCaptureFixture) -> None:
    with webhook(200, path="/other") as other, webhook((status, {"Location": other.url})) as hook:
        assert not post(hook.url, {"text": "x"}, within_s=5)
    assert other.methods == []
    assert f"it answered {status}, and a message is sent on to no other address" in said(caplog)


def test_a_server_that_never_answers_holds_nobody_longer_than_allowed(caplog: pytest.LogCaptureFixture) -> None:
    with webhook(200) as hook:
        hook.hang = threading.Event()
        began = time.monotonic()
        assert not post(hook.url, {"text": "x"}, within_s=1)
        assert time.monotonic() - began < 3
    assert "SECRET" not in caplog.text


def test_nobody_there_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    assert not post(f"http://127.0.0.1:{free_port()}/SECRET", {"text": "x"}, within_s=0.5)
    assert said(caplog) == "the webhook of notify was not told: Connection refused"


@pytest.mark.parametrize(
    "address", ["http://no such host/SECRET", "http://[::1/SECRET", "http://x:port/SECRET", "http://ü\x7f/SECRET\n"]
)
def test_an_address_that_is_none_is_not_shown(address: str, caplog: pytest.LogCaptureFixture) -> None:
    assert not post(address, {"text": "x"}, within_s=0.5)
    said(caplog)


def test_what_speaks_no_tls_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with webhook(200) as hook:
        assert not post(hook.url.replace("http://", "https://"), {"text": "x"}, within_s=0.5)
    said(caplog)
