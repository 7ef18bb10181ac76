"""The last tier: sympy, on the tree that our parser built, node by node and never from a string."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from evaluators.parsing.tree import Node, Unreadable


def to_sympy(node: Node) -> Any:
    """The sympy expression of a scalar tree. Raises Unreadable for what has none."""
    import sympy

    op = node.op
    if op == "num":
        return (
            sympy.Rational(node.value.numerator, node.value.denominator)
            if isinstance(node.value, Fraction)
            else sympy.Integer(node.value)
        )
    if op == "dec":
        mantissa, places, _ = node.value
        return sympy.Rational(mantissa) / sympy.Integer(10) ** places
    if op == "sym":
        return sympy.Symbol(node.value)
    if op == "const":
        constants = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "oo": sympy.oo}
        if node.value not in constants:
            raise Unreadable(f"{node.value} is no number")
        return constants[node.value]
    if op == "dummy":
        return sympy.Symbol(f"bound {node.value}")
    args = [to_sympy(arg) for arg in node.args]
    if op == "add":
        return sympy.Add(*args)
    if op == "mul":
        return sympy.Mul(*args)
    if op == "pow":
        return sympy.Pow(*args)
    if op == "root":
        return sympy.real_root(*args) if args[1] != 2 else sympy.sqrt(args[0])
    if op == "percent":
        return args[0] / 100
    if op == "deg":
        return args[0] * sympy.pi / 180
    if op == "base":
        return sympy.Integer(int(node.value[0], node.value[1]))
    if op == "fn":
        return _function(node.value, args)
    raise Unreadable(f"a {op} is no scalar")


def _function(name: str, args: list[Any]) -> Any:
    import sympy

    named = {
        "ln": sympy.log, "log": sympy.log, "exp": sympy.exp, "abs": sympy.Abs, "floor": sympy.floor,
        "ceil": sympy.ceiling, "factorial": sympy.factorial, "factorial2": sympy.factorial2, "gamma": sympy.gamma,
        "binomial": sympy.binomial, "gcd": sympy.gcd, "lcm": sympy.lcm, "max": sympy.Max, "min": sympy.Min,
        "sign": sympy.sign, "Re": sympy.re, "Im": sympy.im, "conjugate": sympy.conjugate, "arg": sympy.arg,
     "mod": sympy.Mod,
        "sin": sympy.sin, "cos": sympy.cos, "tan": sympy.tan, "cot": sympy.cot, "sec": sympy.sec, "csc": sympy.csc,
        "sinh": sympy.sinh, "cosh": sympy.cosh, "tanh": sympy.tanh, "coth": sympy.coth, "sech": sympy.sech,
     "csch": sympy.csch,
        "asin": sympy.asin, "acos": sympy.acos, "atan": sympy.atan, "acot": sympy.acot, "asec": sympy.asec,
     "acsc": sympy.acsc,
        "asinh": sympy.asinh, "acosh": sympy.acosh, "atanh": sympy.atanh,
    }  # fmt: skip
    if name in ("lg", "lb"):
        return sympy.log(args[0], 10 if name == "lg" else 2)
    if name in named:
        return named[name](*args)
    if name in ("sum", "product"):
        return (sympy.Sum if name == "sum" else sympy.Product)(args[0], tuple(args[1:])).doit()
    if name == "integral":
        return sympy.Integral(args[0], tuple(args[1:]) if len(args) > 2 else args[1]).doit()
    if name == "limit":
        return _limit(*args)
    if name.endswith("()"):
        return sympy.Function(name[:-2])(*args)
    raise Unreadable(f"{name} has no counterpart in sympy")


def _limit(body: Any, variable: Any, point: Any, side: Any = None) -> Any:
    """A limit from the side that a sign names, else from both. Raises Unreadable where the sides differ."""
    import sympy

    if side is not None or point.is_infinite:
        return sympy.limit(body, variable, point, "+" if side is None or side > 0 else "-")
    try:
        return sympy.limit(body, variable, point, "+-")
    except ValueError as error:
        raise Unreadable(f"has no limit: {error}") from None


def symbolic_equal(a: Node, b: Node) -> bool | None:
    """Whether two scalar trees are equal, None where sympy cannot tell.

    May take any time: call it through `evaluators.workers.pool.run_symbolic`, which holds it to a deadline.
    """
    import sympy

    try:
        difference = to_sympy(a) - to_sympy(b)
    except Unreadable:
        return None
    simplified = sympy.simplify(difference)
    if simplified == 0:
        return True
    return False if simplified.is_zero is False else None
