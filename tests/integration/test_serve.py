"""The endpoint as it is run: the command's own process, Ray, sockets, a client that never pauses, and promotions."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import grpc
import httpx
import psutil
import pytest
from PIL import Image

from bundles import make_bundle
from labelmill.model.labeler import Labeler
from labelmill.model.registry import Registry
from labelmill.storage import open_store
from running import free_port

KEY = "sesame-0123456789"
HEADERS = {"Content-Type": "image/png"}


def _png() -> bytes:
    file = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").resize((60, 40)).save(file, "PNG")
    return file.getvalue()


PICTURE = _png()


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A running endpoint that follows tiny@current: .process, .port, .registry, .client (with a key)."""
    folder = tmp_path_factory.mktemp("serve")
    registry, port = str(folder / "registry"), free_port()
    for seed in (1, 2, 3):
        bundle = make_bundle(registry, seed=seed)
        if seed < 3:  # converted before: how long that takes on a busy machine is not what is tested here
            Labeler(bundle)
    Registry(registry).promote("tiny@1")
    spec = {"kind": "serve", "name": "tiny-api", "registry": registry, "model": "tiny@current", "port": port}
    (folder / "serve.yaml").write_text(json.dumps({**spec, "api_keys": ["${KEY}"]}))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"KEY": KEY}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            ["env", "--default-signal=INT", sys.executable, "-m", "labelmill", "run", str(folder / "serve.yaml")],
            stdout=subprocess.PIPE, stderr=log, text=True, env=environ,
        )  # fmt: skip
    line = process.stdout.readline()
    assert line == f"tiny-api serves tiny@current at http://127.0.0.1:{port}/\n", (folder / "log").read_text()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": KEY}, timeout=60) as client:
        yield SimpleNamespace(process=process, port=port, registry=registry, client=client)
    if process.poll() is None:
        process.terminate()
        process.wait(60)


def test_answer_is_the_one_that_bulk_would_give(endpoint):
    answer = label(endpoint.client)
    bundle = Registry(endpoint.registry).resolve(answer["model"])
    [own] = Labeler(bundle).label([PICTURE])
    confidences = {entry["label"]: entry["confidence"] for entry in answer["scores"]}
    assert [confidences[name] for name in bundle.labels] == own.confidences.tolist()


def test_nothing_listens_for_strangers(endpoint):
    """Serve's own port is on the spec's host alone; a port that Ray opens on every interface wants Ray's token."""
    processes = [endpoint.process.pid, *(child.pid for child in psutil.Process(endpoint.process.pid).children(True))]
    sockets = [s for s in psutil.net_connections("inet") if s.pid in processes and s.status == psutil.CONN_LISTEN]
    assert [s.laddr.ip for s in sockets if s.laddr.port == endpoint.port] == ["127.0.0.1"]
    exposed = [s.laddr.port for s in sockets if s.laddr.ip not in ("127.0.0.1", "::ffff:127.0.0.1", "::1")]
    assert len(exposed) <= 1  # the replica's own, for calls between deployments
    for port in exposed:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", timeout=10)
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_without_the_key_only_the_page_and_health_answer(endpoint):
    codes = {path: httpx.get(f"http://127.0.0.1:{endpoint.port}{path}").status_code
             for path in ("/", "/healthz", "/readyz", "/v1/model", "/metrics", "/-/routes", "/-/healthz")}  # fmt: skip
    assert list(codes.values()) == [200, 200, 200, 401, 401, 404, 404]


def test_endless_body_is_cut_off_in_the_proxy(endpoint):
    def chunks() -> Iterator[bytes]:
        for _ in range(30):
            yield bytes(2**20)

    answer = endpoint.client.post("/v1/label", content=chunks(), headers=HEADERS)
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")


def test_promotion_under_fire_fails_no_request_and_is_there_within_ten_seconds(endpoint):
    with Hammer(endpoint) as hammer:
        hammer.wait_for(20)
        Registry(endpoint.registry).promote("tiny@2")
        started_s = time.monotonic()
        while not hammer.models["tiny@2"]:
            assert time.monotonic() - started_s < 10
            time.sleep(0.02)
        hammer.wait_for(20)
    assert hammer.codes.keys() == {200}
    assert hammer.last_seen["tiny@1"] < hammer.first_seen["tiny@2"] + 0.5  # those on their way may still arrive


def test_damaged_promotion_changes_nothing_and_is_reported(endpoint):
    before = label(endpoint.client)
    store, registry = open_store(endpoint.registry), Registry(endpoint.registry)
    weights = Path(endpoint.registry, "tiny", "3", "weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    row = registry.resolve_alias_row("tiny")
    # The registry itself would refuse to promote it: written by hand, with a digest that is not the bundle's.
    forged = {"number": row.number + 1, "version": 3, "digest": "0" * 64, "promoted_at": row.promoted_at, "reason": ""}
    assert store.write_if_absent(f"tiny/aliases/current/{row.number + 1:06d}.json", json.dumps(forged).encode())
    with Hammer(endpoint) as hammer:
        deadline_s = time.monotonic() + 20
        while (model := endpoint.client.get("/v1/model").json())["error"] is None:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        time.sleep(4)  # two polls more
    assert (model["model"], model["wanted"]["version"]) == (before["model"], 3)
    assert model["error"].startswith("version 3 was not loaded")
    assert endpoint.registry not in model["error"]
    assert hammer.codes.keys() == {200}
    assert hammer.models.keys() == {before["model"]}
    assert label(endpoint.client) == before
    metrics = endpoint.client.get("/metrics").text
    failures = [
        line
        for line in metrics.splitlines()
        if line.startswith("labelmill_serve_model_swaps_total{") and "load_failed" in line
    ]
    assert [line.rpartition(" ")[2] for line in failures] == ["1.0"]  # one try, however many polls
    registry.promote("tiny@1")  # the next good one is taken up
    while label(endpoint.client)["model"] != "tiny@1":
        assert time.monotonic() < deadline_s + 30
        time.sleep(0.1)
    assert endpoint.client.get("/v1/model").json()["error"] is None


def test_stop_signal_ends_it_with_all_its_processes(endpoint):  # the last of this module: it stops the endpoint
    children = psutil.Process(endpoint.process.pid).children(recursive=True)
    assert len(children) > 3
    endpoint.process.send_signal(signal.SIGINT)
    assert endpoint.process.wait(60) == 130
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


class Hammer:
    """A client that asks without pause from two threads, and counts what it gets."""

    def __init__(self, endpoint: SimpleNamespace) -> None:
        self.codes: Counter[int] = Counter()
        self.models: Counter[str] = Counter()
        self.first_seen: dict[str, float] = {}
        self.last_seen: dict[str, float] = {}
        self._endpoint, self._done = endpoint, threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]

    def __enter__(self) -> "Hammer":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, answers: int) -> None:
        goal, deadline_s = self.codes.total() + answers, time.monotonic() + 60
        while self.codes.total() < goal:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)

    def _run(self) -> None:
        with httpx.Client(base_url=self._endpoint.client.base_url, headers={"X-API-Key": KEY}, timeout=60) as client:
            while not self._done.is_set():
                answer = client.post("/v1/label", content=PICTURE, headers=HEADERS)
                self.codes[answer.status_code] += 1
                model = answer.json().get("model")
                self.models[model] += 1
                self.first_seen.setdefault(model, time.monotonic())
                self.last_seen[model] = time.monotonic()


def label(client: httpx.Client) -> dict:
    return client.post("/v1/label", content=PICTURE, headers=HEADERS).raise_for_status().json()
