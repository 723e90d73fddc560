"""What schedulers and operators are told of a spec."""

import json
import os
import shlex
import shutil
import ssl
import subprocess
import sys
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from cronsim import CronSim

from labelmill.cluster.deploy import deployed
from labelmill.cluster.deploy.systemd import calendar
from labelmill.errors import SpecError
from labelmill.serve import front
from labelmill.spec import Schedule, load_spec, spec_of
from manifests import NEEDS_CRDS, check_manifests

LABEL = {
    "kind": "label",
    "name": "nightly",
    "registry": "s3://models",
    "model": "m@current",
    "images": "s3://pictures",
    "output": "s3://labels/table",
    "schedule": {"cron": "30 2 * * 1-5", "time_zone": "Europe/Berlin", "deadline_s": 36_000},
    "notify": {"url": "${LABELMILL_WEBHOOK}"},
}
SERVE = {
    "kind": "serve",
    "name": "api",
    "registry": "s3://models",
    "model": "m@4",
    "host": "0.0.0.0",
    "api_keys": ["${API_KEY}"],
    "replicas": 3,
}
NEEDS_SYSTEMD = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="needs `apt-get install --no-install-recommends systemd`"
)


def printed(tmp_path, target, spec=LABEL, **fields):
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(spec | fields))
    return deployed(
        load_spec(file, environ={}, secrets_are_elsewhere=True), target, image="registry.example/labelmill:1"
    )


@NEEDS_CRDS
@pytest.mark.parametrize(
    ("target", "spec", "kinds"),
    [
        ("cronjob", LABEL, ["ConfigMap", "ServiceAccount", "Role", "RoleBinding", "CronJob"]),
        ("raycronjob", LABEL, ["ConfigMap", "RayCronJob"]),
        ("rayservice", SERVE, ["RayService"]),
    ],
)
def test_manifests_have_no_field_that_kubernetes_does_not_know(tmp_path, target, spec, kinds):
    text = printed(tmp_path, target, spec)
    assert [manifest["kind"] for manifest in check_manifests(text)] == kinds
    with pytest.raises(Exception, match="securitycontext"):  # a slip in the pods
        check_manifests(text.replace("securityContext", "securitycontext"))


@NEEDS_CRDS
def test_the_rayjob_that_a_cronjob_creates_is_one(tmp_path):
    config_map, *_, cron_job = check_manifests(printed(tmp_path, "cronjob"))
    text = config_map["data"]["rayjob.json"]
    [ray_job] = check_manifests(text)
    assert ray_job["spec"]["activeDeadlineSeconds"] == 36_000
    with pytest.raises(AssertionError, match="activeDeadlineSecond"):
        check_manifests(text.replace("activeDeadlineSeconds", "activeDeadlineSecond"))
    assert (cron_job["spec"]["schedule"], cron_job["spec"]["timeZone"]) == ("30 2 * * 1-5", "Europe/Berlin")


def test_a_training_that_wants_gpus_gets_nodes_that_have_them(tmp_path):
    train = {
        "kind": "train",
        "name": "m",
        "registry": "s3://models",
        "task": "multi_class",
        "data": {"images": "s3://pictures", "labels": "folders"},
        "model": {"architecture": "timm/resnet18", "weights": "scratch"},
        "workers": {"count": {"min": 2, "max": 6}, "cpus": 10, "gpus": 1},
        "schedule": {"cron": "0 2 * * 0", "deadline_s": 1_000_000},
    }
    config_map = next(yaml.safe_load_all(printed(tmp_path, "cronjob", train)))
    job = json.loads(config_map["data"]["rayjob.json"])["spec"]
    [group] = job["rayClusterSpec"]["workerGroupSpecs"]
    assert (group["minReplicas"], group["maxReplicas"], group["groupName"]) == (2, 6, "gpu")
    resources = group["template"]["spec"]["containers"][0]["resources"]
    assert resources["requests"] == {"cpu": "10", "memory": "32Gi", "nvidia.com/gpu": "1"}
    assert resources["limits"] == {"memory": "32Gi", "nvidia.com/gpu": "1"}
    assert job["activeDeadlineSeconds"] == 1_000_000
    assert "TimeoutStartSec=1000000\n" in printed(tmp_path, "systemd", train)


def test_the_spec_travels_without_its_secrets(tmp_path):
    config_map = next(yaml.safe_load_all(printed(tmp_path, "cronjob")))
    job = json.loads(config_map["data"]["job.json"])
    assert job == LABEL
    file = tmp_path / "there.json"
    file.write_text(config_map["data"]["job.json"])
    assert load_spec(file, environ={"LABELMILL_WEBHOOK": "https://hook.example"}).spec.name == "nightly"


