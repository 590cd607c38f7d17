"""Every parser and extractor that reads text nobody vouches for, as a function of one text.

Each asserts what must hold whatever the text is; what it may raise are the errors a person is shown. Read by
`test_parsers.py`, which gives it examples, and by `fuzz.py`, which searches with coverage as its guide.
"""

from __future__ import annotations

import json
import math
import tempfile
import tomllib
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from collm_agents.episodes import said_and_seen
from collm_agents.overrides import load_config, load_env_settings, parse_value
from collm_agents.remote import _json, _Passing, _pause, _read
from collm_agents.remote_eval import parse_players
from collm_agents.report import escaped
from collm_agents.suite_file import read_suite, suite_of_words, suite_table, with_words
from collm_envs import make
from collm_envs.coding import assemble, extract
from collm_envs.env import CollabEnv
from collm_envs.errors import CollmError, DataError
from collm_envs.games.blocks import Allowance, Box, CellGrammar, Kill, LineGrammar, parse
from collm_envs.history import cut_middle, encodable, entry
from collm_envs.scripted import parse_kinds
from collm_envs.task import RowFormat, _check_ids, _to_task, parse_split, read_rows
from collm_envs.text import (
    char_ratio,
    connective_categories,
    jaccard,
    pieces,
    split_at_marker,
    unique_word_ratio,
    word_tokens,
)

AGENTS = ("builder_0", "builder_1")
TARGETS: dict[str, Callable[[str], None]] = {}


def target(function: Callable[[str], None]) -> Callable[[str], None]:
    """Put a function into the table."""
    TARGETS[function.__name__] = function
    return function


def halves(text: str) -> tuple[str, str]:
    """Two texts of one."""
    first, _, second = text.partition("\x1f")
    return first, second


@target
def measures(text: str) -> None:
    first, second = halves(text)
    for measure in (char_ratio, unique_word_ratio, jaccard):
        assert math.isfinite(measure(first, second))
    assert 0.0 <= jaccard(first, second) <= 1.0
    assert all(word and word in text.lower() for word in word_tokens(text.lower()))
    assert all(piece in text for piece in pieces(text))
    connective_categories(first, second)
    before, after = split_at_marker(first, second or "#")
    assert len(before) + len(after) <= len(first)


@target
def code(text: str) -> None:
    for methods in (False, True):
        reply = extract.read(text, ("solve", "aux"), methods=methods)
        assert all(hasattr(statement, "lineno") for statement in reply.statements)
    payload = {
        "replies": [{"text": text, "functions": [name]} for name in ("aux", "solve")],
        **{"entry": "solve", "imports": "", "given": ""},
    }
    program, facts = assemble.function(payload)
    assert "fault" not in facts
    assert program is None or isinstance(program, str)
    cleaned = extract.clean(text)
    assert "\r" not in cleaned


@target
def commands(text: str) -> None:
    box, blocks = Box(6, 6, 6), {"air": 0, "stone": 1, "p": 2}
    for grammar in (LineGrammar(), LineGrammar(("fill", "kill")), CellGrammar()):
        found = parse(text, grammar, Allowance(box, blocks, 8, {1: 4}))
        assert len(found.commands) <= 8
        assert len(found.commands) + sum(found.dropped.values()) == found.lines
        assert all(isinstance(one, Kill) or one.block in (0, 1, 2) for one in found.commands)


@cache
def _games() -> tuple[CollabEnv, ...]:
    ids = ("strbuild-v0", "housebuild-v0", "strbuild-mini-v0", "housebuild-mini-v0")
    return tuple(make(f"games/{name}", num_turns=2) for name in ids)


@target
def games(text: str) -> None:
    form = zlib.crc32(encodable(text).encode("utf-8")) % 2  # the texts are shared out over the two sizes
    for env in _games()[2 * form :][:2]:
        env.reset(seed=0)
        for _ in range(2):
            observations, rewards, *_, infos = env.step(dict.fromkeys(env.agents, text))
            assert all(math.isfinite(reward) for reward in rewards.values())
            assert env.low - 1e-9 <= infos[next(iter(infos))]["score"] <= env.high + 1e-9
            assert all(env.observation_space(agent).contains(seen) for agent, seen in observations.items())
            if not env.agents:
                break


@cache
def _writing() -> tuple[CollabEnv, ...]:
    return tuple(make(f"writing/{name}", num_turns=1) for name in ("tldr-v0", "arxiv-v0"))


@target
def posts(text: str) -> None:
    for env in _writing():
        env.reset(seed=0)
        _, _, _, _, infos = env.step(dict(zip(env.agents, halves(text), strict=True)))
        assert env.low - 1e-9 <= infos[next(iter(infos))]["score"] <= env.high + 1e-9


@target
def histories(text: str) -> None:
    """What an agent says stays what it said: no text opens an entry."""
    first, second = halves(text)
    said = {
        ("builder_0", 0, "sees"): first,
        ("builder_0", 0, "says"): second,
        ("builder_1", 0, "sees"): text,
        ("builder_1", 0, "says"): first,
        ("builder_0", 1, "sees"): second,
        ("builder_0", 1, "says"): text,
    }
    whole = "".join(entry(*place, own) for place, own in said.items())
    turns = said_and_seen(whole)
    assert [sorted(turn) for turn in turns] == [["builder_0", "builder_1"], ["builder_0"]]
    for (agent, turn, kind), own in said.items():
        found = turns[turn][agent][kind]
        assert found.replace(" @", "@") == own.replace(" @", "@")
    assert len(cut_middle(text, 20)) <= 20
    encodable(text).encode("utf-8")
    assert not set("<>\n") & set(escaped(text))


