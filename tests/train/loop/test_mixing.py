from dataclasses import replace

import numpy as np
import pytest
import torch

from labelmill.spec import Augment
from labelmill.train.loop.loop import train
from labelmill.train.loop.mixing import mixed
from train.runs import shapes_spec, started


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


LEVELS = torch.arange(6).float()
PIXELS = LEVELS.view(6, 1, 1, 1).expand(6, 3, 20, 20).contiguous()  # picture n is n everywhere
ONE_LABEL = torch.eye(6)
MANY_LABELS = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 0, 1], [0, 1, 0]]).float()


def test_without_mixing_a_batch_stays_what_it_is():
    pixels, targets = mixed(PIXELS, ONE_LABEL, Augment(), (0, 1))
    assert pixels is PIXELS
    assert targets is ONE_LABEL


@pytest.mark.parametrize("targets", [ONE_LABEL, MANY_LABELS], ids=["one label", "many labels"])
def test_mixup_gives_labels_the_share_of_the_pixels(targets):
    pixels, blended = mixed(PIXELS, targets, Augment(mixup=1.0), (0, 1))
    share = float(pixels[1, 0, 0, 0])  # of picture 1; the rest is picture 0
    assert 0.5 <= share < 1
    torch.testing.assert_close(pixels, share * PIXELS + (1 - share) * PIXELS.roll(1, 0))
    torch.testing.assert_close(blended, share * targets + (1 - share) * targets.roll(1, 0))


@pytest.mark.parametrize("targets", [ONE_LABEL, MANY_LABELS], ids=["one label", "many labels"])
def test_cutmix_gives_labels_the_share_of_the_area(targets):
    for seed in range(20):
        pixels, blended = mixed(PIXELS, targets, Augment(cutmix=1.0), (seed,))
        own = (pixels == PIXELS).all(dim=1).float().mean(dim=(1, 2))
        assert float(own.min()) >= 0.5
        pasted = pixels != PIXELS
        assert torch.equal(pixels[pasted], PIXELS.roll(1, 0)[pasted])
        torch.testing.assert_close(blended, own[:, None] * targets + (1 - own[:, None]) * targets.roll(1, 0))
    assert len({float(mixed(PIXELS, targets, Augment(cutmix=1.0), (seed,))[1][0, 0]) for seed in range(20)}) > 5


def test_a_label_that_both_pictures_have_stays_whole_and_one_label_still_adds_up_to_one():
    for augment in (Augment(mixup=0.4), Augment(cutmix=1.0), Augment(preset="heavy")):
        for seed in range(10):
            blended = mixed(PIXELS, MANY_LABELS, augment, (seed,))[1]
            assert float(blended[1, 0]) == pytest.approx(1.0)  # pictures 0 and 1 both have label 0
            assert ((blended >= 0) & (blended <= 1)).all()
            torch.testing.assert_close(mixed(PIXELS, ONE_LABEL, augment, (seed,))[1].sum(dim=1), torch.ones(6))


def test_with_both_each_takes_its_turn_and_a_seed_repeats_itself():
    augment = Augment(mixup=1.0, cutmix=1.0)
    kinds = []
    for step in range(40):
        pixels, targets = mixed(PIXELS, ONE_LABEL, augment, (7, step))
        again = mixed(PIXELS, ONE_LABEL, augment, (7, step))
        assert torch.equal(pixels, again[0]) and torch.equal(targets, again[1])
        kinds.append(bool((pixels == pixels.round()).all()))  # pasted: only whole levels
    assert 10 < sum(kinds) < 30


def test_the_loop_tells_the_network_the_shares_and_measures_whole_labels(tmp_path):
    optimize = {"epochs": 1, "batch_size": 8}
    course, state = started(shapes_spec(tmp_path, 30, augment={"preset": "heavy"}, optimize=optimize))
    told = []

    def objective(logits, targets, pixels):
        told.append(targets)
        return course.objective(logits, targets, pixels)

    train(replace(course, objective=objective), state, lambda state: None)
    shares = torch.cat(told)
    assert ((shares > 0) & (shares < 1)).any()
    assert all(np.isfinite(epoch.loss) for epoch in state.progress.epochs)
    assert all(0 <= epoch.training_metric <= 1 for epoch in state.progress.epochs)
