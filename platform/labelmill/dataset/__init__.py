"""Labelled pictures: where they are, what they show, and which of them train, validate and test."""

from labelmill.dataset.examples import Examples
from labelmill.dataset.findings import Findings, inspect
from labelmill.dataset.labelled import load_examples
from labelmill.dataset.seen import Seen, seen_in_training, unseen
from labelmill.dataset.suspects import find_suspects, left_out_confidences
from labelmill.dataset.training_set import TrainingSet, load_training_set, load_training_sets

__all__ = [
    "Examples",
    "Findings",
    "Seen",
    "TrainingSet",
    "find_suspects",
    "inspect",
    "left_out_confidences",
    "load_examples",
    "load_training_set",
    "load_training_sets",
    "seen_in_training",
    "unseen",
]
