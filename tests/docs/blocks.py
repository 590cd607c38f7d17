"""Fenced code blocks of the README and the docs: found, judged by their tag, and run.

The info string says what is done with a block:

- ```` ```bash run ````: run with `bash -euo pipefail`; `collm` and `python` are those of the tests.
- ```` ```bash setup ````: only run in a clean clone; here its `make` targets must exist.
- ```` ```bash needs-hub ````: `collm train` commands, run with `--dry-run` and the hub offline.
- ```` ```python run ````: run as a script.
- ```` ```toml config ````: must load through `load_config`.
- ```` ```toml suite ````: must be a suite all of whose runs could begin.
- ```` ```toml search ````: must be such a suite with a search all of whose ranges could be drawn from.
- ```` ```text ````: not run.

`file=NAME` behind `python run` or a `toml` tag saves the block under that name, for the blocks that follow.
The blocks of a page run in order in one folder, beside links to `examples/` and, where they exist, the shared
data sets. Any other fence is an error: a block that nobody runs is a block that rots.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
TAGS = {
    "bash": ("run", "setup", "needs-hub"),
    "python": ("run",),
    "toml": ("config", "suite", "search"),
    "text": (),
}
LIMIT_S = 300
FENCE = re.compile(r" {0,3}(?P<ticks>`{3,}|~{3,})(?P<info>[^`]*)$")
# What a command says, in its one line, when the hub cannot be reached.
HUB_ERROR = re.compile(r"collm: error: .*(hub:|huggingface\.co|Hugging Face)", re.IGNORECASE)


class BlockError(AssertionError):
    """A block is not what its tag promises; the message names page and line."""


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: path of the page, for messages.
        line: line of its opening fence, from 1.
        language: first word of the info string.
        tag: second word, "" where there is none.
        file: name it is saved under, "" where there is none.
        body: its text.
    """

    page: str
    line: int
    language: str
    tag: str
    file: str
    body: str

    def error(self, message: str) -> BlockError:
        """An error that says where the block stands."""
        return BlockError(f"{self.page}:{self.line}: {message}")

    @property
    def needs_shared(self) -> bool:
        """Whether it reads the shared data sets, which a clone may not have beside it."""
        return "../shared/data" in self.body


def pages() -> list[Path]:
    """The README, whether it exists or not, and the pages of the docs."""
    written = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "algorithms").glob("*.md")]
    return [ROOT / "README.md", *sorted(written)]


def blocks(text: str, page: str) -> list[Block]:
    """The blocks of a page.

    Raises:
        BlockError: for a fence without language or tag, with an unknown one, or never closed.
    """
    found: list[Block] = []
    open_at, info, ticks, body = 0, "", "", []
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.match(line)
        if not open_at:
            if fence:
                open_at, info, ticks, body = number, fence["info"].strip(), fence["ticks"], []
        elif fence and not fence["info"].strip() and fence["ticks"].startswith(ticks):
            found.append(_block(page, open_at, info, "\n".join(body) + "\n"))
            open_at = 0
        else:
            body.append(line)
    if open_at:
        raise BlockError(f"{page}:{open_at}: this block is never closed")
    return found


def _block(page: str, line: int, info: str, body: str) -> Block:
    language, *words = info.split() or [""]
    file = next((word.removeprefix("file=") for word in words if word.startswith("file=")), "")
    tags = [word for word in words if not word.startswith("file=")]
    block = Block(page, line, language, tags[0] if tags else "", file, body)
    if language not in TAGS:
        raise block.error(f"a block is one of {', '.join(TAGS)}, not {language!r}")
    allowed = TAGS[language]
    if len(tags) > 1 or (block.tag not in allowed if allowed else block.tag):
        raise block.error(f"```{language} carries one tag of {', '.join(allowed) or 'none'}, not {tags}")
    if file and language not in ("python", "toml"):
        raise block.error("file= goes with python and toml")
    return block


