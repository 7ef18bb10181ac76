"""Cut an answer into tokens: numbers, words, commands with their text, brackets and signs."""

from __future__ import annotations

import re

from evaluators.parsing.tree import TooLarge

MAX_TOKENS = 2000

_TOKEN = re.compile(
    r"""
      \\(?:text|textbf|textit|textrm|textsf|textsc|texttt|mathrm|mbox|hbox|mathbf|mathit|mathsf|mathbb|mathcal
          |mathfrak|boldsymbol|bm|operatorname\*?|begin|end|rm|bf|emph|textup|textnormal|vec|hat|tilde|bar|dot|ddot)\s*
        \{[^{}]*\}
    | \\[a-zA-Z]+
    | \\.
    | \d+\s+\d+\s*/\s*\d+(?![\d.])                     # a mixed number in plain text
    | (?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+(?![\d.]))?
    | [A-Za-z]+
    | \*\* | <=> | [<>=!]= | =< | -> | =>
    | \S
    """,
    re.VERBOSE | re.DOTALL,
)
_SKIPPED = frozenset((
    "\\", "\\\t", "\\\n", "\\ ", "\\!", "\\,", "\\-", "\\/", "\\:", "\\;", "\\>", "\\Big", "\\Bigg", "\\Biggl",
    "\\Biggr", "\\Bigl", "\\Bigr", "\\Large", "\\allowbreak", "\\bf", "\\big", "\\bigg", "\\biggl", "\\biggr",
    "\\bigl", "\\bigr", "\\bm", "\\boldsymbol", "\\displaystyle", "\\enspace", "\\hfill", "\\hline",
    "\\hspace", "\\it", "\\large", "\\left", "\\limits", "\\mathbf", "\\mathclose", "\\mathit", "\\mathopen",
    "\\mathrm", "\\mathsf", "\\mathstrut", "\\mbox", "\\medspace", "\\middle", "\\negthinspace", "\\nolimits",
    "\\normalsize", "\\operatorname", "\\qquad", "\\quad", "\\relax", "\\right", "\\rm", "\\scriptstyle",
    "\\small", "\\strut", "\\text", "\\textbf", "\\textit", "\\textstyle", "\\thickspace", "\\thinspace",
    "\\tt", "~",
))  # fmt: skip
_NULL_DELIMITER = re.compile(r"\\(?:left|right)\s*\.(?!\d)")


def tokenize(text: str) -> list[str]:
    """Tokens of a cleaned answer. Raises TooLarge past 2,000 of them."""
    if "\\" not in text:
        tokens = _TOKEN.findall(text)
    else:
        if r"\left" in text or r"\right" in text:
            text = _NULL_DELIMITER.sub("", text)
        tokens = [token for token in _TOKEN.findall(text) if token not in _SKIPPED]
    if len(tokens) > MAX_TOKENS:
        raise TooLarge(f"found {len(tokens)} tokens, read at most {MAX_TOKENS}")
    return tokens


_NAMED_AS_WRITTEN = (
    "sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "sech", "csch", "log", "ln",
    "lg", "exp", "cis", "abs", "floor", "ceil", "gcd", "lcm", "min", "max", "arg", "det", "sgn", "sign", "erf", "Re",
    "Im", "conjugate",
)  # fmt: skip
FUNCTIONS = {
    **{name: name for name in _NAMED_AS_WRITTEN},
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot", "arcsec": "asec", "arccsc": "acsc",
    "asin": "asin", "acos": "acos", "atan": "atan", "acot": "acot", "arcsinh": "asinh", "arccosh": "acosh",
    "arctanh": "atanh", "asinh": "asinh", "acosh": "acosh", "atanh": "atanh", "arsinh": "asinh", "arcosh": "acosh",
    "artanh": "atanh", "tg": "tan", "ctg": "cot", "cosec": "csc", "ceiling": "ceil", "Abs": "abs", "Log": "log",
    "log10": "lg", "log2": "lb", "arctg": "atan", "sgn": "sign",
    "GCD": "gcd", "LCM": "lcm", "Max": "max", "Min": "min", "Mod": "mod", "mod": "mod",
}  # fmt: skip
GREEK = frozenset((
    "Delta", "Gamma", "Lambda", "Omega", "Phi", "Pi", "Psi", "Sigma", "Theta", "Upsilon", "Xi", "aleph",
    "alpha", "angle", "beta", "bullet", "chi", "dagger", "delta", "ell", "epsilon", "eta", "gamma", "hbar",
    "imath", "infin", "iota", "jmath", "kappa", "lambda", "mho", "mu", "nabla", "nu", "odot", "omega", "oplus",
    "partial", "phi", "psi", "rho", "sigma", "square", "star", "tau", "theta", "triangle", "upsilon",
    "varepsilon", "varphi", "varrho", "varsigma", "vartheta", "xi", "zeta",
))  # fmt: skip
CONSTANTS = {"pi": "pi", "Pi": "pi", "e": "e", "i": "i", "oo": "oo", "inf": "oo", "infinity": "oo", "infty": "oo",
             "Infinity": "oo", "infinite": "oo", "INF": "oo", "Inf": "oo", "INFINITY": "oo",
             "PI": "pi", "E": "E", "I": "I"}  # fmt: skip
RELATIONS = {
    "=": "=", "==": "=", "<": "<", ">": ">", "<=": "<=", "=<": "<=", ">=": ">=", "!=": "!=",
    r"\le": "<=", r"\leq": "<=", r"\leqslant": "<=", r"\leqq": "<=", r"\ge": ">=", r"\geq": ">=", r"\geqslant": ">=",
    r"\geqq": ">=", r"\ne": "!=", r"\neq": "!=", r"\lt": "<", r"\gt": ">", r"\in": "in", r"\notin": "notin",
    r"\approx": "~", r"\simeq": "~", r"\cong": "~", r"\equiv": "==", r"\sim": "~", r"\doteq": "~", r"\to": "->",
    r"\rightarrow": "->", r"\longrightarrow": "->", "->": "->", r"\mapsto": "->", r"\perp": "perp",
    r"\parallel": "parallel", r"\subset": "subset",
    r"\subseteq": "subseteq", "=>": "=>", r"\implies": "=>", r"\Rightarrow": "=>", r"\propto": "propto",
    r"\iff": "<=>", r"\Leftrightarrow": "<=>", "<=>": "<=>",
}  # fmt: skip
