"""An assert as one call of the program and an expectation of its answer. Reads trusted source only.

For `plan`. `assert abs(f(2) - 4) < 1e-6` becomes the call `f(2)` and the tree of `abs(answer - 4) < 1e-6`, so
that the program's process is sent the call and nothing else. What does not fit gives None; it is judged in a
process of its own.
"""

from __future__ import annotations

import ast
import builtins
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from collm_envs.sandbox import codec, verdict

MAX_CONSTANT = 200_000  # items or bits of a constant expression's value

BUILTINS = frozenset(vars(builtins))
_CONSTANT_FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        *(
            abs,
            bool,
            bytes,
            chr,
            complex,
            dict,
            divmod,
            float,
            frozenset,
            int,
            len,
            list,
            max,
            min,
            ord,
            range,
        ),
        *(round, set, sorted, str, sum, tuple),
    )
}
_UNARY: dict[type, Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Invert: operator.invert,
}
_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
    ast.BitXor: operator.xor,
}


class NotConstant(Exception):
    """The expression is none that can be evaluated here."""


@dataclass
class Decomposed:
    """One call and what is expected of it.

    Attributes:
        call: function name, encoded positional arguments, encoded keyword arguments.
        expect: for `verdict.judge`.
    """

    call: list[Any]
    expect: dict[str, Any]


@dataclass
class _Names:
    """What names mean in a statement: those bound by the setup are nobody else's."""

    bound: frozenset[str]
    aliases: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)  # `m` -> "math", `isclose` -> "math.isclose"

    def known(self, node: ast.expr) -> str | None:
        """`abs` or `math.isclose` where that is what the expression means."""
        if isinstance(node, ast.Name):
            if node.id in self.modules:
                return self.modules[node.id]
            own = node.id in self.bound or node.id in self.aliases
            return node.id if node.id in BUILTINS and not own else None
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = self.modules.get(node.value.id)
            return f"{module}.{node.attr}" if module == "math" else None
        return None

    def program(self, node: ast.expr) -> str | None:
        """The program's function that the expression names."""
        if not isinstance(node, ast.Name):
            return None
        if node.id in self.aliases:
            return self.aliases[node.id]
        taken = node.id in self.bound or node.id in BUILTINS
        return None if taken else node.id


def _bounded(op: type, left: Any, right: Any) -> None:
    """Refuse what would make a huge value before it is made."""
    size = 0
    if op is ast.Mult:
        for sequence, times in ((left, right), (right, left)):
            if hasattr(sequence, "__len__") and isinstance(times, int):
                size = len(sequence) * max(times, 0)
    if op in (ast.Pow, ast.LShift) and isinstance(left, int) and isinstance(right, int):
        size = left.bit_length() * right if op is ast.Pow else left.bit_length() + right
    if size > MAX_CONSTANT:
        raise NotConstant


def constant(node: ast.expr, names: _Names) -> Any:
    """Value of a constant expression.

    Raises:
        NotConstant: when it is none, or fails.
    """
    try:
        value = _constant(node, names)
    except (TypeError, ValueError, ArithmeticError, KeyError, RecursionError):
        raise NotConstant from None
    return value


def _constant(node: ast.expr, names: _Names) -> Any:
    def take(part: ast.expr | None) -> Any:
        if part is None or isinstance(part, ast.Starred):
            raise NotConstant
        return _constant(part, names)

    match node:
        case ast.Constant():
            return node.value
        case ast.List() | ast.Tuple() | ast.Set():
            kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
            return kind([take(item) for item in node.elts])
        case ast.Dict():
            return {take(key): take(value) for key, value in zip(node.keys, node.values, strict=True)}
        case ast.UnaryOp():
            return _UNARY[type(node.op)](take(node.operand))
        case ast.BinOp():
            left, right = take(node.left), take(node.right)
            _bounded(type(node.op), left, right)
            return _BINARY[type(node.op)](left, right)
        case ast.Call():
            return _constant_call(node, names)
        case ast.Name() | ast.Attribute():
            name = names.known(node)
            if name in codec.BUILTIN_CLASSES:
                return codec.BUILTIN_CLASSES[name]
            if name in ("math.pi", "math.e", "math.inf", "math.nan", "math.tau"):
                return getattr(math, name.partition(".")[2])
    raise NotConstant


