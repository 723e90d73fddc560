"""A cluster far away: nodes in networks of their own that see no checkout and none of our folders, a real S3 server
between them, and a submitter that is none of them. All run the installed wheel.

`LABELMILL_TEST_PICTURES=20000` labels so many.
"""

import json
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from bundles import make_bundle
from labelmill.storage import open_store
from nodes import WHY_NOT, Nodes
from pictures import jpeg_bytes
from running import rows_of

pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]

CHECKOUT = Path(__file__).parents[2]
PICTURES = int(os.environ.get("LABELMILL_TEST_PICTURES", "1500"))
SUBMITTER = 9


@pytest.fixture(scope="module")
def prefix():
    """An environment like this one, outside the checkout, with the wheel of it instead of a link to it."""
    folder = Path(tempfile.mkdtemp(prefix=".labelmill-", dir=Path(sys.prefix).parents[1]))  # where links can be made
    try:
        copy = folder / "env"
        subprocess.run(["cp", "-al", sys.prefix, copy], check=True)
        pip = [copy / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
        wheel = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, CHECKOUT]
        subprocess.run([*pip, *wheel], check=True)
        subprocess.run([*pip, "install", "--no-deps", "--force-reinstall", *folder.glob("*.whl")], check=True)
        yield copy
    finally:
        shutil.rmtree(folder)


class Far:
    """The cluster, its store, and who submits to it."""

    def __init__(self, nodes, tmp_path, environ):
        self.nodes, self.tmp_path, self.environ = nodes, tmp_path, environ
        self.of_head = tmp_path / "head"
        self.of_head.mkdir()

    def start(self, number, **how):
        cache = self.tmp_path / f"cache-{number}"
        hide = [CHECKOUT, self.nodes.folder, *([self.of_head] if number else [])]
        self.nodes.start(number, hide=hide, **{"LABELMILL_CACHE": cache} | self.environ, **how)

    def submit(self, spec, *words):
        """Start the command, in a place that has nothing but the spec."""
        file = self.tmp_path / f"{spec['name']}.yaml"
        file.write_text(yaml.safe_dump(spec))
        return self.labelmill("submit", file, *words)

    def labelmill(self, *words):
        command = [
            *(
                *self.nodes.on(SUBMITTER),
                *self.nodes.without(CHECKOUT, self.nodes.folder),
                *self.nodes.python,
                "-m",
                "labelmill",
            ),
            *(*map(str, words), "--address", f"http://{self.nodes.address(0)}:8265"),
        ]
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHONPATH"))}
        environ = mine | self.nodes._settings | {"HOME": str(self.tmp_path), "SHAPES_KEY": "a-key"}
        return subprocess.Popen(
            command, cwd=self.tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )


@pytest.fixture(scope="module")
def far(prefix, tmp_path_factory):
    """A head without cores and two nodes with one each."""
    with (
        Nodes(prefix=prefix, token=secrets.token_hex(16), dashboard=True) as nodes,
        pytest.MonkeyPatch.context() as own,
    ):
        own.setattr(logging.getLogger("werkzeug"), "disabled", True)  # a line for each request
        server = ThreadedMotoServer(ip_address=nodes.gateway, port=0, verbose=False)
        server.start()
        environ = {"AWS_ENDPOINT_URL": f"http://{nodes.gateway}:{server.get_host_and_port()[1]}"}
        environ |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        environ |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull}
        for name, value in environ.items():
            own.setenv(name, value)
        for bucket in ("pictures", "models", "labels", "training"):
            boto3.resource("s3", endpoint_url=environ["AWS_ENDPOINT_URL"]).create_bucket(Bucket=bucket)
        _fill(environ)
        nodes.connect(SUBMITTER)
        far = Far(nodes, tmp_path_factory.mktemp("far"), environ)
        far.start(0, num_cpus=0)
        far.start(1)
        far.start(2)
        yield far
        server.stop()


def _fill(environ):
    make_bundle("s3://models", "shapes", architecture="timm/resnet18", image_size_px=64)
    pictures, training = open_store("s3://pictures"), open_store("s3://training")
    some = [jpeg_bytes(320, 240, seed=seed) for seed in range(16)]
    for number in range(PICTURES):
        pictures.write(f"{number:05d}.jpg", some[number % len(some)])
    for number in range(64):
        training.write(f"{'light' if number % 2 else 'dark'}/{number}.jpg", some[number % len(some)])


def label(table, **fields):
    return {
        "kind": "label",
        "name": table,
        "registry": "s3://models",
        "model": "shapes@1",
        "images": "s3://pictures",
        "output": f"s3://labels/{table}",
        **fields,
    }


def assert_every_picture_once(table):
    rows = rows_of(f"s3://labels/{table}")
    assert len(rows) == len({row["uri"] for row in rows}) == PICTURES
    assert {row["status"] for row in rows} == {"ok"}


