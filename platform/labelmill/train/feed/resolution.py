"""Pictures that grow from epoch to epoch: small ones are quickly seen, the last epochs see what is labelled later."""

from typing import TYPE_CHECKING

from labelmill.errors import DataError
from labelmill.spec import TrainSpec

if TYPE_CHECKING:
    import torch

__all__ = ["check_sides", "training_side_px"]

_GROWN_AFTER = 0.75  # of the epochs


def training_side_px(spec: TrainSpec, full_px: int, epoch: int) -> int:
    """Side of the training pictures in this epoch, counted from 1: a multiple of 32 px, or of 8 px for a small network.

    Progressive learning: Tan and Le, EfficientNetV2: Smaller Models and Faster Training, 2021. Validation always sees
    `full_px`.
    """
    start = spec.augment.start_size
    grown = (epoch - 1) / max(1, int(_GROWN_AFTER * spec.optimize.epochs))
    if start == 1 or grown >= 1:
        return full_px
    step_px = 32 if full_px >= 96 else 8
    return min(full_px, max(step_px, round(full_px * (start + (1 - start) * grown) / step_px) * step_px))


def check_sides(spec: TrainSpec, network: "torch.nn.Module", full_px: int, device: "torch.device") -> None:
    """DataError where the network takes pictures of one size only, and the spec lets them grow."""
    import torch

    side_px = training_side_px(spec, full_px, 1)
    if side_px == full_px or spec.model is None:
        return
    training = network.training
    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, 3, side_px, side_px, device=device))
    except (AssertionError, RuntimeError) as exc:
        raise DataError(
            f"augment.start_size {spec.augment.start_size:g} begins with pictures of {side_px} px, and "
            f"{spec.model.architecture} takes none but {full_px} px ({exc}). Remove augment.start_size, or choose a "
            "network without positions of its own, such as timm/resnet18."
        ) from exc
    finally:
        network.train(training)
