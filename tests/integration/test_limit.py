"""A run that spares the store that others live from: what the store itself counts, over all processes."""

import json
import time
from contextlib import contextmanager

import pytest
import yaml

from bundles import make_bundle
from labelmill.storage import open_store
from pictures import jpeg_bytes
from promise import assert_the_promise
from proxy import faulty_proxy
from running import label_spec, labelmill
from train.runs import shapes_source
from train.shapes import write_labels, write_shapes

PER_S = 25
SPARING = ("--set", f"max_requests_per_s={PER_S}")


@contextmanager
def counted(endpoint):
    """An address of the same server, and when each request came there and for what."""
    came = []
    with faulty_proxy(endpoint, lambda method, key, number: came.append((time.monotonic(), key))) as proxy:
        yield proxy.endpoint, came
    times = [at for at, _ in came]
    most = max(sum(start <= at < start + 10 for at in times) for start in times)
    print(json.dumps({"requests": len(times), "most_in_10_s": most, "took_s": round(times[-1] - times[0], 1)}))
    assert most <= 1.05 * 10 * PER_S


@pytest.mark.long
def test_all_workers_and_the_driver_together_send_no_more_than_the_spec_allows(tmp_path, s3, s3_endpoint):
    make_bundle(f"{s3}/models")
    store = open_store(s3)
    for index in range(500):
        store.write(f"inbox/{index % 30}/{index:04d}.jpg", jpeg_bytes(60, 40, seed=index))
    table = f"{s3}/tables/labels"
    job = label_spec(
        tmp_path / "label.yaml", registry=f"{s3}/models", model="tiny@1", images=f"{s3}/inbox", output=table
    )
    with counted(s3_endpoint) as (endpoint, came):
        done = labelmill("run", job, *SPARING, "--set", "batch_size=16", AWS_ENDPOINT_URL=endpoint)
    assert done.returncode == 0, done.stderr
    assert_the_promise(table, [store.address(f"inbox/{index % 30}/{index:04d}.jpg") for index in range(500)])
    labelling = [at for at, key in came if key.startswith("inbox/")]
    assert len(labelling) / (labelling[-1] - labelling[0]) > 0.75 * PER_S  # and it is made use of


@pytest.mark.long
def test_a_training_spares_the_store_too(tmp_path, s3, s3_endpoint):
    write_labels(tmp_path / "labels.csv", write_shapes(tmp_path / "images", 300))
    store = open_store(s3)
    for path in [tmp_path / "labels.csv", *(tmp_path / "images").iterdir()]:
        store.write(str(path.relative_to(tmp_path)), path.read_bytes())
    source = shapes_source(tmp_path)
    source["registry"] = f"{s3}/registry"
    source["data"] |= {"images": f"{s3}/images", "labels": f"{s3}/labels.csv"}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(source))
    with counted(s3_endpoint) as (endpoint, came):
        done = labelmill("run", tmp_path / "train.yaml", *SPARING, AWS_ENDPOINT_URL=endpoint)
    assert done.returncode == 0, done.stderr
    assert sum(key.startswith("images/") for _, key in came) > 400
