import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bundles import make_bundle, make_draft
from labelmill.errors import BundleError, RegistryError
from labelmill.model.bundle import WEIGHTS_NAME
from labelmill.model.registry import Registry
from labelmill.model.registry.numbers import claim_number


@pytest.fixture(scope="module")
def draft(tmp_path_factory):
    return make_draft(tmp_path_factory.mktemp("draft"))


@pytest.fixture(params=["folder", "s3"])
def registry(request, tmp_path):
    return Registry(str(tmp_path / "registry") if request.param == "folder" else request.getfixturevalue("s3"))


def publish(registry, draft, times, name="tiny"):
    return [registry.publish(name, draft) for _ in range(times)]


def test_versions_count_from_one(registry, draft):
    assert [bundle.version for bundle in publish(registry, draft, 3)] == [1, 2, 3]
    assert registry.versions("tiny") == [1, 2, 3]
    assert registry.names() == ["tiny"]
    assert registry.resolve("tiny@2").reference == "tiny@2"


def test_eight_trainers_at_once_never_share_a_version(registry, draft):
    with ThreadPoolExecutor(8) as pool:
        bundles = list(pool.map(lambda _: Registry(registry.uri).publish("tiny", draft), range(8)))
    assert sorted(bundle.version for bundle in bundles) == list(range(1, 9))
    for bundle in bundles:
        registry.resolve(bundle.reference).verify()


def test_processes_at_once_never_share_a_version(registry, draft):
    program = (
        "import pickle, sys\n"
        "from labelmill.model.registry import Registry\n"
        "draft = pickle.loads(bytes.fromhex(sys.argv[2]))\n"
        "for _ in range(3): Registry(sys.argv[1]).publish('tiny', draft)"
    )
    command = [sys.executable, "-c", program, registry.uri, pickle.dumps(draft).hex()]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert registry.versions("tiny") == list(range(1, 10))


def test_crash_while_publishing_leaves_a_number_that_is_skipped(registry, draft):
    publish(registry, draft, 1)
    claim_number(registry._store, "tiny")
    assert registry.versions("tiny") == [1]
    with pytest.raises(RegistryError, match="no tiny@2"):
        registry.resolve("tiny@2")
    assert registry.publish("tiny", draft).version == 3


def test_eight_promotions_at_once_are_all_in_the_history(registry, draft):
    publish(registry, draft, 2)
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda n: Registry(registry.uri).promote(f"tiny@{1 + n % 2}"), range(8)))
    assert sorted(row.number for row in rows) == list(range(1, 9))
    assert registry.history("tiny") == sorted(rows, key=lambda row: row.number)
    assert registry.resolve_alias_row("tiny", "current").number == 8


def test_alias_points_to_what_was_promoted_last(registry, draft):
    publish(registry, draft, 3)
    registry.promote("tiny@3", reason="better")
    registry.promote("tiny@2")
    registry.promote("tiny@1", "canary")
    assert registry.resolve("tiny@current").version == 2
    assert registry.aliases("tiny") == {"canary": 1, "current": 2}
    assert [(row.number, row.version, row.reason) for row in registry.history("tiny")] == [(1, 3, "better"), (2, 2, "")]
    registry.promote("tiny@canary")
    assert registry.resolve("tiny@current").version == 1


def test_rollback_walks_back_through_the_history(registry, draft):
    publish(registry, draft, 4)
    for version in (1, 2, 2, 3):
        registry.promote(f"tiny@{version}")
    assert registry.rollback("tiny").version == 2
    registry.promote("tiny@4")
    assert registry.rollback("tiny").version == 2
    assert registry.rollback("tiny").version == 1
    with pytest.raises(RegistryError, match=r"version 1 is the first it pointed to. Versions: 1, 2, 3, 4"):
        registry.rollback("tiny")
    assert [row.version for row in registry.history("tiny")] == [1, 2, 2, 3, 2, 4, 2, 1]
    assert registry.resolve("tiny@current").version == 1


def test_more_than_nine_rows_keep_their_order(registry, draft):
    publish(registry, draft, 2)
    for number in range(11):
        registry.promote(f"tiny@{1 + number % 2}")
    assert [row.number for row in registry.history("tiny")] == list(range(1, 12))


def test_rollback_that_loses_a_race_changes_nothing(registry, draft, monkeypatch):
    publish(registry, draft, 3)
    registry.promote("tiny@1")
    registry.promote("tiny@2")
    stale = registry.history("tiny")
    registry.promote("tiny@3")
    monkeypatch.setattr(registry, "history", lambda name, alias: stale)
    with pytest.raises(RegistryError, match="now points to version 3"):
        registry.rollback("tiny")
    assert registry.resolve("tiny@current").version == 3


