"""Whether freed memory is kept is read off the pages that the system has to hand out again."""

import platform
import subprocess
import sys

import pytest

_PASSES = """
import resource, torch
from trainer.modeling.memory import keep_freed_memory
keep_freed_memory()
for repeat in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(2_000_000) for _ in range(20)]  # 8 MB each, 160 MB in all: 39,000 pages
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="nothing is done under another C library")
def test_a_pass_like_the_last_asks_the_system_for_hardly_a_page():
    # Not against the default, which gives nothing back either where something small lies above the blocks.
    done = subprocess.run([sys.executable, "-c", _PASSES], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 1000
