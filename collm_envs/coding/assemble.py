"""Programs out of replies: helpers and main into one module, methods into a class.

`Program.prepare` names the two functions below; they run inside the sandbox's confined child, before anything
untrusted does. They get replies and public data, never a test, and return the program with plain facts about it,
on which `rules` and `feedback` work. Standard library only. Nothing here runs what was written, and nothing raises
because of it.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps
from typing import Any

from collm_envs.coding import extract, flow, usage
from collm_envs.coding.extract import PARSE_ERRORS, Fault, Function
from collm_envs.coding.imports import missing_imports

Facts = dict[str, Any]
Recipe = Callable[[Mapping[str, Any]], tuple[str | None, Facts]]
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _total(recipe: Recipe) -> Recipe:
    """A recipe that never raises: what a reply exhausts is no program, and a defect of ours is told as `fault`."""

    @wraps(recipe)
    def guarded(payload: Mapping[str, Any]) -> tuple[str | None, Facts]:
        try:
            return recipe(payload)
        except PARSE_ERRORS:  # too deep or too large somewhere behind the parser
            return None, {}
        except Exception as error:
            return None, {"fault": f"{type(error).__name__}: {error}"}

    return guarded


@_total
def function(payload: Mapping[str, Any]) -> tuple[str | None, Facts]:
    """Combine helpers and main into one program.

    A function counts in the reply of the agent it is assigned to and nowhere else: a main that defines a helper
    again does not replace it. Other functions, classes and constants of a reply are kept where their names are
    free; of two agents' own the first one's stays. Code at the top level that defines nothing is left out, and
    well-known modules that were forgotten are imported.

    Args:
        payload: `replies` (in scoring order, each with its `text` and the `functions` it must define), `entry`
            (name of the main function), `imports` (source lines) and `given` (source of helper functions of the
            problem itself).

    Returns:
        The program, None where main is missing or nothing parses, and facts: `functions` by name (`found`,
        `returns`, `error` as line, column and message of the reply, or None, `called`, `thrown`), `parses`,
        `error` of the joint program, `thin` (see `usage.is_thin`), `redefined` (pairs of an agent's functions and
        a partner's that it defined too).
    """
    entry: str = payload["entry"]
    names = [name for reply in payload["replies"] for name in reply["functions"]]
    given = _statements(payload.get("given", ""))
    taken = {*names, *_names(given)}
    imports = _statements("\n".join(payload.get("imports", ())))
    kept: list[ast.stmt] = []
    found: dict[str, Function] = {}
    facts: Facts = {"functions": {}, "parses": False, "error": None, "thin": False, "redefined": []}
    for item in payload["replies"]:
        own = item["functions"]
        reply = extract.read(item["text"], own)
        imports += [node for node in reply.statements if isinstance(node, (ast.Import, ast.ImportFrom))]
        last = {node.name: node for node in reply.statements if isinstance(node, _FUNCTIONS)}
        found |= {name: last[name] for name in own if name in last}
        facts["redefined"] += [[own, name] for name in sorted((last.keys() & set(names)) - set(own))]
        for name in own:
            facts["functions"][name] = _definition(last.get(name), reply.broken.get(name))
        extras = _extras(reply.statements, taken, [last[name] for name in own if name in last])
        taken |= _names(extras)
        kept += [*extras, *(last[name] for name in own if name in last)]
    broken = [state["error"] for state in facts["functions"].values() if state["error"]]
    if entry not in found or broken:
        facts["error"] = broken[0] if broken else None
        return None, facts
    code, fault = _write([*imports, *given, *kept])
    facts["parses"] = code is not None
    facts["error"] = fault.plain() if fault else None
    if code is not None:
        helpers = [name for name in names if name != entry and name in found]
        functions = {node.name: node for node in kept if isinstance(node, _FUNCTIONS)}
        used = flow.calls(entry, helpers, functions)
        for name in helpers:
            facts["functions"][name] |= {"called": name in used, "thrown": used.get(name) == "thrown"}
        facts["thin"] = usage.is_thin(found[entry], helpers)
    return code, facts


@_total
def methods(payload: Mapping[str, Any]) -> tuple[str | None, Facts]:
    """Merge the agents' methods into the skeleton of their class.

    Each agent's last definition of a method that is assigned to it replaces the skeleton's. A method of the class
    that is another's is ignored, and counted as duplicated where both define it. New methods and functions are kept
    where their names are free.

    Args:
        payload: `replies` (each with its `text` and the `methods` assigned to it), `class_name`, `skeleton` and
            `imports` (source lines).

    Returns:
        The program, None where the merged class does not parse, and facts: `methods` by name (`found`, `valid`,
        `error`), `duplicated` (names that more than one agent defines), `parses`, `error`.
    """
    class_name = payload["class_name"]
    assigned = [name for reply in payload["replies"] for name in reply["methods"]]
    skeleton = _statements(payload["skeleton"])
    shell = next((n for n in skeleton if isinstance(n, ast.ClassDef) and n.name == class_name), None)
    facts: Facts = {"methods": {}, "duplicated": [], "parses": False, "error": None}
    if shell is None:
        facts["error"] = [1, 1, f"the skeleton has no class {class_name}"]
        return None, facts
    imports = _statements("\n".join(payload.get("imports", ())))
    bodies: dict[str, Function] = {}
    extras: dict[str, ast.stmt] = {}
    loose: list[ast.stmt] = []
    authors: dict[str, int] = dict.fromkeys(assigned, 0)
    fixed = {*assigned, *_names(shell.body)}
    for item in payload["replies"]:
        reply = extract.read(item["text"], assigned, methods=True)
        imports += [node for node in reply.statements if isinstance(node, (ast.Import, ast.ImportFrom))]
        last, free = _members(reply.statements, class_name)
        for name in assigned:
            authors[name] += name in last or name in reply.broken
        for name in item["methods"]:
            facts["methods"][name] = _method(last.get(name), reply.broken.get(name))
            if facts["methods"][name]["valid"]:
                bodies[name] = last[name]
        extras |= {name: node for name, node in last.items() if name not in fixed and name not in extras}
        taken = {class_name, *_names(skeleton), *_names(loose)}
        loose += [node for node in free if not _names([node]) & taken]
    facts["duplicated"] = sorted(name for name, count in authors.items() if count > 1)
    merged = _fill(shell, bodies, list(extras.values()))
    statements = [merged if node is shell else node for node in skeleton]
    code, fault = _write([*imports, *loose, *statements])
    facts["parses"] = code is not None
    facts["error"] = fault.plain() if fault else None
    return code, facts


def _definition(node: Function | None, broken: extract.Broken | None) -> Facts:
    """What is known of one wanted function."""
    state: Facts = {"found": False, "returns": False, "error": None, "called": False, "thrown": False}
    if node is not None:
        state |= {"found": True, "returns": usage.returns(node)}
    elif broken is not None:
        state |= {"found": True, "returns": broken.returns, "error": broken.fault.plain()}
    return state


def _method(node: Function | None, broken: extract.Broken | None) -> Facts:
    if node is not None:
        # Parsing is not compiling: `break` outside a loop is found by the compiler alone.
        code, fault = _write([node])
        return {"found": True, "valid": code is not None, "error": fault.plain() if fault else None}
    error = broken.fault.plain() if broken else None
    return {"found": broken is not None, "valid": False, "error": error}


def _statements(source: str) -> list[ast.stmt]:
    """Statements of trusted text."""
    return ast.parse(source).body


def _names(statements: Sequence[ast.stmt]) -> set[str]:
    """Names that definitions and assignments bind."""
    found = set()
    for node in statements:
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            found.add(node.name)
        found |= {target.id for target in _targets(node)}
    return found


def _targets(node: ast.stmt) -> list[ast.Name]:
    """Plain names that an assignment binds; empty where it binds anything else."""
    if isinstance(node, ast.Assign):
        targets = [item for target in node.targets for item in _flat(target)]
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        targets = [node.target]
    else:
        return []
    names = [target for target in targets if isinstance(target, ast.Name)]
    return names if len(names) == len(targets) else []


def _flat(target: ast.expr) -> Sequence[ast.expr]:
    return target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]


def _extras(
    statements: Sequence[ast.stmt], taken: Collection[str], wanted: Sequence[Function]
) -> list[ast.stmt]:
    """Functions and classes with free names, and the constants that they or the wanted functions read."""
    last: dict[str, ast.stmt] = {}
    for node in statements:
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)) and node.name not in taken:
            last[node.name] = node
    read = usage.globals_read([*last.values(), *wanted])
    chosen = {id(node) for node in last.values()}
    for node in reversed(statements):  # backwards: a constant may be made of earlier ones
        bound = {target.id for target in _targets(node)}
        if bound & read and not bound & {*taken, *last}:
            chosen.add(id(node))
            read |= usage.globals_read([node])
    return [node for node in statements if id(node) in chosen]


def _members(statements: Sequence[ast.stmt], class_name: str) -> tuple[dict[str, Function], list[ast.stmt]]:
    """Methods by name, last ones winning, and classes and functions that are none of the class's.

    A function at the top level is a method when its first argument is `self` or `cls`, or when no class is there.
    """
    classes = [n for n in statements if isinstance(n, ast.ClassDef)]
    ours = [n for n in classes if n.name == class_name] or classes[:1]
    found: dict[str, Function] = {}
    free: list[ast.stmt] = [n for n in classes if all(n is not own for own in ours)]
    for node in statements:
        if isinstance(node, ast.ClassDef) and any(node is own for own in ours):
            found |= {item.name: item for item in node.body if isinstance(item, _FUNCTIONS)}
        elif isinstance(node, _FUNCTIONS):
            first = [*node.args.posonlyargs, *node.args.args][:1]
            if not ours or (first and first[0].arg in ("self", "cls")):
                found[node.name] = node
            else:
                free.append(node)
    read = usage.globals_read([*found.values(), *free])
    free += [n for n in statements if any(target.id in read for target in _targets(n))]
    return found, free


def _fill(shell: ast.ClassDef, bodies: Mapping[str, Function], extras: Sequence[ast.stmt]) -> ast.ClassDef:
    """The skeleton's class with the given methods in their places and further ones at its end."""
    body: list[ast.stmt] = []
    for node in shell.body:
        new = bodies.get(node.name) if isinstance(node, _FUNCTIONS) else None
        if new is None:
            body.append(node)
            continue
        assert isinstance(node, _FUNCTIONS)
        new.decorator_list = new.decorator_list or node.decorator_list  # a forgotten @staticmethod
        body.append(new)
    missing = [node for name, node in bodies.items() if all(node is not item for item in body)]
    shell.body = [*body, *missing, *extras]
    return shell


def _write(statements: Sequence[ast.stmt]) -> tuple[str | None, Fault | None]:
    """Source of the statements, imports first and each once, or why it does not compile."""
    try:
        pieces = [ast.unparse(node) for node in statements]
        future = [text for text in pieces if text.startswith("from __future__")]
        imports = [
            text
            for node, text in zip(statements, pieces, strict=True)
            if isinstance(node, (ast.Import, ast.ImportFrom)) and text not in future
        ]
        rest = [
            text
            for node, text in zip(statements, pieces, strict=True)
            if not isinstance(node, (ast.Import, ast.ImportFrom))
        ]
        added = missing_imports(statements)
        code = "\n".join(dict.fromkeys([*future, *added, *imports])) + "\n\n\n" + "\n\n\n".join(rest) + "\n"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(code, "<program>", "exec", dont_inherit=True)
    except SyntaxError as error:
        return None, Fault(error.lineno or 1, error.offset or 1, str(error.msg)[:120])
    except PARSE_ERRORS as error:
        return None, Fault(1, 1, f"{type(error).__name__} while parsing")
    return code, None
