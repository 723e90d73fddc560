"""What a run uses, whatever the machine's clock does meanwhile."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from labelmill.label.receipt.usage import TreeUsage

BUSY = "import time\nwhile time.process_time() < 0.5: pass\nprint('done', flush=True); input()"


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="reads /proc")
def test_a_clock_that_is_set_counts_no_process_twice(set_clock: Callable[[], None]) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with TreeUsage() as usage, subprocess.Popen([sys.executable, "-c", BUSY], **pipes) as child:
        child.stdout.readline()
        usage.sample()
        counted = usage.cpu_s
        assert counted >= 0.45
        set_clock()
        usage.sample()
        assert usage.cpu_s < counted + 0.4
