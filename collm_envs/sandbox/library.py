"""What programs may read: the standard library, shared objects, and some installed packages.

For the client. Of the trainer's packages only named ones and what these need can be read: this project's own data,
which hold answers, lie beside them.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
import sysconfig
from collections.abc import Sequence
from pathlib import Path

# By the names they are imported under, where they are installed; what they need comes with them.
PACKAGES = (
    *("numpy", "scipy", "pandas", "sympy", "sklearn", "nltk", "bs4", "openpyxl", "docx", "PIL", "PyPDF2"),
    *("gensim", "dateutil"),
)
SYSTEM = (
    *("/lib", "/lib64", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime"),
    "/etc/mime.types",  # `mimetypes` reads it where it exists, and fails where it may not
)
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def readable(packages: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Trees that may be read, trees that may be listed, and folders for `sys.path`."""
    folders = list(dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib")))
    library = Path(sysconfig.get_path("stdlib"))
    found = [entry for entry in library.iterdir() if entry.name not in ("site-packages", "dist-packages")]
    found += _files(tuple(packages))
    found += map(Path, SYSTEM)
    found += Path("/usr/lib").glob("*-linux-gnu")
    trees = [path for path in dict.fromkeys(map(str, found)) if os.path.exists(path)]
    return trees, [str(library), *folders], folders


@functools.cache
def _files(packages: tuple[str, ...]) -> tuple[Path, ...]:
    """Where the named packages and what they need lie: top-level files and folders."""
    owners = importlib.metadata.packages_distributions()
    waiting = [owner for name in packages for owner in owners.get(name, ())]
    seen: set[str] = set()
    found: dict[Path, None] = {}
    while waiting:
        name = waiting.pop()
        key = name.lower().replace("_", "-")
        if key in seen or key == "collm":
            continue
        seen.add(key)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # a requirement that holds for another system
        for file in distribution.files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not Path(top).is_absolute():
                found[Path(str(distribution.locate_file(top)))] = None
        required = (text for text in distribution.requires or () if "extra ==" not in text)
        waiting += [match[0] for match in map(_NAME.match, required) if match]
    return tuple(found)
