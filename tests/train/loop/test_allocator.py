import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import torch
from labelmill.train.loop.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def faults_of_a_step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**25)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for _ in range(16):  # until what was freed fits what is wanted
    faults_of_a_step()
print(faults_of_a_step())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's malloc")
def test_memory_that_a_step_freed_is_there_for_the_next():
    fresh, kept = (
        int(subprocess.run([sys.executable, "-c", STEPS, how], check=True, capture_output=True, text=True).stdout)
        for how in ("fresh", "kept")
    )
    assert kept < 100 < fresh
