"""Whether freed memory is kept is read off the pages that the system has to hand out again."""

import platform
import subprocess
import sys

import pytest

_PASSES = """
import resource, sys, torch
from trainer.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for repeat in range(4):
    if repeat == 3:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(2_000_000) for _ in range(20)]  # 8 MB each
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", _PASSES, how], check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="nothing is done under another C library")
def test_a_pass_like_the_last_asks_the_system_for_no_page():
    assert faults("keep") < 0.1 * faults("give back")
