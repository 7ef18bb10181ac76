"""Brackets, bars, sets, roots and matrices."""

from __future__ import annotations

from evaluators.parsing.grammar import CLOSERS, LIST, OPENERS, TEXT, joined, plain
from evaluators.parsing.normalize import words
from evaluators.parsing.token_stream import Cursor
from evaluators.parsing.tokens import CONSTANTS
from evaluators.parsing.tree import EMPTY_SET, Node, TooLarge, Unreadable

_FILLERS = frozenset(("if", "is", "are", "when", "for", "where", "an", "a"))


class Brackets(Cursor):
    """Reads what stands between brackets, bars and environments."""

    __slots__ = ()

    def bracket(self, opener: str) -> Node:
        """Round or square brackets: a group, a tuple, or an interval."""
        bars, self.bars = self.bars, 0
        if opener == "(" and self.accept(")"):
            return Node("tuple", (), "(")
        inside = self.sequence()
        self.bars = bars
        if opener == "]":  # ]a, b[
            closer = self.close("[", "]")
            opener, closer = "(", ")" if closer == "[" else "]"
        elif opener == "[" and self.peek() == "[":
            self.at += 1
            closer = ")"
        else:
            closer = self.close(")", "]") if opener == "(" else self.close("]", ")")
        if opener == "[" and self.peek() == "_" and inside.op not in ("list", "num"):
            return self.evaluated(inside)
        if inside.op != "list" or inside.value == "or":
            if opener + closer in ("()", "[]"):
                return inside if inside.op != "list" else Node("list", inside.args, "or")
            raise Unreadable(f"found {opener!r} closed by {closer!r}")
        if len(inside.args) == 2 and opener + closer != "()":
            return Node("interval", inside.args, opener + closer)
        if opener + closer not in ("()", "[]"):
            raise Unreadable(f"found {opener!r} closed by {closer!r}")
        return Node("tuple", inside.args, opener)

    def absolute(self) -> Node:
        """An absolute value between bars."""
        self.bars += 1
        inside = self.expression(LIST)
        self.bars -= 1
        self.close("|")
        return Node("fn", (inside,), "abs")

    def norm(self, closer: str) -> Node:
        """A norm or absolute value between command bars."""
        end = self.tokens.index(closer, self.at) if closer in self.tokens[self.at :] else -1
        if end < 0:
            raise Unreadable(f"found a bar without its {closer}")
        self.tokens[end] = "|"
        return self.absolute()

    def braces(self) -> Node:
        r"""A set in \{ \}; what follows a bar or colon is its condition."""
        if self.accept(r"\}") or self.accept(r"\rbrace"):
            return EMPTY_SET
        self.mark_condition()
        bars, self.bars = self.bars, 0
        inside = self.sequence()
        self.bars = bars
        if self.peek() == r"\mid":
            self.at += 1
            condition = self.sequence()
            self.close(r"\}", "}", r"\rbrace")
            return Node("builder", (inside, condition))
        self.close(r"\}", "}", r"\rbrace")
        return Node("set", inside.args if inside.op == "list" else (inside,))

    def mark_condition(self) -> None:
        """Write the bar or colon before a set's condition as \\mid, which nothing else uses."""
        level, bars = 0, []
        for place in range(self.at, len(self.tokens)):
            token = self.tokens[place]
            if not level and token in ("|", ":"):
                bars.append(place)
            level += token in OPENERS
            level -= token in CLOSERS
            if level < 0:
                break
        if len(bars) % 2:
            self.tokens[bars[0]] = r"\mid"

    def angle(self) -> Node:
        """A vector in angle brackets."""
        inside = self.sequence()
        self.close(r"\rangle", ">")
        return Node("tuple", inside.args if inside.op == "list" else (inside,), "(")

    def root(self) -> Node:
        """A root with its degree, 2 where none is written."""
        degree = Node("num", (), 2)
        if self.accept("["):
            degree = self.sequence()
            self.close("]")
        return Node("root", (self.argument_of_root(), degree))

    def argument_of_root(self) -> Node:
        """The radicand: a group, a bracket, or one operand."""
        if self.peek() == "{":
            return self.group()
        if self.peek() == "(":
            self.at += 1
            inside = self.sequence()
            self.close(")")
            return inside
        if self.peek() == "-":
            raise Unreadable("found a root without its radicand")
        if self.peek().isalpha() and self.peek() not in CONSTANTS and len(self.peek()) > 1:
            self.tokens[self.at : self.at + 1] = list(self.peek())
        return self.operand()

    def environment(self, name: str) -> Node:
        """A matrix, the cases of a function, a system, or aligned equations."""
        if name == "array" and self.peek() == "{":
            while self.at < len(self.tokens) and not self.accept("}"):
                self.at += 1
        rows = self.rows(worded=name in ("cases", "dcases", "rcases"))
        if name in ("cases", "dcases", "rcases") and all(len(row) == 1 and row[0].op == "rel" for row in rows):
            return Node("list", tuple(row[0] for row in rows), ",")  # a system
        if name in ("cases", "dcases", "rcases"):
            return Node("cases", tuple(cell for row in rows for cell in row))
        if name in ("aligned", "align", "gathered", "split", "equation", "gather"):
            items = tuple(joined(row) for row in rows)
            return items[0] if len(items) == 1 else Node("list", items, ",")
        width = max(len(row) for row in rows)
        if any(len(row) != width for row in rows):
            raise Unreadable("found a matrix with rows of different lengths")
        return Node("matrix", tuple(Node("row", tuple(row)) for row in rows), name)

    def rows(self, worded: bool) -> list[list[Node]]:
        """The cells of an environment, row by row; what stands behind the first may be in words."""
        rows: list[list[Node]] = [[]]
        while self.at < len(self.tokens):
            token = self.peek()
            if token.startswith(r"\end"):
                self.at += 1
                break
            self.at += token in ("&", "\\\\", ",")
            if token == "\\\\":
                rows.append([])
            elif token not in ("&", ","):
                rows[-1].append(self.condition() if worded and rows[-1] else self.cell())
        rows = [row for row in rows if row]
        if not rows:
            raise Unreadable("found an empty environment")
        return rows

    def condition(self) -> Node:
        """When a case applies: relations, or words such as "n is even"."""
        start, depth = self.at, self.depth
        try:
            cell = self.cell()
            if self.peek() in ("&", "\\\\", ",", "") or self.peek().startswith(r"\end"):
                return cell
        except TooLarge:
            raise
        except Unreadable:
            pass
        self.at, self.depth = start, depth
        said: list[str] = []
        while self.peek() not in ("&", "\\\\", "") and not self.peek().startswith(r"\end"):
            said += words(plain(self.peek())).split()
            self.at += 1
        kept = " ".join(word for word in said if word not in _FILLERS)
        if not kept:
            raise Unreadable("found a case without its condition")
        return Node("text", (), kept)

    def cell(self) -> Node:
        """One cell; a condition in words becomes text."""
        token = self.peek()
        match = TEXT.fullmatch(token) if token[:1] == "\\" else None
        if match and match[1].startswith(("text", "mbox")):
            self.at += 1
            content = match[2].strip().lower()
            if content in ("if", "for", "when", "where"):
                return self.cell()
            return Node("text", (), content)
        return self.expression(LIST)
