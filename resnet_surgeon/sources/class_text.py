"""The text of a class, parsed within bounds: its methods and the values of its attributes. Nothing of it is run."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections.abc import Mapping, Sequence

from resnet_surgeon.dataclass import dataclass

_MOST_TOKENS = 1000  # of a statement: deeper expressions could exhaust the stack of Python's parser
_MOST_BRANCHES = 100  # `elif`s of a class, each of which lies in the one before it
_LONGEST_LINE = 100  # characters of one that is shown


@dataclass(frozen=True, eq=False)
class ClassText:
    """The text of a class: its lines, the names of its bases, its methods, those of them that are plain functions, the
    names of its attributes, and the first line that is none of these.
    """

    lines: Sequence[str]
    first: str
    bases: Sequence[str]
    methods: Mapping[str, ast.FunctionDef]
    plain: frozenset[str]
    values: frozenset[str]
    odd: str | None


def parsed(text: str) -> ClassText | None:
    """The class that the text defines; None for what Python 3 does not parse, or what no class looks like."""
    text = f"if True:\n{text}" if text[:1] in " \t" else text
    if not _is_shallow(text):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(text).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    if len(body) == 1 and isinstance(body[0], ast.If):
        body = body[0].body
    if len(body) != 1 or not isinstance(body[0], ast.ClassDef):
        return None
    lines = text.split("\n")
    methods: dict[str, ast.FunctionDef] = {}
    values: set[str] = set()
    odd: list[ast.AST] = [*body[0].decorator_list, *body[0].keywords]
    for node in body[0].body:
        match node:
            case ast.FunctionDef(name) if name not in values:
                methods[name] = node
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), _, value) if name not in methods:
                values |= {name} if value else set()
            case ast.ClassDef(name) if name not in methods:
                values.add(name)
            case ast.Pass() | ast.Expr(ast.Constant()):
                pass
            case _:
                odd.append(node)
    plain = {name for name, function in methods.items() if _is_plain(function)}
    bases = [getattr(base, "attr", getattr(base, "id", "")) for base in body[0].bases]
    return ClassText(
        lines, line_of(lines, body[0]), bases, methods, frozenset(plain), frozenset(values),
        line_of(lines, odd[0]) if odd else None,
    )  # fmt: skip


def line_of(lines: Sequence[str], node: ast.AST) -> str:
    return lines[getattr(node, "lineno", 1) - 1].strip()[:_LONGEST_LINE]


def _is_shallow(text: str) -> bool:
    """Whether no statement in it is long enough to lie too deep for a parser."""
    count = branches = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type not in (tokenize.COMMENT, tokenize.NL):
                count = 0 if token.type == tokenize.NEWLINE else count + 1
            branches += token.string == "elif"
            if count > _MOST_TOKENS or branches > _MOST_BRANCHES:
                return False
    except (tokenize.TokenError, SyntaxError, ValueError, RecursionError):
        return False
    return True


def _is_plain(function: ast.FunctionDef) -> bool:
    """Whether a call of it runs its statements, and returns what they say."""
    odd = (ast.Yield, ast.YieldFrom, ast.Await, ast.Global, ast.Nonlocal)
    return not function.decorator_list and not any(isinstance(node, odd) for node in ast.walk(function))
