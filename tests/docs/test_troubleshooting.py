"""Messages that `docs/troubleshooting.md` explains are messages that the code gives."""

import ast
import re
from pathlib import Path

import pytest

from collm_agents.config import Config
from collm_agents.explain import explain

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
MESSAGES, CURVES = PAGE.split("## A curve that does not rise")
FIRST_CELLS = [cell for cell in re.findall(r"^\| (.+?) \|", MESSAGES, re.M) if cell != "message"]
QUOTED = [quote for cell in FIRST_CELLS for quote in re.findall(r"`([^`]+)`", cell)]
NOT_MESSAGES = ("ENV, task '…', turn …", "EnvFault", "NonFiniteError")


def said():
    """Every literal text of both packages, f-strings with … for what is filled in."""
    for package in ("collm_envs", "collm_agents"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


SAID = list(said())


def is_said(quote):
    """Whether some text has the pieces of the quote in their order."""
    pieces = [re.escape(piece.strip()) for piece in quote.split("…") if piece.strip()]
    pattern = re.compile(".*?".join(pieces), re.DOTALL)
    return any(pattern.search(text) for text in SAID)


@pytest.mark.parametrize("quote", [quote for quote in QUOTED if quote not in NOT_MESSAGES])
def test_a_quoted_message_is_one_of_the_code(quote):
    assert is_said(quote)


def test_a_message_that_nobody_gives_would_be_noticed():
    assert len(QUOTED) > 30
    assert not is_said("unknown environment … of the third kind")


def test_settings_that_are_advised_exist():
    keys = {row.key for row in explain(Config)}
    sections = {key.partition(".")[0] for key in keys}
    for name in re.findall(r"`(\w+\.\w+(?:\.\w+)*)(?:=[^`]*)?`", PAGE):
        if name.partition(".")[0] in sections and not name.startswith(("algorithm.", "env.")):
            assert name in keys, name
