"""A run on a cluster that others look after: over its GPUs, and seen by its Prometheus."""

import json
import os
import re
import time
import urllib.request

import pytest

import two_nodes
from bundles import make_bundle
from label.work.made import assert_alike
from pictures import jpeg_bytes
from running import label_spec, labelmill, rows_of, start_labelmill

# What dashboards and alarms are built on: a name that goes breaks them.
SERIES = {
    "ray_labelmill_label_pictures_total": {"job", "status"},
    "ray_labelmill_label_read_bytes_total": {"job"},
    "ray_labelmill_label_commits_total": {"job"},
    "ray_labelmill_label_pictures_per_second": {"job"},
    "ray_labelmill_label_pictures_left": {"job"},
    "ray_labelmill_label_seconds_left": {"job"},
}
OF_RAY_DATA = {"ray_data_num_tasks_finished", "ray_data_num_row_inputs_received", "ray_data_obj_store_mem_used"}


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of which one says that it has a GPU: what torch does there, it does on the CPU."""
    with two_nodes.running("1") as found:
        yield found


@pytest.fixture
def environ(cluster):
    return {"RAY_ADDRESS": cluster["address"]} | two_nodes.SETTINGS


def series_at(metrics):
    """The names of all series of a scrape, with their labels."""
    found = {}
    with urllib.request.urlopen(metrics, timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if match := re.match(r"(\w+)\{(.*)\}", line):
                found.setdefault(match[1], {})[match[2]] = float(line.rpartition(" ")[2])
    return found


def receipt_of(table):
    [path] = table.glob("_labelmill/receipts/*.json")
    return json.loads(path.read_text())


def test_a_run_over_gpus_writes_the_rows_of_one_on_cores_and_prometheus_sees_it(
    tmp_path, registry, slow_store, cluster, environ
):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(100):  # the GPU's, and what is left to the cores
        (images / f"{number:03d}.jpg").write_bytes(jpeg_bytes(300, 200, seed=number, progressive=number % 5 == 0))
    for number in range(192):
        os.link(slow_store / "0000.png", images / f"slow-{number:03d}.png")
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    places = {"registry": registry, "images": images, "engine": "torch", "model": "tiny@1", "embeddings": "true"}
    on_cores = label_spec(tmp_path / "cores.yaml", output=tmp_path / "cores", **places)
    over_gpus = label_spec(tmp_path / "gpus.yaml", output=tmp_path / "gpus", **places)
    done = labelmill("run", on_cores)
    assert done.returncode == 0, done.stderr
    seen = {}
    run = start_labelmill("run", over_gpus, log=tmp_path / "log", **environ)
    try:
        while run.poll() is None:
            seen |= series_at(cluster["metrics"])
            time.sleep(0.5)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 0, (tmp_path / "log").read_text()
    assert_alike(rows_of(tmp_path / "gpus"), rows_of(tmp_path / "cores"))
    operators = receipt_of(tmp_path / "gpus")["operators"]
    assert [name for name in operators if "Map" in name] == [
        "MapBatches(fetch)",
        "MapBatches(ShowToNetworks)",
        "MapBatches(write)",
    ]
    assert seen.keys() >= OF_RAY_DATA
    ours = {name: labels for name, labels in seen.items() if "labelmill_label" in name}
    # How long it takes is told from the first chunk on, and the last one may come with it.
    assert ours.keys() | {"ray_labelmill_label_seconds_left"} == SERIES.keys()
    for name, found in ours.items():
        assert all(SERIES[name] <= set(re.findall(r"(\w+)=", labels)) for labels in found)
    assert any('job="test"' in found for found in ours["ray_labelmill_label_pictures_total"])


@pytest.mark.parametrize("engine", ["openvino", "torch"])  # on the cores, and over the GPU
def test_pictures_that_nobody_can_read_are_rows_and_no_fault_of_the_nodes(tmp_path, registry, environ, engine):
    names = [f"{tmp_path}/{number}.jpg" for number in range(3)]
    (tmp_path / "list.csv").write_text("\n".join(["uri,etag", *(f"{name},1" for name in names)]))
    images = {"manifest": str(tmp_path / "list.csv")}
    table = tmp_path / "labels"
    job = label_spec(
        tmp_path / "job.yaml", registry=registry, images=images, output=table, engine=engine, model="tiny@1"
    )
    done = labelmill("run", job, **environ)
    assert done.returncode == 0, done.stderr
    assert {row["uri"]: row["status"] for row in rows_of(table)} == dict.fromkeys(names, "missing")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another machine")
@pytest.mark.parametrize("hide", ["the processes", "the sockets"])
def test_a_machine_that_is_no_node_of_the_cluster_says_so(tmp_path, registry, cluster, environ, hide):
    """Ray looks for a node's process on this machine for a minute; and aborts when it finds another container's."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(jpeg_bytes(30, 20))
    places = {"registry": registry, "images": tmp_path / "images", "output": tmp_path / "labels", "model": "tiny@1"}
    job = label_spec(tmp_path / "job.yaml", **places)
    elsewhere = {
        "the processes": ["unshare", "--pid", "--fork", "--mount-proc"],
        "the sockets": ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {cluster["folder"]} && exec "$0" "$@"'],
    }[hide]
    began = time.monotonic()
    run = start_labelmill("run", job, log=tmp_path / "log", before=elsewhere, **environ)
    assert run.wait(120) == 6
    assert time.monotonic() - began < 25
    log = (tmp_path / "log").read_text()
    [said] = [line for line in log.splitlines() if line.startswith("error:")]
    assert f"RAY_ADDRESS='{cluster['address']}' is a cluster that this machine is no node of" in said
    assert "Traceback" not in log
    assert "StackTrace" not in log


@pytest.mark.long
def test_what_waits_for_a_gpu_is_bounded(tmp_path, registry, cluster, environ):
    """3,000 pictures of 100 KB before a network that takes its time, and an object store of 2 x 100 MiB."""
    images = tmp_path / "images"
    images.mkdir()
    first = images / "0000.jpg"
    first.write_bytes(jpeg_bytes(1600, 1200, seed=1, quality=97))
    assert first.stat().st_size > 80_000
    for number in range(1, 3000):
        os.link(first, images / f"{number:04d}.jpg")
    bundle = make_bundle(registry, architecture="timm/resnet18", image_size_px=128)
    job = label_spec(
        tmp_path / "job.yaml",
        registry=registry,
        images=images,
        output=tmp_path / "labels",
        engine="torch",
        model=bundle.reference,
    )
    most = 0.0
    run = start_labelmill("run", job, log=tmp_path / "log", **environ)
    try:
        while run.poll() is None:
            used = series_at(cluster["metrics"]).get("ray_object_store_used_memory", {})
            most = max(most, sum(used.values()))
            time.sleep(0.5)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 0, (tmp_path / "log").read_text()
    receipt = receipt_of(tmp_path / "labels")
    assert receipt["statuses"] == {"ok": 3000}
    print("object store: most used", most, receipt["operators"])
    assert 0 < most < 100 * 2**20
    assert sum(found.get("obj_store_mem_spilled", 0) for found in receipt["operators"].values()) == 0
