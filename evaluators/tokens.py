"""Cut an answer into tokens: numbers, words, commands with their text, brackets and signs."""

from __future__ import annotations

import re

from evaluators.tree import TooLarge

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
_SKIPPED = frozenset(
    r"""\left \right \! \, \; \: \> \  \quad \qquad \displaystyle \textstyle \scriptstyle \limits \nolimits \big \Big
    \bigg \Bigg \bigl \bigr \Bigl \Bigr \biggl \biggr \Biggl \Biggr \middle \mathstrut \strut \hspace \relax \thinspace
    \medspace \thickspace \enspace \negthinspace \, ~ \- \/ \allowbreak \hfill \hline \mathopen \mathclose \rm \bf
    \tt \it \normalsize \large \Large \small \limits \boldsymbol \mathbf \mathit \mathrm \text \textbf \textit \mbox
    \mathsf \operatorname \bm""".split()
) | {"\\ ", "\\\n", "\\\t"}  # fmt: skip
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


FUNCTIONS = {
    **{
        name: name
        for name in "sin cos tan cot sec csc sinh cosh tanh coth sech csch log ln lg exp abs floor ceil gcd lcm min max "
        "arg det sgn sign erf Re Im re im conjugate deg dim ker tr rank".split()
    },
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot", "arcsec": "asec", "arccsc": "acsc",
    "asin": "asin", "acos": "acos", "atan": "atan", "acot": "acot", "arcsinh": "asinh", "arccosh": "acosh",
    "arctanh": "atanh", "asinh": "asinh", "acosh": "acosh", "atanh": "atanh", "arsinh": "asinh", "arcosh": "acosh",
    "artanh": "atanh", "tg": "tan", "ctg": "cot", "cosec": "csc", "ceiling": "ceil", "Abs": "abs", "Log": "log",
    "log10": "lg", "log2": "lb", "ch": "cosh", "sh": "sinh", "th": "tanh", "arctg": "atan", "sgn": "sign",
    "GCD": "gcd", "LCM": "lcm", "mod": "mod",
}  # fmt: skip
for _short in ("re", "im", "ch", "sh", "th", "deg", "dim", "ker", "tr", "rank", "mod"):
    del FUNCTIONS[_short]
GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho varrho sigma "
    "varsigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar "
    "aleph partial nabla mho odot oplus triangle angle square star dagger bullet imath jmath infin".split()
)
CONSTANTS = {"pi": "pi", "Pi": "pi", "e": "e", "i": "i", "oo": "oo", "inf": "oo", "infinity": "oo", "infty": "oo",
             "Infinity": "oo", "infinite": "oo", "PI": "pi", "E": "E", "I": "I"}  # fmt: skip
RELATIONS = {
    "=": "=", "==": "=", "<": "<", ">": ">", "<=": "<=", "=<": "<=", ">=": ">=", "!=": "!=",
    r"\le": "<=", r"\leq": "<=", r"\leqslant": "<=", r"\leqq": "<=", r"\ge": ">=", r"\geq": ">=", r"\geqslant": ">=",
    r"\geqq": ">=", r"\ne": "!=", r"\neq": "!=", r"\lt": "<", r"\gt": ">", r"\in": "in", r"\notin": "notin",
    r"\approx": "~", r"\simeq": "~", r"\cong": "~", r"\equiv": "==", r"\sim": "~", r"\doteq": "~", r"\to": "->",
    r"\rightarrow": "->", "->": "->", r"\mapsto": "->", r"\perp": "perp", r"\parallel": "parallel", r"\subset": "subset",
    r"\subseteq": "subseteq", "=>": "=>", r"\implies": "=>", r"\Rightarrow": "=>", r"\propto": "propto",
    r"\iff": "<=>", r"\Leftrightarrow": "<=>", "<=>": "<=>",
}  # fmt: skip
