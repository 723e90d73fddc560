"""What a cluster knows of a submitted job, as if the job had run here."""

import pytest

from labelmill.cluster.submission.endpoint import _reason
from labelmill.cluster.submission.job import Job


@pytest.mark.parametrize(
    ("status", "driver_exit_code", "exit_code"),
    [
        ("PENDING", None, None),
        ("RUNNING", None, None),
        ("SUCCEEDED", 0, 0),
        ("SUCCEEDED", None, 0),
        ("FAILED", 3, 3),
        ("FAILED", -9, 137),  # as a shell says that it was killed
        ("FAILED", None, 1),  # its driver never began, or its node went
        ("STOPPED", None, 143),  # Ray keeps no exit code of what it stopped
    ],
)
def test_a_job_elsewhere_ends_with_the_code_that_it_would_have_here(status, driver_exit_code, exit_code):
    assert Job("id", status, "", driver_exit_code=driver_exit_code).exit_code == exit_code


def test_of_a_traceback_the_line_that_matters_is_told():
    message = (
        "Deploying app 'api' failed with exception:\nTraceback (most recent call last):\n"
        '  File "x.py", line 3, in f\nray.exceptions.RayTaskError(RuntimeError): ray::build()\n'
        "RuntimeError: Traceback (most recent call last):\nlabelmill.errors.SpecError: api_keys.0: not set: set it"
    )
    assert _reason(message) == "api_keys.0: not set: set it"
    assert _reason("the proxies\nare starting") == "the proxies are starting"