def commands(body: str) -> list[list[str]]:
    """The commands of a shell block as words, continued lines joined and `&&` split."""
    found: list[list[str]] = []
    for line in body.replace("\\\n", " ").split("\n"):
        words = shlex.split(line, comments=True)
        while "&&" in words:
            at = words.index("&&")
            found.append(words[:at])
            words = words[at + 1 :]
        found.append(words)
    return [words for words in found if words]


def make_targets() -> set[str]:
    """Targets of the Makefile."""
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def check_setup(block: Block) -> None:
    """A setup block names make targets, and they exist."""
    made = [word for words in commands(block.body) if words[0] == "make" for word in words[1:]]
    targets = [word for word in made if "=" not in word and not word.startswith("-")]
    if not targets:
        raise block.error("a setup block names a make target")
    for target in targets:
        if target not in make_targets():
            raise block.error(f"the Makefile has no target {target!r}")


class Workshop:
    """The folder that the blocks of one page share.

    Args:
        folder: an empty folder; blocks run in a subfolder of it.
        limit_s: longest run of one block.
    """

    def __init__(self, folder: Path, limit_s: float = LIMIT_S) -> None:
        self.limit_s = limit_s
        self.cwd = folder / "collm"
        self.cwd.mkdir()
        (self.cwd / "examples").symlink_to(ROOT / "examples")
        if SHARED.is_dir():
            (folder / "shared").symlink_to(SHARED)
        tools = folder / "bin"
        tools.mkdir()
        for name, start in (("collm", "-m collm_agents.cli"), ("python", ""), ("python3", "")):
            tool = tools / name
            tool.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {start} "$@"\n')
            tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        self.env = {
            **os.environ,
            "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "100",
        }

    def run(self, block: Block) -> None:
        """Do what the block's tag says.

        Raises:
            BlockError: when it fails or takes too long.
        """
        if block.file:
            (self.cwd / block.file).write_text(block.body, encoding="utf-8")
        match block.language, block.tag:
            case "bash", "run":
                self._expect(block, ["bash", "-euo", "pipefail", "-c", block.body])
            case "bash", "setup":
                check_setup(block)
            case "bash", "needs-hub":
                self._dry_run(block)
            case "python", _:
                file = self.cwd / (block.file or f"block_{block.line}.py")
                file.write_text(block.body, encoding="utf-8")
                self._expect(block, [sys.executable, file.name])
            case "toml", _:
                self._load(block)

    def _call(self, block: Block, words: list[str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                words,
                cwd=self.cwd,
                env=self.env,
                input="",
                capture_output=True,
                text=True,
                timeout=self.limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise block.error(f"took longer than {self.limit_s} s; give it a smaller budget") from None

    def _expect(self, block: Block, words: list[str]) -> None:
        done = self._call(block, words)
        if done.returncode:
            told = (done.stdout + done.stderr)[-3000:]
            raise block.error(f"exit code {done.returncode}\n{block.body}\n{told}")

    def _dry_run(self, block: Block) -> None:
        for words in commands(block.body):
            if words[:2] != ["collm", "train"]:
                raise block.error(f"a needs-hub block holds `collm train` commands, not {words[0]!r}")
            extra = [] if "--dry-run" in words else ["--dry-run"]
            done = self._call(block, [sys.executable, "-m", "collm_agents.cli", *words[1:], *extra])
            errors = done.stderr.strip().splitlines()
            if done.returncode and not (errors and HUB_ERROR.match(errors[-1])):
                raise block.error(f"{shlex.join(words)}: exit code {done.returncode}\n{done.stderr[-3000:]}")

    def _load(self, block: Block) -> None:
        from collm_agents.overrides import load_config
        from collm_agents.search_file import find_search
        from collm_agents.suite_file import find_suite
        from collm_envs import InputError

        file = self.cwd / (block.file or f"block_{block.line}.toml")
        file.write_text(block.body, encoding="utf-8")
        try:
            if block.tag == "suite":
                find_suite(str(file)).runs()
            elif block.tag == "search":
                find_search(str(file))
            else:
                load_config(files=[file])
        except InputError as error:
            raise block.error(str(error)) from error
