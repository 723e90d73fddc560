"""Whatever is wrong, the answer is one clear error: what was expected, what came, what to do. Never a traceback."""

import socket
from pathlib import Path

import pytest
import yaml

from bundles import make_bundle
from pictures import jpeg_bytes
from running import labelmill


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    for label in ("cat", "dog"):
        (folder / "images" / label).mkdir(parents=True)
        for index in range(4):
            (folder / "images" / label / f"{index}.jpg").write_bytes(jpeg_bytes())
    (folder / "empty").mkdir()
    (folder / "no-column.csv").write_text("uri,tags\ncat/0.jpg,cat\n")
    (folder / "unknown-picture.csv").write_text("uri,labels\ncat/0.jpg,cat\nno/such.jpg,dog\n")
    make_bundle(folder / "registry")
    make_bundle(folder / "damaged")
    weights = folder / "damaged" / "tiny" / "1" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    common = {"registry": "./registry", "name": "job"}
    train = {"kind": "train", "task": "multi_class", "data": {"images": "./images", "labels": "folders"}}
    train |= {"model": {"architecture": "timm/resnet10t", "weights": "scratch"}, "workers": {"count": 1}}
    train |= {"optimize": {"epochs": 1, "batch_size": 4, "learning_rate": 0.001}}
    label = {"kind": "label", "model": "tiny@1", "images": "./images", "output": "./labels"}
    for spec in (train, label, {"kind": "serve", "model": "tiny@1"}):
        (folder / f"{spec['kind']}.yaml").write_text(yaml.safe_dump(common | spec))
    return folder


CASES = {
    "a misspelt field": ("label", ["outptu=./x"], "output"),
    "an unknown architecture": ("train", ["model.architecture=timm/resnet10"], "did you mean timm/resnet10t"),
    "a missing folder": ("label", ["images=./nowhere"], "nowhere"),
    "an empty folder": ("label", ["images=./empty"], "found none"),
    "an unreachable bucket": ("label", ["images=s3://bucket/x"], "http://127.0.0.1:9"),
    "a labels file without its column": ("train", ["data.labels=./no-column.csv"], "no column 'labels'"),
    "a labels file with an unknown picture": ("train", ["data.labels=./unknown-picture.csv"], "no/such.jpg"),
    "a model that is not there": ("label", ["model=tinny@1"], "did you mean tiny"),
    "a version that is not there": ("label", ["model=tiny@7"], "tiny@7"),
    "a damaged bundle to label with": ("label", ["registry=./damaged"], "weights.safetensors"),
    "a damaged bundle to serve": ("serve", ["registry=./damaged"], "weights.safetensors"),
    "a port in use": ("serve", ["port={port}"], "Address already in use"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_clear_error(place: Path, case: str):
    kind, changes, told = CASES[case]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        sets = [argument for change in changes for argument in ("--set", change.format(port=port))]
        done = labelmill(
            "run",
            f"{kind}.yaml",
            *sets,
            cwd=place,
            timeout_s=120,
            AWS_ENDPOINT_URL="http://127.0.0.1:9",
            AWS_ACCESS_KEY_ID="a",
            AWS_SECRET_ACCESS_KEY="b",
            AWS_MAX_ATTEMPTS=2,
        )
    assert done.returncode in (1, 2)
    assert told in done.stderr
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert not (place / "labels").exists(), "nothing may be made before all is known to be there"
