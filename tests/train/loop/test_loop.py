from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from labelmill.errors import DataError, SpecError
from labelmill.images.transform import Preprocessing
from labelmill.spec import Optimize
from labelmill.train.loop.loop import Pass, to_device, train, train_step
from labelmill.train.loop.state import State, keep_state
from labelmill.train.progress import Epoch, Progress, RunFolder
from train.runs import shapes_spec, started


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def optimize(epochs: int, **changes: object) -> dict[str, object]:
    return {"optimize": {"epochs": epochs, "batch_size": 8, "learning_rate": 3e-3, **changes}}


def test_the_network_learns_and_every_epoch_is_on_record(tmp_path: Path):
    course, state = started(shapes_spec(tmp_path, num_pictures=120, **optimize(6)))
    train(course, state, lambda state: None)
    epochs = state.progress.epochs
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].loss < epochs[0].loss * 0.8
    assert state.progress.best.metric == max(epoch.metric for epoch in epochs) > 0.6
    assert all(epoch.curve[-1][0] == course.feed.num_steps for epoch in epochs)


@pytest.mark.parametrize(
    ("stop_at", "settings"),
    [
        ((2, 0), {}),
        ((1, 3), {"ema_decay": 0.9, "optimizer": "sgd", "precision": "bfloat16"}),
        pytest.param((0, 2), {"precision": "float16", "oversample": 0.5}, marks=pytest.mark.long),
        pytest.param((2, 1), {"optimizer": "lamb", "schedule": "wsd", "accumulate": 2}, marks=pytest.mark.long),
    ],
)
def test_a_resumed_run_ends_with_the_weights_of_one_that_was_never_cut(tmp_path: Path, stop_at, settings):
    spec = shapes_spec(tmp_path, **optimize(3, **settings))
    course, whole = started(spec)
    folder = RunFolder(course.job.run_uri)

    def keep_and_stop(state):
        keep_state(state, folder)
        if (state.progress.num_epochs, state.progress.step) == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(*started(spec), keep_and_stop, is_due=lambda: True)
    resumed_course, resumed = started(spec)
    assert (resumed.progress.num_epochs, resumed.progress.step) == stop_at
    train(resumed_course, resumed, lambda state: None)
    folder.remove()
    train(course, whole, lambda state: None)
    for mine, theirs in ((resumed.network, whole.network), (resumed.answering, whole.answering)):
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(mine.state_dict()[name], value, msg=name)
    assert resumed.progress.epochs[-1].metric == pytest.approx(whole.progress.epochs[-1].metric, rel=1e-4)


def test_only_the_last_and_the_best_checkpoint_stay(tmp_path: Path):
    course, state = started(shapes_spec(tmp_path, **optimize(4)))
    folder = RunFolder(course.job.run_uri)
    train(course, state, lambda state: keep_state(state, folder))
    best = state.progress.best.number
    expected = {"weights-0004.safetensors", "rest-0004.safetensors", "progress.json"}
    expected.add(f"weights-{best:04d}.safetensors")
    assert {path.name for path in Path(course.job.run_uri).iterdir()} == expected
    assert folder.progress() == state.progress
    folder.remove()
    assert not folder.exists()
    assert folder.progress() is None


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path):
    course, state = started(shapes_spec(tmp_path, **optimize(2)))
    with torch.no_grad():
        next(iter(state.network.parameters())).fill_(float("nan"))
    with pytest.raises(DataError, match=r"loss is no longer a number after step 1 of epoch 1.*learning_rate"):
        train(course, state, lambda state: None)


def epoch_of(folder: Path, **settings: object) -> tuple[State, Epoch]:
    course, state = started(shapes_spec(folder, **optimize(1, **settings)))
    train(course, state, lambda state: None)
    return state, state.progress.epochs[-1]