def damage(registry, key):
    data = bytearray(registry._store.read(key))
    data[-1] ^= 1
    registry._store.write(key, bytes(data))


@pytest.mark.parametrize("file_name", [WEIGHTS_NAME, "report/index.html"])
def test_damaged_version_is_not_promoted_and_the_alias_stays(registry, draft, file_name):
    publish(registry, draft, 2)
    registry.promote("tiny@1")
    damage(registry, f"tiny/2/{file_name}")
    with pytest.raises(BundleError, match=rf"{file_name} of tiny@2 .* is damaged: expected sha256"):
        registry.promote("tiny@2")
    assert [row.version for row in registry.history("tiny")] == [1]


def test_rollback_to_a_damaged_version_changes_nothing(registry, draft):
    publish(registry, draft, 2)
    registry.promote("tiny@1")
    registry.promote("tiny@2")
    damage(registry, f"tiny/1/{WEIGHTS_NAME}")
    with pytest.raises(BundleError, match="tiny@1"):
        registry.rollback("tiny")
    assert registry.resolve("tiny@current").version == 2


def test_alias_to_a_version_that_was_replaced_is_refused(tmp_path):
    make_bundle(tmp_path / "a")
    Registry(str(tmp_path / "a")).promote("tiny@1")
    make_bundle(tmp_path / "b", seed=1)
    for file_name in ("bundle.json", WEIGHTS_NAME):
        (tmp_path / "a/tiny/1" / file_name).write_bytes((tmp_path / "b/tiny/1" / file_name).read_bytes())
    with pytest.raises(BundleError, match="not what was promoted"):
        Registry(str(tmp_path / "a")).resolve("tiny@current")


def test_unknown_references_name_what_is_there(registry, draft):
    with pytest.raises(RegistryError, match=r"no model 'tiny'.*no models yet"):
        registry.resolve("tiny@1")
    publish(registry, draft, 2)
    registry.promote("tiny@2")
    with pytest.raises(RegistryError, match="did you mean tiny"):
        registry.resolve("tinny@1")
    with pytest.raises(RegistryError, match="versions: 1, 2; aliases: current"):
        registry.resolve("tiny@7")
    with pytest.raises(RegistryError, match="did you mean tiny@current"):
        registry.resolve("tiny@curent")
    with pytest.raises(RegistryError, match="no tiny@canary"):
        registry.rollback("tiny", "canary")


@pytest.mark.parametrize("promoted", [False, True])
def test_the_number_of_a_deleted_version_is_never_given_again(registry, draft, promoted):
    publish(registry, draft, 3)
    if promoted:
        registry.promote("tiny@3")
    delete(registry, "tiny/3/")
    assert registry.publish("tiny", draft).version == 4
    for number in (1, 2, 4):
        delete(registry, f"tiny/{number}/")
    assert registry.names() == []
    assert registry.publish("tiny", draft).version == 5


def test_a_number_given_by_an_older_labelmill_is_remembered_by_the_aliases_history(registry, draft):
    """Before there were rows of numbers: the deleted version is known from the promotions alone."""
    publish(registry, draft, 3)
    for version in (3, 1):
        registry.promote(f"tiny@{version}")
    delete(registry, "tiny/numbers/")
    delete(registry, "tiny/3/")
    assert registry.publish("tiny", draft).version == 4


def test_a_version_that_an_older_labelmill_publishes_keeps_its_number(registry, draft):
    publish(registry, draft, 1)
    registry._store.write("tiny/2/claim.json", b"{}")
    assert registry.publish("tiny", draft).version == 3


def delete(registry, prefix):
    for key in list(registry._store.keys(prefix)):
        registry._store.delete(key)


def test_an_alias_of_a_deleted_version_is_refused_in_one_line_and_can_be_rolled_back(registry, draft):
    publish(registry, draft, 4)
    for version in (1, 2, 3, 4):
        registry.promote(f"tiny@{version}")
    delete(registry, "tiny/4/")
    delete(registry, "tiny/2/")
    with pytest.raises(RegistryError, match=r"^tiny@current points to version 4, which is no longer in .*: 1, 3\.$"):
        registry.resolve("tiny@current")
    assert registry.rollback("tiny").version == 3
    assert registry.rollback("tiny").version == 1
    with pytest.raises(RegistryError, match=r"version 1 is the first .* of those that are still there. Versions: 1, 3"):
        registry.rollback("tiny")
    delete(registry, "tiny/1/")
    delete(registry, "tiny/3/")
    with pytest.raises(RegistryError, match=r"no model 'tiny'"):
        registry.resolve("tiny@1")


