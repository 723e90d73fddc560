"""A cluster whose nodes come, go, cannot read, or are cut off while a run is on it: one row for each picture."""

import json
import os
import time

import boto3
import pytest
from moto.server import ThreadedMotoServer

from nodes import WHY_NOT, Nodes
from pictures import jpeg_bytes
from promise import assert_the_promise
from running import data_files, label_spec, start_labelmill, wait_for

pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]


@pytest.fixture
def nodes():
    with Nodes() as found:
        yield found


@pytest.fixture(scope="session")
def store_of(slow_store, tmp_path_factory):
    """A folder with so many names of one slow picture: about 25 a second on one core."""

    def make(count):
        folder = tmp_path_factory.mktemp("many")
        for number in range(count):
            os.link(slow_store / "0000.png", folder / f"{number:05d}.png")
        return folder

    return make


class Run:
    """`labelmill run` on the head of a cluster."""

    def __init__(self, nodes, tmp_path, registry, store, name="test", **environ):
        self.table, self._store, self._log = tmp_path / f"{name}-labels", store, tmp_path / f"{name}.log"
        places = {"registry": registry, "images": store, "output": self.table}
        job = label_spec(tmp_path / f"{name}.yaml", name=name, model="tiny@1", **places)
        self.began = time.monotonic()
        self.process = start_labelmill("run", job, log=self._log, before=nodes.on(0), **nodes.environ, **environ)

    @property
    def log(self):
        return self._log.read_text()

    @property
    def num_files(self):
        return len(data_files(self.table))

    def wait_for_files(self, count):
        assert wait_for(lambda: self.num_files >= count, self.process), self.log

    def end(self, uris=None):
        """The receipt, once the run is complete and every picture has its row."""
        assert self.process.wait(600) == 0, self.log
        [receipt] = [json.loads(path.read_text()) for path in self.table.glob("_labelmill/receipts/*.json")]
        rows = assert_the_promise(self.table, uris or self._store.iterdir())
        assert (receipt["outcome"], receipt["pictures_labelled"]) == ("complete", len(rows))
        receipt["nodes"] = {name.split()[0]: node for name, node in receipt["nodes"].items()}
        return receipt


@pytest.fixture
def start(nodes, tmp_path, registry):
    """Start a run; one that a test left is ended."""
    runs = []

    def begin(store, **kwargs):
        runs.append(Run(nodes, tmp_path, registry, store, **kwargs))
        return runs[-1]

    yield begin
    for run in runs:
        run.process.kill()
        run.process.wait()


def test_a_node_that_joins_at_one_third_works_as_fast_as_the_other(nodes, start, store_of):
    nodes.start(0)
    run = start(store_of(4096))
    run.wait_for_files(21)  # of 64
    nodes.start(1)
    joined_s = time.monotonic() - run.began
    receipt = run.end()
    first, second = (receipt["nodes"][nodes.address(number)] for number in (0, 1))
    rates = [node["pictures"] / (node["to_s"] - node["from_s"]) for node in (first, second)]
    print(f"joined after {joined_s:.0f} s, labelled from {second['from_s']:.0f} s on, pictures/s of both: {rates}")
    assert second["from_s"] < joined_s + 45
    assert rates[1] >= 0.8 * rates[0]
    assert (receipt["workers"], receipt["cores"]) == ("2 workers of 1 core", 2)


def test_a_head_without_cores_waits_for_a_node(nodes, start, store_of):
    nodes.start(0, num_cpus=0)
    run = start(store_of(384))
    time.sleep(20)
    assert run.process.poll() is None, run.log
    nodes.start(1)
    receipt = run.end()
    assert "waiting for a node: the cluster has no CPUs" in run.log
    assert receipt["nodes"].keys() == {nodes.address(1)}


def test_a_node_that_is_killed_is_done_without(nodes, start, store_of):
    nodes.start(0)
    nodes.start(1)
    run = start(store_of(1024))
    run.wait_for_files(5)
    nodes.kill(1)
    receipt = run.end()
    assert receipt["nodes"][nodes.address(0)]["pictures"] > 512


