"""Jobs and endpoints on a cluster that this machine is no node of: a real head, its dashboard behind a token."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

import head
from bundles import make_bundle
from labelmill.model.registry import Registry
from pictures import jpeg_bytes
from running import environment, free_port, label_spec, labelmill, rows_of, start_labelmill, wait_for


@pytest.fixture(scope="module")
def cluster():
    with head.running(LABELMILL_TEST_HOOK="https://127.0.0.1:9/hook", TINY_API_KEY="of-the-node") as found:
        yield found


@pytest.fixture
def to_cluster(cluster):
    """Runs a command with the cluster's address and token."""
    address, token = cluster

    def run(*arguments, **environ):
        return labelmill(*arguments, "--address", address, **{"RAY_AUTH_TOKEN_PATH": token} | environ)

    return run


@pytest.fixture
def job(tmp_path, registry):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(8):
        (images / f"{number}.jpg").write_bytes(jpeg_bytes(60, 40, seed=number))
    return label_spec(
        tmp_path / "job.yaml", registry=registry, images=images, output=tmp_path / "labels", model="tiny@1"
    )


def statuses(to_cluster, name):
    found = json.loads(to_cluster("jobs", "--json").stdout)
    return [(job["id"][-1], job["status"], job["exit_code"]) for job in found if job["name"] == name]


def test_a_spec_is_one_job_a_night(tmp_path, job, to_cluster):
    """And its variables are filled in where it is submitted, its folders found from there."""
    text = job.read_text().replace(f"{tmp_path}/images", "${WHERE:-images}").replace("name: test", "name: once")
    job.write_text(text.replace(f"{tmp_path}/labels", "labels"))
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        first = to_cluster("submit", "job.yaml", "--night", "2026-11-27", "--wait")
        assert first.returncode == 0, first.stderr
        again = to_cluster("submit", "job.yaml", "--night", "2026-11-27", "--wait")
    finally:
        os.chdir(here)
    assert first.stdout.startswith("submitted label-once-2026-11-27-")
    assert "8 pictures labelled by tiny@1" in first.stdout
    assert again.returncode == 0 and "-1 is there already: SUCCEEDED\n" in again.stdout
    assert "8 pictures labelled by tiny@1" in again.stdout  # its log, told once more
    assert statuses(to_cluster, "once") == [("1", "SUCCEEDED", 0)]
    assert len(rows_of(tmp_path / "labels")) == 8
    job_id = first.stdout.split()[1]
    assert to_cluster("status", job_id).stdout.startswith("SUCCEEDED, exit code 0, ")
    assert to_cluster("logs", job_id).stdout in first.stdout


def test_after_an_attempt_that_failed_comes_the_next_one(tmp_path, job, to_cluster):
    job.write_text(job.read_text().replace("tiny@1", "tiny@later").replace("name: test", "name: fails"))
    failed = to_cluster("submit", job, "--wait")
    assert failed.returncode == 1
    assert "error: no tiny@later in " in failed.stdout
    assert failed.stderr.splitlines()[-1].endswith(": FAILED, exit code 1")
    assert to_cluster("submit", job, "--wait").returncode == 1
    assert statuses(to_cluster, "fails") == [("1", "FAILED", 1), ("2", "FAILED", 1)]
    assert "error: no tiny@later in " in to_cluster("status", failed.stdout.split()[1]).stdout


@pytest.mark.long
def test_a_job_that_is_stopped_keeps_what_it_has_and_the_next_attempt_goes_on(
    tmp_path, registry, slow_store, cluster, to_cluster
):
    table = tmp_path / "labels"
    job = label_spec(
        tmp_path / "job.yaml", name="stopped", registry=registry, images=slow_store, output=table, model="tiny@1"
    )
    job_id = to_cluster("submit", job).stdout.split()[1]
    follower = start_labelmill(
        *("logs", job_id, "--follow", "--address", cluster[0]), log=tmp_path / "log", RAY_AUTH_TOKEN_PATH=cluster[1]
    )
    assert wait_for(lambda: any(table.glob("labelled_on=*/*.parquet")), follower)
    done = to_cluster("stop", job_id)
    assert done.returncode == 0 and done.stdout == f"{job_id} has ended: STOPPED\n", done.stderr
    assert follower.wait(60) == 143
    assert "stopped by SIGTERM" in (tmp_path / "log").read_text()
    kept = len(rows_of(table))
    assert 0 < kept < 384
    again = to_cluster("submit", job, "--wait")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "waiting for" not in again.stdout.split("listing")[0]  # the lease was given back
    assert f"{kept} were done before" in again.stdout
    rows = rows_of(table)
    assert (len(rows), len({row["uri"] for row in rows})) == (384, 384)
    assert [status for _, status, _ in statuses(to_cluster, "stopped")] == ["STOPPED", "SUCCEEDED"]


