"""Every module's cases find warm workers, so that no verdict depends on how loaded the machine is at its start."""

import pytest

from evaluators.workers import pool as deadline


@pytest.fixture(autouse=True, scope="module")
def warm_workers():
    deadline.warm_up(wait=True)