def test_a_batch_in_pieces_gives_the_step_of_the_whole(tmp_path: Path):
    # This network has no statistics of its own over a batch.
    model = {"architecture": "timm/test_vit", "weights": "scratch", "image_size_px": 32}
    settings = {"epochs": 1, "batch_size": 8, "optimizer": "sgd", "max_gradient_norm": 0.5}
    found = []
    for accumulate in (1, 3):
        spec = shapes_spec(tmp_path, model=model, optimize=settings | {"accumulate": accumulate})
        course, state = started(spec)
        train(course, state, lambda state: None)
        found.append(state)
    for name, value in found[0].network.state_dict().items():
        torch.testing.assert_close(found[1].network.state_dict()[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_gradients_are_shortened_to_the_norm_that_is_asked_for(tmp_path: Path):
    course, state = started(shapes_spec(tmp_path, **optimize(1, max_gradient_norm=1e-3, optimizer="sgd")))
    batch = next(course.feed.training_batches(1))
    train_step(course, state.network, state, batch, Pass())
    gradients = [parameter.grad for parameter in state.network.parameters()]
    assert float(torch.nn.utils.get_total_norm(gradients)) == pytest.approx(1e-3, rel=1e-3)


def test_what_is_published_is_the_moving_average(tmp_path: Path):
    spec = shapes_spec(tmp_path, **optimize(1, ema_decay=0.99))
    course, state = started(spec)
    folder = RunFolder(course.job.run_uri)
    train(course, state, lambda state: keep_state(state, folder))
    folder.download_weights(1, tmp_path / "weights.safetensors")
    stored = load_file(tmp_path / "weights.safetensors")
    trained, average = state.network.state_dict(), state.answering.state_dict()
    assert all(torch.equal(stored[name], average[name]) for name in stored)
    assert not torch.equal(trained["fc.weight"], average["fc.weight"])
    torch.testing.assert_close(trained["fc.weight"], average["fc.weight"], atol=0.1, rtol=0)


@pytest.mark.parametrize("precision", ["bfloat16", pytest.param("float16", marks=pytest.mark.long)])
def test_half_the_precision_gives_nearly_the_same_epoch(tmp_path: Path, precision: str):
    whole, half = (epoch_of(tmp_path, precision=name)[1] for name in ("float32", precision))
    assert half.loss == pytest.approx(whole.loss, rel=0.02)
    assert half.loss != whole.loss
    assert all(parameter.dtype == torch.float32 for parameter in epoch_of(tmp_path)[0].network.parameters())


def test_activations_computed_twice_change_nothing_or_are_refused(tmp_path: Path):
    kept, computed = (epoch_of(tmp_path, gradient_checkpointing=again)[1] for again in (False, True))
    assert computed.loss == pytest.approx(kept.loss, rel=1e-5)
    model = {"architecture": "torchvision/squeezenet1_1", "weights": "scratch", "image_size_px": 32}
    with pytest.raises(SpecError, match=r"squeezenet1_1 cannot compute its activations twice: leave"):
        started(shapes_spec(tmp_path, model=model, optimize={"gradient_checkpointing": True}))


def test_the_validation_loss_is_the_objective_on_pictures_that_are_not_learnt(tmp_path: Path):
    course, state = started(shapes_spec(tmp_path, **optimize(1)))
    train(course, state, lambda state: None)
    [epoch] = state.progress.epochs
    targets, logits = [], []
    with torch.inference_mode():
        for batch in course.feed.validation_batches():
            pixels, truth = to_device(batch, state.progress.preprocessing, course.team.device)
            logits.append(state.network.eval()(pixels))
            targets.append(truth)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(torch.cat(logits), torch.cat(targets))
    assert epoch.validation_loss == pytest.approx(float(loss), rel=1e-4)
    assert 0 < epoch.training_metric <= 1


def record(*epochs: tuple[float, float, float]) -> Progress:
    """Progress of (training loss, validation loss, metric)."""
    return Progress(
        Preprocessing(32),
        tuple(
            Epoch(number, loss, metric, 1e-3, 100.0, 1, ((1, loss, 1e-3),), validation_loss, metric)
            for number, (loss, validation_loss, metric) in enumerate(epochs, 1)
        ),
    )


def test_a_run_stops_when_nothing_got_better_for_as_long_as_patience_lasts():
    progress = record((1, 1, 0.5), (0.9, 0.9, 0.7), (0.8, 0.8, 0.6), (0.7, 0.7, 0.7))
    assert not progress.is_finished(Optimize(epochs=9))
    assert not progress.is_finished(Optimize(epochs=9, patience=3))
    assert progress.is_finished(Optimize(epochs=9, patience=2))
    assert progress.is_finished(Optimize(epochs=4))
    assert not record().is_finished(Optimize(epochs=4, patience=1))


def test_training_ends_early_and_the_same_run_has_nothing_left_to_do(tmp_path: Path):
    # With a rate of nearly nothing only the norms' statistics change, and soon they do not any more.
    course, state = started(shapes_spec(tmp_path, **optimize(9, patience=1, learning_rate=1e-12)))
    train(course, state, lambda state: None)
    assert state.progress.num_epochs == state.progress.best.number + 1 < 9
    train(course, state, lambda state: pytest.fail("there was nothing to do"))


def test_the_point_of_departure_is_where_only_the_training_loss_goes_on_falling():
    assert record((1, 1, 0), (0.8, 0.7, 0), (0.6, 0.9, 0), (0.4, 1.2, 0)).departure == 2
    assert record((1, 1, 0), (0.8, 0.7, 0), (0.6, 0.6, 0)).departure is None
    assert record((1, 1, 0), (0.8, 0.7, 0), (0.9, 0.8, 0)).departure is None
    assert record().departure is None
