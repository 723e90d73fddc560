import threading

from labelmill.errors import UnavailableError
from labelmill.serve.following import Follower, Wanted


class Shelf:
    """A registry and its models, as far as a follower sees them: the model is its version's number."""

    def __init__(self) -> None:
        self.wanted = Wanted("m@current", 1, "a")
        self.away, self.damaged = False, set[int]()
        self.loads: list[int] = []
        self.outcomes: list[str] = []
        self.now_s = 0.0

    def find(self) -> Wanted:
        if self.away:
            raise UnavailableError("s3://bucket did not answer")
        return self.wanted

    def load(self, wanted: Wanted) -> int:
        self.loads.append(wanted.version)
        if wanted.version in self.damaged:
            raise ValueError(f"weights of s3://bucket/m/{wanted.version}\nare damaged")
        return wanted.version

    def follower(self) -> Follower[int]:
        return Follower(self.find, self.load, report=self.outcomes.append, clock=lambda: self.now_s)


def test_promotion_is_loaded_once_and_exchanged():
    shelf = Shelf()
    follower = shelf.follower()
    follower.step()
    shelf.wanted = Wanted("m@current", 2, "b")
    follower.step()
    follower.step()
    assert follower.model == 2
    assert shelf.loads == [1, 2]
    assert shelf.outcomes == ["swapped"]


def test_damaged_promotion_leaves_the_old_model_and_says_why():
    shelf = Shelf()
    follower = shelf.follower()
    shelf.wanted, shelf.damaged = Wanted("m@current", 2, "b"), {2}
    follower.step()
    assert follower.model == 1
    assert follower.wanted == Wanted("m@current", 2, "b")
    assert follower.error == "version 2 was not loaded: weights of s3://bucket/m/2 are damaged"
    assert shelf.outcomes == ["load_failed"]


def test_damaged_promotion_is_not_retried_in_a_hot_loop():
    shelf = Shelf()
    follower = shelf.follower()
    shelf.wanted, shelf.damaged = Wanted("m@current", 2, "b"), {2}
    for shelf.now_s in range(0, 3600, 2):
        follower.step()
    # at 0, 30, 90, 210, 450, 930 s, and every 600 s from then on
    assert shelf.loads[1:] == [2] * 10


def test_next_promotion_after_a_damaged_one_is_not_kept_waiting():
    shelf = Shelf()
    follower = shelf.follower()
    shelf.wanted, shelf.damaged = Wanted("m@current", 2, "b"), {2}
    follower.step()
    shelf.wanted = Wanted("m@current", 3, "c")
    follower.step()
    assert (follower.model, follower.error) == (3, None)


def test_rollback_to_the_model_that_answers_clears_the_error_without_a_load():
    shelf = Shelf()
    follower = shelf.follower()
    before, (shelf.wanted, shelf.damaged) = shelf.wanted, (Wanted("m@current", 2, "b"), {2})
    follower.step()
    shelf.wanted = before
    follower.step()
    assert (follower.model, follower.error, shelf.loads) == (1, None, [1, 2])


def test_repaired_bundle_is_taken_up_at_the_next_try():
    shelf = Shelf()
    follower = shelf.follower()
    shelf.wanted, shelf.damaged = Wanted("m@current", 2, "b"), {2}
    follower.step()
    shelf.damaged, shelf.now_s = set(), 31.0
    follower.step()
    assert (follower.model, follower.error) == (2, None)


def test_registry_that_is_away_changes_nothing_and_is_reported():
    shelf = Shelf()
    follower = shelf.follower()
    shelf.away = True
    follower.step()
    assert follower.model == 1
    assert follower.error == "the registry could not be asked: s3://bucket did not answer"
    shelf.away = False
    follower.step()
    assert follower.error is None


def test_registry_that_came_back_does_not_hide_the_damaged_promotion():
    shelf = Shelf()
    follower = shelf.follower()
    shelf.wanted, shelf.damaged = Wanted("m@current", 2, "b"), {2}
    for shelf.away in (False, True, False):
        follower.step()
    assert follower.error.startswith("version 2 was not loaded")


def test_registry_that_stays_away_is_one_line_in_the_log(caplog):
    shelf = Shelf()
    follower = shelf.follower()
    shelf.away = True
    for _ in range(5):
        follower.step()
    assert len(caplog.records) == 1
    assert shelf.outcomes == ["poll_failed"] * 5


def test_background_thread_follows_and_stops():
    shelf = Shelf()
    loaded = threading.Event()
    follower = Follower(shelf.find, lambda wanted: (loaded.set() if wanted.version == 2 else None, wanted.version)[1])
    follower.start(poll_interval_s=0.01)
    shelf.wanted = Wanted("m@current", 2, "b")
    assert loaded.wait(10)
    follower.stop()
