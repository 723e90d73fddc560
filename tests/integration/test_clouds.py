"""A label job whose pictures, model and table all lie in another cloud than Amazon's, from its first night on."""

import json

import pytest

from bundles import make_bundle
from labelmill.storage import open_store
from pictures import jpeg_bytes
from promise import assert_the_promise
from running import label_spec, labelmill, rows_of


@pytest.mark.long
@pytest.mark.parametrize("cloud", ["gs", "az"])
def test_a_job_from_and_to_another_cloud(request, tmp_path, cloud):
    bucket = request.getfixturevalue(cloud)
    make_bundle(f"{bucket}/models")
    store = open_store(bucket)
    uris = [store.address(f"inbox/{index:03d}.jpg") for index in range(60)]
    for index, uri in enumerate(uris):
        store.write(uri.removeprefix(f"{bucket}/"), jpeg_bytes(60, 40, seed=index) if index != 7 else b"no picture")
    table = f"{bucket}/tables/labels"
    job = label_spec(
        tmp_path / "label.yaml", registry=f"{bucket}/models", model="tiny@1", images=f"{bucket}/inbox", output=table
    )
    checked = labelmill("check", job)
    assert checked.returncode == 0, checked.stdout
    assert "writable" in checked.stdout
    assert "ignores conditional writes" not in checked.stdout
    planned = labelmill("plan", job, "--json")
    assert json.loads(planned.stdout)["pictures_to_label"] == 60

    assert (done := labelmill("run", job)).returncode == 0, done.stderr
    assert_the_promise(table, uris)
    assert {row["uri"]: row["status"] for row in rows_of(table)} == dict.fromkeys(uris, "ok") | {uris[7]: "unsupported"}

    store.write("inbox/003.jpg", jpeg_bytes(60, 40, seed=3000))
    store.delete("inbox/004.jpg")
    store.write("inbox/new.jpg", jpeg_bytes(60, 40, seed=3001))
    assert (again := labelmill("run", job)).returncode == 0, again.stderr
    assert len(rows_of(table)) == 63
    shown = labelmill("labels", "show", table)
    assert shown.returncode == 0, shown.stderr
    assert (compacted := labelmill("labels", "compact", table)).returncode == 0, compacted.stderr
    assert "nothing to do" in labelmill("run", job).stdout
