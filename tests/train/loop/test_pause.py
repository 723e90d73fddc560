"""Checkpoints within an epoch come when they should, and the workers seldom stop to agree on them."""

import pytest
import torch

from labelmill.train.loop import pause
from labelmill.train.loop.pause import Pauses
from labelmill.train.loop.team import Team


class Clock:
    """Time that passes only with the steps of a test."""

    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


class CountingTeam(Team):
    num_meetings = 0

    def gather(self, value: object) -> list[object]:
        type(self).num_meetings += 1
        return super().gather(value)


@pytest.mark.parametrize("step_s", [0.01, 0.4, 7.0, 100.0])
def test_a_checkpoint_is_due_in_time_and_costs_few_meetings(monkeypatch: pytest.MonkeyPatch, step_s: float):
    clock = Clock()
    monkeypatch.setattr(pause, "time", clock)
    monkeypatch.setattr(CountingTeam, "num_meetings", 0)
    pauses = Pauses(CountingTeam(0, 1, torch.device("cpu")), every_s=60)
    since_s: list[float] = []
    last_s = clock.now_s
    for _ in range(round(6000 / step_s)):
        clock.now_s += step_s
        if pauses.is_due():
            since_s.append(clock.now_s - last_s)
            clock.now_s += 5  # it takes a while to write
            last_s = clock.now_s
            pauses.kept()
    assert len(since_s) >= 6000 / max(60 + step_s, step_s) - 10
    assert all(60 - 1e-6 <= each <= 60 + step_s + 1e-6 for each in since_s)
    assert CountingTeam.num_meetings <= 20 * len(since_s)


def test_an_epochs_end_counts_as_a_checkpoint(monkeypatch: pytest.MonkeyPatch):
    clock = Clock()
    monkeypatch.setattr(pause, "time", clock)
    pauses = Pauses(Team(0, 1, torch.device("cpu")), every_s=60)
    for _ in range(20):
        clock.now_s += 50
        assert not pauses.is_due()
        pauses.kept()
