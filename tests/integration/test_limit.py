"""A run that spares the store that others live from: what the store itself counts, over all processes."""

import json
import time

import pytest

from bundles import make_bundle
from labelmill.storage import open_store
from pictures import jpeg_bytes
from promise import assert_the_promise
from proxy import faulty_proxy
from running import label_spec, labelmill

PER_S = 25


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
    came = []
    settings = ("--set", f"max_requests_per_s={PER_S}", "--set", "batch_size=16")
    with faulty_proxy(s3_endpoint, lambda method, key, number: came.append((time.monotonic(), key))) as proxy:
        done = labelmill("run", job, *settings, AWS_ENDPOINT_URL=proxy.endpoint)
    assert done.returncode == 0, done.stderr
    assert_the_promise(table, [store.address(f"inbox/{index % 30}/{index:04d}.jpg") for index in range(500)])
    times = [at for at, _ in came]
    most = max(sum(start <= at < start + 10 for at in times) for start in times)
    print(json.dumps({"requests": len(times), "most_in_10_s": most, "took_s": round(times[-1] - times[0], 1)}))
    assert most <= 1.05 * 10 * PER_S
    labelling = [at for at, key in came if key.startswith("inbox/")]
    assert len(labelling) / (labelling[-1] - labelling[0]) > 0.75 * PER_S  # and it is made use of
