"""A real Prometheus beside a cluster at work: what dashboards and alerts name is there."""

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

import head
from running import free_port, label_spec, labelmill
from test_deploy_folder import DEPLOY, named_series

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not shutil.which("prometheus"), reason="needs `apt-get install --no-install-recommends prometheus`"
    ),
]


@pytest.fixture
def prometheus(tmp_path):
    """Its address, once it scrapes what the given function says."""
    started = []

    def start(scrape_configs):
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(DEPLOY / "prometheus" / "alerts.yaml")],
            "scrape_configs": scrape_configs,
        }
        (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
        address = f"127.0.0.1:{free_port()}"
        options = [f"--config.file={tmp_path}/prometheus.yaml", f"--storage.tsdb.path={tmp_path}/data"]
        process = subprocess.Popen(["prometheus", *options, f"--web.listen-address={address}", "--log.level=error"])
        started.append(process)
        return f"http://{address}"

    yield start
    for process in started:
        process.terminate()
        process.wait(30)


def ask(address, path, **query):
    with urllib.request.urlopen(f"{address}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
        return json.load(answer)["data"]


@pytest.fixture
def textfiles(tmp_path):
    """A folder, and where it is served: as node_exporter hands on what its textfile collector finds."""
    folder = tmp_path / "textfiles"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder))
    Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"127.0.0.1:{server.server_port}"
    server.shutdown()


def test_every_series_that_is_watched_is_there(tmp_path, registry, slow_store, prometheus, textfiles):
    from labelmill.model.registry import Registry

    Registry(registry).promote("tiny@1")
    table, port = tmp_path / "labels", free_port()
    job = label_spec(tmp_path / "job.yaml", registry=registry, images=slow_store, output=table, model="tiny@1")
    job.write_text(job.read_text() + "schedule: {cron: '0 2 * * *'}\nprices: {core_hour: 0.04}\n")
    serve = {"kind": "serve", "name": "api", "registry": registry, "model": "tiny@1", "port": port}
    (tmp_path / "serve.json").write_text(json.dumps(serve))
    train = {
        "kind": "train",
        "name": "learnt",
        "registry": registry,
        "task": "multi_class",
        "data": {"images": str(sorted_by_size(tmp_path)), "labels": "folders"},
        "model": {"architecture": "timm/test_resnet", "weights": "scratch", "image_size_px": 32},
        "optimize": {"epochs": 30, "batch_size": 16},
        "workers": {"count": 1, "cpus": 1},
        "promote": "never",
    }
    (tmp_path / "train.json").write_text(json.dumps(train))
    with head.running(RAY_metrics_report_interval_ms="500") as (address, token):
        discovery = str(Path(token).parent / "ray" / "prom_metrics_service_discovery.json")
        folder, place = textfiles
        server = prometheus(
            [
                {"job_name": "ray", "file_sd_configs": [{"files": [discovery], "refresh_interval": "1s"}]},
                {"job_name": "endpoint", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]},
                {"job_name": "nights", "metrics_path": "/nights.prom", "static_configs": [{"targets": [place]}]},
            ]
        )
        to_cluster = {"RAY_AUTH_TOKEN_PATH": token}
        for spec, words in (
            (job, ["--wait"]),
            (tmp_path / "train.json", ["--wait"]),
            (tmp_path / "serve.json", ["--wait"]),
        ):
            done = labelmill("submit", spec, "--address", address, *words, **to_cluster)
            assert done.returncode == 0, done.stdout + done.stderr
        picture = (slow_store / "0000.png").read_bytes()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/label", picture, {"Content-Type": "image/png"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200
        assert labelmill("nights", table, "--metrics", folder / "nights.prom").returncode == 0
        missing, until = named_series(), time.monotonic() + 60
        while missing and time.monotonic() < until:
            time.sleep(1)
            seen = set(ask(server, "label/__name__/values"))
            missing -= seen
        labels = {"ray_train_run_name", "ray_train_worker_world_rank"}
        assert missing - labels == set()


def sorted_by_size(tmp_path):
    from pictures import jpeg_bytes

    for label, size in (("large", 80), ("small", 30)):
        folder = tmp_path / "set" / label
        folder.mkdir(parents=True)
        for number in range(40):
            (folder / f"{number}.jpg").write_bytes(jpeg_bytes(size, size, seed=number))
    return tmp_path / "set"


def test_the_alert_of_pictures_that_vanished_fires(tmp_path, registry, prometheus, textfiles):
    """Of a run that stops for it, and of one that is late: by what the table's receipts say."""
    from pictures import jpeg_bytes

    images, table = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    for number in range(300):
        (images / f"{number:03d}.jpg").write_bytes(jpeg_bytes(30, 20))
    job = label_spec(tmp_path / "job.yaml", registry=registry, images=images, output=table, model="tiny@1")
    job.write_text(job.read_text() + "schedule: {cron: '* * * * *'}\n")
    folder, place = textfiles
    server = prometheus(
        [{"job_name": "nights", "metrics_path": "/nights.prom", "static_configs": [{"targets": [place]}]}]
    )
    assert labelmill("run", job).returncode == 0
    for path in sorted(images.iterdir())[:90]:
        path.unlink()
    assert labelmill("run", job).returncode == 4
    assert labelmill("nights", table, "--metrics", folder / "nights.prom").returncode == 0
    until, firing = time.monotonic() + 30, {}
    while "LabelmillPicturesVanished" not in firing and time.monotonic() < until:
        time.sleep(1)
        alerts = ask(server, "alerts")["alerts"]
        firing = {alert["labels"]["alertname"]: alert for alert in alerts if alert["state"] == "firing"}
    assert firing["LabelmillPicturesVanished"]["annotations"]["summary"] == (
        "30% of the pictures of test are gone from the store"
    )
