"""Every public name of the package says its parameters or attributes and shows an example; the examples run."""

import doctest
import inspect

import pytest

import probes


@pytest.mark.parametrize("name", probes.__all__)
def test_a_public_name_has_parameters_and_an_example_that_runs(name):
    found = getattr(probes, name)
    text = inspect.getdoc(found) or ""
    assert "Parameters\n---" in text or "Attributes\n---" in text, f"{name} names no parameters"
    examples = [e for e in doctest.DocTestFinder(recurse=False).find(found, name, globs={}) if e.examples]
    assert examples, f"{name} has no example"
    for example in examples:
        report: list[str] = []
        assert doctest.DocTestRunner(verbose=False).run(example, out=report.append).failed == 0, "".join(report)