def test_an_endpoint_of_an_operator_is_the_one_of_its_spec(tmp_path):
    service = next(yaml.safe_load_all(printed(tmp_path, "rayservice", SERVE)))
    serve = yaml.safe_load(service["spec"]["serveConfigV2"])
    [application] = serve["applications"]
    assert (serve["http_options"]["host"], serve["http_options"]["port"]) == ("0.0.0.0", 8000)
    assert application["deployments"] == [{"name": "endpoint", "num_replicas": 3, "user_config": {"model": "m@4"}}]
    pods = service["spec"]["rayClusterConfig"]
    for pod in (pods["headGroupSpec"]["template"], pods["workerGroupSpecs"][0]["template"]):
        env = {item["name"]: item["value"] for item in pod["spec"]["containers"][0]["env"]}
        assert env.items() >= front.environment(20 * 2**20).items()  # which proxies read when they start
    changed = next(yaml.safe_load_all(printed(tmp_path, "rayservice", SERVE, model="m@5")))
    again = yaml.safe_load(changed["spec"]["serveConfigV2"])["applications"][0]
    assert again["args"] == application["args"]  # so the replicas stay
    os.environ["API_KEY"] = "a-key"
    try:
        assert spec_of(application["args"]["spec"], "it").port == 8000
    finally:
        del os.environ["API_KEY"]


@pytest.mark.parametrize(
    ("target", "fields", "said"),
    [
        ("cronjob", {"images": "./pictures"}, r"images: '\./pictures' is a place on this machine, which no pod sees"),
        ("cronjob", {"notify": {"url": "https://hook.example/T1"}}, "notify.url: a secret stands in the spec"),
        ("rayservice", {}, "kind: label is deployed to cronjob or raycronjob or crontab or systemd, and not to raysrv"),
        ("cronjob", {"schedule": None}, "schedule: required, and missing: when shall it run"),
        (
            "crontab",
            {"schedule": {"cron": "0 2 * * *", "time_zone": "Asia/Kathmandu"}},
            "schedule.time_zone: expected ",
        ),
    ],
)
def test_what_cannot_be_deployed_is_said(tmp_path, target, fields, said):
    with pytest.raises(SpecError, match=said.replace("raysrv", "rayservice")):
        printed(tmp_path, target, **fields)


def test_the_line_of_cron_does_the_job_with_the_secrets_of_its_file(tmp_path, monkeypatch):
    folder = tmp_path / "100% of it"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TZ", "UTC")
    (folder / "labelmill-nightly.env").write_text("MODELS=registry\nLABELMILL_WEBHOOK=http://127.0.0.1:9/\n")
    text = printed(
        folder,
        "crontab",
        registry="./registry",
        images="./in",
        output="./out",
        schedule={"cron": "30 2 * * 1-5", "deadline_s": 3600},
    )
    line = text.splitlines()[-1]
    assert line.startswith("30 2 * * 1-5 cd ")
    command = line.removeprefix("30 2 * * 1-5 ")
    assert "%" not in command.replace(r"\%", "")  # which cron takes for a line's end
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(["/bin/sh", "-c", command.replace(r"\%", "%")], env=environ, cwd="/", check=False)
    assert done.returncode == 1
    assert "error: no model 'm' in" in (folder / "labelmill-nightly.log").read_text()


@NEEDS_SYSTEMD
def test_the_units_of_systemd_are_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = printed(tmp_path, "systemd") + printed(tmp_path, "systemd", SERVE)
    files = subprocess.run(
        ["sh", "-s"],
        input="".join(line for line in script.splitlines(True) if not line.startswith("systemctl")).replace(
            "/etc/systemd/system/", f"{tmp_path}/"
        ),
        text=True,
        check=True,
    )
    assert files.returncode == 0
    units = sorted(tmp_path.glob("labelmill-*"))
    assert [unit.name for unit in units] == [
        "labelmill-api.service",
        "labelmill-nightly.service",
        "labelmill-nightly.timer",
    ]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
    assert said == []
    units[1].write_text(units[1].read_text().replace("KillMode=mixed", "KillMod=mixed"))
    done = subprocess.run(["systemd-analyze", "verify", units[1]], capture_output=True, text=True, check=False)
    assert "KillMod" in done.stderr  # it would have said so


@NEEDS_SYSTEMD
@pytest.mark.parametrize(
    "cron", ["30 2 * * 1-5", "*/20 2 13 * FRI", "0 2 */2 * MON", "15 3 1,15 jan-jun *", "0 0 29 2 *", "0 2 * * 0,6"]
)
def test_systemd_starts_when_cron_would(cron):
    base = datetime(2026, 11, 27, tzinfo=UTC)
    times = CronSim(cron, base)
    expected = [next(times).strftime("%Y-%m-%d %H:%M:%S") for _ in range(6)]
    lines = calendar(Schedule(cron=cron))
    found = set()
    for line in lines:
        done = subprocess.run(
            ["systemd-analyze", "calendar", "--iterations=12", f"--base-time={base:%Y-%m-%d %H:%M:%S} UTC", line],
            env=os.environ | {"TZ": "UTC"},
            capture_output=True,
            text=True,
            check=True,
        )
        rows = [row.split(": ", 1)[1].split() for row in done.stdout.splitlines() if "elapse:" in row or "Iter" in row]
        found |= {" ".join(words[1:3]) for words in rows}
    assert sorted(found)[:6] == expected


