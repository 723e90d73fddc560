import pytest

from labelmill.cluster import Resources
from labelmill.label.spread.workers import plan_workers


@pytest.mark.parametrize(
    ("cpus", "gpus", "engine", "num_chunks", "planned", "cores"),
    [
        (16, 0, "auto", 100, "16 workers of 1 core", 16),
        (16, 0, "auto", 3, "3 workers of 1 core", 3),
        (16, 1, "auto", 100, "15 workers of 1 core and 1 GPU", 16),
        (64, 8, "torch", 1000, "56 workers of 1 core and 8 GPUs", 64),
        (64, 8, "torch", 2, "2 workers of 1 core and 2 GPUs", 4),
        (1, 1, "auto", 100, "1 worker of 1 core and 1 GPU", 1),
        (16, 1, "openvino", 100, "16 workers of 1 core", 16),
    ],
)
def test_every_core_and_gpu_has_work_and_none_is_promised_twice(cpus, gpus, engine, num_chunks, planned, cores):
    workers = plan_workers(Resources(cpus, gpus, local=True), engine, num_chunks)
    assert (str(workers), workers.cores) == (planned, cores)