def _constant_call(node: ast.Call, names: _Names) -> Any:
    name = names.known(node.func)
    if name is None or name not in _CONSTANT_FUNCTIONS or node.keywords:
        raise NotConstant
    if any(isinstance(arg, ast.Starred) for arg in node.args):
        raise NotConstant
    args = [_constant(arg, names) for arg in node.args]
    if any(isinstance(arg, range) and len(arg) > MAX_CONSTANT for arg in args) or (name == "bytes" and args):
        raise NotConstant  # bytes(n) makes n of them; the literal does as well
    return _CONSTANT_FUNCTIONS[name](*args)


class _Builder:
    """Makes the tree of one assert; counts the program's calls in it."""

    def __init__(self, names: _Names) -> None:
        self.names = names
        self.call: list[Any] | None = None
        self.text = ""

    def tree(self, node: ast.expr) -> list[Any]:
        """The tree of an expression.

        Raises:
            NotConstant: when a part of it is neither constant nor the one call nor a known operation.
        """
        try:
            return ["const", codec.encode(constant(node, self.names))]
        except (NotConstant, codec.CodecError):
            pass
        match node:
            case ast.Call():
                return self.called(node)
            case ast.UnaryOp(op=ast.Not()):
                return ["not", self.tree(node.operand)]
            case ast.UnaryOp(op=ast.USub()):
                return ["neg", self.tree(node.operand)]
            case ast.BinOp() if type(node.op).__name__ in verdict.BINARY:
                return ["binary", type(node.op).__name__, self.tree(node.left), self.tree(node.right)]
            case ast.Compare():
                operands = [self.tree(operand) for operand in (node.left, *node.comparators)]
                return ["compare", [type(op).__name__ for op in node.ops], operands]
        raise NotConstant

    def called(self, node: ast.Call) -> list[Any]:
        known = self.names.known(node.func)
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if None in keywords or any(isinstance(arg, ast.Starred) for arg in node.args):
            raise NotConstant
        if known is not None:
            if known not in verdict.FUNCTIONS:
                raise NotConstant
            named = {str(key): self.tree(value) for key, value in keywords.items()}
            return ["call", known, [self.tree(arg) for arg in node.args], named]
        function = self.names.program(node.func)
        if function is None or self.call is not None:
            raise NotConstant
        args = [constant(arg, self.names) for arg in node.args]
        kwargs = {str(key): constant(value, self.names) for key, value in keywords.items()}
        self.call = [function, codec.encode(args), codec.encode(kwargs)]
        self.text = ast.unparse(node)
        return ["answer"]


def bound_names(tree: ast.AST) -> frozenset[str]:
    """Every name that a piece of source binds, at any depth."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
    return frozenset(found)


def math_names(tree: ast.Module) -> dict[str, str]:
    """Names under which the module `math` and its functions were imported, and what they mean."""
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.asname or "math": "math" for alias in node.names if alias.name == "math"}
        elif isinstance(node, ast.ImportFrom) and node.module == "math":
            found |= {alias.asname or alias.name: f"math.{alias.name}" for alias in node.names}
    return found


def setup_names(tree: ast.Module, aliases: Mapping[str, str]) -> _Names | None:
    """What names mean after a setup; None when the setup does more than define things."""
    for node in tree.body:
        plain = isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
        if isinstance(node, ast.Assign):  # a constant, not a change of something that exists
            plain = all(isinstance(target, ast.Name) for target in node.targets) and _is_literal(node.value)
        if not plain and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            return None
    modules = math_names(tree)
    return _Names(bound_names(tree) - set(modules), aliases, modules)


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError):
        return False
    return True


def decompose(statement: ast.stmt, names: _Names) -> Decomposed | None:
    """An assert as one call and an expectation; None when it does not fit."""
    if not isinstance(statement, ast.Assert):
        return None
    builder = _Builder(names)
    try:
        tree = builder.tree(statement.test)
    except (NotConstant, codec.CodecError):
        return None
    if builder.call is None:
        return None
    text = ast.unparse(statement.test)
    return Decomposed(builder.call, {"tree": tree, "call": builder.text, "text": text})
