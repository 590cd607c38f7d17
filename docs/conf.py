"""Sphinx settings of the documentation: `make docs`.

The source folder is the repository, so that the pages' links among each other and to README, RUNS or the examples
are those that work on a code host too. What only the site needs is added while a page is read: the table of
contents, from the links in `index.md`, and the docstrings behind the names on the pages of `reference/`. Equations
become MathML when the page is written, so nothing is loaded from the network.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import collm_envs  # noqa: E402

project = "CoLLM"
author = "The CoLLM developers"
copyright = author  # Sphinx's name for it
html_title = "CoLLM"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/RUNS.md",
    "benchmarks/reports/mini-core/report.md",
    "examples/README.md",
    "examples/third_party_task/README.md",
]
exclude_patterns = ["docs/_build/**"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

html_theme = "furo"
html_math_renderer = "mathml"
html_additional_pages = {"index": "to_front.html"}
templates_path = ["site"]
html_static_path = ["site/site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False

default_role = "literal"  # one backtick is code in this project's docstrings
nitpicky = True
# Annotations name types of other libraries, and nothing is looked up in the network. Prose uses plain code, and
# dotted names in it are checked by the tests.
nitpick_ignore_regex = [("py:.*", ".*")]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
viewcode_follow_imported_members = False  # what is followed gets links back to names that no page has
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
PAGE_LINK = re.compile(r"\]\(((?:\.\./)?[\w./-]+\.md)(?:#[^)]*)?\)")
MODULE_ROW = re.compile(r"^\| `(collm_[\w.]+)` \|", re.MULTILINE)
DOTTED = re.compile(r"(?<![`\w])`(collm_(?:envs|agents)(?:\.\w+)+)`(?!`)")
TITLES = {
    "../README.md": "Overview <../README.md>"
}  # where a page's own heading says too little beside others
# Pages that list others, and which of their links are those.
LISTS = {
    "docs/environments/index": r"[^/]+",
    "docs/algorithms": r"algorithms/[^/]+",
    "examples/README": r"[^/]+/README\.md",
}


def contents(text: str) -> str:
    """Hidden tables of contents, one for each section of the index, from the pages that it links to."""
    _, *parts = HEADING.split(text)
    seen: set[str] = set()
    trees = []
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        pages = [page for page in dict.fromkeys(PAGE_LINK.findall(body)) if page not in seen]
        seen.update(pages)
        trees.append(toctree([TITLES.get(page, page) for page in pages], title))
    return "\n\n".join(trees)


def toctree(pages: list[str], caption: str = "") -> str:
    """A hidden table of contents; empty where there are no pages."""
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["```{toctree}", *options, "", *pages, "```"]) if pages else ""


def public_names(module: ModuleType) -> list[str]:
    """What a module offers: its `__all__`, else the classes and functions that it defines itself.

    What `collm_envs` offers under its own name is not shown again with the module that defines it.
    """
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
        and getattr(collm_envs, name, None) is not value
    ]


def docstrings(name: str) -> str:
    """The section of a page of the reference that shows a module."""
    module = importlib.import_module(name)
    blocks = [f".. automodule:: {name}", f".. currentmodule:: {name}"]
    for own in public_names(module):
        found = getattr(module, own)
        if inspect.isclass(found):
            kind = "exception" if issubclass(found, BaseException) else "class"
            blocks.append(f".. auto{kind}:: {own}\n   :members:")
        elif inspect.isfunction(found):
            blocks.append(f".. autofunction:: {own}")
    return "\n\n".join([f"## `{name}`", "```{eval-rst}", *blocks, "```"])


def add_to_source(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add to a page what only the site has."""
    text = source[0]
    found = [DOTTED.sub(r"{py:obj}`\1`", text)]
    if docname == root_doc:
        found.append(contents(text))
    elif docname in LISTS:
        pages = dict.fromkeys(PAGE_LINK.findall(text))
        found.append(toctree([page for page in pages if re.fullmatch(LISTS[docname], page)]))
    elif docname.startswith("docs/reference/"):
        found = [text, *map(docstrings, MODULE_ROW.findall(text))]
    source[0] = "\n\n".join(found)


def inline_math(writer: HTML5Translator, node: nodes.math) -> None:
    """An equation in a line, as MathML."""
    writer.body.append(tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def display_math(writer: HTML5Translator, node: nodes.math_block) -> None:
    """An equation of its own, as MathML."""
    writer.body.append(f'<div class="equation">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Sphinx's hook."""
    app.connect("source-read", add_to_source)
    app.add_html_math_renderer("mathml", (inline_math, None), (display_math, None))