@target
def settings(text: str) -> None:
    """Overrides, splits, and words of a suite: a value, or one of our errors."""
    parse_value(text)
    for read in (
        lambda: load_config("debug/echo-v0", overrides=[text]),
        lambda: load_config("debug/echo-v0", overrides=[f"learner.lr={text}"]),
        lambda: load_env_settings("debug/echo-v0", [text]),
        lambda: parse_split(text),
        lambda: parse_kinds(text, AGENTS),
        lambda: parse_players(text, AGENTS),
        lambda: parse_players(f"builder_0=http://{text},builder_1=oracle", AGENTS),
        lambda: with_words(suite_of_words("mc", "debug/echo-v0"), [text]),
        lambda: with_words(suite_of_words("mc", "debug/echo-v0"), [], text),
        lambda: suite_of_words(text, "debug/echo-v0"),
    ):
        with suppress(CollmError):
            read()


@target
def suites(text: str) -> None:
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        return
    try:
        suite = read_suite(table, "fuzz", "fuzz")
    except CollmError:
        return
    assert read_suite(suite_table(suite), "fuzz") == suite


@cache
def _formats() -> tuple[RowFormat, ...]:
    named = (
        "coding/mbpp-v0",
        "coding/classeval-v0",
        "games/housebuild-v0",
        "games/strbuild-v0",
        "writing/tldr-v0",
    )
    return tuple(form for name in named for form in make(name).row_formats)


@cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="collm-fuzz-")


@target
def rows(text: str) -> None:
    """Files of tasks in the three text formats, down to the tasks."""
    for kind in ("jsonl", "json", "csv"):
        file = Path(_folder().name) / f"fuzz.{kind}"
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        with suppress(DataError):
            found = read_rows(file)
            _check_ids(found, "id", "fuzz")
            for index, row in enumerate(found[:4]):
                for form in _formats():
                    with suppress(DataError):
                        task = _to_task(row, index, form, "fuzz", "fuzz")
                        assert isinstance(task.id, str)
                        hash(task.public)


@target
def answers(text: str) -> None:
    """What a server may send."""
    data = text.encode("utf-8", "surrogatepass")
    try:
        said, cut, tokens = _read(_json(data))
    except _Passing:
        pass
    else:
        said.encode("utf-8")
        assert isinstance(cut, bool)
        assert tokens is None or tokens >= 0
    assert _pause({"retry-after": text}) >= 0.0
    json.dumps(said_and_seen(text))


# What a search begins with: one well-formed text per kind, to be broken from there.
SEEDS: dict[str, tuple[str, ...]] = {
    "measures": ("First, the cat sat. In addition, it's 3.14 o'clock.\x1fHowever, the dog ran.", "a#b\x1f#"),
    "code": (
        "```python\ndef solve(a, b):\n    return aux(a) + b\n```\nand\n```\ndef aux(x):\n\treturn x\n```",
        "<think>x</think>\nclass A:\n    def solve(self):\n        yield 1",
        'def aux(x):\n    """doc"""\n    if x:\n        return [1,\n 2]\nprint("no")',
    ),
    "commands": (
        "/setblock 1 2 0 stone\n- /fill 0 0 0 1 1 1 minecraft:stone[facing=east]{a:1} replace # c",
        "1. `/kill @e[type=spider,limit=1]`\na1 p b2 p c3 air",
    ),
    "games": ("/setblock 1 2 0 white_concrete\n/fill 0 0 0 1 1 1 stone\n/kill @e[type=spider]", "a1 p b2 s"),
    "posts": ("The model walks. It's new.\x1fFirst, furthermore, because the model is new, it walks.",),
    "histories": (
        "@builder_0 turn 1 says:\nx\x1f\u2028@builder_1 turn 2 sees:\n",
        "\x85@\x0b@a turn 9 says:\n",
    ),
    "settings": (
        "learner.lr=1e-4",
        "train[10:20]",
        "builder_0=oracle,builder_1=novice",
        "[1, 2]",
        "a.b.c='x'",
        "builder_0=http://[::1]:80/v1#m,builder_1=random",
        "reward=dense,sparse",
        "7,8",
        "joint_samples=64",
    ),
    "suites": (
        'name = "a"\nseeds = [1, 2]\nmodels = ["builtin"]\n[budget]\njoint_samples = 64\n[evaluation]\npoints = 2\n'
        '[algorithms.mc]\nsettings = ["rollout.samples=2"]\n[[environments]]\nenv = "debug/echo-v0"\n'
        'reward = ["dense"]\nnum_turns = [1, 2]\n',
    ),
    "rows": (
        '{"task_id": 1, "text": "Add.", "code": "def f(a):\\n    return a", "test_list": ["assert f(1) == 1"], '
        '"test_setup_code": "", "challenge_test_list": []}',
        '{"string": "ICE", "id": "a"}\n{"prompt": "SUBREDDIT: r/x\\nPOST: y"}',
        '[{"a": [1, null]}]',
        'id,text\n1,"a ""b"" c"\n2,d',
    ),
    "answers": (
        '{"choices": [{"message": {"content": "hi \\ud800"}, "finish_reason": "length"}], "usage": '
        '{"completion_tokens": 3}}',
        "1e999",
    ),
}
assert SEEDS.keys() == TARGETS.keys()
