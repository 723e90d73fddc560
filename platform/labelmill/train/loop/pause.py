"""When to keep the state within an epoch: all workers must agree, and asking costs them a moment each."""

import time

from labelmill.train.loop.team import Team

__all__ = ["Pauses"]


class Pauses:
    """A checkpoint is due `every_s` after the last one, by the first worker's clock.

    The workers meet to hear it, and each time agree on the step at which they meet next: half way to the moment when it
    should be due. So there are fewer than twenty meetings between two checkpoints, however many steps there are.
    """

    def __init__(self, team: Team, every_s: float) -> None:
        self._team = team
        self._every_s = every_s
        self.kept()

    def kept(self) -> None:
        """The state has been kept, on every worker, whatever the reason."""
        self._since_s = time.monotonic()
        self._num_steps = 0
        self._meet_at = 1

    def is_due(self) -> bool:
        """To be asked after every step; the same answer on every worker."""
        self._num_steps += 1
        if self._num_steps < self._meet_at:
            return False
        elapsed_s = time.monotonic() - self._since_s
        steps_left = (self._every_s - elapsed_s) * self._num_steps / max(elapsed_s, 1e-9)
        steps_left = float(self._team.gather(steps_left)[0])
        self._meet_at = self._num_steps + max(1, int(steps_left / 2))
        return steps_left <= 0
