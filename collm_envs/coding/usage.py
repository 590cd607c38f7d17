"""How a main function uses its helpers, read off the syntax tree: called, thrown away, or merely wrapped.

For `assemble`. Dead code does not count: what follows a `return`, and branches of constant conditions. A tree
cannot tell whether a call matters to the result; a main that calls a helper in vain is seen only where the value is
dropped.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence

from collm_envs.coding.extract import Function

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_SCOPES = (*_FUNCTIONS, ast.Lambda, ast.ClassDef, *_COMPREHENSIONS)  # they bind names for themselves
_ENDS = (ast.Return, ast.Raise, ast.Continue, ast.Break)


def returns(node: Function) -> bool:
    """Whether a function has a `return` with a value, or a `yield`, of its own (nested functions apart)."""
    return any(
        (isinstance(item, ast.Return) and item.value is not None)
        or isinstance(item, (ast.Yield, ast.YieldFrom))
        for item in own_nodes(node)
    )


def calls(entry: str, helpers: Collection[str], functions: Mapping[str, Function]) -> dict[str, str]:
    """Helpers that the entry point calls, itself or through functions it calls.

    Passing a helper on (`map(aux, xs)`) counts as calling it. A name that a function binds itself is no helper.

    Args:
        entry: name of the entry point.
        helpers: names to look for.
        functions: every function of the program by name.

    Returns:
        `used` or `thrown` by helper; thrown where each of its calls drops the value.
    """
    found: dict[str, str] = {}
    seen: set[str] = set()
    queue = [entry]
    while queue:
        name = queue.pop()
        if name in seen or name not in functions:
            continue
        seen.add(name)
        node = functions[name]
        local = bound_names(node)
        body = _live(node.body)
        idle = _idle(body, read_names(body))
        for item in (item for statement in body for item in ast.walk(statement)):
            if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Load) and item.id not in local:
                if item.id in helpers and item.id != name:
                    dropped = id(item) in idle
                    found[item.id] = "thrown" if dropped and found.get(item.id) != "used" else "used"
                queue.append(item.id)
    return found


def is_thin(node: Function, helpers: Collection[str]) -> bool:
    """Whether a function only hands its arguments to a helper and returns what comes back.

    Thin are `return aux(x)` and `y = aux(x); return y`, through any number of plain assignments; documentation,
    `pass`, `print` and the like change nothing. Arguments that are computed (`aux(x + 1)`), a result that is worked
    on (`aux(x) + 1`) and any loop, condition or further statement make it more than that.
    """
    helpers = set(helpers) - bound_names(node)
    kinds: dict[str, str] = {}
    for statement in _live(node.body):
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
        elif isinstance(item, ast.Global):
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


def _live(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """A block without what can never run, as far as constants at its own level show."""
    kept: list[ast.stmt] = []
    for statement in body:
        if isinstance(statement, ast.If) and isinstance(statement.test, ast.Constant):
            kept += _live(statement.body if statement.test.value else statement.orelse)
        elif (
            isinstance(statement, ast.While)
            and isinstance(statement.test, ast.Constant)
            and not statement.test.value
        ):
            kept += _live(statement.orelse)
        else:
            kept.append(statement)
        if kept and isinstance(kept[-1], _ENDS):
            break
    return kept


def _idle(body: Sequence[ast.stmt], read: Collection[str]) -> set[int]:
    """Ids of the function names of calls whose value is dropped: statements of their own, or names never read."""
    found = set()
    for item in (item for statement in body for item in ast.walk(statement)):
        kept = isinstance(item, ast.Assign) and any(
            not isinstance(target, ast.Name) or target.id in read for target in item.targets
        )
        value = item.value if isinstance(item, (ast.Expr, ast.Assign)) and not kept else None
        if isinstance(value, ast.Await):
            value = value.value
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
            found.add(id(value.func))
    return found


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