@pytest.mark.long
def test_who_stops_following_is_told_that_the_job_goes_on(tmp_path, registry, slow_store, cluster, to_cluster):
    job = label_spec(
        tmp_path / "job.yaml",
        name="left",
        registry=registry,
        images=slow_store,
        output=tmp_path / "labels",
        model="tiny@1",
    )
    follower = start_labelmill(
        "submit", job, "--wait", "--address", cluster[0], log=tmp_path / "log", RAY_AUTH_TOKEN_PATH=cluster[1]
    )
    assert wait_for(lambda: "labelling by" in (tmp_path / "log").read_text(), follower)
    follower.send_signal(signal.SIGINT)
    assert follower.wait(30) == 130
    job_id = (tmp_path / "log").read_text().split()[1]
    assert (
        f"the job goes on: `labelmill stop {job_id} --address {cluster[0]}` ends it" in (tmp_path / "log").read_text()
    )
    assert statuses(to_cluster, "left") == [("1", "RUNNING", None)]
    assert to_cluster("stop", job_id).returncode == 0


@pytest.mark.long
def test_a_connection_that_breaks_costs_no_line_and_repeats_none(tmp_path, registry, slow_store, cluster):
    """As one does through `kubectl port-forward`, now and then."""
    job = label_spec(
        tmp_path / "job.yaml",
        name="broken",
        registry=registry,
        images=slow_store,
        output=tmp_path / "labels",
        model="tiny@1",
    )
    with relay(int(cluster[0].rpartition(":")[2])) as (port, cut):
        follower = start_labelmill(
            *("submit", job, "--wait", "--address", f"http://127.0.0.1:{port}"),
            log=tmp_path / "log",
            RAY_AUTH_TOKEN_PATH=cluster[1],
        )
        assert wait_for(lambda: "labelling by" in (tmp_path / "log").read_text(), follower)
        cut()
        assert follower.wait(120) == 0
    job_id, *written = (tmp_path / "log").read_text().splitlines()
    whole = labelmill("logs", job_id.split()[1], "--address", cluster[0], RAY_AUTH_TOKEN_PATH=cluster[1]).stdout
    assert written == whole.splitlines()
    assert "384 pictures labelled" in whole


@contextmanager
def relay(target):
    """A port that leads to another one, and what cuts all connections over it."""
    ends = []

    def pump(source, sink):
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def serve():
        with suppress(OSError):
            while True:
                near, far = listener.accept()[0], socket.create_connection(("127.0.0.1", target))
                ends.extend((near, far))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    def cut():
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        ends.clear()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], cut
        cut()


@pytest.mark.long
def test_secrets_stay_with_the_nodes_unless_they_are_sent(tmp_path, job, cluster, to_cluster):
    job.write_text(job.read_text() + 'notify: {url: "${LABELMILL_TEST_HOOK}"}\n')
    assert to_cluster("submit", job, "--wait").returncode == 0  # which the node has, and this machine has not
    job.write_text(job.read_text().replace("LABELMILL_TEST_HOOK", "OTHER_HOOK"))
    failed = to_cluster("submit", job, "--wait", OTHER_HOOK="https://127.0.0.1:9/secret")
    assert failed.returncode == 2
    assert "notify.url: the environment variable OTHER_HOOK is not set" in failed.stdout
    assert "/secret" not in everything_known(cluster)
    sent = to_cluster("submit", job, "--wait", "--send-secrets", OTHER_HOOK="https://127.0.0.1:9/secret")
    assert sent.returncode == 0, sent.stdout
    assert "/secret" in everything_known(cluster)  # as the help of --send-secrets says
    assert "/secret" not in sent.stdout + sent.stderr + to_cluster("jobs", "--json").stdout


def everything_known(cluster):
    """What the holder of the token is told of all jobs."""
    request = urllib.request.Request(
        f"{cluster[0]}/api/jobs/", headers={"Authorization": f"Bearer {cluster[1].read_text()}"}
    )
    with urllib.request.urlopen(request) as answer:
        return answer.read().decode()


