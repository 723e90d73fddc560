"""Training: labelled pictures in, a published bundle with its report out. Ray Train runs the workers."""

from labelmill.train.training import TrainResult, run

__all__ = ["TrainResult", "run"]
