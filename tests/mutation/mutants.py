"""The mutants of a module: its text with one small fault. Knows nothing of tests."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.Mod: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.Pow: ast.Mult,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """`before` in a line became `after`, and nothing else changed; `text` is the whole module."""

    line: int
    before: str
    after: str
    text: str

    def __str__(self) -> str:
        return f"{self.line}: {self.before}  ->  {self.after}"


def mutants_in(source: str) -> int:
    """How many mutants a module has: comparisons at their bounds and turned round, arithmetic, `and` for `or`, a
    condition's opposite, numbers one larger, and calls and errors left out.
    """
    mutation = _Mutation(None)
    mutation.visit(ast.parse(source))
    return mutation.seen


def mutant(source: str, number: int) -> Mutant:
    """The mutant of a module that has this number, from 0."""
    mutation = _Mutation(number)
    mutated = mutation.visit(ast.parse(source))
    if mutation.at is None:
        raise IndexError(number)
    line, before, after = mutation.at
    return Mutant(line, before, after, ast.unparse(ast.fix_missing_locations(mutated)))


class _Mutation(ast.NodeTransformer):
    """Changes the one place of all that has this number, in the order of visiting, or only counts them."""

    def __init__(self, number: int | None) -> None:
        self.number = number
        self.seen = 0
        self.at: tuple[int, str, str] | None = None

    def visit(self, node: ast.AST) -> ast.AST:
        if self.at is not None:
            return node
        for changed in _changes(node):
            if self.seen == self.number:
                self.at = (getattr(node, "lineno", 0), _shown(node), _shown(changed))
                return changed
            self.seen += 1
        visited: ast.AST = super().visit(node)
        return visited

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self.visit(node.value)  # type: ignore[assignment]
        return node

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        return node  # defaults are values of options, and annotations do nothing

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.body = [self.visit(statement) for statement in node.body]  # type: ignore[misc]
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        return node if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        return node if node.arg == "strict" else self.generic_visit(node)  # which only says what holds anyway

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return node  # words


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """The node with one fault in itself, not in what it is made of."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
        yield _with(node, ops=[_COMPARISONS[type(node.ops[0])]()])
    elif isinstance(node, ast.BoolOp):
        yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        yield from (_with(node, values=[*node.values[:at], *node.values[at + 1 :]]) for at in range(len(node.values)))
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in _ARITHMETIC and not _is_text(node):
        yield _with(node, op=_ARITHMETIC[type(node.op)]())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield node.operand
    elif isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield ast.Pass()


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _is_text(node: ast.BinOp | ast.AugAssign) -> bool:
    return any(_is_word(side) for side in ast.iter_child_nodes(node))


def _is_word(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)))


def _shown(node: ast.AST) -> str:
    line = " ".join(ast.unparse(node).split())
    return line if len(line) <= 80 else f"{line[:77]}..."