@pytest.mark.long
def test_code_travels_for_development(tmp_path, job, cluster):
    package = Path(__file__).parents[2] / "platform" / "labelmill"
    shutil.copytree(package, tmp_path / "src" / "labelmill", ignore=shutil.ignore_patterns("__pycache__"))
    source = tmp_path / "src" / "labelmill" / "label" / "job.py"
    source.write_text(source.read_text().replace('"listing %s"', '"listing, as changed, %s"'))
    done = labelmill(
        *("submit", job, "--ship-code", "--wait", "--address", cluster[0]),
        PYTHONPATH=tmp_path / "src",
        RAY_AUTH_TOKEN_PATH=cluster[1],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "listing, as changed," in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another machine")
def test_a_folder_that_the_nodes_do_not_see_is_named(tmp_path, job, cluster):
    sockets = Path(cluster[1]).parent / "ray"
    elsewhere = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {sockets} && exec "$@"', "sh"]
    command = [*elsewhere, sys.executable, "-m", "labelmill", "submit", str(job), "--address", cluster[0]]
    environ = environment(RAY_AUTH_TOKEN_PATH=cluster[1])
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: registry: ")
    assert "is a place on this machine, which the nodes of the cluster at" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    anywhere = json.dumps(yaml.safe_load(job.read_text())).replace('"/', '"file:///')
    job.with_suffix(".json").write_text(anywhere)
    command[command.index("submit") + 1] = str(job.with_suffix(".json"))
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "wants its token: set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH"),
        ("wrong", "does not take the token of RAY_AUTH_TOKEN: ask its operators"),
    ],
)
def test_a_token_that_is_missing_or_wrong_is_said(tmp_path, job, cluster, token, said):
    given = {"RAY_AUTH_TOKEN": token} if token else {}
    done = labelmill("submit", job, "--address", cluster[0], HOME=tmp_path, **given)
    assert done.returncode == 6
    assert said in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.long
def test_a_head_whose_agent_has_not_started_is_said_to_take_no_jobs(job):
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        head.running(agent_port=other.getsockname()[1]) as (address, token),
    ):
        found = labelmill("submit", job, "--address", address, RAY_AUTH_TOKEN_PATH=token)
    assert found.returncode == 6 and len(found.stderr.splitlines()) == 1
    assert "takes no jobs: its agent for them has not started" in found.stderr


def test_where_no_ray_answers_it_is_said_within_seconds(job):
    started = time.monotonic()
    done = labelmill("submit", job, "--address", f"127.0.0.1:{free_port()}")
    assert (done.returncode, time.monotonic() - started < 15) == (6, True)
    assert "error: no Ray answered at http://127.0.0.1:" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"ray_version": "2.41.0"}', "runs Ray 2.41.0, and this labelmill needs 2.60"),
        (b"<html>a router</html>", "is not the dashboard of a Ray cluster"),
        # takes the connection, and never answers
        pytest.param(None, "no Ray answered at http://127.0.0.1:", marks=pytest.mark.long),
    ],
)
def test_what_is_not_our_ray_is_refused(job, body, said):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            if body is None:
                time.sleep(30)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = labelmill("submit", job, "--address", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert done.returncode == 6
    assert said in done.stderr and len(done.stderr.splitlines()) == 1


def test_an_endpoint_is_changed_in_place_without_a_request_lost(tmp_path, to_cluster):
    registry = str(tmp_path / "registry")
    for seed in (1, 2):
        make_bundle(registry, "tiny", seed=seed)
    Registry(registry).promote("tiny@1")
    port = free_port()
    spec = {"kind": "serve", "name": "tiny-api", "registry": registry, "model": "tiny@1", "port": port}
    file = tmp_path / "serve.yaml"
    file.write_text(json.dumps(spec | {"api_keys": ["${TINY_API_KEY}"]}))
    done = to_cluster("submit", file, "--wait")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "submitted serve-tiny-api\ntiny-api answers\n"
    assert to_cluster("submit", file).stdout == "serve-tiny-api is there already\n"
    answers, over = [], threading.Event()

    def ask():
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/label",
            jpeg_bytes(60, 40),
            {"Authorization": "Bearer of-the-node", "Content-Type": "image/jpeg"},
        )
        while not over.is_set():
            with urllib.request.urlopen(request, timeout=30) as answer:
                answers.append((answer.status, json.load(answer)["model"]))

    asking = threading.Thread(target=ask)
    asking.start()
    file.write_text(file.read_text().replace("tiny@1", "tiny@2"))
    assert to_cluster("submit", file, "--wait").returncode == 0
    until = time.monotonic() + 60
    while (not answers or answers[-1][1] == "tiny@1") and asking.is_alive() and time.monotonic() < until:
        time.sleep(0.1)
    over.set()
    asking.join()
    assert answers == sorted(answers)
    assert set(answers) == {(200, "tiny@1"), (200, "tiny@2")}
    assert [job["status"] for job in json.loads(to_cluster("jobs", "--json").stdout) if job["kind"] == "serve"] == [
        "RUNNING"
    ]
    moved = to_cluster("submit", file, "--set", f"port={free_port()}")
    assert moved.returncode == 1 and f"listens on 127.0.0.1:{port}" in moved.stderr
    assert to_cluster("stop", "serve-tiny-api").stdout == "serve-tiny-api ends\n"
    until = time.monotonic() + 30
    while "serve-tiny-api" in to_cluster("jobs", "--json").stdout and time.monotonic() < until:
        time.sleep(0.5)
    assert "serves no tiny-api" in to_cluster("stop", "serve-tiny-api").stderr
