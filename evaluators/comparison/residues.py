"""Values modulo a prime: exact for polynomials and rational functions, at a fraction of the price of digits."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any
from zlib import crc32

from evaluators.comparison.numeric import exact
from evaluators.parsing.tree import Node, TooLarge

PRIME = (1 << 127) - 1  # a Mersenne prime: two unequal rational functions agree at a random point once in 2**120


@lru_cache(maxsize=1024)
def residue_of_name(name: str, point: int) -> int:
    """A fixed pseudo-random residue for a variable."""
    state = crc32(f"{name}|{point}".encode("utf-8", "backslashreplace"))
    for _ in range(4):
        state = (state * 6364136223846793005 + 1442695040888963407) % PRIME
        state ^= state >> 31
    return state % PRIME


def residue(node: Node, point: int) -> int | None:
    """The value modulo PRIME at a point, None where the tree is no rational function.

    A constant such as pi counts as a variable: it satisfies no polynomial equation.
    """
    op = node.op
    if op == "num":
        value = node.value
        return value % PRIME if isinstance(value, int) else value.numerator * pow(value.denominator, -1, PRIME) % PRIME
    if op == "sym" or (op == "const" and node.value in ("pi", "e")):
        return residue_of_name(node.value if op == "sym" else f"the constant {node.value}", point)
    if op == "add" or op == "mul":
        total = 0 if op == "add" else 1
        for arg in node.args:
            part = residue(arg, point)
            if part is None:
                return None
            total = (total + part if op == "add" else total * part) % PRIME
        return total
    if op == "pow":
        exponent: Any = exact(node.args[1])
        if exponent is None or Fraction(exponent).denominator != 1:
            return None
        base = residue(node.args[0], point)
        if base is None or (base == 0 and exponent < 0):
            return None
        if abs(exponent) >= 1 << 64:
            raise TooLarge("an exponent here has more than 64 bits")
        return pow(base, int(exponent), PRIME)
    if op == "dec" or op == "percent" or op == "root":
        value = exact(node)
        return (
            None if value is None else Fraction(value).numerator * pow(Fraction(value).denominator, -1, PRIME) % PRIME
        )
    return None
