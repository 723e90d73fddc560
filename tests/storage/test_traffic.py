"""The requests that a bill counts, against a real server."""

from labelmill.storage import Traffic, open_store, read_pictures, traffic


def test_requests_and_bytes_are_counted_as_a_bill_would(s3):
    before = traffic()
    store = open_store(f"{s3}/a")
    for number in range(5):
        store.write(f"{number}.jpg", b"x" * 100)
    store.write_if_absent("5.jpg", b"x" * 100)
    assert traffic() - before == Traffic(puts=6, written_bytes=600)

    before = traffic()
    [batch] = store.list()
    items = list(zip(batch["uri"].to_pylist(), batch["etag"].to_pylist(), strict=True))
    assert [len(data) for data in read_pictures(items)] == [100] * 6
    store.exists("6.jpg")
    assert traffic() - before == Traffic(lists=1, gets=7, read_bytes=600)


def test_a_folder_has_bytes_and_no_requests(tmp_path):
    before = traffic()
    store = open_store(str(tmp_path))
    store.write("a", b"12345")
    assert store.read("a") == b"12345"
    assert list(store.keys()) == ["a"]
    assert traffic() - before == Traffic(read_bytes=5, written_bytes=5)
