import contextlib
import random
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from labelmill.errors import SpecError
from labelmill.spec import LabelSpec, Range, ServeSpec, TrainSpec, load_spec

LABEL = """\
kind: label
name: nightly
registry: ./registry
model: digits@current
images: ./inbox
output: ./labels
"""
SERVE = """\
kind: serve
name: api
registry: ./registry
model: digits@current
"""
TRAIN = """\
kind: train
name: digits
registry: ./registry
task: multi_label
data:
  images: ./train
  labels: ./train.csv
model:
  architecture: timm/resnet10t
  weights: scratch
optimize: {epochs: 2, batch_size: 8, learning_rate: 1e-3}
workers: {count: 1}
"""

EVALUATE = """\
kind: evaluate
name: check
registry: ./registry
model: digits@current
data:
  images: ./train
  labels: ./train.csv
output: ./evaluation
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write_spec(text, name="job.yaml"):
        data = text if isinstance(text, bytes) else text.encode()
        Path(name).write_bytes(data)
        return name

    return write_spec


def refusal(path, *overrides, environ=None):
    with pytest.raises(SpecError) as caught:
        load_spec(path, overrides, environ or {})
    return str(caught.value)


def test_each_kind_loads_with_its_defaults(write):
    label = load_spec(write(LABEL)).spec
    assert isinstance(label, LabelSpec)
    assert (label.scores, label.engine, label.batch_size, label.max_pixels) == ("none", "auto", None, 200_000_000)
    serve = load_spec(write(SERVE)).spec
    assert isinstance(serve, ServeSpec)
    assert (serve.host, serve.port, serve.api_keys, serve.batch.max_size) == ("127.0.0.1", 8000, (), 16)
    train = load_spec(write(TRAIN)).spec
    assert isinstance(train, TrainSpec)
    assert train.optimize.learning_rate == 1e-3
    assert (train.promote, train.augment.crop_scale, train.workers.count) == ("when_better", (0.7, 1.0), 1)


def test_json_is_read_with_tabs_and_escapes(write):
    text = '{\n\t"kind": "label",\n\t"name": "n",\n\t"registry": "r",\n\t"model": "m@1",\n'
    loaded = load_spec(write(text + '\t"images": "\\ud83d\\ude00\\/a",\n\t"output": "o"\n}', "job.json"))
    assert loaded.spec.images == "😀/a"
    assert refusal(write(text + '\t"imges": 1}', "job.json")).splitlines()[1:] == [
        "  job.json:1: output: required, and missing: The label table, a Delta Lake table; made when it is not there.",
        "  job.json:6: imges: no such field: did you mean images?",
    ]
    assert refusal(write('{"kind": }', "job.json")) == "job.json:1: not valid JSON: Expecting value, at column 10"


def test_a_spec_cannot_be_changed_after_it_was_checked(write):
    with pytest.raises(ValueError, match="frozen"):
        load_spec(write(LABEL)).spec.name = "other"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("scores: tpo_k", "job.yaml:7: scores: expected none, top_k or all, got 'tpo_k': did you mean top_k?"),
        ("score: top_k", "job.yaml:7: score: no such field: did you mean scores?"),
        (
            "retry: [missing]",
            "job.yaml:7: retry.0: expected unreadable, unsupported, too_large, crashed or timed_out, got 'missing'",
        ),
        ("scores: no", "job.yaml:7: scores: expected none, top_k or all, got 'no': did you mean none?"),
        ("scores: false", "job.yaml:7: scores: expected none, top_k or all, got false"),
        ("scores:", "job.yaml:7: scores: expected none, top_k or all, got nothing"),
        ("batch_size: yes", "job.yaml:7: batch_size: expected a whole number, got 'yes'"),
        ("batch_size: true", "job.yaml:7: batch_size: expected a whole number, got true"),
        ("batch_size: 2.5", "job.yaml:7: batch_size: expected a whole number, got 2.5"),
        ("batch_size: 0", "job.yaml:7: batch_size: expected a number of at least 1, got 0"),
        ("batch_size: [1, 2]", "job.yaml:7: batch_size: expected a whole number, got a list of 2"),
        ("max_failure_rate: 1.5", "job.yaml:7: max_failure_rate: expected a number of at most 1, got 1.5"),
        ("max_failure_rate: .nan", "job.yaml:7: max_failure_rate: expected a finite number, got nan"),
    ],
)
def test_a_mistake_names_line_field_expectation_and_value(write, change, message):
    assert refusal(write(LABEL + change)) == message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: nightly", "name: 2024", 'job.yaml:2: name: expected text, got 2024 (in quotes, "2024", it is text)'),
        (
            "name: nightly",
            "name: My Job",
            "job.yaml:2: name: expected a name of lower-case letters, digits, '_', '.' and '-' that starts with a "
            "letter or digit, got 'My Job': did you mean my-job?",
        ),
        (
            "./registry",
            "S3://bucket/models",
            "job.yaml:3: registry: expected a folder, file://, s3://, gs:// or az://, got 'S3://bucket/models': "
            "did you mean s3://bucket/models?",
        ),
        (
            "./registry",
            "https://host/models",
            "job.yaml:3: registry: expected a folder, file://, s3://, gs:// or az://, got 'https://host/models'",
        ),
        (
            "./registry",
            "gcs://b/x",
            "job.yaml:3: registry: expected a folder, file://, s3://, gs:// or az://, got 'gcs://b/x': "
            "did you mean gs://b/x?",
        ),
        ("./registry", "file://models", "job.yaml:3: registry: expected file:///<folder>, got 'file://models'"),
        ("./registry", "s3://", "job.yaml:3: registry: expected s3://<bucket>/<prefix>, got 's3://'"),
        (
            "digits@current",
            "digits",
            "job.yaml:4: model: expected <name>@<version> or <name>@<alias>, such as digits@3 or digits@current, "
            "got 'digits': did you mean digits@current?",
        ),
        (
            "./labels",
            "./inbox/../inbox/labels",
            "job.yaml:6: output: expected a place outside images ('./inbox'), which would list its files as pictures",
        ),
        (
            "kind: label",
            "kind: labels",
            "job.yaml:1: kind: expected train, evaluate, label or serve, got 'labels': did you mean label?",
        ),
        ("kind: label\n", "", "job.yaml:1: kind: required, and missing: train, evaluate, label or serve"),
    ],
)
def test_a_value_of_the_wrong_form_is_explained(write, old, new, message):
    assert refusal(write(LABEL.replace(old, new))) == message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "timm/resnet10t",
            "timm/resnet10",
            "job.yaml:9: model.architecture: expected an architecture, timm/<name> or torchvision/<name>, "
            "got 'timm/resnet10': did you mean timm/resnet10t?",
        ),
        ("timm/resnet10t", "resnet10t", "did you mean timm/resnet10t?"),
        ("scratch", "pretraind", "got 'pretraind': did you mean pretrained?"),
        ("scratch", "digits@current", "<name>@<version> with a number as version"),
        (
            "./train.csv",
            "folder",
            "job.yaml:7: data.labels: expected folders, or the address of a .csv, .jsonl or .parquet file",
        ),
        (
            "./train.csv",
            "./train.csv\n  positive: yes",
            "job.yaml:8: data.positive: only task binary has a positive label",
        ),
        (
            "multi_label",
            "binary\naugment: {crop_scale: [1, 0.5]}",
            "augment.crop_scale: expected two numbers, smallest first",
        ),
        ("multi_label", "binary\naugment: {crop_scale: [1]}", "augment.crop_scale.1: required, and missing"),
        ("count: 1", "count: 0", "job.yaml:12: workers.count: expected a number of at least 1, got 0"),
        ("count: 1", "count: {min: 3, max: 2}", "job.yaml:12: workers.count.min: expected at most max (2), got 3"),
        ("count: 1", "count: {min: 3}", "job.yaml:12: workers.count.max: required, and missing"),
        (
            "epochs: 2",
            "epochs: 2, warmup_epochs: 3",
            "job.yaml:11: optimize.warmup_epochs: expected at most epochs (2), got 3",
        ),
        ("./train.csv", "./train.csv\n  split: {train: 0.8, validation: 0.1, test: 0.2}", "they add up to 1.1"),
        (
            "scratch",
            "scratch\n  image_size_px: 8",
            "job.yaml:11: model.image_size_px: expected a number of at least 16, got 8",
        ),
    ],
)
def test_a_training_spec_that_cannot_work_is_refused(write, old, new, message):
    assert message in refusal(write(TRAIN.replace(old, new)))


def test_binary_by_folders_wants_the_positive_folder(write):
    text = TRAIN.replace("multi_label", "binary").replace("./train.csv", "folders")
    assert "job.yaml:5: data.positive: required with task binary" in refusal(write(text))
    assert load_spec(write(text), ["data.positive=cat"]).spec.data.positive == "cat"


def test_a_source_by_folders_wants_the_positive_folder_too(write):
    text = TRAIN.replace("multi_label", "binary")
    source = "data.sources=[{images: ./more, labels: folders, weight: 0.5}]"
    assert "data.positive: required with task binary" in refusal(write(text), source)
    assert load_spec(write(text), [source, "data.positive=cat"]).spec.data.sources[0].weight == 0.5
    assert "weight" in refusal(write(text), "data.sources=[{images: ./more, labels: folders, weight: 0}]")


def test_workers_may_be_a_range(write):
    spec = load_spec(write(TRAIN), ["workers.count={min: 1, max: 8}"]).spec
    assert spec.workers.count == Range(min=1, max=8)


def test_every_mistake_of_a_file_is_listed_in_its_order(write):
    text = (
        TRAIN.replace("epochs: 2", "epochs: -1")
        .replace("task: multi_label", "task: multilabel")
        .replace("name:", "nmae:")
    )
    assert refusal(write(text)).splitlines() == [
        "job.yaml: 3 mistakes",
        "  job.yaml:2: nmae: no such field: did you mean name?",
        "  job.yaml:4: task: expected binary, multi_class or multi_label, got 'multilabel': did you mean multi_label?",
        "  job.yaml:11: optimize.epochs: expected a number of at least 1, got -1",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "job.yaml: the file is empty: expected a spec"),
        ("# only a comment\n", "job.yaml: the file is empty"),
        ("- a\n- b\n", "job.yaml:1: expected a mapping of fields, such as `kind: label`, got a list"),
        ("hello", "job.yaml:1: expected a mapping of fields, such as `kind: label`, got 'hello'"),
        ("---\n", "job.yaml:2: expected a mapping of fields, such as `kind: label`, got nothing"),
        (LABEL.encode("utf-16"), "job.yaml: is in UTF-16: save it as UTF-8"),
        (LABEL + "<<: 1\n", "job.yaml:7: expected a mapping to take fields from, such as <<: *defaults"),
        (LABEL + "<<: [{scores: all}, x]\n", "job.yaml:7: expected a mapping to take fields from"),
        (LABEL + "<<: *defaults\n", "job.yaml:7: not valid YAML: found undefined alias 'defaults'"),
        (LABEL + "<<: {}\n<<: {}\n", "job.yaml:8: '<<' is written twice: take over several mappings by a list"),
        ("a: &x {<<: *x}\n", "job.yaml:1: more values, or deeper nesting, than any spec has"),
        (
            "a: &a {k: 1}\n" + "".join(f"{b}: &{b} {{<<: [{f'*{a}, ' * 9}]}}\n" for a, b in pairwise("abcdefgh")),
            "deeper nesting",
        ),
        ("a: &a [x]\n" + "".join(f"{b}: &{b} [{f'*{a}, ' * 9}]\n" for a, b in pairwise("abcdefgh")), "deeper nesting"),
        (LABEL + '"": 1\n', "job.yaml:7: '': no such field"),
        ("kind: label\nname: [a\n", "job.yaml:3: not valid YAML: while parsing a flow sequence"),
        ("kind: label\n\tname: a\n", "job.yaml:2: not valid YAML: "),
        ("kind: label\n---\nkind: label\n", "job.yaml:2: not valid YAML: expected a single document"),
        ("kind: label\nname: a\nname: b\n", "job.yaml:3: 'name' is written twice, here and on line 2"),
        ("kind: label\n? [a]\n: b\n", "job.yaml:2: expected the name of a field"),
        ("kind: !!python/object:os.system x\n", "job.yaml:1: the tag"),
        ("a: &x [*x]\n", "deeper nesting, than any spec has"),
        ("[" * 1500, "job.yaml: nested too deeply for a spec"),
        (b"\x89PNG\r\n\x00\x01", "job.yaml: is not a text file: expected YAML or JSON"),
        (b"name: \xff\xfe", "job.yaml: is not a text file in UTF-8"),
        ("kind: label\nname: \x07\n", "job.yaml:2: not valid YAML: the character '\\x07' is not allowed"),
        ("kind: label\nname: " + "1" * 5000, "job.yaml:2: name: expected a name of at most 128 characters"),
        ("x" * 2_000_000, "job.yaml: is larger than 1 MiB"),
    ],
)
def test_what_is_no_spec_is_refused_in_one_sentence(write, text, message):
    assert message in refusal(write(text))


@pytest.mark.parametrize("seed", range(2))
def test_a_damaged_file_never_ends_in_a_traceback(write, seed):
    rng = random.Random(seed)
    scraps = [
        "[",
        "}",
        ":",
        "-",
        "&a",
        "*a",
        "|",
        '"',
        "\t",
        "\n",
        "${",
        "<<",
        "? ",
        "%",
        "@",
        "null",
        "1e999",
        "count: {",
    ]
    for text in [TRAIN, LABEL, SERVE] * 20:
        for _ in range(rng.randint(1, 3)):
            start = rng.randrange(len(text))
            text = text[:start] + rng.choice(scraps) + text[start + rng.randrange(8) :]
        path = write(text, rng.choice(["job.yaml", "job.json"]))
        with contextlib.suppress(SpecError):
            load_spec(path, environ={})


WRONG = ["word", "7", "-0.5", "true", "", "[]", "[word]", "[[word]]", "[7, {a: b}]", "{}", "{word: 7}", "{a: {b: [c]}}"]


@pytest.mark.parametrize("text", [LABEL, SERVE, TRAIN, EVALUATE], ids=["label", "serve", "train", "evaluate"])
def test_no_value_of_any_field_ends_in_a_traceback(write, text):
    path = write(text)
    names = list(dotted_names(type(load_spec(path).spec)))
    assert len(names) > 10
    refused = 0
    for name in names:
        for value in WRONG:
            try:
                load_spec(path, [f"{name}={value}"])
            except SpecError as exc:
                refused += 1
                assert str(exc) and "Input should" not in str(exc)
    assert refused > 5 * len(names)


def dotted_names(model, depth=4):
    """Of every field of a kind of spec, those of parts that may be there included."""
    for name, field in model.model_fields.items():
        yield name
        for part in parts_of(field.annotation) if depth else ():
            for below in dotted_names(part, depth - 1):
                yield f"{name}.{below}"


def parts_of(annotation):
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from parts_of(argument)


def test_a_file_that_cannot_be_opened_is_named(write, tmp_path):
    write(LABEL)
    assert refusal("") == "expected the name of a YAML or JSON file, got an empty one"
    assert refusal("jobs.yaml") == "jobs.yaml: no such file: did you mean job.yaml?"
    assert refusal(".") == ".: is a folder: expected a YAML or JSON file"
    assert refusal("job.yaml/x").startswith("job.yaml/x: cannot be read: ")


@pytest.mark.parametrize("key", ["<html>", '"<<"', "<range>", '"<"', "<mapping>", "a<b>"])
def test_a_key_that_looks_like_a_tag_is_a_field_like_any_other(write, key):
    name = key.strip('"')
    assert refusal(write(LABEL + f"{key}: 1\n")).startswith(f"job.yaml:7: {name}: no such field")
    assert refusal(write(LABEL + f"prices: {{{key}: 1}}\n")).startswith(f"job.yaml:7: prices.{name}: no such field")
    within = write(TRAIN.replace("count: 1", f"count: {{min: 1, max: 2, {key}: 1}}"))
    assert refusal(within).startswith(f"job.yaml:12: workers.count.{name}: no such field")
    rule = write(TRAIN + f"thresholds: {{labels: {{{key}: {{value: 7}}}}}}\n")
    assert refusal(rule) == f"job.yaml:13: thresholds.labels.{name}.value: expected a number of at most 1, got 7"


def test_a_mapping_takes_over_the_fields_of_others(write):
    text = TRAIN + "thresholds:\n  labels:\n    cat: &rare {min_recall: 0.9}\n    dog:\n      <<: *rare\n"
    rules = load_spec(write(text)).spec.thresholds.labels
    assert (rules["cat"].min_recall, rules["dog"].min_recall) == (0.9, 0.9)
    other = text.replace("<<: *rare", "<<: [{min_recall: 0.5}, *rare]\n      min_recall: 0.7")
    assert load_spec(write(other)).spec.thresholds.labels["dog"].min_recall == 0.7, "what a mapping says itself counts"
    first = text.replace("<<: *rare", "<<: [{min_recall: 0.5}, *rare]")
    assert load_spec(write(first)).spec.thresholds.labels["dog"].min_recall == 0.5, "of several the first counts"
    assert load_spec(write(LABEL + "<<: {scores: all, name: other}\n")).spec.name == "nightly"


def test_a_mistake_in_what_is_taken_over_is_told_where_it_stands(write):
    text = TRAIN + "thresholds:\n  labels:\n    cat: &rare\n      min_recal: 0.9\n    dog: {<<: *rare}\n"
    assert refusal(write(text)).splitlines()[1:] == [
        "  job.yaml:16: thresholds.labels.cat.min_recal: no such field: did you mean min_recall?",
        "  job.yaml:16: thresholds.labels.dog.min_recal: no such field: did you mean min_recall?",
    ]


@pytest.mark.parametrize("change", ["\ufeff", "\r\n", "\r", "---\n", "%YAML 1.1\n---\n"])
def test_what_editors_of_other_systems_write_is_read(write, change):
    text = LABEL.replace("\n", change) if change.isspace() else change + LABEL
    assert load_spec(write(text)).spec.output == "./labels"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("", "--set: expected path.to.field=value, such as optimize.epochs=3"),
        ("=s3cr3t", "--set: expected path.to.field=value, such as optimize.epochs=3"),
        ("a..b=1", "--set a..b: expected path.to.field=value"),
        ("name", "--set name: expected path.to.field=value"),
        ("name=", "--set name: expected text, got nothing"),
        ('name="', "--set name: not valid YAML: "),
        ("retry=crashed", "--set retry: expected a list, got 'crashed'"),
        ("retry.1=crashed", "--set retry.1: expected a position from 0 to 0 of the list, got '1'"),
        (f"retry.{'9' * 5000}=crashed", "expected a position from 0 to 0 of the list"),
        (f"{'a.' * 3000}a=1", ": expected path.to.field=value"),
        ("models.0=tiny@1", "--set models.0: expected the whole list, which is empty, got '0'"),
        ("images=\udcff", "--set images: not valid YAML: expected text in UTF-8"),
        ("na\udcffme=x", "expected text in UTF-8"),
        (
            "images=${RAW}",
            "--set images: expected a folder, file://, s3://, gs:// or az://, in UTF-8, got '\\udcff' (from ${RAW})",
        ),
        ("kind=", "--set kind: kind: expected train, evaluate, label or serve, got nothing"),
    ],
)
def test_a_wrong_override_is_one_line_that_names_it(write, override, message):
    text = refusal(write(LABEL + "retry: [crashed]\nmodels: []\n"), override, environ={"RAW": "\udcff"})
    assert message in text
    assert "s3cr3t" not in text


def test_overrides_replace_add_and_are_named_in_errors(write):
    path = write(TRAIN)
    loaded = load_spec(
        path, ["optimize.epochs=7", "augment.flip=none", "data.split={train: 0.5, validation: 0.5, test: 0}"]
    )
    assert (loaded.spec.optimize.epochs, loaded.spec.augment.flip, loaded.spec.data.split.test) == (7, "none", 0)
    assert loaded.source["optimize"]["epochs"] == 7
    assert refusal(path, "optimize.epochs=none") == "--set optimize.epochs: expected a whole number, got 'none'"
    assert (
        refusal(path, "optimise.epochs=3") == "--set optimise.epochs: optimise: no such field: did you mean optimize?"
    )
    assert refusal(path, "workers={cpus: 0}").splitlines()[1].startswith("  --set workers: workers.count: required")
    assert refusal(path, "epochs") == "--set epochs: expected path.to.field=value, such as optimize.epochs=3"
    assert (
        refusal(path, "name.x=1")
        == "--set name.x: 'x' is not there: what stands before it is a single value, not a mapping"
    )
    assert refusal(path, "name=[").startswith("--set name: not valid YAML")


def test_variables_are_filled_in(write):
    path = write(LABEL.replace("./registry", "${STORE:-./fallback}/models").replace("./inbox", "a$${b}"))
    loaded = load_spec(path, environ={"STORE": "s3://bucket"})
    assert (loaded.spec.registry, loaded.spec.images) == ("s3://bucket/models", "a${b}")
    assert load_spec(path, environ={"STORE": ""}).spec.registry == "./fallback/models"
    assert load_spec(write(SERVE + "port: ${PORT}"), environ={"PORT": "81"}).spec.port == 81


def test_the_record_of_a_spec_says_what_was_used_and_not_what_was_written(write):
    text = TRAIN.replace("learning_rate: 1e-3", 'learning_rate: "${LR}", schedule: "${SCHEDULE:-cosine}"')
    path = write(text.replace("./registry", "${STORE:-./fallback}/models").replace("epochs: 2", 'epochs: "${PASSES}"'))
    loaded = load_spec(path, environ={"LR": "1e-2", "STORE": "s3://bucket", "PASSES": "07"})
    assert loaded.source["registry"] == "s3://bucket/models"
    assert loaded.source["optimize"] == {"epochs": 7, "batch_size": 8, "learning_rate": 0.01, "schedule": "cosine"}
    assert loaded.written["optimize"]["learning_rate"] == "${LR}"
    same = load_spec(path, ["optimize.learning_rate=0.01"], environ={"LR": "9", "STORE": "s3://bucket", "PASSES": "7"})
    assert same.source == loaded.source
    searched = "tune={trials: 2, search: {optimize.weight_decay: ['${A}', 0.1]}}"
    tuned = load_spec(write(TRAIN), [searched], environ={"A": "0.5"})
    assert tuned.source["tune"]["search"]["optimize.weight_decay"] == ["0.5", 0.1]


def test_a_spec_without_variables_is_on_record_as_it_was_written(write):
    for text in (LABEL, SERVE, TRAIN, EVALUATE, TRAIN + "augment: {preset: heavy}\ncalibration: none\ntune: null\n"):
        loaded = load_spec(write(text))
        assert loaded.source == loaded.written
    assert loaded.source["augment"] == {"preset": "heavy"}
    assert (loaded.source["workers"], loaded.source["tune"]) == ({"count": 1}, None)


def test_a_variable_that_is_not_set_is_named_with_line_and_field(write):
    path = write(LABEL.replace("./registry", "${LABEL_STORE}"))
    assert refusal(path, environ={"LABEL_STOER": "x"}) == (
        "job.yaml:3: registry: the environment variable LABEL_STORE is not set (did you mean LABEL_STOER?): "
        "set it, or write ${LABEL_STORE:-default}"
    )
    assert "expected ${NAME} or ${NAME:-default}" in refusal(write(LABEL.replace("./registry", "${a b}")))
    assert refusal(write(SERVE + "port: ${PORT}"), environ={"PORT": "x"}) == (
        "job.yaml:5: port: expected a whole number, got 'x' (from ${PORT})"
    )


def test_an_open_endpoint_wants_a_key(write):
    for host in ("0.0.0.0", "10.0.0.7", "example.org", '"::"'):
        message = refusal(write(SERVE + f"host: {host}"))
        assert 'write api_keys: ["${LABELMILL_API_KEY}"]' in message
    for host in ("localhost", "127.0.0.2", '"::1"'):
        load_spec(write(SERVE + f"host: {host}"))
    keyed = SERVE + 'host: 0.0.0.0\napi_keys: ["${LABELMILL_API_KEY}"]'
    loaded = load_spec(write(keyed), environ={"LABELMILL_API_KEY": "s3cr3t"})
    assert loaded.spec.api_keys[0].get_secret_value() == "s3cr3t"
    assert "got what ${LABELMILL_API_KEY} holds (not shown)" in refusal(write(keyed), environ={"LABELMILL_API_KEY": ""})
    assert "put quotes around" in refusal(write(SERVE + "api_keys: [${LABELMILL_API_KEY}]"))


@pytest.mark.parametrize(
    "text",
    [
        "api_keys: s3cr3t",
        "api_keys: [s3cr3t, {a: s3cr3t}]",
        "api_keys: {a: s3cr3t}",
        'api_keys: ["s3cr3t "]',
        "api_key: s3cr3t",
        "api_keys: [s3cr3t",
        "api_keys: [s3cr3t]\nport: x",
        "batch: {api_keys: s3cr3t}",
        "port: ${MY_TOKEN}",
        "port: 1\nregistry2: https://me:s3cr3t@host/",
    ],
)
def test_a_secret_is_never_repeated(write, text):
    assert "s3cr3t" not in refusal(write(SERVE + text), environ={"MY_TOKEN": "s3cr3t"})


def test_a_secret_does_not_travel_with_the_loaded_spec(write):
    path = write(SERVE + 'api_keys: ["${MY_KEY}", s3cr3t]')
    loaded = load_spec(path, environ={"MY_KEY": "s3cr3t-too"})
    assert loaded.source["api_keys"] == loaded.written["api_keys"] == ["${MY_KEY}", "**********"]
    assert "s3cr3t" not in repr(loaded)
    kept = load_spec(write(LABEL.replace("./inbox", "s3://bucket/${MY_TOKEN}")), environ={"MY_TOKEN": "s3cr3t"})
    assert kept.spec.images == "s3://bucket/s3cr3t"
    assert kept.source["images"] == "s3://bucket/${MY_TOKEN}"
    url = refusal(write(LABEL.replace("./registry", "s3://me:s3cr3t@bucket/models")))
    assert "without credentials" in url
    assert "s3cr3t" not in url
