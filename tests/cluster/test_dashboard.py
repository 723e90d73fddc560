"""What is said of a head that answers late."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from labelmill.cluster.submission import dashboard
from labelmill.errors import NoRayError


@pytest.fixture
def slow_head() -> Iterator[str]:
    """Tells its version at once, and does nothing of what it is asked to do."""
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            from ray import __version__

            body = json.dumps({"ray_version": __version__}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            done.wait(30)

        def log_message(self, *_: object) -> None:
            """Not on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    done.set()
    server.shutdown()
    server.server_close()


def test_what_is_done_may_take_longer_than_an_answer_and_the_wait_is_said(
    slow_head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = dashboard.Dashboard(slow_head)
    monkeypatch.setattr(dashboard, "_ANSWERS_WITHIN_S", 0.2)
    monkeypatch.setattr(dashboard, "_DOES_WITHIN_S", 1.5)
    with pytest.raises(NoRayError, match=r"nothing did within 1\.5 s"):
        found.submit("job", "true", {}, {})
