"""Pages that need no network: one file with its styles, its script and its data inside.

For the pages of reports and runs. The page's own policy allows no other script, style or address than those it
carries; data are JSON in script elements that no browser runs, and the scripts make text nodes of them. Knows
nothing of what a page shows.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from typing import Any

STYLE, CHARTS = "page_style.css", "page_charts.js"


def fill(
    template: str, styles: Iterable[str], scripts: Iterable[str], own: Mapping[str, Iterable[str]]
) -> Iterator[str]:
    """The HTML of a page, piece by piece.

    Args:
        template: name of the file with the parts `{{STYLE}}`, `{{SCRIPT}}`, their hashes and its own.
        styles: names of the page's own styles, after those that all pages share.
        scripts: names of its own scripts, after the charts.
        own: what stands in the place of the template's own parts, as pieces, made when their place is reached.
    """
    style = "\n".join(map(_asset, (STYLE, *styles)))
    script = "\n".join(map(_asset, (CHARTS, *scripts)))
    parts: dict[str, Iterable[str]] = {
        "SCRIPT_HASH": (_hash(script),),
        "STYLE_HASH": (_hash(style),),
        "STYLE": (style,),
        "SCRIPT": (script,),
        **own,
    }
    first, *pieces = _asset(template).split("{{")
    yield first
    for piece in pieces:  # in one pass, so that no text can stand for a part
        name, _, rest = piece.partition("}}")
        yield from parts[name]
        yield rest


def as_script_data(data: Any) -> str:
    """JSON that can stand in a script element: no character in it ends the element or starts a comment."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def rounded(value: float) -> float | None:
    """Six significant digits; None for what is no finite number."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.6g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def _asset(name: str) -> str:
    return files("collm_agents").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
