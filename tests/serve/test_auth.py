import asyncio

import httpx
import pytest
from starlette.responses import PlainTextResponse

from labelmill.serve.auth import Gate, digest_key, loopback_hosts


def get(path: str, *, keys: tuple[str, ...] = (), host: str = "127.0.0.1:8000", **options) -> httpx.Response:
    gate = Gate(
        PlainTextResponse("inside"),
        key_digests=tuple(digest_key(key) for key in keys),
        hosts=loopback_hosts("127.0.0.1", 8000),
        open_paths={"/", "/healthz"},
    )

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url=f"http://{host}") as client:
            return await client.request(options.pop("method", "GET"), path, **options)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    "headers", [{"Authorization": "Bearer second"}, {"Authorization": "bearer  second"}, {"X-API-Key": "second"}]
)
def test_any_of_the_keys_opens_under_either_header(headers):
    assert get("/v1/model", keys=("first", "second"), headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer firs"},
        {"Authorization": "Bearer first2"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic first"},
        {"X-API-Key": ""},
        {"X-API-Key": digest_key("first")},
        {"X-API-Key": b"\xff\xfe"},
    ],
)
def test_no_key_or_a_wrong_one_is_refused_with_a_problem(headers):
    answer = get("/v1/model", keys=("first",), headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["title"] == "Unauthorized"


@pytest.mark.parametrize("path", ["/metrics", "/v1/label", "/v2", "/healthz/", "/healthz/../v1/model"])
def test_everything_but_the_open_paths_wants_a_key(path):
    assert get(path, keys=("first",)).status_code == 401


def test_open_paths_are_open_to_reading_only():
    assert get("/healthz", keys=("first",)).status_code == 200
    assert get("/healthz", keys=("first",), method="POST").status_code == 401


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000"])
def test_loopback_without_keys_answers_under_its_own_names(host):
    assert get("/v1/model", host=host).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example:8000", "localhost:8001", "localhost", "127.0.0.1.evil.example:8000", ""]
)
def test_rebound_name_is_refused_on_loopback(host):
    answer = get("/v1/model", headers={"Host": host})
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"


def test_two_host_headers_are_refused():
    headers = [("Host", "localhost:8000"), ("Host", "evil.example")]
    assert get("/v1/model", headers=headers).status_code == 403


def test_another_pages_request_is_refused_on_loopback():
    assert get("/v1/label", method="POST", headers={"Origin": "https://evil.example"}).status_code == 403
    assert get("/v1/label", method="POST", headers={"Origin": "null"}).status_code == 403
    assert get("/v1/label", method="POST", headers={"Origin": "http://localhost:8000"}).status_code == 200


def test_with_keys_any_host_header_will_do():
    assert get("/v1/model", keys=("k",), headers={"Host": "labels.example", "X-API-Key": "k"}).status_code == 200
