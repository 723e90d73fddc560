"""Labelled pictures: where they are, what they show, and which of them train, validate and test."""

from labelmill.dataset.training_set import Examples, TrainingSet, load_training_set

__all__ = ["Examples", "TrainingSet", "load_training_set"]
