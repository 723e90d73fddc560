"""Whatever stands on a command line: no traceback, the right exit code, one line, and nothing that steers a terminal.

One process runs them all.
"""

import os
import re
import sys

import pytest

from bundles import make_bundle
from labelmill import cli
from labelmill.table.writer import TableWriter

SPEC = "{kind: label, name: nightly, registry: ./registry, model: tiny@1, images: ./images, output: ./labels}"
LOG = re.compile(r"\d\d:\d\d:\d\dZ  ")
REGISTRY = ("--registry", "./registry")
WORDS = {
    "that is not there": "no-such",
    "of a folder": "./folder",
    "of a binary file": "binary",
    "of an empty file": "empty",
    "below a file": "binary/x",
    "of a link to itself": "loop",
    "that is empty": "",
    "of blanks": "  ",
    "with a line break": "a\nb",
    "with an escape sequence": "a\x1b[31mb",
    "with a character that turns the line": "a\u202eb",
    "that is not UTF-8": "a\udcffb",
    "that is too long": "x" * 5000,
    "of dots": "..",
    "of a bucket without a name": "s3://",
    "of another scheme": "https://host/x",
    "of a scheme in capitals": "S3://bucket/x",
    "of a file on a host": "file://host/x",
    "with a version": "tiny@7",
    "with an alias that is not there": "tiny@no-such",
    "with half a reference": "@1",
    "with a percent sign": "%zz",
    "of a number": "7",
    "of a number below zero": "-7",
    "of a number without end": "9" * 5000,
    "of no number": "nan",
    "of an option": "--no-such",
}
COMMANDS = [
    "{}",
    "--{}",
    "check {}",
    "check --offline {}",
    "check --offline job.yaml {}",
    "check --offline job.yaml --set {}",
    "check --offline job.yaml --set name={}",
    "check --offline job.yaml --set {}=1",
    "check --offline job.yaml --preview {}",
    "check job.yaml --preview {}",
    "check job.yaml --set images={}",
    "check job.yaml --set registry={}",
    "check job.yaml --set output={}",
    "plan {}",
    "plan job.yaml --set images={}",
    "run {}",
    "run job.yaml --set registry={}",
    "schema {}",
    "demo {}",
    "models {}",
    "models list --registry {}",
    "models show {} REGISTRY",
    "models show tiny@1 --registry {}",
    "models promote {} REGISTRY",
    "models promote tiny@1 REGISTRY --alias {}",
    "models rollback {} REGISTRY",
    "models rollback tiny REGISTRY --alias {}",
    "models export {} out REGISTRY",
    "models export tiny@1 out REGISTRY --format {}",
    "models architectures --filter {}",
    "models architectures --max-parameters {}",
    "models architectures --max-operations {}",
    "models architectures --image-size {}",
    "models architectures --sort {}",
    "labels {}",
    "labels show {}",
    "labels show labels --status {}",
    "labels show labels --model {}",
    "labels show labels --limit {}",
    "labels compact {}",
    "labels vacuum {}",
    "labels vacuum labels --older-than-h {}",
    "labels view {}",
    "labels view labels --for {}",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    (folder / "job.yaml").write_text(SPEC)
    (folder / "folder").mkdir()
    (folder / "images").mkdir()
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "empty").touch()
    (folder / "loop").symlink_to("loop")
    make_bundle(folder / "registry")
    TableWriter(str(folder / "labels"))
    return folder


@pytest.fixture
def run(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    for name in [name for name in os.environ if name.startswith(("AWS_", "RAY_", "LABELMILL_"))]:
        monkeypatch.delenv(name)

    def run_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["labelmill", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, captured.err

    return run_command


@pytest.mark.parametrize("command", COMMANDS)
def test_a_bad_word_is_answered_in_one_line(run, command):
    for what, word in WORDS.items():
        arguments = [
            argument.replace("{}", word) for argument in command.replace("REGISTRY", " ".join(REGISTRY)).split()
        ]
        code, out, err = run(*arguments)
        told = f"a word {what}: {(code, out[-300:], err[:300])}"
        assert code in (0, 1, 2), told
        assert all(char.isprintable() or char == "\n" for char in out + err), told
        errors = [line for line in err.splitlines() if not LOG.match(line)]
        assert len(errors) <= 1 and err[-1:] in ("", "\n"), told
        if code == 2:
            assert (out, err[:7]) == ("", "error: "), told


@pytest.mark.parametrize("dialect", ["duckdb", "spark", "trino"])
def test_a_view_over_a_strange_address_steers_no_terminal(run, dialect):
    code, out, err = run("labels", "view", "a\x1b[31m\nb", "--for", dialect)
    assert (code, out) == (1, "")  # no table has such an address
    assert "\x1b" not in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "kept", ["[]", "null", "{}", '{"run_id": null}', '{"run_id": "r", "pictures_labelled": "x"}', "\x00"]
)
def test_a_receipt_that_anybody_wrote_hides_no_table(run, place, kept):
    folder = place / "labels" / "_labelmill" / "receipts"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "000000009.json").write_text(kept)
    code, out, err = run("labels", "labels")
    assert (code, err) == (0, "")
    assert "version" in out
