"""What a label job's spec refuses before anything is reached for."""

from pathlib import Path

import pytest

from labelmill.errors import SpecError
from labelmill.spec import LabelSpec, load_spec


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "a b"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def loaded(**fields: str) -> LabelSpec:
        lines = {"kind": "label", "name": "n", "registry": "./r", "model": "m@1", "images": "./in", "output": "./out"}
        Path("job.yaml").write_text("\n".join(f"{name}: '{value}'" for name, value in (lines | fields).items()))
        return load_spec("job.yaml").spec

    return loaded


@pytest.mark.parametrize(
    ("output", "fault"),
    [
        ("s3://b/run#7/labels", "'#'"),
        ("s3://b/what?/labels", "'[?]'"),
        ("s3://b/100%25/labels", "'%25'"),
        ("s3://b/a//labels", "'//'"),
        ("./100%25/labels", "'%25'"),
        ("./a%20b", "'%20'"),
        (".\\labels", r"'\\\\'"),
        ("file:///labels%2520x", "'%20'"),
        ("./caf%E9", "'%E9'"),
    ],
)
def test_an_output_that_delta_readers_take_otherwise_is_refused_by_name(load, output: str, fault: str) -> None:
    with pytest.raises(SpecError, match=rf"output: expected an address without {fault}, which other readers") as caught:
        load(output=output)
    assert str(caught.value).count("\n") <= 1
    assert load(output="./run #7? 100%", images=output).images == output  # pictures may lie there


def test_an_output_among_the_pictures_is_refused_however_it_is_written(load, tmp_path: Path) -> None:
    for images, output in (
        (f"file://{tmp_path}/a%20b/in", "./in/labels"),
        ("./in", f"file://{tmp_path}/a%20b/in/x"),
        ("./in/../in", f"{tmp_path}//a b/in"),
        ("s3://b/in/", "s3://b/in/labels"),
    ):
        with pytest.raises(SpecError, match=r"output: expected a place outside images"):
            load(images=images, output=output)
    assert load(images=f"file://{tmp_path}/a%20b/in", output="./in2").output == "./in2"


@pytest.mark.parametrize("uri", ["s3://buc ket/x", "s3://b?x/y", "s3://b#/y"])
def test_what_no_store_opens_is_refused_with_its_line(load, uri: str) -> None:
    with pytest.raises(SpecError, match=r"job.yaml:5.*images: expected a folder, file://, s3://, gs:// or az://"):
        load(images=uri)
