import asyncio
import base64
import json
import logging
import pickle
import shutil
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import httpx
import pytest

from labelmill.model.labeler import Labeler
from labelmill.model.registry import Registry
from labelmill.serve.following import Asked, follow
from labelmill.serve.settings import Settings
from labelmill.spec import ServeSpec

PROBLEM = "application/problem+json"


def post(client, data, content_type="image/png", **options):
    return client.post("/v1/label", content=data, headers={"Content-Type": content_type}, **options)


def series(client, prefix: str) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line.startswith(prefix)}


class Slow:
    """The real labeler, held back until `go`, and counting its passes."""

    def __init__(self, labeler: Labeler) -> None:
        self._labeler, self.bundle = labeler, labeler.bundle
        self.engine_name, self.precision = labeler.engine_name, labeler.precision
        self.go, self.sizes = threading.Event(), []

    def label(self, images):
        self.sizes.append(len(images))
        assert self.go.wait(30)
        return self._labeler.label(images)


def test_answer_is_the_row_that_the_labeler_gives(open_endpoint, png):
    endpoint = open_endpoint()
    answer = post(endpoint.client, png(1))
    bundle, [own] = endpoint.follower.model.bundle, endpoint.follower.model.label([png(1)])
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "error": None,
        "width_px": 60,
        "height_px": 40,
        "labels": [{"label": label, "confidence": float(c)} for label, c in bundle.decide(own.confidences)],
        "scores": [{"label": label, "confidence": float(c)} for label, c in bundle.top(own.confidences, None)],
        "model": "tiny@1",
        "bundle_digest": bundle.digest,
    }


def test_every_way_to_send_a_picture_gets_the_same_answer(open_endpoint, png):
    client, data = open_endpoint().client, png(2)
    form = b'--b0\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
    form += b'--b0\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + data + b"\r\n--b0--\r\n"
    answers = [
        post(client, data),
        post(client, data, "application/octet-stream"),
        post(client, form, "multipart/form-data; boundary=b0"),
        client.post("/v1/label", json={"base64": base64.b64encode(data).decode()}),
        client.post("/v1/label", files={"file": ("b.png", data)}),
        post(client, (data[i : i + 100] for i in range(0, len(data), 100))),  # chunked
    ]
    assert [answer.status_code for answer in answers] == [200] * 6
    assert all(answer.json() == answers[0].json() for answer in answers)


@pytest.mark.parametrize(("scores", "expected"), [("none", None), ("top_k", 3), ("all", 3)])
def test_scores_are_as_many_as_asked_for(open_endpoint, png, scores, expected):
    kept = post(open_endpoint().client, png(), params={"scores": scores}).json()["scores"]
    assert kept is None if expected is None else len(kept) == expected


def test_damaged_picture_is_a_problem_with_the_status_of_its_row(open_endpoint, png):
    answer = post(open_endpoint().client, png()[:500])
    assert answer.status_code == 422
    assert answer.headers["content-type"] == PROBLEM
    assert answer.json()["picture_status"] == "unreadable"
    assert answer.json()["type"] == "urn:labelmill:problem:unreadable"


def test_file_that_is_no_picture_is_unsupported(open_endpoint):
    answer = post(open_endpoint().client, b"#!/bin/sh\necho no picture\n" * 20, "application/octet-stream")
    assert (answer.status_code, answer.json()["picture_status"]) == (422, "unsupported")


def test_picture_of_too_many_pixels_is_refused(open_endpoint, loaded_once, png):
    small = SimpleNamespace(model=Labeler(loaded_once.model.bundle, max_pixels=1000), wanted=loaded_once.wanted)
    answer = post(open_endpoint(small).client, png())
    assert (answer.status_code, answer.json()["picture_status"]) == (413, "too_large")


def test_bad_picture_does_not_disturb_the_batch_it_came_in(open_endpoint, png):
    client = open_endpoint(batch_wait_s=0.5).client
    bodies = [png(1), b"damaged" * 10, png(3)]
    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(lambda body: post(client, body), bodies))
    assert [answer.status_code for answer in answers] == [200, 422, 200]
    assert answers[2].json() == post(client, png(3)).json()