class ApiServer(BaseHTTPRequestHandler):
    """The part of a Kubernetes API server that keeps RayJobs."""

    def do_POST(self):
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != "Bearer the-token":
            self.answer(403, {"message": "rayjobs.ray.io is forbidden"})
        elif (name := job["metadata"]["name"]) in self.server.jobs:
            self.answer(409, {"reason": "AlreadyExists"})
        else:
            self.server.jobs[name] = job
            self.answer(201, job)

    def do_GET(self):
        self.answer(200, self.server.jobs[self.path.rpartition("/")[2]])

    def answer(self, code, body):
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """What Kubernetes puts into a pod."""
    folder = tmp_path_factory.mktemp("serviceaccount")
    (folder / "token").write_text("the-token\n")
    (folder / "namespace").write_text("vision")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key", "-out", folder / "ca.crt"),
        ],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture
def api_server(account, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), ApiServer)
    server.jobs = {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(account / "ca.crt", account / "key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
    yield server
    server.shutdown()


def test_two_starts_of_a_night_create_one_rayjob(tmp_path, account, api_server):
    from labelmill.cluster.deploy.create import create

    text = next(yaml.safe_load_all(printed(tmp_path, "cronjob")))["data"]["rayjob.json"]
    assert create(json.loads(text), "20261127", account) == "created labelmill-nightly-20261127"
    assert create(json.loads(text), "20261127", account) == "labelmill-nightly-20261127 is there already"
    api_server.jobs["labelmill-nightly-20261127"]["status"] = {"jobDeploymentStatus": "Failed"}
    assert create(json.loads(text), "20261127", account) == "created labelmill-nightly-20261127-2"
    assert create(json.loads(text), "20261128", account) == "created labelmill-nightly-20261128"
    assert list(api_server.jobs) == [
        "labelmill-nightly-20261127",
        "labelmill-nightly-20261127-2",
        "labelmill-nightly-20261128",
    ]


@pytest.mark.parametrize(
    ("now", "cron", "night"),
    [
        ("2026-11-27T02:00:04+01:00", "0 2,14 * * *", "202611270100"),
        ("2026-11-27T14:00:04+01:00", "0 2,14 * * *", "202611271300"),  # the second start of a day is another run
        ("2026-11-28T00:20:00+01:00", "30 23 * * *", "202611272230"),  # a pod that had to wait past midnight
        ("2026-11-27T01:59:58+01:00", "0 2 * * *", "202611270100"),  # a node whose clock lags behind
        ("2026-10-25T02:40:00+01:00", "*/30 * * * *", "202610250130"),  # the hour that comes twice
        ("2026-10-25T02:40:00+02:00", "*/30 * * * *", "202610250030"),
    ],
)
def test_each_start_of_a_schedule_has_a_rayjob_of_its_own(now, cron, night):
    from labelmill.cluster.deploy.create import started_for

    assert started_for(cron, "Europe/Berlin", datetime.fromisoformat(now)) == night


def test_the_longest_name_leaves_room_for_what_kuberay_adds(tmp_path):
    config_map = next(yaml.safe_load_all(printed(tmp_path, "cronjob", name="n" * 60)))
    name = json.loads(config_map["data"]["rayjob.json"])["metadata"]["name"]
    assert len(f"{name}-202611270100-9") <= 47  # which is what KubeRay takes


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have a pod's files where a pod has them")
def test_the_commands_of_the_cronjob_and_of_its_rayjob_run_as_they_stand(tmp_path, account, api_server):
    config_map, *_, cron_job = yaml.safe_load_all(printed(tmp_path, "cronjob"))
    pod = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    files = tmp_path / "files"
    files.mkdir()
    for name, text in config_map["data"].items():
        (files / name).write_text(text)
    place = pod["containers"][0]["volumeMounts"][0]["mountPath"]
    accounts = "/var/run/secrets/kubernetes.io/serviceaccount"
    mounts = f"mount -t tmpfs none /etc && mkdir -p {place} && mount --bind {files} {place}"
    mounts += f" && mount -t tmpfs none /var/run && mkdir -p {accounts} && mount --bind {account} {accounts}"
    inside = ["unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh"]
    environ = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": sys.path[0]}
    environ |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = {"env": environ, "capture_output": True, "text": True, "check": False}
    done = subprocess.run([*inside, *pod["containers"][0]["command"]], **run)
    assert (done.returncode, done.stdout[:26]) == (0, "created labelmill-nightly-"), done.stderr
    [ray_job] = api_server.jobs.values()
    (account / "token").write_text("another")
    try:
        refused = subprocess.run([*inside, *pod["containers"][0]["command"]], **run)
    finally:
        (account / "token").write_text("the-token")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: Kubernetes refused the RayJob: 403") and refused.stderr.count("\n") == 1
    ran = subprocess.run([*inside, *shlex.split(ray_job["spec"]["entrypoint"])], **run)
    assert ran.returncode == 2  # it has read the spec, which wants a secret that this machine has not
    assert ran.stderr.startswith(
        "error: /etc/labelmill/job.json:7: notify.url: the environment variable LABELMILL_WEBHOOK"
    )
