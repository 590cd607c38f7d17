"""Packages that programs may not read do not exist for them.

For the nursery, before it forks workers. Many libraries use others where they are installed (pandas and pyarrow);
one that lies there unreadable must look missing, or its `PermissionError` breaks the library that tried it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class ReadableFinder(MetaPathFinder):
    """Finds top-level modules as the usual finder does, if they can be read."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's place, or None where the usual finders shall decide.

        Raises:
            ModuleNotFoundError: it is there, but may not be read.
        """
        if path is not None:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.has_location and spec.origin:
            try:
                with open(spec.origin, "rb"):
                    pass
            except PermissionError:
                raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname) from None
        return spec


def install() -> None:
    """Put the finder before the usual one for files."""
    sys.meta_path.insert(sys.meta_path.index(PathFinder), ReadableFinder())
