"""A corpus of damaged and odd pictures, made from whole ones of every format: one answer each, whatever is in them."""

import json
import subprocess
import sys

import numpy as np
import pytest

import damaged
from bundles import make_bundle
from labelmill.images.decode import decode, sniff
from labelmill.images.sniff import FORMATS
from labelmill.model.labeler import Labeler
from pictures import jpeg_bytes

STATUSES = {"ok", "unreadable", "unsupported", "too_large"}


def test_the_whole_pictures_of_the_corpus_are_of_every_format_and_can_be_read():
    files = damaged.originals()
    assert {sniff(data) for data in files.values()} == set(FORMATS)
    for name, data in files.items():
        picture = decode(data)
        assert sorted([picture.width_px, picture.height_px]) == [43, 61], name


@pytest.mark.parametrize("count", [480, pytest.param(20_000, marks=pytest.mark.long)])
def test_no_damage_crashes_the_process_hangs_it_or_fills_its_memory(tmp_path, count):
    command = [sys.executable, damaged.__file__, "--count", str(count), "--now", str(tmp_path / "now")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60 + count / 20, check=False)
    assert found.returncode in (0, 1), f"ended with {found.returncode} over {(tmp_path / 'now').read_text()}"
    result = json.loads(found.stdout)
    assert result["wrong"] == []
    assert set(result["statuses"]) == STATUSES
    assert sum(result["statuses"].values()) == count
    assert result["grown_bytes"] < 64 * 2**20  # a million pixels are 3 MB
    assert result["slowest"][0] < 20


def test_damaged_neighbours_change_no_answer_of_a_good_picture(tmp_path):
    labeler = Labeler(make_bundle(tmp_path), "openvino", num_threads=1, max_pixels=1_000_000)
    good = [jpeg_bytes(60, 40, seed=seed) for seed in range(10)]
    expected = labeler.label(good)
    corpus = [data for _, data in damaged.damaged(1, 320)]
    mixed = [data for index, data in enumerate(corpus) for data in ([data, good[index // 32]][: 1 + (index % 32 == 7)])]
    answers = labeler.label(mixed)
    assert len(answers) == len(mixed) == 330
    assert {answer.status for answer in answers} == STATUSES
    assert all((answer.error is None) == (answer.confidences is not None) for answer in answers)
    found = [answer for data, answer in zip(mixed, answers, strict=True) if data in good]
    assert [(a.status, a.width_px, a.height_px) for a in found] == [("ok", 60, 40)] * 10
    for answer, alone in zip(found, expected, strict=True):
        np.testing.assert_allclose(answer.confidences, alone.confidences, rtol=0, atol=1e-5)