def wait_for_share(table, share, process):
    """Until so many of the pictures have committed rows."""
    from labelmill.errors import LabelmillError

    until = time.monotonic() + 900
    while time.monotonic() < until:
        assert process.poll() is None, process.stdout.read()
        try:
            if len(rows_of(f"s3://labels/{table}")) >= share * PICTURES:
                return
        except LabelmillError:
            pass  # no table yet
        time.sleep(1)
    raise AssertionError("it labels nothing")


def end(process, timeout_s=1500):
    said = process.communicate(timeout=timeout_s)[0]
    assert process.returncode == 0, said
    return said


def test_a_submitted_training_publishes_where_every_node_finds_it(far):
    spec = {
        "kind": "train",
        "name": "learnt",
        "registry": "s3://models",
        "task": "multi_class",
        "data": {"images": "s3://training", "labels": "folders"},
        "model": {"architecture": "timm/resnet18", "weights": "scratch", "image_size_px": 32},
        "optimize": {"epochs": 1, "batch_size": 16},
        "workers": {"count": 2, "cpus": 0.5},
        "promote": "always",
    }
    assert "learnt@1" in end(far.submit(spec, "--wait"))


def test_a_node_that_dies_and_one_that_joins_leave_one_row_for_each_picture(far):
    run = far.submit(label("moved"), "--wait")
    wait_for_share("moved", 0.2, run)
    far.nodes.kill(2)
    far.start(3)
    end(run)
    assert_every_picture_once("moved")
    receipt = json.loads(open_store("s3://labels/moved").read(receipt_key("moved")))
    assert len({name.split()[0] for name in receipt["nodes"]} - {far.nodes.address(2)}) == 2


def receipt_key(table):
    store = open_store(f"s3://labels/{table}")
    return next(key for key in store.keys("_labelmill/receipts/") if key.endswith(".json"))


def test_a_link_that_is_down_for_a_minute_costs_no_row(far):
    run = far.submit(label("cut"), "--wait")
    wait_for_share("cut", 0.2, run)
    far.nodes.set_link(1, "down")
    time.sleep(60)
    far.nodes.set_link(1, "up")
    end(run)
    assert_every_picture_once("cut")


def test_a_head_that_is_killed_and_started_anew_gets_the_job_once_more(far):
    run = far.submit(label("again"), "--wait", "--night", "2026-11-27")
    wait_for_share("again", 0.2, run)
    for number in far.nodes.started - {SUBMITTER}:
        far.nodes.kill(number)
    kept = len(rows_of("s3://labels/again"))
    far.start(0, num_cpus=0)
    far.start(1)
    far.start(2)
    said = run.communicate(timeout=180)[0]
    assert run.returncode in (1, 6) and said.splitlines()[-1].startswith("error: "), said
    said = end(far.submit(label("again"), "--wait", "--night", "2026-11-27"))
    assert_every_picture_once("again")
    done_before = int(said.split(" were done before")[0].split()[-1].replace(",", ""))
    assert done_before >= kept


def test_a_bucket_that_is_not_there_and_a_local_path_are_one_line(far):
    run = far.submit(label("nowhere", images="s3://no-such-bucket"), "--wait")
    said = run.communicate(timeout=120)[0]
    assert run.returncode == 1
    assert len([line for line in said.splitlines() if line.startswith("error: ") and "no-such-bucket" in line]) == 1
    run = far.submit(label("local", images="./images"))
    said = run.communicate(timeout=60)[0]
    assert run.returncode == 2
    assert said.count("\n") == 1 and "error: images: './images' is a place on this machine" in said


def test_a_folder_that_only_the_head_sees_is_named_with_the_node_that_does_not(far):
    (far.of_head / "a.jpg").write_bytes(jpeg_bytes(60, 40))
    run = far.submit(label("hidden", images=f"file://{far.of_head}"), "--wait")
    said = run.communicate(timeout=180)[0]
    assert run.returncode == 1
    [error] = [line for line in said.splitlines() if line.startswith("error: ")]
    assert f"({far.nodes.network}." in error and str(far.of_head) in error


def test_a_submitted_endpoint_answers_from_afar(far):
    port = 8000
    spec = {
        "kind": "serve",
        "name": "shapes-api",
        "registry": "s3://models",
        "model": "shapes@1",
        "host": "0.0.0.0",
        "port": port,
        "api_keys": ["${SHAPES_KEY}"],
    }
    file = far.tmp_path / "picture.jpg"
    file.write_bytes(jpeg_bytes(60, 40))
    run = far.submit(spec, "--wait", "--send-secrets")
    said = run.communicate(timeout=300)[0]
    assert run.returncode == 0, said
    curl = ["curl", "-s", "-H", "Authorization: Bearer a-key", "-H", "Content-Type: image/jpeg"]
    url = f"http://{far.nodes.address(1)}:{port}/v1/label"
    answer = subprocess.run(
        [*far.nodes.on(SUBMITTER), *curl, "--data-binary", f"@{file}", url], capture_output=True, text=True, check=True
    )
    assert json.loads(answer.stdout)["model"] == "shapes@1"
