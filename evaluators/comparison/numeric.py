"""The value of a tree: exact rationals, values modulo a prime, and 40-digit arithmetic at random points.

Size is looked at before anything is computed, so that no power, factorial or function can take long.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from fractions import Fraction
from typing import Any
from zlib import crc32

from evaluators.parsing.tree import Node, TooLarge, Unreadable, walk

MAX_BITS = 1 << 14  # of an exact value
MAX_FACTORIAL = 3000
DIGITS = 40
_LOG2_10 = 3.3219280948873626


class OutOfBudget(TooLarge):
    """The comparison has used up its numeric work."""


class Undefined(Unreadable):
    """The expression has no value, as 1/0 has none."""


Rational = int | Fraction


def exact(node: Node) -> Rational | None:
    """The value where it is rational and the tree says so, else None. Raises TooLarge and Undefined."""
    op = node.op
    if op == "num":
        return node.value
    if op == "dec":
        mantissa, places, _ = node.value
        return Fraction(mantissa, 10**places) if places > 0 else mantissa * 10**-places
    if op == "add" or op == "mul":
        total: Rational = 0 if op == "add" else 1
        for arg in node.args:
            value = exact(arg)
            if value is None:
                return None
            total = total + value if op == "add" else total * value
            _check_size(total, len(node.args))
        return total
    if op == "pow":
        return _exact_power(node)
    if op == "root":
        return _exact_root(exact(node.args[0]), exact(node.args[1]))
    if op == "percent":
        value = exact(node.args[0])
        return None if value is None else Fraction(value) / 100
    if op == "fn":
        return _exact_function(node)
    if op == "base":
        return int(node.value[0], node.value[1])
    return None


def _check_size(value: Rational, terms: int = 1) -> None:
    """Refuse what would take long: one great number, or many that are great together."""
    bits = (
        value.bit_length() if isinstance(value, int) else value.numerator.bit_length() + value.denominator.bit_length()
    )
    if bits > MAX_BITS or bits * terms > 16 * MAX_BITS:
        raise TooLarge("a number here has more than 16,384 bits")


def _exact_power(node: Node) -> Rational | None:
    base, exponent = exact(node.args[0]), exact(node.args[1])
    if base is None or exponent is None:
        return None
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        exponent = exponent.numerator
    if isinstance(exponent, Fraction):
        if base < 0 or exponent.denominator > 64:
            return None
        root = _exact_root(base, exponent.denominator)
        if root is None:
            return None
        base, exponent = root, exponent.numerator
    if base == 0 and exponent <= 0:
        if exponent == 0:
            return 1
        raise Undefined("divides by zero")
    if base in (0, 1):
        return base
    if base == -1:
        return -1 if exponent % 2 else 1
    bits = max(abs(Fraction(base).numerator).bit_length(), Fraction(base).denominator.bit_length())
    if exponent.bit_length() > 20 or bits * abs(exponent) > MAX_BITS:
        raise TooLarge("a power here has more than 16,384 bits")
    return Fraction(base) ** exponent if exponent < 0 or isinstance(base, Fraction) else base**exponent


def _exact_root(base: Rational | None, degree: Rational | None) -> Rational | None:
    if base is None or degree is None or degree not in range(1, 65):
        return None
    if base < 0:
        if not int(degree) % 2:
            return None
        root = _exact_root(-base, degree)
        return None if root is None else -root
    fraction = Fraction(base)
    top, bottom = _integer_root(fraction.numerator, int(degree)), _integer_root(fraction.denominator, int(degree))
    if top is None or bottom is None:
        return None
    return top if bottom == 1 else Fraction(top, bottom)


def _integer_root(value: int, degree: int) -> int | None:
    """The integer whose power the value is, None where there is none."""
    if degree == 2:
        root = math.isqrt(value)
        return root if root * root == value else None
    if value.bit_length() > 1000:
        return None
    low, high = 0, 1 << (value.bit_length() // degree + 1)
    while low < high:
        middle = (low + high) // 2
        if middle**degree < value:
            low = middle + 1
        else:
            high = middle
    return low if low**degree == value else None


def _exact_function(node: Node) -> Rational | None:
    values = [exact(arg) for arg in node.args]
    if any(value is None for value in values):
        return None
    name = node.value
    first: Any = values[0] if values else None
    whole = all(Fraction(value).denominator == 1 for value in values)  # type: ignore[arg-type]
    if name == "abs" and len(values) == 1:
        return abs(first)
    if name == "floor":
        return math.floor(first)
    if name == "ceil":
        return math.ceil(first)
    if name in ("max", "min"):
        return max(values) if name == "max" else min(values)  # type: ignore[type-var]
    if not whole:
        return None
    if name in ("factorial", "factorial2"):
        if first < 0:
            raise Undefined("takes the factorial of a negative number")
        if first > MAX_FACTORIAL:
            raise TooLarge(f"a factorial here is of more than {MAX_FACTORIAL}")
        return math.factorial(int(first)) if name == "factorial" else math.prod(range(int(first), 0, -2))
    if name == "binomial" and len(values) == 2:
        top, bottom = int(first), int(values[1])  # type: ignore[arg-type]
        if top < 0 or bottom < 0:
            return None
        if min(bottom, abs(top - bottom)) > MAX_FACTORIAL or top.bit_length() > 64:
            raise TooLarge("a binomial here is too large")
        return math.comb(top, bottom)
    if name in ("gcd", "lcm"):
        return (math.gcd if name == "gcd" else math.lcm)(*(int(value) for value in values))  # type: ignore[arg-type]
    if name == "mod" and len(values) == 2 and values[1]:
        return first % values[1]
    return None


# 40 digits, with mpmath.

MAX_WORK = 6_000  # steps of one comparison, about 30 ms; a function of 40 digits counts as ten
_NO_QUADRATURE = frozenset(("integral", "limit", "sum", "product", "floor", "ceil", "sign", "mod", "abs", "max", "min"))
INTEGRAL_WORK = 60_000  # steps of one integral
_contexts = threading.local()  # mpmath's precision belongs to its context: one for each thread


def _context() -> Any:
    if not hasattr(_contexts, "mp"):
        import mpmath

        _contexts.mp = mpmath.MPContext()
        _contexts.mp.work = MAX_WORK
    return _contexts.mp


def fresh_budget() -> None:
    """Allow a new comparison its full measure of numeric work."""
    if hasattr(_contexts, "mp"):
        _contexts.mp.work = MAX_WORK


def digits_needed(*nodes: Node) -> int:
    """Digits that tell the trees' constants apart: 40, and more where the trees show long numbers."""
    shown = 0
    for node in nodes:
        for part in walk(node):
            if part.op == "num":
                value = part.value
                bits = (
                    value.bit_length() if isinstance(value, int) else (value.numerator * value.denominator).bit_length()
                )
                shown += bits
            elif part.op == "dec":
                shown += abs(part.value[1]) * 4 + part.value[0].bit_length()
            elif part.op == "pow":
                try:
                    exponent: Any = exact(part.args[1])
                    base = exact(part.args[0])
                except Unreadable:
                    continue
                if exponent is not None and base is not None:
                    shown += math.ceil(abs(exponent)) * max(
                        Fraction(base).numerator.bit_length(), Fraction(base).denominator.bit_length()
                    )
    return DIGITS + min(2000, int(min(shown, 10_000) / _LOG2_10) + 1)  # an int may be too large for a float


