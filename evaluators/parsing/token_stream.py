"""A place among tokens, and what every part of the parser needs of it."""

from __future__ import annotations

from evaluators.parsing.tree import Node, TooLarge, Unreadable

MAX_DEPTH = 60
MAX_WRAPS = 150


class Cursor:
    """Tokens and a place among them; every reading method moves the cursor behind what it read."""

    __slots__ = ("at", "bars", "depth", "tokens", "wraps")

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.bars = 0  # absolute values now open
        self.wraps = 0  # postfix operators read, which deepen the tree without recursion

    def peek(self) -> str:
        """The token at the cursor, "" at the end."""
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def accept(self, token: str) -> bool:
        """Step over a token if it is the next one."""
        if self.at < len(self.tokens) and self.tokens[self.at] == token:
            self.at += 1
            return True
        return False

    def close(self, *closers: str) -> str:
        """Step over a closing bracket. A missing `}` or `)` at the very end is forgiven."""
        token = self.peek()
        if token in closers:
            self.at += 1
            return token
        if not token and closers[0] in (")", "}"):
            return closers[0]
        raise Unreadable(f"found {token or 'the end'!r}, expected {closers[0]!r}")

    def wrap(self) -> None:
        """Step over an operator that deepens the tree without recursion."""
        self.at += 1
        self.wraps += 1
        if self.wraps > MAX_WRAPS:
            raise TooLarge(f"found more than {MAX_WRAPS} operators behind their operands")

    # What the parts of the parser call in each other; `evaluators.parsing.parser.Parser` joins them.

    def expression(self, power: int) -> Node:
        """`Parser.expression`."""
        raise NotImplementedError

    def sequence(self) -> Node:
        """`Parser.sequence`."""
        raise NotImplementedError

    def operand(self) -> Node:
        """`Parser.operand`."""
        raise NotImplementedError

    def group(self) -> Node:
        """`Operands.group`."""
        raise NotImplementedError

    def fraction_part(self) -> Node:
        """`Operands.fraction_part`."""
        raise NotImplementedError

    def symbol(self, name: str) -> Node:
        """`Operands.symbol`."""
        raise NotImplementedError

    def function(self, name: str) -> Node:
        """`Functions.function`."""
        raise NotImplementedError

    def plain_function(self, name: str) -> Node:
        """`Functions.plain_function`."""
        raise NotImplementedError

    def arguments(self) -> tuple[Node, ...]:
        """`Functions.arguments`."""
        raise NotImplementedError

    def environment(self, name: str) -> Node:
        """`Brackets.environment`."""
        raise NotImplementedError

    def root(self) -> Node:
        """`Brackets.root`."""
        raise NotImplementedError

    def argument_of_root(self) -> Node:
        """`Brackets.argument_of_root`."""
        raise NotImplementedError

    def starts_operand(self, left: Node, token: str) -> bool:
        """`Parser.starts_operand`."""
        raise NotImplementedError

    def unit_ahead(self, left: Node, token: str) -> bool:
        """`Operands.unit_ahead`."""
        raise NotImplementedError

    def program_form(self, name: str) -> Node:
        """`Operators.program_form`."""
        raise NotImplementedError

    def evaluated(self, node: Node) -> Node:
        """`Operators.evaluated`."""
        raise NotImplementedError

    def subscript(self) -> str:
        """`Operands.subscript`."""
        raise NotImplementedError
