"""What the workers choose for the receipt: few bytes whatever comes, and the same pictures whoever chooses."""

import base64
import io

import numpy as np
from PIL import Image

from labelmill.errors import ForbiddenError
from labelmill.label.receipt.sheet import Sheet
from labelmill.label.work.samples import MAX_THUMBNAIL_BYTES, Sample, Sampler
from labelmill.model.labeler import Answer


def picture(size=(400, 300)):
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(out, "JPEG", quality=95)
    return out.getvalue()


PICTURE = picture()
OK = Answer("ok", None, 400, 300, np.zeros(3, np.float32))


def frozen():
    """A clock on which nothing takes any time, so that thumbnails are free."""
    return 0.0


def offer(sampler, uris, labels, answer=OK, data=PICTURE):
    sampler.offer(uris, [answer] * len(uris), [labels] * len(uris), lambda _: data)
    return sampler.hand_over()


def test_a_chunk_sends_few_bytes_whatever_comes():
    long = "x" * 100_000
    uris = [f"{number}{long}" for number in range(500)]
    labels = [(f"{long}{number}", 0.5) for number in range(300)]
    samples = offer(Sampler(24, frozen), uris, labels)
    assert 0 < len(samples) <= 8
    failed = offer(Sampler(24, frozen), uris, [], Answer("forbidden", long))
    for sample in [*samples, *failed]:
        size = sum(len(text) for text in (sample.uri, sample.group, sample.error or "", sample.thumbnail or ""))
        assert size + sum(len(label) for label, _ in sample.labels) < 20_000


def test_a_thumbnail_is_a_small_jpeg_of_the_whole_picture():
    [sample] = offer(Sampler(1, frozen), ["a"], [("cat", 0.9)])
    data = base64.b64decode(sample.thumbnail)
    assert len(data) <= MAX_THUMBNAIL_BYTES
    with Image.open(io.BytesIO(data)) as thumbnail:
        assert thumbnail.format == "JPEG"
        assert thumbnail.size == (160, 120)


def test_the_same_pictures_are_chosen_by_one_worker_and_by_three():
    uris = [f"s3://b/{number:04d}.jpg" for number in range(300)]

    def chosen(parts):
        sheet = Sheet(4)
        for part in parts:
            sampler = Sampler(4, frozen)
            for at in range(0, len(part), 4):
                sheet.add(offer(sampler, part[at : at + 4], [("cat", 0.9)], data=picture((40, 30))), {"cat": 1})
        return [sample.uri for sample in sheet.labels({"cat": 300})["cat"]]

    alone = chosen([uris])
    assert len(alone) == 4
    assert chosen([uris[2::3], uris[::3], uris[1::3]]) == alone


def test_a_rare_label_is_found_behind_a_frequent_one():
    sampler = Sampler(2, frozen)
    for number in range(50):
        offer(sampler, [f"{number}"], [("cat", 0.9)])
    [sample] = offer(sampler, ["rare"], [("cat", 0.9), ("axolotl", 0.6)])
    assert (sample.group, sample.labels) == ("axolotl", [("cat", 0.9), ("axolotl", 0.6)])


def test_thumbnails_take_no_more_than_their_share_of_a_workers_time():
    seconds = iter(range(10_000))
    sampler = Sampler(24, lambda: float(next(seconds)))  # each look at the clock is a second, each thumbnail one too
    made = sum(len(offer(sampler, [f"{number}"], [("cat", 0.9)])) for number in range(200))
    assert made == 16  # which are free; of the seconds since, two in a hundred would be allowed


def test_without_pictures_in_the_spec_only_failures_are_told():
    sampler = Sampler(0, frozen)
    assert offer(sampler, ["a", "b"], [("cat", 0.9)]) == []
    sampler.offer(["c"], [Answer("forbidden", "refused")], [[]], lambda _: ForbiddenError("no"))
    [sample] = sampler.hand_over()
    assert (sample.uri, sample.status, sample.error, sample.thumbnail) == ("c", "forbidden", "refused", None)


def sample(uri, group, rank=0):
    return Sample(uri, rank, group, "ok", None, [(group, 0.5)], 4, 3, None)


def test_of_too_many_labels_the_most_frequent_are_shown():
    sheet, counts = Sheet(2), {f"label {number}": number for number in range(1000)}
    sheet.add([sample(f"{number}", f"label {number}") for number in range(1000)], counts)
    assert list(sheet.labels(counts)) == [f"label {number}" for number in range(999, 959, -1)]


def test_a_repeated_chunk_shows_no_picture_twice():
    sheet = Sheet(3)
    for _ in range(2):
        sheet.add([sample("a", "cat", 1), sample("b", "cat", 2)], {"cat": 2})
    assert [shown.uri for shown in sheet.labels({"cat": 2})["cat"]] == ["a", "b"]
