"""A picture that harms the process that decodes it: a decoder made to crash or hang by a picture's bytes."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from labelmill.errors import CrashedError, TimedOutError
from labelmill.images.transform import Preprocessing
from labelmill.images.trial import Trial


def jpeg(seed):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def trial(harmful_decoder):
    with Trial([Preprocessing(32)], max_pixels=10**6, timeout_s=2) as trial:
        yield trial


def test_only_the_picture_that_kills_its_process_is_named(trial, harmful_decoder):
    trial.decode(jpeg(1))
    with pytest.raises(CrashedError, match="died of SIGSEGV"):
        trial.decode(jpeg(2) + harmful_decoder.CRASH)
    trial.decode(jpeg(3))
    trial.decode(b"no picture at all, which is somebody else's to say")
    with pytest.raises(CrashedError, match="ended with code 3"):
        trial.decode(jpeg(2) + harmful_decoder.EXIT)


def test_picture_that_never_ends_is_given_up_in_time(trial, harmful_decoder):
    trial.decode(jpeg(1))
    started = time.monotonic()
    with pytest.raises(TimedOutError, match=r"more than 2 s"):
        trial.decode(jpeg(2) + harmful_decoder.HANG)
    assert time.monotonic() - started < 5
    trial.decode(jpeg(3))
