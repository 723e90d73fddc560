"""Truth and confidences to measure."""

import numpy as np

LABELS = ["cat", "dog", "eel"]


def random_split(seed=0, count=200):
    """Targets and confidences [N, 3] of a common, a rarer and a rare label."""
    rng = np.random.default_rng(seed)
    targets = rng.random((count, 3)) < [0.5, 0.2, 0.05]
    confidences = np.clip(targets * 0.3 + rng.random((count, 3)) * 0.7, 0, 1).astype(np.float32)
    return targets, confidences.round(2)  # rounded, so that some are equal
