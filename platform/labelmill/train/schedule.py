"""How fast the network learns at each step."""

import math

from labelmill.spec import Optimize

__all__ = ["learning_rate"]


def learning_rate(step: int, num_steps_per_epoch: int, optimize: Optimize) -> float:
    """Linear warm-up, then half a cosine to zero (Loshchilov & Hutter, 2017); `step` counts from 0 over the whole run.

    A function of the step alone, so a run that resumes goes on exactly where it was.
    """
    num_warmup_steps = round(optimize.warmup_epochs * num_steps_per_epoch)
    if step < num_warmup_steps:
        return optimize.learning_rate * (step + 1) / num_warmup_steps
    num_decay_steps = max(1, optimize.epochs * num_steps_per_epoch - num_warmup_steps)
    return optimize.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - num_warmup_steps) / num_decay_steps))
