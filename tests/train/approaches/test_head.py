import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from labelmill.train.approaches.head import _PENALTIES, Seen, _fitted, _linear_probes, best_head


def clusters(num_each: int = 30, spread: float = 1.0, seed: int = 0) -> Seen:
    """Three labels, one each, whose features lie around three points; one feature is large, one never changes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(3).repeat_interleave(num_each)
    centres = torch.tensor([[4.0, 0, 0, 0], [0, 4.0, 0, 0], [0, 0, 4.0, 0]])
    features = centres[labels] + spread * torch.randn(len(labels), 4, generator=generator)
    features[:, 3] *= 1000
    features = torch.cat([features, torch.full((len(labels), 1), 7.0)], dim=1)
    return Seen(features, torch.nn.functional.one_hot(labels, 3).float())


def folds_of(seen: Seen, count: int = 3) -> list[Seen]:
    return [Seen(seen.features[index::count], seen.targets[index::count]) for index in range(count)]


@pytest.mark.parametrize("approach", ["linear_probe", "prototype"])
@pytest.mark.parametrize("task", ["multi_class", "multi_label"])
def test_a_head_tells_apart_what_its_features_tell_apart(approach, task):
    head, found = best_head(approach, task, folds_of(clusters()))
    unseen = clusters(seed=1)
    logits = head.logits(unseen.features)
    if task == "multi_class":
        assert float((logits.argmax(1) == unseen.targets.argmax(1)).float().mean()) > 0.95
    else:
        assert float(((logits > 0) == (unseen.targets > 0)).float().mean()) > 0.95
    chosen = found["penalty" if approach == "linear_probe" else "scale"]
    assert found["held_out_loss"][f"{chosen:g}"] == min(found["held_out_loss"].values())


def test_a_linear_probe_is_logistic_regression():
    seen = clusters(spread=2.0)
    scaled = (seen.features[:, :3] - seen.features[:, :3].mean(0)) / seen.features[:, :3].std(0, correction=0)
    heads = list(_linear_probes("multi_class", Seen(scaled, seen.targets)))
    for penalty, head in zip(_PENALTIES[:4], heads, strict=False):
        reference = LogisticRegression(C=1 / (penalty * len(scaled)), tol=1e-8, max_iter=1000)
        reference.fit(scaled.numpy(), seen.targets.argmax(1).numpy())
        np.testing.assert_allclose(head.weight.numpy(), reference.coef_, atol=2e-3)


def test_a_prototype_is_the_nearest_mean():
    seen = clusters(spread=2.0)
    head, _ = best_head("prototype", "multi_class", folds_of(seen))
    scaled = (seen.features - seen.features.mean(0)) / seen.features.std(0, correction=0).clamp(min=1e-3)
    means = torch.stack([scaled[seen.targets[:, label] == 1].mean(0) for label in range(3)])
    assert torch.equal(head.logits(seen.features).argmax(1), torch.cdist(scaled, means).argmin(1))


def test_noisy_features_want_a_stronger_penalty():
    quiet = best_head("linear_probe", "multi_class", folds_of(clusters(spread=0.3)))[1]["penalty"]
    noisy = best_head("linear_probe", "multi_class", folds_of(clusters(num_each=4, spread=6.0)))[1]["penalty"]
    assert noisy > quiet


def test_one_fold_is_enough_and_a_label_may_be_missing_in_the_rest():
    seen = clusters(num_each=2)
    for approach in ("linear_probe", "prototype"):
        head, found = best_head(approach, "multi_class", [seen])
        assert "held_out_loss" not in found
        assert (head.logits(seen.features).argmax(1) == seen.targets.argmax(1)).all()
        halves = [Seen(seen.features[:4], seen.targets[:4]), Seen(seen.features[4:], seen.targets[4:])]
        assert all(
            np.isfinite(value) for value in best_head(approach, "multi_class", halves)[1]["held_out_loss"].values()
        )


def test_the_scaling_of_the_features_is_part_of_the_head():
    seen = clusters()
    for head in _fitted(_linear_probes, "multi_class", seen):
        logits = head.logits(seen.features)
        assert torch.isfinite(logits).all() and float(logits.abs().max()) < 100
