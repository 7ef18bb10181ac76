"""Every Python block of docs/verifier.md runs, and it names every setting and outcome."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from evaluators import Outcome, Policy
from evaluators.audit import Fault

DOCUMENT = (Path(__file__).parents[2] / "docs" / "verifier.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)


def test_there_are_blocks():
    assert len(BLOCKS) >= 8


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_runs(block):
    exec(compile(block, "docs/verifier.md", "exec"), {"__name__": "document"})


def test_every_setting_outcome_and_fault_is_named_with_its_default():
    for setting in fields(Policy):
        assert f"| `{setting.name}` | `{setting.default}` |" in DOCUMENT
    for name in (*Outcome, *Fault):
        assert f"| `{name}` |" in DOCUMENT
