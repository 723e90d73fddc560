from dataclasses import replace

import pytest

from labelmill.errors import DataError
from labelmill.train.approaches.comparison import Comparison

COMPARISON = Comparison(
    model="digits@3",
    metric="accuracy",
    before=0.91,
    after=0.88,
    num_pictures=200,
    pictures_per_s_before=40,
    pictures_per_s_after=100,
    size_bytes_before=4000,
    size_bytes_after=1000,
)


def test_a_model_that_lost_more_than_allowed_is_refused_with_both_numbers():
    with pytest.raises(DataError) as caught:
        COMPARISON.check(0.02, "Train longer.")
    assert str(caught.value) == (
        "digits@3 would lose 0.0300 of accuracy (0.9100 before, 0.8800 after, on 200 pictures), and max_accuracy_loss "
        "allows 0.02: nothing is published. Train longer."
    )


def test_a_loss_within_the_bound_and_a_gain_pass():
    COMPARISON.check(0.031, "")
    replace(COMPARISON, after=0.95).check(0.0, "")
    assert replace(COMPARISON, after=0.95).to_json()["loss"] == pytest.approx(-0.04)
