import base64
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from labelmill import cli
from train.runs import shapes_source, shapes_spec


@pytest.fixture
def preview(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs `labelmill check --preview` on shapes: (exit code, sheet, stdout and stderr)."""

    def run(changes: dict[str, object] | None = None, *arguments: str, file: str = "sheet.html"):
        shapes_spec(tmp_path)
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(shapes_source(tmp_path) | (changes or {})))
        sheet = tmp_path / file
        command = ["labelmill", "check", str(tmp_path / "job.yaml"), "--preview", str(sheet), *arguments]
        monkeypatch.setattr(sys, "argv", command)
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return code, sheet.read_text() if sheet.is_file() else "", captured.out + captured.err

    return run


def pictures_in(sheet: str) -> list[np.ndarray]:
    sources = re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]+)"', sheet)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))) for source in sources]


def test_the_sheet_shows_pictures_as_labelled_and_as_training_sees_them(preview):
    code, sheet, printed = preview()
    assert (code, "8 pictures as training sees them" in printed) == (0, True)
    pictures = pictures_in(sheet)
    assert len(pictures) == 8 * 8
    assert {picture.shape for picture in pictures} == {(96, 96, 3)}  # 32 px, enlarged three times
    assert len({picture.tobytes() for picture in pictures[:8]}) == 8
    assert "Mixed" not in sheet
    for word in ("blue", "green", "red"):
        assert word in sheet


def test_mixed_pictures_come_with_the_labels_that_the_network_is_told(preview):
    _, sheet, _ = preview({"augment": {"preset": "heavy"}})
    assert len(pictures_in(sheet)) == 8 * 8 + 3 * 8
    assert re.search(r"(blue|green|red) 0\.\d\d", sheet.partition("Mixed")[2])
    assert "mixup 0.2" in sheet


def test_a_picture_that_cannot_be_read_is_shown_with_its_reason(preview, tmp_path):
    shapes_spec(tmp_path)
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"<b>no picture</b>")
    code, sheet, printed = preview()
    assert (code, "0 pictures" in printed) == (0, True)
    assert sheet.count("expected a picture") == 8
    assert "<b>no" not in sheet


def test_a_sheet_that_cannot_be_written_or_shown_is_one_error(preview, tmp_path):
    code, _, printed = preview(file="none/sheet.html")
    assert code == 1
    assert re.search(r"error: cannot write the preview to .*none/sheet.html: No such file or directory", printed)
    code, _, printed = preview(None, "--offline")
    assert (code, "leave out --offline" in printed) == (2, True)
