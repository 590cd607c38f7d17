"""Which helpers a main function really calls, and whether it keeps what they give back.

For `assemble`. Wants are followed from where a value is kept (a return, a condition that decides something, a name
that is read) back to what makes it. A helper's name counts where it is called or handed to a call, directly or
under another name; annotations and what never runs (`usage.live`, functions that nothing uses) do not count. A tree
cannot tell whether a kept value matters to the result.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from collm_envs.coding.extract import Function
from collm_envs.coding.usage import bound_names, inner_nodes, is_empty, live, own_containers, truth

# What is wanted of a value: that it is looked at, called, called with the result dropped, or given back as it is.
READ, CALLED, VAIN, HANDED = 1, 2, 4, 8
ANY = READ | CALLED
# Most passes over a program. Written code takes two to five; a long chain of names in a shuffled order takes
# hundreds, and what it hides is not found.
PASSES = 16

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
# Builtins that call nothing they are given, those that only hold it, and all that leave no trace but their result.
_DEAF = frozenset(
    {
        "abs",
        "bool",
        "callable",
        "float",
        "format",
        "hash",
        "id",
        "int",
        "isinstance",
        "len",
        "print",
        "range",
        "repr",
    }
    | {"round", "str", "type"}
)
_HOLD = frozenset({"dict", "frozenset", "list", "reversed", "set", "tuple", "zip"})
_CHANGE_NOTHING = _DEAF | _HOLD | {"all", "any", "enumerate", "filter", "map", "max", "min", "sorted", "sum"}
_PURE_MODULES = frozenset(("itertools", "math", "operator", "string"))

# Parts of expressions that get out of them what they are: a function in a list can be called.
_PASS: dict[type[ast.expr], tuple[str, ...]] = {
    **dict.fromkeys((ast.Subscript, ast.Attribute, ast.Starred, ast.Await), ("value",)),
    **dict.fromkeys((ast.List, ast.Tuple, ast.Set), ("elts",)),
    ast.Dict: ("values",),
}

_AS_IS = (ast.Name, ast.Lambda, ast.Tuple, ast.List, ast.Dict)

Name = tuple[int, str]  # scope (0 is the module) and name


def calls(entry: str, helpers: Collection[str], functions: Mapping[str, Function]) -> dict[str, str]:
    """Helpers that the entry point calls, itself or through functions it calls.

    Passing a helper on (`map(aux, xs)`, a decorator) counts as calling it. A name that a function binds itself
    is no helper, and a helper that calls itself is not called by that.

    Args:
        entry: name of the entry point.
        helpers: names to look for.
        functions: every function of the program by name.

    Returns:
        `used` or `thrown` by helper; thrown where each of its calls drops the value.
    """
    found = _Flow(entry, helpers, functions).run()
    return {name: "used" if want & CALLED else "thrown" for name, want in found.items()}


class _Flow:
    """Wants of all names, raised until nothing changes."""

    def __init__(self, entry: str, helpers: Collection[str], functions: Mapping[str, Function]) -> None:
        self.helpers, self.functions = frozenset(helpers), functions
        self.wants: dict[Name, int] = defaultdict(int, {(0, entry): CALLED})
        self.found: dict[str, int] = {}
        self.scopes: list[tuple[int, frozenset[str]]] = []  # of the functions around, inner ones last
        self.bound: dict[int, tuple[frozenset[str], frozenset[str]]] = {}
        self.within, self.kept, self.changed, self.backwards = "", True, True, True

    def run(self) -> dict[str, int]:
        for _ in range(PASSES):
            if not self.changed:
                break
            self.changed = False
            for name, node in self.functions.items():
                self.within = name
                self.define(node, self.wants[0, name])
            self.backwards = not self.backwards  # uses stand behind what they use, and other names before it
        return self.found

    # -- names ---------------------------------------------------------------------------------------------------

    def resolve(self, name: str) -> Name:
        return next(((scope, name) for scope, bound in reversed(self.scopes) if name in bound), (0, name))

    def raise_to(self, name: str, want: int) -> None:
        key = self.resolve(name)
        if want & ~self.wants[key]:
            self.wants[key] |= want
            self.changed = True
        called = _calling(want)
        if key[0] == 0 and name in self.helpers and name != self.within and called & ~self.found.get(name, 0):
            self.found[name] = self.found.get(name, 0) | called
            self.changed = True

    def locals(self, node: Function | ast.Lambda) -> tuple[frozenset[str], frozenset[str]]:
        """Names that a function binds, and those of them that only ever hold what was made there."""
        if id(node) not in self.bound:
            given = {item.arg for item in ast.walk(node.args) if isinstance(item, ast.arg)}
            if isinstance(node, ast.Lambda):
                self.bound[id(node)] = frozenset(given), frozenset()
            else:
                walrus = {n.target.id for n in inner_nodes(node.body) if isinstance(n, ast.NamedExpr)}
                bound = bound_names(node) | walrus
                fresh = own_containers(node) - given
                self.bound[id(node)] = frozenset(bound), frozenset(fresh)
        return self.bound[id(node)]

    def own(self, name: str) -> int | None:
        """What is wanted of a container that the function around made itself; None for any other name."""
        scope, _ = key = self.resolve(name)
        return self.wants[key] if name in self.bound.get(scope, ((), ()))[1] else None

    def stored(self, target: ast.expr) -> int:
        """What is wanted of a value that goes to a target."""
        if isinstance(target, ast.Name):
            key = self.resolve(target.id)
            return self.wants[key] if key[0] else ANY
        if isinstance(target, (ast.Tuple, ast.List)):
            return _union(self.stored(item) for item in target.elts)
        if isinstance(target, ast.Starred):
            return self.stored(target.value)
        root = _root(target)
        own = self.own(root.id) if isinstance(root, ast.Name) else None
        return ANY if own is None else own

    def reach(self, target: ast.expr) -> None:
        """The expressions in a target: `out[aux(x)] = 1`."""
        want = self.stored(target)
        for part in ast.iter_child_nodes(target):
            if isinstance(target, (ast.Tuple, ast.List, ast.Starred)) and isinstance(part, ast.expr):
                self.reach(part)
            elif isinstance(part, ast.expr):
                is_own = isinstance(part, ast.Name) and self.own(part.id) is not None
                if not is_own:
                    self.value(part, READ if want else 0)

    # -- functions -----------------------------------------------------------------------------------------------

    def define(self, node: Function, want: int) -> None:
        """A function, as far as something wants it."""
        if not want:
            return
        for decorator in node.decorator_list:
            self.value(decorator, ANY)
            want |= CALLED
        self.defaults(node)
        if _calling(want):
            around, self.kept = self.kept, bool(_calling(want) & CALLED)
            self.scopes.append((id(node), self.locals(node)[0]))
            self.block(node.body)
            self.scopes.pop()
            self.kept = around

    def defaults(self, node: Function | ast.Lambda) -> None:
        """Default values, each as far as its argument is read."""
        own = node.args
        places = [*own.posonlyargs, *own.args]
        pairs = [*zip(places[len(places) - len(own.defaults) :], own.defaults, strict=True)]
        pairs += [(place, item) for place, item in zip(own.kwonlyargs, own.kw_defaults, strict=True) if item]
        for place, item in pairs:
            self.value(item, self.wants[id(node), place.arg])

    def lambda_(self, node: ast.Lambda, want: int) -> None:
        if _calling(want):
            self.defaults(node)
            self.scopes.append((id(node), self.locals(node)[0]))
            self.value(node.body, READ if _calling(want) & CALLED else 0)
            self.scopes.pop()

    # -- statements ----------------------------------------------------------------------------------------------

    def block(self, statements: Sequence[ast.stmt]) -> None:
        kept = live(statements)
        for statement in reversed(kept) if self.backwards else kept:
            self.statement(statement)

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Return(value=ast.expr() as value):
                self.value(value, HANDED if self.kept else 0)
            case ast.Expr(value=value):
                self.value(value, 0)
            case ast.Assign() | ast.AugAssign() | ast.AnnAssign(value=ast.expr()):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    self.reach(target)
                if node.value is not None:
                    self.value(node.value, _union(map(self.stored, targets)))
            case ast.If() | ast.While():
                self.choice(node)
            case ast.For() | ast.AsyncFor():
                self.reach(node.target)
                if not is_empty(node.iter):
                    self.block(node.body)
                self.block(node.orelse)
                decides = READ if self.act([*node.body, *node.orelse]) else 0
                self.value(node.iter, self.stored(node.target) | decides)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self.define(node, self.wants[self.resolve(node.name)])
            case ast.ClassDef():
                self.class_(node)
            case _:
                self.other(node)

    def choice(self, node: ast.If | ast.While) -> None:
        while True:
            self.block(node.body)
            self.value(node.test, READ if self.act([*node.body, *node.orelse]) else 0)
            if len(node.orelse) != 1 or not isinstance(node.orelse[0], ast.If):
                break
            following = live(node.orelse)
            if len(following) != 1 or not isinstance(following[0], ast.If):
                break
            node = following[0]  # not by recursion: a chain of `elif` may be long
        self.block(node.orelse)

    def class_(self, node: ast.ClassDef) -> None:
        if not self.wants[self.resolve(node.name)]:
            return
        for part in (*node.decorator_list, *node.bases, *(word.value for word in node.keywords)):
            self.value(part, ANY)
        for item in node.body:
            if isinstance(item, _FUNCTIONS):
                self.define(item, ANY)
            elif isinstance(item, (ast.Assign, ast.AnnAssign)) and item.value is not None:
                self.value(item.value, ANY)
            elif not isinstance(item, ast.AnnAssign):
                self.statement(item)

    def other(self, node: ast.AST) -> None:
        """Statements that keep all they look at: `with`, `try`, `raise`, `assert`, `match`, `del`."""
        for name, part in ast.iter_fields(node):
            if isinstance(part, list) and part and isinstance(part[0], ast.stmt):
                self.block(part)
            elif name in ("targets", "optional_vars"):
                for target in part if isinstance(part, list) else [part]:
                    if isinstance(target, ast.expr):
                        self.reach(target)
            else:
                for item in part if isinstance(part, list) else [part]:
                    if isinstance(item, ast.expr):
                        self.value(item, READ)
                    elif isinstance(item, ast.AST):
                        self.other(item)

    # -- expressions ---------------------------------------------------------------------------------------------

    def value(self, node: ast.expr, want: int) -> None:
        """An expression of which something is wanted; with 0 it is worked out and dropped."""
        if want & HANDED and not isinstance(node, _AS_IS):  # what comes out may be another value
            want = want & ~HANDED | READ
        match node:
            case ast.Name():
                self.raise_to(node.id, want)
            case ast.Call():
                self.call(node, want)
            case ast.Lambda():
                self.lambda_(node, want)
            case ast.IfExp():
                self.either(node, want)
            case ast.BoolOp():
                self.operands(node, want)
            case ast.NamedExpr():
                self.value(node.value, want | self.stored(node.target))
            case ast.Yield(value=ast.expr() as value) | ast.YieldFrom(value=value):
                self.value(value, HANDED if self.kept else 0)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                self.comprehension(node, want)
            case _:
                self.parts(node, want)

    def parts(self, node: ast.expr, want: int) -> None:
        for name, part in ast.iter_fields(node):
            passed = want if name in _PASS.get(type(node), ()) else READ if want else 0
            for item in part if isinstance(part, list) else [part]:
                if isinstance(item, ast.expr):
                    self.value(item, passed)

    def either(self, node: ast.IfExp, want: int) -> None:
        known = truth(node.test)
        if known is not None:
            self.value(node.body if known else node.orelse, want)
            return
        decides = want or self.acts(node.body) or self.acts(node.orelse)
        self.value(node.test, READ if decides else 0)
        self.value(node.body, want)
        self.value(node.orelse, want)

    def operands(self, node: ast.BoolOp, want: int) -> None:
        """Of `and` and `or` those that may be looked at; one that decides whether a later one acts is looked at."""
        stop = isinstance(node.op, ast.Or)
        parts = []
        for part in node.values:
            parts.append(part)
            if truth(part) is stop:
                break
        decides = False
        for part in reversed(parts):
            self.value(part, want | (READ if decides else 0))
            decides = decides or self.acts(part)

    def call(self, node: ast.Call, want: int) -> None:
        acts = self.changes(node)
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if want or acts or not isinstance(node.func, ast.Attribute):
            self.value(node.func, CALLED if want else VAIN)
        given = ANY if want or acts else 0
        if given and name in _DEAF and self.is_builtin(name):
            given = READ
        elif given and name in _HOLD and self.is_builtin(name):
            given = want
        for part in (*node.args, *(word.value for word in node.keywords)):
            self.value(part, given)

    def comprehension(self, node: ast.expr, want: int) -> None:
        assert isinstance(node, _COMPREHENSIONS)
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        runs = not any(
            is_empty(item.iter) or any(truth(t) is False for t in item.ifs) for item in node.generators
        )
        runs = runs and bool(want or not isinstance(node, ast.GeneratorExp))
        bound = {n.id for item in node.generators for n in ast.walk(item.target) if isinstance(n, ast.Name)}
        scope = (id(node), frozenset(bound))
        self.scopes.append(scope)
        for part in parts if runs else ():
            self.value(part, want)
        looked = READ if want or (runs and any(map(self.acts, parts))) else 0
        for item in reversed(node.generators):
            for test in item.ifs if runs else ():
                self.value(test, looked)
            first = item is node.generators[0]
            wanted = looked | self.stored(item.target)
            if first:  # worked out before any name of the comprehension is bound
                self.scopes.pop()
            if runs or first:
                self.value(item.iter, wanted if runs else 0)

    # -- effects -------------------------------------------------------------------------------------------------

    def is_builtin(self, name: str) -> bool:
        return self.resolve(name)[0] == 0 and name not in self.functions

    def changes(self, node: ast.Call) -> bool:
        """Whether a call may change something that outlives it, so that what it is given is kept."""
        root = _root(node.func)
        if not isinstance(root, ast.Name):
            return isinstance(root, ast.Await)
        if root.id in self.helpers and root is node.func:
            # A helper whose result is dropped may still have filled what it was given.
            names = (item.id for item in node.args if isinstance(item, ast.Name))
            return len(self.helpers) > 1 and any(self.wants[self.resolve(name)] for name in names)
        if root is node.func:
            into = root.id == "print" and any(word.arg == "file" for word in node.keywords)
            return into or not (root.id in _CHANGE_NOTHING and self.is_builtin(root.id))
        if isinstance(node.func, ast.Attribute):
            own = self.own(root.id)
            if own is not None:
                return bool(own)
            return root.id not in _PURE_MODULES | _CHANGE_NOTHING
        return True

    def acts(self, node: ast.expr) -> bool:
        """Whether working an expression out does anything beside."""
        return any(
            isinstance(item, (ast.Yield, ast.YieldFrom, ast.Await))
            or (isinstance(item, ast.Call) and self.changes(item))
            or (isinstance(item, ast.NamedExpr) and bool(self.stored(item.target)))
            for item in inner_nodes([node])
        )

    def act(self, statements: Iterable[ast.stmt]) -> bool:
        """Whether any of the statements does anything, so that a condition before it decides something."""
        for node in live(list(statements)):
            match node:
                case ast.Pass() | ast.Global() | ast.Nonlocal():
                    continue
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    found = bool(self.wants[self.resolve(node.name)])
                case ast.Import() | ast.ImportFrom():
                    names = ((item.asname or item.name).partition(".")[0] for item in node.names)
                    found = any(self.wants[self.resolve(name)] for name in names)
                case ast.Expr(value=value):
                    found = self.acts(value)
                case ast.AnnAssign(value=None):
                    continue
                case ast.Assign() | ast.AugAssign() | ast.AnnAssign():
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    found = any(map(self.stored, targets)) or (
                        node.value is not None and self.acts(node.value)
                    )
                case ast.If() | ast.While():
                    found = self.acts(node.test) or self.act(node.body) or self.act(node.orelse)
                case ast.For() | ast.AsyncFor():
                    found = bool(self.stored(node.target)) or self.acts(node.iter)
                    found = found or self.act(node.body) or self.act(node.orelse)
                case _:
                    found = True
            if found:
                return True
        return False


def _union(wants: Iterable[int]) -> int:
    total = 0
    for want in wants:
        total |= want
    return total


def _calling(want: int) -> int:
    """How a function is called of which this is wanted: whoever is given it will call it."""
    return want & (CALLED | VAIN) | (CALLED if want & HANDED else 0)


def _root(node: ast.expr) -> ast.expr:
    """The leftmost part of `a.b[c].d()`."""
    while True:
        if isinstance(node, (ast.Attribute, ast.Subscript)):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return node
