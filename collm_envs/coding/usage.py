"""What a function binds and reads, what of it can run, and whether it only wraps, read off its syntax tree.

For `assemble`, `flow` and `scripted`. Dead code does not count: what follows a `return`, and branches of constant
conditions.
"""

from __future__ import annotations

import ast
import operator
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from collm_envs.coding.extract import Function

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_SCOPES = (*_FUNCTIONS, ast.Lambda, ast.ClassDef, *_COMPREHENSIONS)  # they bind names for themselves
_LEAVES = (ast.Return, ast.Raise, ast.Continue, ast.Break)
_DISPLAYS = (ast.List, ast.Tuple, ast.Set, ast.Dict, ast.ListComp, ast.SetComp, ast.DictComp, ast.Constant)
_MAKERS = ("Counter", "OrderedDict", "defaultdict", "deque", "dict", "list", "set", "sorted")
_COMPARES: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def returns(node: Function) -> bool:
    """Whether a function has a `return` with a value, or a `yield`, of its own (nested functions apart)."""
    return any(
        (isinstance(item, ast.Return) and item.value is not None)
        or isinstance(item, (ast.Yield, ast.YieldFrom))
        for item in own_nodes(node)
    )


def is_thin(node: Function, helpers: Collection[str]) -> bool:
    """Whether a function only hands its arguments to a helper and returns what comes back.

    Thin are `return aux(x)` and `y = aux(x); return y`, through any number of plain assignments; documentation,
    `pass`, `print` and the like change nothing. Arguments that are computed (`aux(x + 1)`), a result that is worked
    on (`aux(x) + 1`) and any loop, condition or further statement make it more than that.
    """
    helpers = set(helpers) - bound_names(node)
    kinds: dict[str, str] = {}
    for statement in live(node.body):
        if isinstance(statement, ast.Return):
            return statement.value is not None and _kind(statement.value, kinds, helpers) == "handed"
        if isinstance(statement, ast.Assign) and all(isinstance(t, ast.Name) for t in statement.targets):
            kind = _kind(statement.value, kinds, helpers)
            kinds |= {target.id: kind for target in statement.targets if isinstance(target, ast.Name)}
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if statement.value is not None:
                kinds[statement.target.id] = _kind(statement.value, kinds, helpers)
        elif not _changes_nothing(statement):
            return False
    return False


def globals_read(statements: Sequence[ast.stmt]) -> set[str]:
    """Names that definitions read and do not bind themselves."""
    found: set[str] = set()
    for statement in statements:
        bound = bound_names(statement) if isinstance(statement, _FUNCTIONS) else set()
        found |= read_names([statement]) - bound
        found |= {name for item in ast.walk(statement) if isinstance(item, ast.Global) for name in item.names}
    return found


def own_nodes(node: Function) -> Iterator[ast.AST]:
    """Nodes of the body of a function without those of functions, classes and comprehensions in it."""
    queue: list[ast.AST] = list(node.body)
    while queue:
        item = queue.pop()
        yield item
        if not isinstance(item, _SCOPES):
            queue += ast.iter_child_nodes(item)


