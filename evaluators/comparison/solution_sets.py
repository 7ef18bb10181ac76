"""Relations and sets as sets of points: the same set, or a point that lies in one of them alone.

One variable: where both sides are piecewise rational, the sets are compared exactly, at every zero and breakpoint and
between them. Several variables: along lines parallel to the axes, in every orthant. What is not piecewise rational is
searched for a witness and never found equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import islice, product
from typing import Any, NamedTuple

from evaluators.comparison.canonical import elements, expand_plus_minus, is_variable
from evaluators.comparison.float_roots import float_roots
from evaluators.comparison.intervals import is_infinite
from evaluators.comparison.linear_systems import linear_rows, reduced, solutions
from evaluators.comparison.numeric import Undefined, fresh_budget, value_at
from evaluators.comparison.polynomials import ROOT_DIGITS, between, branch, constant_value, squarefree, zeros
from evaluators.comparison.root_bounds import bounded_by
from evaluators.comparison.sampling import mixed_point, orthants, show_point
from evaluators.parsing.tree import TWO, Node, Unreadable, contains, negate, substitute, symbols, walk

_SETS = frozenset(("interval", "set", "union", "inter", "minus", "builder"))
_VALUES = frozenset(("list", "num", "dec", "add", "mul", "pow", "root", "fn", "pm", "mp"))
_SIGNS = frozenset(("=", "!=", "<", ">", "<=", ">=", "in", "notin"))
_LINES = frozenset(("R", "Re"))
_NEAR = Fraction(1, 10 ** (ROOT_DIGITS // 2))  # values closer than this count as equal
_CLEAR = Fraction(1, 10 ** (ROOT_DIGITS // 3))  # values farther apart than this surely differ
MAX_NAMES = 4
MAX_TESTS = 200  # points of one comparison along one line
_ENOUGH = 4  # lines on which both sets have points and agree

Point = Mapping[str, Fraction]


class Finding(NamedTuple):
    """same: True and False are proved, None is undecided; witness: a sentence that names a point of one set alone."""

    same: bool | None
    witness: str = ""


UNDECIDED = Finding(None)
COMPLEX = "The complex solutions differ"  # said with same=True: over the real numbers there is no difference


class Undecidable(Unreadable):
    """Whether a point lies in a set cannot be computed."""


def compare_sets(a: Node, b: Node) -> Finding:
    """Compare two sets of points given by relations, lists of them, intervals or sets."""
    names = sorted(symbols(a) | symbols(b)) or ["number"]
    if not 0 < len(names) <= MAX_NAMES or any(_is_unknown_function(part) for node in (a, b) for part in walk(node)):
        return UNDECIDED
    fresh_budget()
    try:
        one, two = (as_conditions(node, names[0] if len(names) == 1 else None) for node in (a, b))
        if len(names) == 1:
            return _on_one_line(one, two, names[0], {})
        return _on_many_lines(one, two, names)
    except (Unreadable, ZeroDivisionError, OverflowError):
        return UNDECIDED


def _is_unknown_function(node: Node) -> bool:
    return (node.op == "fn" and (str(node.value).endswith("()") or node.value == "prime")) or (
        node.op == "sym" and (node.value in ("?", "...") or node.value.startswith(("dot ", "triangle", "angle")))
    )


def as_conditions(node: Node, name: str | None) -> Node:
    """Return relations joined by "and" and "or"; a bare set becomes membership of the only variable."""
    if node.op == "rel":
        return _spread(node)
    if node.op == "list" and any(arg.op in ("rel", "list") for arg in node.args):
        if any(arg.op not in ("rel", "list") for arg in node.args):
            raise Undecidable("mixes relations with values")
        parts = tuple(as_conditions(arg, name) for arg in node.args)
        return Node("list", parts, "or" if node.value == "or" or _are_roots(parts) else "and")
    if name is None:
        raise Undecidable("names no variable")
    variable = Node("sym", (), name)
    if node.op in _SETS or node.op == "const":
        return Node("rel", (variable, node), ("in",))
    if node.op == "tuple" and len(node.args) == 2 and node.value == "(":
        return Node("rel", (variable, Node("interval", node.args, "()")), ("in",))
    if node.op in _VALUES and not symbols(node):
        return Node("rel", (variable, Node("set", elements(node))), ("in",))
    raise Undecidable("is no set of points")


def _are_roots(parts: tuple[Node, ...]) -> bool:
    """Whether relations joined by commas are the values of one variable: x = 1, x = 2."""
    variables = [part.args[0] for part in parts if part.op == "rel" and part.value == ("=",)]
    return len(variables) == len(parts) > 1 and len(set(variables)) == 1 and is_variable(variables[0])


def _spread(node: Node) -> Node:
    """Return a relation with ± as alternatives: x = ±1 is x = 1 or x = -1; x ≠ ±1 excludes both."""
    if contains(node, "pm", "mp"):
        joined = "and" if node.value == ("!=",) else "or"
        return Node("list", tuple(_spread(choice) for choice in expand_plus_minus(node)), joined)
    if node.value in (("=",), ("!=",)) and node.args[1].op in ("list", "set"):
        parts = tuple(_spread(Node("rel", (node.args[0], value), node.value)) for value in elements(node.args[1]))
        return Node("list", parts, "and" if node.value == ("!=",) else "or")
    if node.value == ("=",) and node.args[0].op == "root" and node.args[0].args[1] == TWO:
        under, value = node.args[0].args[0], node.args[1]  # the root of u is v: u is v squared, and v not negative
        squared = Node("rel", (under, Node("pow", (value, TWO))), ("=",))
        return Node("list", (squared, Node("rel", (value, Node("num", (), 0)), (">=",))), "and")
    sides = node.args[:1] if node.value == ("in",) else node.args
    if not set(node.value) <= _SIGNS or any(arg.op in ("tuple", "list", "matrix", "quantity") for arg in sides):
        raise Undecidable("has a relation that is not between numbers")
    return node


# Membership of one point.


def holds(node: Node, point: Point) -> bool:
    """Return whether a point satisfies conditions. Raises Unreadable where that cannot be computed."""
    if node.op == "list":
        every = [holds(part, point) for part in node.args]
        return any(every) if node.value == "or" else all(every)
    return all(_related(left, sign, right, point) for left, sign, right in zip(node.args, node.value, node.args[1:]))


def _related(left: Node, sign: str, right: Node, point: Point) -> bool:
    if sign in ("in", "notin"):
        return _inside(left, right, point) == (sign == "in")
    order = _order(left, right, point)
    if order is None:
        return sign == "!="
    return {"=": order == 0, "!=": order != 0, "<": order < 0, ">": order > 0, "<=": order <= 0, ">=": order >= 0}[sign]


def _order(left: Node, right: Node, point: Point) -> int | None:
    """-1, 0 or 1; None where the sides are no real numbers. Raises Undecidable where they are too close to tell."""
    values: list[Any] = []
    for side in (left, right):
        infinite = is_infinite(side)
        value = infinite * float("inf") if infinite else _real(side, point)
        if value is None:
            return None
        values.append(value)
    if isinstance(values[0], float) or isinstance(values[1], float):
        return (values[0] > values[1]) - (values[0] < values[1])
    off = abs(values[0] - values[1])
    scale = max(Fraction(1), abs(values[0]), abs(values[1]))
    if off <= _NEAR * scale:
        return 0
    if off < _CLEAR * scale:
        raise Undecidable("two values are too close together")
    return -1 if values[0] < values[1] else 1


def _real(node: Node, point: Point) -> Fraction | None:
    """The value at a point, None where it has none or is not real."""
    if node.op == "num":
        return Fraction(node.value)
    if node.op == "sym" and node.value in point:
        return Fraction(point[node.value])
    try:
        value = value_at(node, point, ROOT_DIGITS)
    except Undefined:
        return None
    if abs(value.imag) > _float_near(value):
        return None
    return Fraction(str(value.real))


def _float_near(value: Any) -> Any:
    return max(1, abs(value)) * type(abs(value))(10) ** (-ROOT_DIGITS // 2)


def _inside(item: Node, region: Node, point: Point) -> bool:
    """Whether the value of a tree lies in a set of numbers."""
    op = region.op
    if op == "interval" or (op == "tuple" and len(region.args) == 2):
        low, high = (_order(item, end, point) for end in region.args)
        if low is None or high is None:
            return False
        return (low > 0 or (low == 0 and region.value[0] == "[")) and (
            high < 0 or (high == 0 and region.value[-1] == "]")
        )
    if op == "set":
        return any(_order(item, member, point) == 0 for member in region.args)
    if op in ("union", "inter"):
        return (any if op == "union" else all)(_inside(item, part, point) for part in region.args)
    if op == "minus":
        return _inside(item, region.args[0], point) and not _inside(item, region.args[1], point)
    if op == "const" and region.value in _LINES:
        return _real(item, point) is not None
    if op == "const" and region.value in ("Z", "N"):
        value = _real(item, point)
        return value is not None and value.denominator == 1 and (region.value == "Z" or value > 0)
    if op == "builder" and region.args[0].op == "sym" and item.op == "sym":
        inner = substitute(region.args[1], region.args[0].value, item)
        return holds(as_conditions(inner, item.value), point)
    raise Undecidable("has a set whose members cannot be told")


# One variable.


def _relations(node: Node) -> Iterator[Node]:
    if node.op == "list":
        for part in node.args:
            yield from _relations(part)
    else:
        yield node


def _ends(region: Node) -> Iterator[Node]:
    """Yield the trees whose values bound a set."""
    if region.op in ("interval", "set", "tuple"):
        yield from region.args
    elif region.op == "builder":
        raise Undecidable("has a set within a set")
    else:
        for part in region.args:
            yield from _ends(part)


def _differences(node: Node) -> Iterator[Node]:
    """Yield the trees whose zeros bound where the conditions hold."""
    for relation in _relations(node):
        for left, sign, right in zip(relation.args, relation.value, relation.args[1:]):
            for end in _ends(right) if sign in ("in", "notin") else (right,):
                if sign in ("in", "notin") and right.op == "const" and right.value not in _LINES:
                    raise Undecidable("has a set that is not made of intervals")
                if not is_infinite(end) and not is_infinite(left):
                    yield Node("add", (left, negate(end)))


def _places(node: Node, name: str) -> tuple[list[Fraction], bool]:
    """Return the points that bound where the conditions hold, and whether these are all of them."""
    places: set[Fraction] = set()
    complete = True
    for difference in _differences(node):
        if name not in symbols(difference):
            continue
        found, exactly = _zeros(difference, name)
        complete = complete and exactly
        places.update(found)
    return sorted(places), complete


def _zeros(difference: Node, name: str) -> tuple[list[Fraction], bool]:
    """Return the zeros of a difference, and whether these are all of them."""
    variable, end = difference.args
    if variable.op == "sym" and not symbols(end):  # x - 3, of the end of an interval
        value = constant_value(end)
        if value is not None:
            return [-value], True
        if _real(end, {}) is None:
            return [], False
    found = zeros(difference, name)
    return (float_roots(difference, name), False) if found is None else (found, True)


def _evaluated(node: Node) -> Node:
    """Conditions whose sets have numbers for ends: an end is asked for at every point."""
    if node.op == "list":
        return Node("list", tuple(map(_evaluated, node.args)), node.value)
    if node.value not in (("in",), ("notin",)):
        return node
    return Node("rel", (node.args[0], _with_values(node.args[1])), node.value)


def _with_values(region: Node) -> Node:
    if region.op in ("union", "inter", "minus"):
        return Node(region.op, tuple(map(_with_values, region.args)), region.value)
    if region.op not in ("interval", "set", "tuple"):
        return region
    ends = (end if end.op == "num" or symbols(end) or is_infinite(end) else _number(end) for end in region.args)
    return Node(region.op, tuple(ends), region.value)


def _number(node: Node) -> Node:
    value = constant_value(node)
    return node if value is None else Node("num", (), value)


def _without_builders(node: Node) -> Node:
    """{x : x > 1} as x > 1."""
    if node.op == "list":
        return Node("list", tuple(map(_without_builders, node.args)), node.value)
    item, region = node.args[0], node.args[-1]
    if node.value == ("in",) and region.op == "builder" and region.args[0].op == "sym" and item.op == "sym":
        return as_conditions(substitute(region.args[1], region.args[0].value, item), item.value)
    return node


def _on_one_line(a: Node, b: Node, name: str, rest: Point) -> Finding:
    """Compare along a line on which one variable moves and the others are fixed."""
    a, b = (_evaluated(_without_builders(_fixed(node, rest))) for node in (a, b))
    (mine, whole), (other, complete) = _places(a, name), _places(b, name)
    places = _apart(sorted({*mine, *other}))
    exactly = (whole and complete) or _bounded(a, b, name)
    inside = 0
    tests = [*places, *between(places)]
    if len(tests) > MAX_TESTS:
        return UNDECIDED
    for place in tests:
        point = {name: place}
        try:
            one, two = holds(a, point), holds(b, point)
        except Undecidable:
            exactly = False
            continue
        if one != two:
            return _witness({**rest, name: place})
        inside += one
    if not exactly or not inside or inside == len(tests):
        return UNDECIDED
    return Finding(True, COMPLEX if _differ_in_complex(a, b, name) else "")


def _bounded(a: Node, b: Node, name: str) -> bool:
    """Whether the constants that stand in two conditions are all the places where either changes."""
    relations = [*_relations(a), *_relations(b)]
    constants = tuple(dict.fromkeys(part for relation in relations for part in _constants_of(relation)))
    try:
        return all(
            zeros(difference, name) is not None or bounded_by(difference, name, constants, relation.value == ("=",))
            for relation in relations
            for difference in _differences(relation)
            if name in symbols(difference)
        )
    except Unreadable:
        return False


def _constants_of(relation: Node) -> Iterator[Node]:
    for part in relation.args:
        for end in _ends(part) if part.op in _SETS else (part,):
            if (not symbols(end) and not is_infinite(end) and end.op != "const") or end.value in ("e", "pi"):
                yield end


def _apart(places: list[Fraction]) -> list[Fraction]:
    """Return sorted places without those that are another one to within rounding."""
    kept: list[Fraction] = []
    for place in places:
        if kept and place - kept[-1] <= _NEAR * max(Fraction(1), abs(place)):
            if place.denominator < kept[-1].denominator:
                kept[-1] = place
            continue
        kept.append(place)
    return kept


def _differ_in_complex(a: Node, b: Node, name: str) -> bool:
    """Whether two polynomial equations have the same real roots and other complex ones: x = 2 and x^3 = 8."""
    forms = []
    for node in (a, b):
        node = node.args[0] if node.op == "list" and len(node.args) == 1 else node
        if node.op != "rel" or node.value != ("=",) or contains(node, "fn", "root"):
            return False
        ratio = branch(Node("add", (node.args[0], negate(node.args[1]))), name, Fraction(1, 3))
        if ratio is None:
            return False
        forms.append(squarefree(ratio.top))
    return forms[0] != forms[1]


def _fixed(node: Node, rest: Point) -> Node:
    for name, value in rest.items():
        node = substitute(node, name, Node("num", (), value))
    return node


# Several variables.


def _on_many_lines(a: Node, b: Node, names: list[str]) -> Finding:
    for compare in (_linear_systems, _corner_witness):
        found = compare(a, b, names)
        if found is not None:
            return found
    if not symbols(a) or not symbols(b):
        return UNDECIDED
    agreed = 0
    note = ""
    whole = True
    for moving in names:
        fresh_budget()
        for rest in _settings(a, b, [name for name in names if name != moving]):
            found = _on_one_line(a, b, moving, rest)
            if found.same is False:
                return found
            agreed += found.same is True
            note = found.witness or note
            whole = whole and (found.same is True or _is_decided(a, b, moving, rest))
    return Finding(True, note) if whole and agreed >= _ENOUGH and symbols(a) == symbols(b) else UNDECIDED


def _is_decided(a: Node, b: Node, moving: str, rest: Point) -> bool:
    """Whether the two sets agree exactly on a line, though both are empty or the whole line there."""
    return all(_places(_fixed(node, rest), moving)[1] for node in (a, b))


def _settings(a: Node, b: Node, names: list[str]) -> Iterator[dict[str, Fraction]]:
    """Yield values of the variables that stand still: in every orthant, zero, and numbers of the trees."""
    for point in (*orthants(frozenset(names)), mixed_point(frozenset(names), 8), mixed_point(frozenset(names), 15)):
        yield {name: Fraction(value).limit_denominator(40) for name, value in point.items()}
    numbers = [part.value for node in (a, b) for part in walk(node) if part.op == "num" and abs(part.value) < 10**6]
    for value in dict.fromkeys((Fraction(0), Fraction(1), *map(Fraction, numbers[:3]))):
        yield dict.fromkeys(names, value)


def _linear_systems(a: Node, b: Node, names: list[str]) -> Finding | None:
    """Compare two systems of linear equations by their reduced forms; None where one is no such system."""
    systems = []
    for node in (a, b):
        equations = node.args if node.op == "list" and node.value == "and" else (node,)
        rows = linear_rows(equations, names)
        if rows is None:
            return None
        systems.append(reduced(rows))
    one, two = systems
    if one is None or two is None:
        return UNDECIDED
    if one == two:
        return Finding(True)
    for rows in systems:
        for point in solutions(rows or [], names):
            if holds(a, point) != holds(b, point):
                return _witness(point)
    return UNDECIDED


def _witness(point: Point) -> Finding:
    return Finding(False, f"{show_point(point)} satisfies one and not the other")


def _corner_witness(a: Node, b: Node, names: list[str]) -> Finding | None:
    """Look at points whose coordinates solve relations of one variable each: the members of x = ±1, y = ±2."""
    solved: dict[str, list[Fraction]] = {}
    for relation in (*_relations(a), *_relations(b)):
        own = symbols(relation)
        if len(own) == 1:
            (name,) = own
            solved.setdefault(name, []).extend(_places(relation, name)[0])
    if not solved:
        return None
    rest = {name: Fraction(value) for name, value in mixed_point(frozenset(names) - set(solved), 0).items()}
    for corner in islice(product(*(sorted(set(values)) for values in solved.values())), 64):
        point = {**rest, **dict(zip(solved, corner))}
        try:
            one, two = holds(a, point), holds(b, point)
        except Undecidable:
            continue
        if one != two:
            return _witness(point)
    return _separately(a, b, names)


def _separately(a: Node, b: Node, names: list[str]) -> Finding | None:
    """Compare systems of relations of one variable each, variable by variable."""
    systems = []
    for node in (a, b):
        parts = node.args if node.op == "list" and node.value == "and" else (node,)
        if any(len(symbols(part)) != 1 for part in parts):
            return None
        systems.append({name: [part for part in parts if symbols(part) == {name}] for name in names})
    if any(not part for system in systems for part in system.values()):
        return None
    one, two = systems
    found = [
        _on_one_line(Node("list", tuple(one[name]), "and"), Node("list", tuple(two[name]), "and"), name, {})
        for name in names
    ]
    return Finding(True) if all(part.same for part in found) else UNDECIDED
