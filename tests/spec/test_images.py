"""What `images:` of a label job may say, and what is told when it says something else."""

import re

import pytest

from labelmill.errors import SpecError
from labelmill.spec import Images, load_spec, pattern_regex

LABEL = "kind: label\nname: n\nregistry: ./registry\nmodel: m@1\noutput: ./labels\n"


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load_images(text):
        (tmp_path / "job.yaml").write_text(f"{LABEL}images: {text}\n")
        return load_spec("job.yaml", environ={"NIGHT": "2026-11-22"}).spec.images

    return load_images


def test_images_is_a_prefix_or_says_where_they_are_listed(load):
    assert load("./inbox") == "./inbox"
    assert load("{manifest: 's3://b/${NIGHT}.CSV'}") == Images(manifest="s3://b/2026-11-22.CSV")
    chosen = load("{shards: ./s, column: image, include: ['*.jpg', 'a/**'], exclude: [b], limit: 10, sample: 0.1}")
    assert (chosen.shards, chosen.include, chosen.exclude) == ("./s", ("*.jpg", "a/**"), ("b",))
    assert (chosen.column, chosen.limit, chosen.sample) == ("image", 10, 0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "images: expected exactly one of prefix, manifest, inventory or shards, got none"),
        ("{prefix: ./a, shards: ./b}", "images.shards: expected exactly one of prefix, manifest, inventory or shards"),
        ("{manifset: a.csv}", "images.manifset: no such field: did you mean manifest?"),
        (
            "{manifest: a.txt}",
            "images.manifest: expected the address of a .parquet, .csv, .jsonl, .csv.gz or .jsonl.gz",
        ),
        ("{inventory: ./manifest.json}", "images.inventory: expected the address of an S3 Inventory, s3://"),
        ("{prefix: ftp://b/x}", "images.prefix: expected a folder, file://, s3://, gs:// or az://, got 'ftp://b/x'"),
        ("{prefix: ./a, column: image}", "images.column: only shards have columns of pictures, and this is a prefix"),
        ("{prefix: ./a, include: '*.jpg'}", "images.include: expected a list, got '*.jpg'"),
        ("{prefix: ./a, include: ['[z-a].jpg']}", "images.include.0: expected a pattern, such as *.jpg"),
        ("{prefix: ./a, exclude: ['/']}", "images.exclude.0: expected a pattern, such as *.jpg"),
        ("{prefix: ./a, sample: 0}", "images.sample: expected a number above 0, got 0"),
        ("{prefix: ./a, sample: 10}", "images.sample: expected a number of at most 1, got 10"),
        ("{prefix: ./a, limit: 0}", "images.limit: expected a number of at least 1, got 0"),
        ("[./a]", "images: expected text, got a list of 1"),
        ("{prefix: .}", "output: expected a place outside images ('.'), which would list its files as pictures"),
        ("{shards: .}", "output: expected a place outside images ('.'), which would list its files as pictures"),
    ],
)
def test_a_mistake_in_images_is_named(load, text, message):
    with pytest.raises(SpecError) as caught:
        load(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "met", "not_met"),
    [
        ("*.jpg", ["a.jpg", "x/y/a.jpg", "x.jpg/readme"], ["a.JPG", "a.jpg.txt"]),
        ("thumbs", ["thumbs/a", "x/thumbs/a"], ["thumbs2/a", "mythumbs/a"]),
        ("a/*", ["a/b", "a/b/c"], ["x/a/b", "a"]),
        ("a/*.jpg", ["a/b.jpg"], ["a/b/c.jpg"]),
        ("a/**/b.jpg", ["a/b.jpg", "a/x/y/b.jpg"], ["b.jpg"]),
        ("**/b.jpg", ["b.jpg", "x/b.jpg"], ["ab.jpg"]),
        ("a+(b)|c$.jpg", ["a+(b)|c$.jpg"], ["ab.jpg", "c.jpg"]),
        ("[0-9]?.{png,j*g}", ["1x.png", "12.jpeg"], ["x1.png", "1.png", "1/.png"]),
        ("[]]", ["]"], ["["]),
        ("[!a-c]", ["d"], ["a"]),
        ("{a,b", ["{a,b"], ["a"]),
    ],
)
def test_a_pattern_means_what_gitignore_means(pattern, met, not_met):
    regex = re.compile(f"(?s){pattern_regex(pattern)}")
    assert [key for key in [*met, *not_met] if regex.search(key)] == met
