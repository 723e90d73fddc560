from itertools import pairwise

import pytest
import torch

from labelmill.errors import SpecError
from labelmill.spec import Optimize
from labelmill.train.loop.optimizer import build_optimizer
from labelmill.train.loop.schedule import build_schedule


def rates(num_steps_per_epoch: int = 10, **settings: object) -> list[float]:
    optimize = Optimize.model_validate({"epochs": 4, "learning_rate": 0.1, **settings})
    optimizer = build_optimizer(torch.nn.Linear(2, 2), optimize)
    schedule = build_schedule(optimizer, optimize, num_steps_per_epoch)
    found = []
    for step in range(optimize.epochs * num_steps_per_epoch):
        schedule.step_update(step)
        found.append(float(optimizer.param_groups[0]["lr"]))
    return found


def test_the_learning_rate_rises_then_falls_to_nothing():
    found = rates(warmup_epochs=0.5)
    assert found[0] == pytest.approx(0.02)
    assert all(later > earlier for earlier, later in pairwise(found[:6]))
    assert found[5] == max(found) == pytest.approx(0.1)
    assert all(later < earlier for earlier, later in pairwise(found[5:]))
    assert 0 < found[-1] < 0.001


@pytest.mark.parametrize(
    ("settings", "last"),
    [
        ({"schedule": "constant"}, 0.1),
        ({"schedule": "cosine", "schedule_options": {"min_lr": 0.05}}, 0.05),
        ({"schedule": "step", "schedule_options": {"decay_epochs": 1, "decay_rate": 0.5}}, 0.0125),
        ({"schedule": "multistep", "schedule_options": {"decay_milestones": [2, 3]}}, 0.001),
        ({"schedule": "poly", "schedule_options": {"decay_rate": 1.0}}, 0.0025),
        ({"schedule": "tanh"}, 0.0),
        ({"schedule": "wsd"}, 0.0),
        ({"schedule": "rsqrt", "warmup_epochs": 1}, 0.0),
    ],
)
def test_every_schedule_runs_to_the_last_step(settings: dict[str, object], last: float):
    found = rates(**{"warmup_epochs": 0, **settings})
    assert max(found) <= 0.1 + 1e-9
    assert found[-1] == pytest.approx(last, abs=0.012)


def test_a_run_that_is_all_warm_up_or_one_step_long_has_a_rate():
    assert max(rates(warmup_epochs=4)) <= 0.1
    assert rates(1, epochs=1, warmup_epochs=0) == [pytest.approx(0.1)]


def test_options_that_a_schedule_cannot_take_are_one_clear_error():
    with pytest.raises(SpecError, match="do not suit the schedule wsd"):
        rates(schedule="wsd", schedule_options={"decay_epochs": 9})
