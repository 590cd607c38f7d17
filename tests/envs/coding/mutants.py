"""Broken versions of a program, each with one slip, for tests that must tell good programs from nearly good ones.

A slip is another comparison, operator, condition, number, text or built-in function, a dropped statement, or a
`return None`. Some slips change nothing that a test could see, so no caller may expect that all are caught.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from typing import Any

BOUNDS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}

# What kind of slip it is, and how to make it out of a node.
Change = tuple[str, Callable[[Any], ast.AST]]


def with_field(node: ast.AST, name: str, value: object) -> ast.AST:
    setattr(node, name, value)
    return node


def operator_changes(node: ast.AST) -> Iterator[Change]:
    """Slips in a comparison, a calculation or a condition."""
    if isinstance(node, ast.Compare):
        yield "compare", lambda n: ast.UnaryOp(ast.Not(), n)
        for i, operator in enumerate(node.ops):
            if type(operator) in BOUNDS:
                ops = [*node.ops[:i], BOUNDS[type(operator)](), *node.ops[i + 1 :]]
                yield "compare", lambda n, ops=ops: with_field(n, "ops", ops)
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in OPERATORS:
        yield "arithmetic", lambda n: with_field(n, "op", OPERATORS[type(n.op)]())
        if isinstance(node, ast.BinOp):
            yield "arithmetic", lambda n: n.left
    elif isinstance(node, ast.BoolOp):
        yield "branch", lambda n: with_field(n, "op", ast.And() if isinstance(n.op, ast.Or) else ast.Or())
    elif isinstance(node, (ast.If, ast.IfExp)):
        yield "branch", lambda n: with_field(n, "test", ast.UnaryOp(ast.Not(), n.test))


def other_changes(node: ast.AST) -> Iterator[Change]:
    """Slips in a value, a built-in function, a statement or what is returned."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield "constant", lambda n: ast.Constant(n.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield "text", lambda n: ast.Constant(n.value + "?")
    elif isinstance(node, ast.Name) and node.id in NAMES:
        yield "name", lambda n: with_field(n, "id", NAMES[n.id])
    elif isinstance(node, ast.Expr):
        yield "dropped", lambda n: ast.Pass()
    elif isinstance(node, ast.Return) and node.value is not None:
        yield "return", lambda n: ast.Return(ast.Constant(None))


class ReplaceNode(ast.NodeTransformer):
    """Puts another node in the place of one node of a tree."""

    def __init__(self, old: ast.AST, change: Callable[[Any], ast.AST]) -> None:
        self.old, self.change = old, change

    def visit(self, node: ast.AST) -> ast.AST:
        return self.change(node) if node is self.old else self.generic_visit(node)


def mutants_of(source: str) -> list[tuple[str, str]]:
    """Every version of the source with one slip: (kind, source)."""
    tree = ast.parse(source)
    found = []
    for place, node in enumerate(ast.walk(tree)):
        for kind, change in (*operator_changes(node), *other_changes(node)):
            twin = copy.deepcopy(tree)
            target = list(ast.walk(twin))[place]
            broken = ast.fix_missing_locations(ReplaceNode(target, change).visit(twin))
            found.append((kind, ast.unparse(broken)))
    return found


def hollow(source: str) -> str:
    """The same function with `return None` for a body."""
    tree = ast.parse(source)
    assert isinstance(tree.body[0], ast.FunctionDef)
    tree.body[0].body = [ast.Return(ast.Constant(None))]
    return ast.unparse(ast.fix_missing_locations(tree))