def test_body_over_the_limit_is_refused_before_it_is_read(open_endpoint):
    app, taken = open_endpoint(max_request_bytes=2000).app, []

    async def chunks():
        for _ in range(1000):
            taken.append(100)
            yield bytes(100)

    async def ask(content) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000") as client:
            return await client.post("/v1/label", content=content, headers={"Content-Type": "image/png"})

    for content in (bytes(2001), chunks()):
        answer = asyncio.run(asyncio.wait_for(ask(content), 20))
        assert (answer.status_code, answer.headers["content-type"]) == (413, PROBLEM)
    assert sum(taken) <= 2200


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b"x", "text/plain", 415),
        (b"x", "", 415),
        (b"", "image/png", 400),
        (b"{", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{}", "application/json", 400),
        (b'{"base64": 3}', "application/json", 400),
        (b'{"base64": "a"}', "application/json", 400),
        (b'{"base64": "\\u00e4\\u00e4\\u00e4\\u00e4"}', "application/json", 400),
        (b'{"base64": "AAAA", "uri": "http://169.254.169.254/"}', "application/json", 400),
        (b'{"uri": "file:///etc/passwd"}', "application/json", 400),
        (b"--b\r\n\r\n\r\n--b--", "multipart/form-data; boundary=b", 400),
        (b"x", "multipart/form-data", 400),
    ],
)
def test_request_without_a_picture_is_a_problem_that_says_why(open_endpoint, body, content_type, code):
    answer = post(open_endpoint().client, body, content_type)
    assert (answer.status_code, answer.headers["content-type"]) == (code, PROBLEM)
    assert set(answer.json()) == {"type", "title", "status", "detail"}
    assert answer.json()["status"] == code


def test_uri_of_a_client_is_not_fetched_and_the_problem_says_so(open_endpoint):
    answer = open_endpoint().client.post("/v1/label", json={"uri": "s3://bucket/a.jpg"})
    assert answer.json()["type"] == "urn:labelmill:problem:uri-not-supported"


def test_compressed_body_is_refused(open_endpoint, png):
    headers = {"Content-Type": "image/png", "Content-Encoding": "gzip"}
    assert open_endpoint().client.post("/v1/label", content=png(), headers=headers).status_code == 415


@pytest.mark.parametrize(
    ("method", "path", "code"), [("GET", "/nothing", 404), ("GET", "/v1/label", 405), ("PUT", "/", 405)]
)
def test_what_the_router_refuses_is_a_problem_too(open_endpoint, method, path, code):
    answer = open_endpoint().client.request(method, path)
    assert (answer.status_code, answer.headers["content-type"], answer.json()["status"]) == (code, PROBLEM, code)


def test_unknown_scores_are_a_problem(open_endpoint, png):
    assert post(open_endpoint().client, png(), params={"scores": "some"}).status_code == 400


def test_failure_inside_is_a_bare_500_and_a_traceback_in_the_log(open_endpoint, loaded_once, png, caplog):
    class Broken:
        bundle = loaded_once.model.bundle

        def label(self, images):
            raise RuntimeError("/secret/path/model.bin")

    answer = post(open_endpoint(SimpleNamespace(model=Broken())).client, png())
    assert (answer.status_code, answer.headers["content-type"]) == (500, PROBLEM)
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in answer.json()["detail"]
    assert "/secret/path/model.bin" in caplog.text


def test_model_says_what_answers_and_what_is_wanted(open_endpoint):
    endpoint = open_endpoint()
    fields = endpoint.client.get("/v1/model").json()
    assert (fields["model"], fields["follows"], fields["error"]) == ("tiny@1", "tiny@current", None)
    assert fields["wanted"] == {"version": 1, "bundle_digest": fields["bundle_digest"]}
    assert len(fields["thresholds"]) == len(fields["labels"]) == 3


def test_burst_of_sixteen_is_at_most_two_passes(open_endpoint, png):
    client = open_endpoint(batch_wait_s=0.2).client
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda seed: post(client, png(seed)), range(16)))
    assert [answer.status_code for answer in answers] == [200] * 16
    assert series(client, "labelmill_serve_batch_pictures_count").popitem()[1] <= 2
    assert series(client, "labelmill_serve_batch_pictures_sum").popitem()[1] == 16


def test_more_than_it_can_hold_is_a_503_that_says_when_to_come_back(open_endpoint, loaded_once, png):
    slow = Slow(loaded_once.model)
    endpoint = open_endpoint(SimpleNamespace(model=slow))
    limit = endpoint.settings.max_requests
    with ThreadPoolExecutor(limit + 10) as threads:
        waiting = [threads.submit(post, endpoint.client, png()) for _ in range(limit + 10)]
        while sum(future.done() for future in waiting) < 10:
            time.sleep(0.01)
        # Health checks are answered all the same: a busy replica is not a dead one.
        assert endpoint.client.get("/readyz").status_code == 200
        slow.go.set()
        answers = [future.result() for future in waiting]
    assert Counter(answer.status_code for answer in answers) == {200: limit, 503: 10}
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert (refused.headers["retry-after"], refused.headers["content-type"]) == ("1", PROBLEM)
    assert post(endpoint.client, png()).status_code == 200


