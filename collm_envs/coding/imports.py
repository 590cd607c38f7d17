"""Imports that a model forgot: well-known names of the standard library.

For `assemble`. Only names that mean one thing wherever they are used; a bare `sqrt` stays an error.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence

_MODULES = """
abc array base64 bisect calendar collections contextlib copy csv dataclasses datetime decimal enum fractions
functools hashlib heapq io itertools json logging math numbers operator os random re secrets statistics string
struct sys textwrap time typing unicodedata uuid
"""
_MEMBERS = {
    "typing": """
    Any Callable Dict FrozenSet Generator Generic Hashable Iterable Iterator List Literal Mapping NamedTuple
    NoReturn Optional Sequence Set Tuple Type TypeVar Union
    """,
    "collections": "ChainMap Counter OrderedDict defaultdict deque namedtuple",
    "dataclasses": "dataclass",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "functools": "cache cmp_to_key lru_cache reduce",
    "itertools": "accumulate combinations groupby permutations zip_longest",
}
_KNOWN = {name: f"import {name}" for name in _MODULES.split()}
_KNOWN |= {
    name: f"from {module} import {name}" for module, names in _MEMBERS.items() for name in names.split()
}


def missing_imports(statements: Sequence[ast.stmt]) -> list[str]:
    """Import lines for well-known names that are read and bound nowhere, in order of their names."""
    read: set[str] = set()
    bound: set[str] = set(dir(builtins))
    for statement in statements:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name):
                (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                bound.add(node.name)
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
            elif isinstance(node, ast.alias):
                bound.add((node.asname or node.name).partition(".")[0])
            elif isinstance(node, ast.ExceptHandler) and node.name:
                bound.add(node.name)
    return [_KNOWN[name] for name in sorted(read - bound) if name in _KNOWN]
