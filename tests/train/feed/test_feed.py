import shutil
from pathlib import Path

import numpy as np
import pytest

from labelmill.errors import DataError, ForbiddenError, NodeError, NotFoundError, UnavailableError
from labelmill.images.transform import Preprocessing
from labelmill.spec import TrainSpec
from labelmill.train.feed import feed as feed_module
from labelmill.train.feed.feed import Feed, Share
from train.runs import feed_of, job_of, shapes_spec


def make_feed(spec: TrainSpec) -> Feed:
    job, training_set = job_of(spec)
    return feed_of(job, training_set, Preprocessing(32))


def optimize(batch_size: int) -> dict[str, object]:
    return {"optimize": {"epochs": 2, "batch_size": batch_size, "learning_rate": 1e-3}}


def test_an_epoch_is_full_batches_with_every_picture_in_them(tmp_path: Path):
    spec = shapes_spec(tmp_path, **optimize(6))
    num_pictures = len(job_of(spec)[1].train)
    batches = list(make_feed(spec).training_batches(1))
    assert [pixels.shape for pixels, _ in batches] == [(6, 32, 32, 3)] * -(-num_pictures // 6)
    assert all(targets.shape == (6, 3) and targets.dtype == np.float32 for _, targets in batches)
    assert len(np.unique(np.concatenate([pixels for pixels, _ in batches]), axis=0)) >= num_pictures - 1


def test_targets_stay_with_their_pictures(tmp_path: Path):
    feed = make_feed(shapes_spec(tmp_path, augment={"flip": "none", "crop_scale": [1.0, 1.0]}))
    for batches in (feed.training_batches(1), feed.validation_batches()):
        pixels, targets = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        levels = pixels.astype(int)
        blue = (levels[..., 2] > 200) & (levels[..., 0] < 90)
        red = (levels[..., 0] > 190) & (levels[..., 2] < 90)
        for seen, column in ((blue, 0), (red, 2)):  # one shape may hide another, now and then
            assert ((seen.sum(axis=(1, 2)) > 12) == (targets[:, column] == 1)).mean() > 0.85


def test_the_same_epoch_is_the_same_again_and_another_one_is_not(tmp_path: Path):
    feed = make_feed(shapes_spec(tmp_path))
    first, again, other = (next(feed.training_batches(epoch))[0] for epoch in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_an_epoch_goes_on_from_any_step_with_the_very_batches_it_would_have_had(tmp_path: Path):
    feed = make_feed(shapes_spec(tmp_path, **optimize(6)))
    whole, rest = list(feed.training_batches(1)), list(feed.training_batches(1, 4))
    assert len(rest) == len(whole) - 4 > 0
    for (pixels, targets), (again, targets_again) in zip(whole[4:], rest, strict=True):
        assert (pixels == again).all() and (targets == targets_again).all()


def test_a_picture_that_is_drawn_twice_in_an_epoch_is_augmented_anew(tmp_path: Path):
    spec = shapes_spec(tmp_path, 40, optimize={"batch_size": 7, "oversample": 1.0})
    pixels = np.concatenate([pixels for pixels, _ in make_feed(spec).training_batches(1)])
    assert len(np.unique(pixels, axis=0)) == len(pixels)


@pytest.mark.parametrize(("num_workers", "batch_size"), [(2, 8), (3, 8), (4, 5)])
def test_workers_share_the_pictures_and_the_batch_without_overlap(num_workers: int, batch_size: int):
    shares = [Share.of(rank, num_workers, batch_size) for rank in range(num_workers)]
    assert sum(share.size for share in shares) == batch_size
    owned = np.concatenate([share.of_pictures(101, seed=3) for share in shares])
    assert sorted(owned.tolist()) == list(range(101))


def test_pictures_are_fetched_once_while_they_fit_in_memory(tmp_path: Path):
    feed = make_feed(shapes_spec(tmp_path))
    first = [pixels for pixels, _ in feed.training_batches(1)]
    shutil.rmtree(tmp_path / "images")
    again = [pixels for pixels, _ in feed.training_batches(1)]
    assert (np.concatenate(first) == np.concatenate(again)).all()
    assert not feed.unreadable


def test_what_cannot_be_read_is_noted_and_left_out(tmp_path: Path):
    spec = shapes_spec(tmp_path, max_unreadable_rate=0.2)
    training_set = job_of(spec)[1]
    damaged, gone = training_set.train.uris.to_pylist()[:2]
    lost = training_set.validation.uris.to_pylist()[0]
    feed = make_feed(spec)
    Path(damaged).write_bytes(b"no picture")  # after the listing, so its etag differs, too
    Path(gone).unlink()
    Path(lost).unlink()
    assert sum(len(pixels) for pixels, _ in feed.training_batches(1)) == 48
    assert sum(len(pixels) for pixels, _ in feed.validation_batches()) == len(training_set.validation) - 1
    assert set(feed.unreadable) == {damaged, gone, lost}
    assert all(feed.unreadable.values())


def test_too_many_unreadable_pictures_end_the_run_with_their_names(tmp_path: Path):
    spec = shapes_spec(tmp_path, max_unreadable_rate=0.05)
    feed = make_feed(spec)
    for path in sorted((tmp_path / "images").glob("*.jpg"))[:30]:
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"pictures cannot be read, and max_unreadable_rate allows 0.05(.|\n)*jpg: "):
        list(feed.training_batches(1))


@pytest.mark.parametrize("answer", [NotFoundError("no such file"), ForbiddenError("AccessDenied")])
def test_a_node_that_sees_none_of_the_pictures_is_not_taken_for_unreadable_ones(tmp_path, monkeypatch, answer):
    feed = make_feed(shapes_spec(tmp_path))
    monkeypatch.setattr(feed_module, "read_pictures", lambda items: [answer] * len(items))
    for batches in (feed.training_batches(1), feed.validation_batches()):
        with pytest.raises(NodeError, match=str(answer)):
            list(batches)
    assert not feed.unreadable


def test_a_store_that_is_down_is_not_taken_for_unreadable_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    feed = make_feed(shapes_spec(tmp_path))
    answer = UnavailableError("no answer")
    monkeypatch.setattr(feed_module, "read_pictures", lambda items: [answer] * len(items))
    with pytest.raises(UnavailableError):
        list(feed.training_batches(1))
    assert not feed.unreadable