def test_bodies_in_memory_are_limited_together(open_endpoint, loaded_once, png, monkeypatch):
    slow = Slow(loaded_once.model)
    monkeypatch.setattr("labelmill.serve.settings.Settings.max_bytes", 1000 + len(png()))
    endpoint = open_endpoint(SimpleNamespace(model=slow))
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(post, endpoint.client, png())
        while not slow.sizes:
            time.sleep(0.01)
        assert post(endpoint.client, bytes(1001)).status_code == 503
        slow.go.set()
        assert first.result().status_code == 200
    assert post(endpoint.client, bytes(1001)).status_code == 422


def test_metrics_count_requests_pictures_and_name_the_model(open_endpoint, png):
    endpoint = open_endpoint()
    client = endpoint.client
    for body in (png(1), png(2), b"no picture" * 9):
        post(client, body)
    client.get("/somewhere/unbounded")
    requests = series(client, "labelmill_serve_requests_total")
    assert requests['labelmill_serve_requests_total{code="200",method="POST",path="/v1/label",replica="0"}'] == 2
    assert requests['labelmill_serve_requests_total{code="404",method="GET",path="other",replica="0"}'] == 1
    assert series(client, 'labelmill_serve_pictures_total{replica="0",status="ok"}').popitem()[1] == 2
    assert 'name="tiny",replica="0",version="1"' in next(iter(series(client, "labelmill_serve_model_info")))
    assert series(client, 'labelmill_serve_model_swaps_total{outcome="load_failed"').popitem()[1] == 0


@pytest.mark.parametrize("way", ["the alias moves", "another version is asked for"])
def test_promotion_under_load_fails_no_request_and_mixes_no_answers(
    open_endpoint, endpoint_settings, tmp_path, endpoint_registry, png, way
):
    own = str(tmp_path / "registry")
    shutil.copytree(endpoint_registry, own)
    outcomes = []
    asked = Asked(endpoint_settings.model)
    follower = follow(replace(endpoint_settings, registry=own), asked, outcomes.append)
    follower.stop()
    client, answers, done = open_endpoint(follower).client, [], threading.Event()

    def hammer():
        while not done.is_set():
            answers.append(post(client, png()))

    thread = threading.Thread(target=hammer)
    thread.start()
    if way == "the alias moves":
        Registry(own).promote("tiny@2")
    else:
        asked.reference = "tiny@2"
    follower.step()
    seen = len(answers)
    while len(answers) < seen + 3:
        time.sleep(0.01)
    done.set()
    thread.join()
    assert {answer.status_code for answer in answers} == {200}
    models = [answer.json()["model"] for answer in answers]
    assert models == sorted(models)
    assert set(models) == {"tiny@1", "tiny@2"}
    assert len({json.dumps(answer.json(), sort_keys=True) for answer in answers}) == 2
    assert outcomes == ["swapped"]
    assert client.get("/v1/model").json()["follows"] == asked.reference


def test_logs_one_line_a_request_whatever_its_path_holds(open_endpoint, caplog):
    client = open_endpoint().client
    with caplog.at_level(logging.INFO, "labelmill.serve.journal"):
        client.get("/a%0Aforged%20line%1b[31m", headers={"X-Request-ID": "mine-7"})
    lines = [record.getMessage() for record in caplog.records if record.name == "labelmill.serve.journal"]
    assert len(lines) == 1
    assert lines[0].startswith("request answered request_id=mine-7 method=GET ")
    assert lines[0].isprintable()


def test_page_runs_nothing_from_elsewhere(open_endpoint):
    client = open_endpoint().client
    for path in ("/", "/page.css", "/page.js", "/icon.svg"):
        answer = client.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "https://" not in answer.text
        assert "innerHTML" not in answer.text


def test_page_and_health_are_open_and_everything_else_wants_the_key(open_endpoint, png):
    client = open_endpoint(keys=("sesame",)).client
    for path in ("/", "/page.js", "/page.css", "/icon.svg", "/healthz", "/readyz"):
        assert client.get(path).status_code == 200
    for path in ("/v1/model", "/metrics", "/nothing"):
        assert client.get(path).status_code == 401
    assert post(client, png()).status_code == 401
    headers = {"Content-Type": "image/png", "Authorization": "Bearer sesame"}
    assert client.post("/v1/label", content=png(), headers=headers).status_code == 200


def test_replicas_are_told_digests_of_keys_and_never_a_key(endpoint_registry):
    spec = ServeSpec(kind="serve", name="a", registry=endpoint_registry, model="tiny@1", api_keys=("open-sesame",))
    assert b"open-sesame" not in pickle.dumps(Settings.of(spec))
    assert "open-sesame" not in repr(Settings.of(spec))
