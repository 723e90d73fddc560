from pathlib import Path

import pytest

from labelmill.spec import load_spec

JOBS = Path(__file__).parents[1] / "jobs"


@pytest.mark.parametrize("job", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_job_is_a_valid_spec(job):
    loaded = load_spec(job, environ={})
    assert loaded.spec.kind == job.stem
    assert loaded.spec.registry == "./demo/registry"