def value_at(node: Node, point: Mapping[str, Any], digits: int) -> Any:
    """The real or complex value at a point, as mpmath's. Raises Undefined, TooLarge, Unreadable."""
    ctx = _context()
    ctx.dps = digits
    try:
        value = _value(node, point, ctx)
    except (ZeroDivisionError, ValueError, OverflowError, ctx.NoConvergence) as error:
        if isinstance(error, Unreadable):
            raise
        raise Undefined(f"has no value here: {error}") from None
    if ctx.isnan(value) or ctx.isinf(value):
        raise Undefined("has no finite value here")
    return value


def _value(node: Node, point: Mapping[str, Any], ctx: Any) -> Any:
    op = node.op
    ctx.work -= (10 if op == "fn" or op == "pow" or op == "root" else 1) * (1 + ctx.dps // 80)
    if ctx.work < 0:
        raise OutOfBudget("the comparison takes too many steps")
    if op == "num":
        value = node.value
        return ctx.mpf(value) if isinstance(value, int) else ctx.mpf(value.numerator) / value.denominator
    if op == "dec":
        mantissa, places, _ = node.value
        return ctx.mpf(mantissa) / ctx.mpf(10) ** places
    if op == "sym":
        value = point.get(node.value)
        if value is None:
            raise Unreadable(f"{node.value} has no value")
        return ctx.mpf(value.numerator) / value.denominator
    if op == "const":
        return _constant(node.value, ctx)
    if op == "dummy":
        if f"dummy {node.value}" not in point:
            raise Unreadable("an integral or limit is not evaluated")
        return ctx.mpf(point[f"dummy {node.value}"])
    if op == "fn" and node.value in ("sum", "product"):
        return _series(node, point, ctx)
    if op == "fn" and node.value == "integral" and len(node.args) == 4:
        return _integral(node, point, ctx)
    if op == "fn" and node.value in ("integral", "limit"):
        raise Unreadable(f"a {node.value} is not evaluated")
    if op == "add":
        return ctx.fsum(_value(arg, point, ctx) for arg in node.args)
    if op == "mul":
        product = ctx.one
        for arg in node.args:
            product = product * _value(arg, point, ctx)
        return product
    if op == "pow":
        return _power(_value(node.args[0], point, ctx), _value(node.args[1], point, ctx), ctx)
    if op == "root":
        return _root(_value(node.args[0], point, ctx), _value(node.args[1], point, ctx), ctx)
    if op == "percent":
        return _value(node.args[0], point, ctx) / 100
    if op == "deg":
        return _value(node.args[0], point, ctx) * ctx.pi / 180
    if op == "base":
        return ctx.mpf(int(node.value[0], node.value[1]))
    if op == "fn":
        return _function(node.value, [_value(arg, point, ctx) for arg in node.args], ctx)
    raise Unreadable(f"a {op} has no number for its value")


def _series(node: Node, point: Mapping[str, Any], ctx: Any) -> Any:
    """A finite sum or product, term by term."""
    body, dummy, low, high = node.args
    if any(part.op == "const" and part.value == "oo" for bound in (low, high) for part in walk(bound)):
        raise Unreadable("an infinite sum is not evaluated")
    first, last = _value(low, point, ctx), _value(high, point, ctx)
    nested = any(part.op == "fn" and part.value in ("sum", "product") for part in walk(body))
    if not (ctx.isint(first) and ctx.isint(last)):
        raise Unreadable("the bounds of a sum are no integers here")
    if last - first > (20 if nested else 1000):
        raise TooLarge("a sum here has more than 1,000 terms")
    total = ctx.zero if node.value == "sum" else ctx.one
    for index in range(int(first), int(last) + 1):
        term = _value(body, {**point, f"dummy {dummy.value}": index}, ctx)
        total = total + term if node.value == "sum" else total * term
    return total


def _integral(node: Node, point: Mapping[str, Any], ctx: Any) -> Any:
    """A definite integral by quadrature, where its estimated error is below the digits compared; else Unreadable.

    Spares most honest integrals the symbolic tier, which takes a hundred times as long.
    """
    body, dummy, low, high = node.args
    hard = any(part.op == "fn" and part.value in _NO_QUADRATURE for part in walk(body))
    if ctx.dps > 2 * DIGITS or hard:
        raise Unreadable("an integral is not evaluated here")
    bounds = [_bound(low, point, ctx), _bound(high, point, ctx)]
    work, ctx.work = ctx.work, INTEGRAL_WORK
    digits = ctx.dps
    try:
        ctx.dps = digits + 10
        value, error = ctx.quad(lambda at: _at(body, f"dummy {dummy.value}", at, point, ctx), bounds, error=True)
    except (ZeroDivisionError, ValueError, OverflowError, ctx.NoConvergence) as reason:  # Unreadable is a ValueError
        raise Unreadable(f"an integral is not evaluated: {reason}") from None
    finally:
        ctx.dps, ctx.work = digits, work
    if not error < ctx.mpf(10) ** -(digits - 2) * max(1, abs(value)):
        raise Unreadable("an integral does not converge fast enough to be evaluated")
    return value


def _bound(node: Node, point: Mapping[str, Any], ctx: Any) -> Any:
    infinite = [part for part in walk(node) if part.op == "const" and part.value == "oo"]
    if not infinite:
        return _value(node, point, ctx)
    if node == infinite[0]:
        return ctx.inf
    if node.op == "mul" and len(node.args) == 2 and node.args[0].value == -1:
        return -ctx.inf
    raise Unreadable("a bound of the integral is not evaluated")


def _at(body: Node, name: str, at: Any, point: Mapping[str, Any], ctx: Any) -> Any:
    return _value(body, {**point, name: at}, ctx)


def _constant(name: str, ctx: Any) -> Any:
    if name == "pi":
        return +ctx.pi
    if name == "e":
        return +ctx.e
    if name == "i":
        return ctx.mpc(0, 1)
    raise Undefined(f"{name} is no number")


def _power(base: Any, exponent: Any, ctx: Any) -> Any:
    if base == 0:
        if ctx.re(exponent) > 0:
            return ctx.zero
        if exponent == 0:
            return ctx.one
        raise Undefined("divides by zero")
    if ctx.mag(exponent) > 40 or abs(exponent) * (abs(ctx.mag(base)) + 2) > 1_000_000:
        raise TooLarge("a power here has more than a million bits")
    if ctx.isint(exponent):
        return base ** int(exponent.real)
    return ctx.power(base, exponent)


def _root(base: Any, degree: Any, ctx: Any) -> Any:
    """The real root where there is one, else the principal one."""
    if degree == 0:
        raise Undefined("takes a root of degree 0")
    if degree == 2:
        return ctx.sqrt(base)
    if ctx.im(base) == 0 and ctx.re(base) < 0 and ctx.isint(degree) and int(degree) % 2:
        return -_power(-base, 1 / degree, ctx)
    return _power(base, 1 / degree, ctx)


_TRIGONOMETRIC = frozenset(
    [
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "sinh",
        "cosh",
        "tanh",
        "coth",
        "sech",
        "csch",
        "asin",
        "acos",
        "atan",
        "acot",
        "asec",
        "acsc",
        "asinh",
        "acosh",
        "atanh",
    ]
)


def _function(name: str, args: list[Any], ctx: Any) -> Any:
    first = args[0]
    if name in _TRIGONOMETRIC and len(args) == 1:
        if ctx.mag(first) > (200 if name[-1] != "h" else 16):
            raise TooLarge(f"the argument of {name} is too large")
        return getattr(ctx, name)(first)
    if name in ("log", "ln", "lg", "lb"):
        if first == 0:
            raise Undefined("takes the logarithm of 0")
        base = args[1] if len(args) > 1 else {"lg": 10, "lb": 2}.get(name)
        return ctx.log(first) if base is None else ctx.log(first) / ctx.log(base)
    if name == "exp":
        if ctx.mag(first) > 20:
            raise TooLarge("the argument of exp is too large")
        return ctx.exp(first)
    if name == "abs":
        return abs(first)
    if name == "sign" and ctx.im(first) == 0:
        return ctx.sign(first)
    if name in ("floor", "ceil") and ctx.im(first) == 0:
        near = ctx.nint(first)
        if abs(first - near) < ctx.mpf(10) ** (-ctx.dps + 10):
            return near
        return (ctx.floor if name == "floor" else ctx.ceil)(first)
    if name in ("factorial", "gamma"):
        if ctx.mag(first) > 16:
            raise TooLarge("the argument of a factorial is too large")
        return ctx.factorial(first) if name == "factorial" else ctx.gamma(first)
    if name == "binomial" and len(args) == 2:
        if max(ctx.mag(first), ctx.mag(args[1])) > 16:
            raise TooLarge("a binomial here is too large")
        return ctx.binomial(*args)
    if name in ("max", "min") and all(ctx.im(arg) == 0 for arg in args):
        return (max if name == "max" else min)(args)
    if name in ("Re", "Im", "conjugate", "arg"):
        return {"Re": ctx.re, "Im": ctx.im, "conjugate": ctx.conj, "arg": ctx.arg}[name](first)
    if name == "mod" and len(args) == 2 and args[1] != 0:
        return first - args[1] * ctx.floor(first / args[1])
    if name.endswith("()") or name == "prime":
        return _uninterpreted(name, args, ctx)
    raise Unreadable(f"{name} is not evaluated")


def _uninterpreted(name: str, args: list[Any], ctx: Any) -> Any:
    """A smooth value that depends on the name and every argument, for functions such as f of which nothing is known."""
    seed = ctx.mpf(crc32(name.encode("utf-8", "backslashreplace")) % 9973 + 1) / 1000
    total = seed
    for place, arg in enumerate(args, start=1):
        if ctx.mag(arg) > 16:
            raise TooLarge(f"the argument of {name} is too large")
        total = total + ctx.sin(arg * seed / (place + 7)) * place + arg / (seed + place + 11)
    return total


def point_of(names: frozenset[str], index: int, kind: str) -> dict[str, Rational]:
    """Values for variables at the index-th point: positive or negative reals, or positive integers."""
    point: dict[str, Rational] = {}
    for name in names:
        noise = crc32(f"{name}#{index}".encode("utf-8", "backslashreplace"))
        if kind == "integer":
            point[name] = noise % 11 + 2
        else:
            value = Fraction(noise % 99991 + 12347, 45131)
            point[name] = value if kind == "positive" else -value
    return point
