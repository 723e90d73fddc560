import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from labelmill.serve.front import Front
from labelmill.serve.problems import Problem


class Proxy:
    """Stands for Serve's proxy: reads every body whole, as that does, and answers with `answer`."""

    def __init__(self, answer: Response) -> None:
        self.answer = answer
        self.read_bytes = 0
        self.request_ids: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.request_ids = request.headers.getlist("x-request-id")
        while True:
            message = await receive()
            self.read_bytes += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        await self.answer(scope, receive, send)


def ask(proxy: Proxy, path: str = "/v1/label", **options) -> httpx.Response:
    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(Front(proxy, max_request_bytes=1000))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.request(options.pop("method", "POST"), path, **options)

    return asyncio.run(go())


def endless(sent: list[int]) -> AsyncIterator[bytes]:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(1000):
            sent.append(100)
            yield bytes(100)

    return chunks()


def test_declared_body_over_the_limit_is_refused_unread():
    proxy = Proxy(PlainTextResponse("fine"))
    answer = ask(proxy, content=bytes(1001))
    assert (answer.status_code, proxy.read_bytes) == (413, 0)
    assert answer.headers["content-type"] == "application/problem+json"


def test_undeclared_body_is_refused_where_it_passes_the_limit():
    proxy, sent = Proxy(PlainTextResponse("fine")), []
    answer = ask(proxy, content=endless(sent))
    assert answer.status_code == 413
    assert proxy.read_bytes <= 1000
    assert sum(sent) <= 1100


def test_body_at_the_limit_passes():
    proxy = Proxy(PlainTextResponse("fine"))
    assert ask(proxy, content=bytes(1000)).text == "fine"
    assert proxy.read_bytes == 1000


@pytest.mark.parametrize("path", ["/-/healthz", "/-/routes"])
def test_proxys_own_paths_are_not_shown(path):
    assert ask(Proxy(PlainTextResponse("routes")), path, method="GET").status_code == 404


@pytest.mark.parametrize(("own", "shown"), [(404, 503), (408, 503), (503, 503), (500, 500)])
def test_proxys_own_errors_become_problems_without_its_words(own, shown):
    answer = ask(Proxy(PlainTextResponse("Traceback: /usr/lib/python/ray/serve.py", own)))
    assert answer.status_code == shown
    assert answer.headers["content-type"] == "application/problem+json"
    assert "ray" not in answer.text
    assert answer.json()["status"] == shown


def test_apps_own_problem_passes_as_it_is():
    answer = ask(Proxy(Problem(422, "damaged", word="unreadable").response()))
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:labelmill:problem:unreadable")


def test_request_id_reaches_the_app_once_and_plain():
    proxy = Proxy(JSONResponse({}, headers={"X-Request-ID": "said-by-app"}))
    answer = ask(proxy, headers=[("X-Request-ID", "a b\tforged line"), ("X-Request-ID", "c")])
    assert len(proxy.request_ids) == 1
    assert proxy.request_ids[0].isalnum()
    assert answer.headers.get_list("x-request-id") == proxy.request_ids
    assert ask(proxy, headers={"X-Request-ID": "mine-1"}).headers["x-request-id"] == "mine-1"
