"""What a model wrote is never run: no code of it is compiled, executed, imported or formatted."""

import sys
from pathlib import Path

import pytest
from hostile_strings import GROUPS

from evaluators.verify import verify
from evaluators.workers import pool as deadline

#: Events of sys.audit that code execution, a shell, a file or the network cannot do without.
WATCHED = (
    "exec",
    "compile",
    "import",
    "marshal.",
    "pickle.",
    "os.",
    "subprocess.",
    "socket.",
    "ctypes.",
    "open",
    "pty.",
)

seen: list[tuple[str, str]] = []
watching = False


def watch(event, arguments):
    if watching and event.startswith(WATCHED):
        seen.append((event, repr(arguments)[:200]))


sys.addaudithook(watch)


def events_of(action, *arguments):
    """What `action` did that WATCHED names."""
    global watching
    seen.clear()
    watching = True
    try:
        action(*arguments)
    finally:
        watching = False
    return list(seen)


def shapes(sentinel):
    for group, strings in GROUPS.items():
        for string in strings:
            yield group, string.replace("{S}", str(sentinel))


WRAPPERS = [
    "{}",
    "\\boxed{{{}}}",
    "${}$",
    "The answer is {}",
    "#### {}",
    "\\boxed{{x = {}}}",
    "\\boxed{{\\{{{}, 1\\}}}}",
]


@pytest.fixture(scope="module", autouse=True)
def everything_is_imported():
    """Lazy imports and the workers' start are done before anybody watches."""
    deadline.warm_up(wait=True)
    for gold in ("\\sin^2 x + \\cos^2 x", "\\frac{1}{3}", "[2,5)", "5 km", "\\binom{5}{2}", "x^2+1=0"):
        verify("\\boxed{1}", gold)
        verify(f"\\boxed{{{gold}}}", gold)
        verify(f"\\boxed{{0.333 + {gold}}}", gold)
    verify(None, "1")


@pytest.mark.parametrize(
    "action",
    [
        lambda path: eval("1+1"),
        lambda path: exec(f"open({str(path)!r}, 'w').close()"),
        lambda path: __import__("os").system("true"),
        lambda path: __import__("sympy").sympify("x + 1"),
        lambda path: __import__("sympy").lambdify([], "1")(),
    ],
)
def test_the_watch_sees_what_it_must_see(action, tmp_path):
    assert events_of(action, tmp_path / "sentinel")


def test_there_are_two_hundred_shapes_of_every_family():
    strings = [string for group in GROUPS.values() for string in group]
    assert len(set(strings)) >= 200
    assert {"dunders", "lambdas", "imports", "formats", "sympy names"} <= set(GROUPS)


@pytest.mark.parametrize("group", GROUPS)
def test_a_hostile_string_runs_nothing(group, tmp_path):
    sentinel = tmp_path / "sentinel"
    for _, string in (pair for pair in shapes(sentinel) if pair[0] == group):
        for wrapper in WRAPPERS:
            response = wrapper.format(string)
            did = events_of(verify, response, "x^2+1") + events_of(verify, "\\boxed{1}", string)
            did += events_of(verify, response, string)
            assert not [event for event in did if not is_of_the_worker(event)], (response, did)
            assert not sentinel.exists(), response
    assert not list(Path.cwd().glob("*sentinel*"))


def is_of_the_worker(event):
    """A worker that a slow case ended is replaced: its command is ours and holds nothing of the case."""
    name, arguments = event
    if name == "subprocess.Popen":
        return "evaluators.workers._worker" in arguments
    return name == "os.kill" or (name == "import" and "select" in arguments)


@pytest.mark.parametrize("group", GROUPS)
def test_the_symbolic_tier_runs_nothing_either(group, tmp_path):
    """The worker's own work, done here where it can be watched: sympy gets a tree, never a string."""
    symbolic = pytest.importorskip("evaluators.workers.symbolic")
    parse = pytest.importorskip("evaluators.parsing.parser")
    from evaluators.parsing.tree import Unreadable

    sentinel = tmp_path / "sentinel"
    other = parse.parse("x^2+1")
    symbolic.symbolic_equal(other, parse.parse("x^3"))
    for _, string in (pair for pair in shapes(sentinel) if pair[0] == group):
        if any(bomb in string for bomb in ("factorial", "10**", "**Integer", "0000")):
            continue  # they end the worker by its deadline, and would end this process
        try:
            tree = parse.parse(string)
        except Unreadable:
            continue
        if tree.op in ("text", "choice"):
            continue
        did = [e for e in events_of(symbolic.symbolic_equal, tree, other) if e[0] in ("exec", "compile", "os.system")]
        assert not [event for event in did if "sentinel" in event[1] or "open" in event[1]], (string, did)
        assert not sentinel.exists(), string