def test_a_node_that_is_cut_off_for_a_minute_holds_up_nothing_for_long(nodes, start, store_of):
    nodes.start(0)
    nodes.start(1)
    run = start(store_of(2560))
    run.wait_for_files(12)
    nodes.set_link(1, "down")
    cut_at = time.time()
    time.sleep(60)
    nodes.set_link(1, "up")
    receipt = run.end()
    times = sorted(path.stat().st_mtime for path in data_files(run.table) if path.stat().st_mtime > cut_at)
    stalls = [after - before for before, after in zip([cut_at, *times], times, strict=False)]
    print("cut off: longest stall", max(stalls), receipt["nodes"], receipt["wall_s"])
    assert max(stalls) < 30
    assert receipt["nodes"][nodes.address(0)]["to_s"] > 60


def test_a_node_without_credentials_gives_its_chunks_to_the_others(nodes, start, registry):
    server = ThreadedMotoServer(ip_address=nodes.gateway, port=0, verbose=False)
    server.start()
    try:
        place = {"AWS_ENDPOINT_URL": f"http://{nodes.gateway}:{server.get_host_and_port()[1]}"}
        place |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
        place |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        bucket = (
            boto3.Session("key", "secret", region_name="us-east-1")
            .resource("s3", endpoint_url=place["AWS_ENDPOINT_URL"])
            .create_bucket(Bucket="pictures")
        )
        names = [f"{number:04d}.jpg" for number in range(700)]
        picture = jpeg_bytes(1200, 900, quality=95)
        for name in names:
            bucket.put_object(Key=name, Body=picture)
        nodes.start(0, **place, **keys)
        nodes.start(1, **place)
        run = start("s3://pictures", **place, **keys)
        receipt = run.end([f"s3://pictures/{name}" for name in names])
    finally:
        server.stop()
    assert receipt["nodes"].keys() == {nodes.address(0)}
    assert receipt["statuses"] == {"ok": 700}
    [said] = [line for line in run.log.splitlines() if "gives its chunks back" in line]
    assert nodes.address(1) in said
    assert "credentials" in said


def test_a_node_that_does_not_see_the_pictures_gives_its_chunks_to_the_others(nodes, start, store_of):
    store = store_of(448)
    nodes.start(0)
    nodes.start(1, hide=[store])
    run = start(store)
    receipt = run.end()
    assert receipt["nodes"].keys() == {nodes.address(0)}
    [said] = [line for line in run.log.splitlines() if "gives its chunks back" in line]
    assert nodes.address(1) in said
    assert str(store) in said


def test_no_node_sees_the_pictures_and_the_run_says_so_in_one_line(nodes, start, store_of, tmp_path):
    store = store_of(448)
    nodes.start(0, num_cpus=0)
    nodes.start(1, hide=[store])
    run = start(store)
    assert run.process.wait(120) == 1, run.log
    [said] = [line for line in run.log.splitlines() if line.startswith("error:")]
    assert nodes.address(1) in said
    assert f"no such file: '{store}" in said
    assert run.num_files == 0


def test_a_cluster_without_cores_is_used_as_far_as_it_grows(nodes, start, store_of):
    nodes.start(0, num_cpus=0)
    run = start(store_of(1536))
    time.sleep(15)
    nodes.start(1, num_cpus=4)
    receipt = run.end()
    assert run.log.count("waiting for a node: the cluster has no CPUs") >= 1
    assert receipt["workers"] == "4 workers of 1 core"


def test_two_jobs_share_the_cluster(nodes, start, store_of):
    nodes.start(0)
    nodes.start(1)
    large = start(store_of(2048), name="large")
    large.wait_for_files(4)
    small = start(store_of(320), name="small")
    small.wait_for_files(1)
    assert large.process.poll() is None
    small.end()
    assert large.process.poll() is None, "the small one had to wait for the large one's end"
    receipt = large.end()
    # Alone again it works on both.
    assert len(receipt["nodes"]) == 2
