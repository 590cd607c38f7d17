"""Scripted players of joint functions: stubs for the novice, a division of the reference for the oracle.

For `functions` and `classeval`. Everything here works on trusted references and headers, by their syntax trees. A
reference that is one function is divided for real where it can be: the helper does all but the last step, main the
last one. Where a function returns in several places the helper does all of it, and main only looks at what comes
back; that is the least that counts as work of its own, and shows what the reward cannot tell.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from collm_envs.coding import usage
from collm_envs.coding.rows import parsed

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def stub(name: str, parameters: Sequence[str], helpers: Sequence[str], rng: np.random.Generator) -> str:
    """A well-formed function that seldom does what it should.

    Args:
        name: of the function.
        parameters: names of the problem's own parameters, which helpers take too.
        helpers: functions that a main function may call.
        rng: the script's generator.
    """
    arguments = ", ".join(parameters)
    constants = ("0", "1", "True", "False", "None", "[]", "''")
    value = str(rng.choice([*constants, *parameters]))
    if helpers and name not in helpers and rng.random() < 0.6:
        call = f"{helpers[int(rng.integers(len(helpers)))]}({arguments})"
        value = call if rng.random() < 0.5 else f"{call} or {value}"
    kind = rng.random()
    if kind < 0.1:  # a header that does not parse
        return f"def {name}({arguments}\n    return {value}"
    if kind < 0.2:
        return f"def {name}({arguments}):\n    pass"
    return f"def {name}({arguments}):\n    return {value}"


@lru_cache(maxsize=2048)
def divide(entry: str, helpers: tuple[str, ...], reference: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Sources by function name that together solve a problem and earn the greatest score.

    Args:
        entry: name of the main function.
        helpers: names of the helper functions, at least one.
        reference: pairs of `aux` and `main` with their sources, or of `solution` with one source.
    """
    known = dict(reference)
    if "solution" in known:
        tree = parsed(known["solution"])
        first, main = _divided(_last(tree, entry), helpers[0])
    else:
        tree = parsed(known["aux"])
        first = _last(tree, "aux")
        tree.body += (main_tree := parsed(known["main"])).body
        main = _last(main_tree, entry)
    beside = [
        node for node in tree.body if not (isinstance(node, _FUNCTIONS) and node.name in (entry, first.name))
    ]
    parts = {helpers[0]: first}
    for name in helpers[1:]:  # what was main becomes a helper, and a new main looks at what it gives back
        inner = copy.deepcopy(main)
        inner.name = name
        parts[name] = inner
        main = _watching(main, name)
    parts[entry] = main
    return {
        name: "\n\n".join(ast.unparse(node) for node in (*beside, part)) + "\n"
        for name, part in parts.items()
    }


def _last(tree: ast.Module, name: str) -> ast.FunctionDef:
    return [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name][-1]


def _divided(function: ast.FunctionDef, helper: str) -> tuple[ast.FunctionDef, ast.FunctionDef]:
    """A helper with all but the last step of a function, and a main with the last one."""
    body = [node for node in function.body if not _is_text(node)]
    for cut in range(len(body) - 1, 0, -1):
        first, rest = body[:cut], body[cut:]
        bound = usage.bound_names(_as_function(first))
        needed = sorted(usage.read_names(rest) & bound)
        # What a loop or a branch alone binds may be unbound behind it.
        sure = _stores(first) | usage.bound_names(_as_function([], function.args))
        if _returns(first) or not _returns(rest[-1:]) or not needed or not sure.issuperset(needed):
            continue
        names: list[ast.expr] = [ast.Name(name, ast.Load()) for name in needed]
        handed = names[0] if len(names) == 1 else ast.Tuple(names, ast.Load())
        aux = _renamed(function, helper, [*first, ast.Return(handed)])
        target = ast.parse(f"{', '.join(needed)} = 0").body[0]
        assert isinstance(target, ast.Assign)
        target.value = _call(function, helper)
        main = _renamed(function, function.name, [target, *rest])
        if not usage.is_thin(main, [helper]):
            return aux, main
    return _renamed(function, helper, body), _watching(function, helper)


def _watching(function: ast.FunctionDef, helper: str) -> ast.FunctionDef:
    """A main that calls a helper with its own arguments and looks at what comes back."""
    look = ast.parse("if answer is None:\n    return None\nreturn answer").body
    call = ast.Assign([ast.Name("answer", ast.Store())], _call(function, helper))
    return _renamed(function, function.name, [call, *look])


def _renamed(function: ast.FunctionDef, name: str, body: Sequence[ast.stmt]) -> ast.FunctionDef:
    made = copy.deepcopy(function)
    made.name, made.body = name, copy.deepcopy(list(body))
    return ast.fix_missing_locations(made)


def _call(function: ast.FunctionDef, helper: str) -> ast.Call:
    """A call that passes on the function's own arguments."""
    own = function.args
    args: list[ast.expr] = [ast.Name(item.arg, ast.Load()) for item in (*own.posonlyargs, *own.args)]
    if own.vararg:
        args.append(ast.Starred(ast.Name(own.vararg.arg, ast.Load()), ast.Load()))
    keywords = [ast.keyword(item.arg, ast.Name(item.arg, ast.Load())) for item in own.kwonlyargs]
    if own.kwarg:
        keywords.append(ast.keyword(None, ast.Name(own.kwarg.arg, ast.Load())))
    return ast.Call(ast.Name(helper, ast.Load()), args, keywords)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _as_function(body: Sequence[ast.stmt], args: ast.arguments | None = None) -> ast.FunctionDef:
    made = ast.parse("def f(): pass").body[0]
    assert isinstance(made, ast.FunctionDef)
    made.body, made.args = list(body), args or made.args
    return made


def _stores(body: Sequence[ast.stmt]) -> set[str]:
    """Names that statements bind at their own level."""
    kinds = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Import, ast.ImportFrom, *_FUNCTIONS)
    return usage.bound_names(_as_function([node for node in body if isinstance(node, kinds)]))


def _returns(body: Sequence[ast.stmt]) -> bool:
    return any(
        isinstance(item, (ast.Return, ast.Yield, ast.YieldFrom))
        for item in usage.own_nodes(_as_function(body))
    )
