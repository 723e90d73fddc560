from itertools import pairwise
from pathlib import Path

import pytest
import torch

from labelmill.errors import DataError
from labelmill.spec import Optimize
from labelmill.train.loop import train
from labelmill.train.losses import loss_sum
from labelmill.train.progress import RunFolder
from labelmill.train.schedule import learning_rate
from labelmill.train.state import build_optimizer, keep_state
from train.runs import ALONE, shapes_spec, started


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def optimize(epochs: int, **changes: float) -> dict[str, object]:
    return {"optimize": {"epochs": epochs, "batch_size": 8, "learning_rate": 3e-3, **changes}}


def test_the_network_learns_and_every_epoch_is_on_record(tmp_path: Path):
    job, state, feed = started(shapes_spec(tmp_path, num_pictures=120, **optimize(6)))
    train(job, state, feed, ALONE, lambda state: None)
    epochs = state.progress.epochs
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].loss < epochs[0].loss * 0.8
    assert state.progress.best.metric == max(epoch.metric for epoch in epochs) > 0.6
    assert all(epoch.curve[-1][0] == feed.num_steps for epoch in epochs)


def test_a_resumed_run_ends_with_the_weights_of_one_that_was_never_cut(tmp_path: Path):
    spec = shapes_spec(tmp_path, **optimize(3))
    job, whole, feed = started(spec)
    folder = RunFolder(job.run_uri)

    def keep_and_stop(state):
        keep_state(state, folder)
        if state.progress.num_epochs == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(*started(spec), ALONE, keep_and_stop)
    job, resumed, resumed_feed = started(spec)
    assert resumed.progress.num_epochs == 2
    train(job, resumed, resumed_feed, ALONE, lambda state: None)
    folder.remove()
    train(job, whole, feed, ALONE, lambda state: None)
    for name, value in whole.network.state_dict().items():
        torch.testing.assert_close(resumed.network.state_dict()[name], value, msg=name)
    assert resumed.progress.epochs[-1].loss == pytest.approx(whole.progress.epochs[-1].loss, rel=1e-4)


def test_only_the_last_and_the_best_checkpoint_stay(tmp_path: Path):
    job, state, feed = started(shapes_spec(tmp_path, **optimize(4)))
    folder = RunFolder(job.run_uri)
    train(job, state, feed, ALONE, lambda state: keep_state(state, folder))
    best = state.progress.best.number
    expected = {"weights-0004.safetensors", "optimizer-0004.safetensors", "progress.json"}
    expected.add(f"weights-{best:04d}.safetensors")
    assert {path.name for path in Path(job.run_uri).iterdir()} == expected
    assert folder.progress() == state.progress
    folder.remove()
    assert not folder.exists()
    assert folder.progress() is None


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path):
    job, state, feed = started(shapes_spec(tmp_path, **optimize(2)))
    with torch.no_grad():
        next(iter(state.network.parameters())).fill_(float("nan"))
    with pytest.raises(DataError, match=r"loss is no longer a number after step 1 of epoch 1.*learning_rate"):
        train(job, state, feed, ALONE, lambda state: None)


def test_the_learning_rate_rises_then_falls_to_nothing():
    settings = Optimize(epochs=4, batch_size=8, learning_rate=0.1, warmup_epochs=0.5)
    rates = [learning_rate(step, 10, settings) for step in range(40)]
    assert rates[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert max(rates) == pytest.approx(0.1)
    assert all(later < earlier for earlier, later in pairwise(rates[5:]))
    assert 0 < rates[-1] < 0.001


def test_norms_and_biases_do_not_decay():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    groups = build_optimizer(network, Optimize(epochs=1, batch_size=8, learning_rate=0.1)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]
    assert {tuple(parameter.shape) for parameter in groups[0]["params"]} == {(4, 3, 3, 3), (2, 4)}
    assert len(groups[1]["params"]) == 4


def test_the_loss_of_a_batch_is_that_of_its_parts():
    logits, targets = torch.randn(7, 3), torch.eye(3)[torch.tensor([0, 1, 2, 0, 1, 2, 0])]
    for task in ("binary", "multi_label", "multi_class"):
        parts = loss_sum(task, logits[:4], targets[:4]) + loss_sum(task, logits[4:], targets[4:])
        assert loss_sum(task, logits, targets) == pytest.approx(float(parts))
    cross_entropy = torch.nn.functional.cross_entropy(logits, targets.argmax(dim=1)) * 7
    assert loss_sum("multi_class", logits, targets) == pytest.approx(float(cross_entropy))