FOREIGN = [
    "aliases/.DS_Store",
    "aliases/desktop.ini",
    "aliases/Thumbs.db",
    "aliases/._current",
    "aliases/.DS_Store/x",
    "aliases/staging/000001.json.part",
    "aliases/current/._000001.json",
    "aliases/current/000009.json.6eF3a2b1",
    "aliases/current/.DS_Store",
    "aliases/current/000001 (copy).json",
    "aliases/current/old/000007.json",
    "3/bundle.json.6eF3a2b1",
    "numbers/._000001.json",
    "numbers/.DS_Store",
    ".DS_Store",
    "007/bundle.json",
]


@pytest.mark.parametrize("key", FOREIGN)
def test_a_foreign_file_hides_nothing_and_is_named_once(registry, draft, key, caplog):
    publish(registry, draft, 2)
    registry.promote("tiny@1")
    registry.promote("tiny@2")
    registry._store.write(f"tiny/{key}", b"")
    assert registry.names() == ["tiny"]
    assert registry.versions("tiny") == [1, 2]
    assert registry.aliases("tiny") == registry.aliases("tiny") == {"current": 2}
    assert registry.resolve("tiny@current").version == 2
    with pytest.raises(RegistryError, match="versions: 1, 2; aliases: current"):
        registry.resolve("tiny@typo")
    assert [row.number for row in registry.history("tiny")] == [1, 2]
    assert registry.promote("tiny@1").number == 3
    assert registry.rollback("tiny").version == 2
    assert registry.publish("tiny", draft).version in (3, 4)
    assert len(warnings_of(caplog, key)) == key.startswith(("aliases/", "3/"))


def warnings_of(caplog, words):
    return [record for record in caplog.records if record.name.startswith("labelmill") and words in record.getMessage()]


@pytest.mark.parametrize(
    "data", [b"", b'{"number": 2, "vers', b"\xff\xfe", b"[]", b"null", b'{"number": 1, "version": 1}']
)
def test_half_of_a_row_is_named_and_no_other_row_stands_for_it(registry, draft, data, caplog):
    publish(registry, draft, 3)
    registry.promote("tiny@1")
    registry.promote("tiny@3", "canary")
    key = "tiny/aliases/current/000002.json"
    registry._store.write(key, data)
    assert registry.aliases("tiny") == {"canary": 3}
    assert len(warnings_of(caplog, key)) == 1
    for ask in (lambda: registry.resolve("tiny@current"), lambda: registry.rollback("tiny")):
        with pytest.raises(RegistryError, match=r"000002.json is not a row of an alias .*: remove it"):
            ask()
    assert registry.promote("tiny@2").number == 3
    assert registry.aliases("tiny") == {"canary": 3, "current": 2}
    assert [row.number for row in registry.history("tiny")] == [1, 3]
    assert registry.rollback("tiny").version == 1


def test_a_row_under_another_s_number_is_none(registry, draft):
    publish(registry, draft, 2)
    registry.promote("tiny@1")
    registry._store.write("tiny/aliases/current/000005.json", registry._store.read("tiny/aliases/current/000001.json"))
    with pytest.raises(RegistryError, match="it says number 1"):
        registry.resolve("tiny@current")


@pytest.mark.parametrize("reference", ["tiny", "tiny@", "@1", "Tiny@1", "../x@1", "tiny@../1", "tiny@Current", "a/b@1"])
def test_malformed_references_are_refused(tmp_path, reference):
    with pytest.raises(RegistryError, match="got"):
        Registry(str(tmp_path)).resolve(reference)


def test_alias_of_digits_is_refused(tmp_path):
    make_bundle(tmp_path)
    with pytest.raises(RegistryError, match="not a number"):
        Registry(str(tmp_path)).promote("tiny@1", "7")


def test_store_that_ignores_the_condition_is_refused_before_anything_is_written(tmp_path, draft, monkeypatch):
    registry = Registry(str(tmp_path / "registry"))
    monkeypatch.setattr(type(registry._store), "honours_write_if_absent", lambda store: False)
    for call in (
        lambda: registry.publish("tiny", draft),
        lambda: registry.promote("tiny@1"),
        lambda: registry.rollback("tiny"),
    ):
        with pytest.raises(RegistryError, match="ignores the condition"):
            call()
    assert not list(Path(tmp_path / "registry").rglob("*"))
