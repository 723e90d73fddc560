"""How fast the network learns at each step."""

from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch.optim import Optimizer

from labelmill.errors import SpecError
from labelmill.spec import Optimize

__all__ = ["build_schedule"]


def build_schedule(optimizer: Optimizer, optimize: Optimize, num_steps_per_epoch: int) -> Scheduler:
    """A linear warm-up, then timm's schedule over the steps that remain; `step_update(step)` sets the learning rates.

    It is a function of the step alone, counted from 0 over the whole run, so a run that resumes goes on exactly where
    it was. SpecError: an option that the schedule does not take.
    """
    num_warmup_steps = round(optimize.warmup_epochs * num_steps_per_epoch)
    num_others = max(1, optimize.epochs * num_steps_per_epoch - num_warmup_steps)
    try:
        schedule, _ = create_scheduler_v2(
            optimizer,
            sched=optimize.schedule,
            num_epochs=num_others / num_steps_per_epoch,
            warmup_epochs=num_warmup_steps / num_steps_per_epoch,
            warmup_lr=optimize.learning_rate / max(1, num_warmup_steps),
            warmup_prefix=True,
            step_on_epochs=False,
            updates_per_epoch=num_steps_per_epoch,
            **optimize.schedule_options,
        )
    except (TypeError, ValueError, AssertionError) as exc:
        options = dict(optimize.schedule_options)
        raise SpecError(
            f"optimize.schedule_options {options} do not suit the schedule {optimize.schedule}: {exc}"
        ) from exc
    return schedule