def inner_nodes(nodes: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Nodes without those of functions, lambdas and classes in them."""
    queue = list(nodes)
    while queue:
        item = queue.pop()
        yield item
        if not isinstance(item, (*_FUNCTIONS, ast.Lambda, ast.ClassDef)):
            queue += ast.iter_child_nodes(item)


def own_containers(node: Function) -> set[str]:
    """Names that hold nothing but containers and constants that the function made itself."""
    made: Counter[str] = Counter()
    stores: Counter[str] = Counter()
    for item in inner_nodes(node.body):
        if isinstance(item, ast.Name) and not isinstance(item.ctx, ast.Load):
            stores[item.id] += 1
        if isinstance(item, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            targets = item.targets if isinstance(item, ast.Assign) else [item.target]
            call = item.value.func if isinstance(item.value, ast.Call) else None
            is_made = isinstance(call, ast.Name) and call.id in _MAKERS
            if is_made or isinstance(item, ast.AugAssign) or isinstance(item.value, _DISPLAYS):
                made.update(target.id for target in targets if isinstance(target, ast.Name))
    shared = {
        name for part in node.body for n in ast.walk(part) if isinstance(n, ast.Nonlocal) for name in n.names
    }
    return {name for name, count in stores.items() if made[name] == count} - shared


def bound_names(node: Function) -> set[str]:
    """Names that a function binds: arguments, assignments, loops, nested definitions, imports."""
    arguments = (item for item in ast.walk(node.args) if isinstance(item, ast.arg))
    found = {item.arg for item in arguments}
    shared: set[str] = set()
    for item in own_nodes(node):
        if isinstance(item, ast.Name) and not isinstance(item.ctx, ast.Load):
            found.add(item.id)
        elif isinstance(item, (*_FUNCTIONS, ast.ClassDef)):
            found.add(item.name)
        elif isinstance(item, ast.alias):
            found.add((item.asname or item.name).partition(".")[0])
        elif isinstance(item, ast.ExceptHandler) and item.name:
            found.add(item.name)
        elif isinstance(item, (ast.Global, ast.Nonlocal)):
            shared |= set(item.names)
    return found - shared


def read_names(statements: Sequence[ast.AST]) -> set[str]:
    """Names that are read anywhere in the statements."""
    return {
        item.id
        for statement in statements
        for item in ast.walk(statement)
        if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Load)
    }


def live(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """A block without what can never run, as far as constants at its own level show."""
    kept: list[ast.stmt] = []
    for statement in body:
        known = truth(statement.test) if isinstance(statement, (ast.If, ast.While)) else None
        if isinstance(statement, ast.If) and known is not None:
            kept += live(statement.body if known else statement.orelse)
        elif isinstance(statement, ast.While) and known is False:
            kept += live(statement.orelse)
        else:
            kept.append(statement)
        if kept and _ends(kept[-1]):
            break
    return kept


def _ends(statement: ast.stmt) -> bool:
    """Whether nothing behind a statement in its block can run."""
    while isinstance(statement, ast.If):  # a chain of `elif` may be long
        if not statement.orelse or not _ends(statement.body[-1]):
            return False
        statement = statement.orelse[-1]
    if isinstance(statement, ast.While):
        return truth(statement.test) is True and not any(
            isinstance(n, ast.Break) for n in ast.walk(statement)
        )
    return isinstance(statement, _LEAVES)


def truth(node: ast.expr) -> bool | None:
    """Whether an expression is true, as far as constants and displays in it tell; None where they do not."""
    if isinstance(node, ast.Constant):
        return bool(node.value)
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        sure = any(not isinstance(item, ast.Starred) for item in node.elts)
        return True if sure else (None if node.elts else False)
    if isinstance(node, ast.Dict):
        return None if None in node.keys else bool(node.keys)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        inner = truth(node.operand)
        return None if inner is None else not inner
    if isinstance(node, ast.BoolOp):
        known = [truth(part) for part in node.values]
        decided = isinstance(node.op, ast.Or)  # what one operand suffices for
        return decided if decided in known else (None if None in known else not decided)
    if isinstance(node, ast.IfExp):
        test = truth(node.test)
        return None if test is None else truth(node.body if test else node.orelse)
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        left, right = node.left, node.comparators[0]
        test_of = _COMPARES.get(type(node.ops[0]))
        if isinstance(left, ast.Constant) and isinstance(right, ast.Constant) and test_of is not None:
            try:
                return bool(test_of(left.value, right.value))
            except TypeError:
                return None
    return None


def is_empty(node: ast.expr) -> bool:
    """Whether what is looped over is plainly empty: `()`, `""`, `range(0)`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        return len(node.args) == 1 and truth(node.args[0]) is False
    is_display = isinstance(node, (ast.Constant, ast.List, ast.Tuple, ast.Set, ast.Dict))
    return is_display and truth(node) is False


def _kind(value: ast.expr, kinds: Mapping[str, str], helpers: Collection[str]) -> str:
    """What a value is: `plain` (a name, a constant), `handed` (what a helper gave back for such), or `worked`."""
    if isinstance(value, ast.Constant):
        return "plain"
    if isinstance(value, ast.Name):
        return kinds.get(value.id, "plain")
    if isinstance(value, (ast.Await, ast.Starred)):
        return _kind(value.value, kinds, helpers)
    if isinstance(value, (ast.Tuple, ast.List)):
        parts, whole = value.elts, "plain"
    elif isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in helpers:
        parts, whole = [*value.args, *(word.value for word in value.keywords)], "handed"
    else:
        return "worked"
    return "worked" if any(_kind(part, kinds, helpers) == "worked" for part in parts) else whole


def _changes_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, (ast.Pass, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal)):
        return True
    if not isinstance(statement, ast.Expr):
        return False
    value = statement.value
    is_print = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "print"
    return is_print or isinstance(value, (ast.Constant, ast.Name))
