"""Python definitions out of what a model wrote: fences, prose, thoughts, broken ends and all.

For `assemble`, inside the sandbox's confined child: the parser can be made to exhaust memory or recursion, so no
model text is parsed in the trainer. Standard library only. A reply without usable code is an outcome, never an
exception, and the cost is bounded: a reply is parsed whole once, its fences once each, and what then still lacks is
looked for block by block within a fixed budget.

Where a reply defines a name several times, the last complete definition counts, as it would in Python. A block that
does not parse is not mended: cutting off its broken end would make another program than the agent wrote.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Collection
from dataclasses import dataclass, field

Function = ast.FunctionDef | ast.AsyncFunctionDef
PARSE_ERRORS = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)

_FENCE = re.compile(
    r"(?:(?:[-*>]|\d+\.)[ \t]*)?(```+|~~~+)[ \t]*([A-Za-z0-9_+.#-]*)[ \t]*(.*)"
)  # of a line without margin
_HEADER = re.compile(r"([ \t]*)(?:async[ \t]+)?def[ \t]+(\w+)[ \t]*\(")
_GOES_ON = (")", "]", "}", "#")  # how a line at the margin begins that does not end a block
_RETURN = re.compile(r"\breturn\b[ \t]*\S|\byield\b")
_FOREIGN = re.compile(
    r"(?i)(?:bash|sh|shell|console|text|txt|plaintext|output|json|yaml|java|javascript|js|c|cpp)$"
)
_OPENS = re.compile(
    r"[ \t]*(?:async[ \t]+)?(?:def|if|for|while|try|else|elif|with|except|finally)\b.*:[ \t]*(?:#|$)"
)
_CLASS = re.compile(r"[ \t]*class[ \t]+\w++.*:[ \t]*(?:#|$)")
_CODE_WORDS = ("def", "async", "class", "import", "from")
_MAX_LINES = 20_000
_MAX_MARGIN = 400  # columns; Python allows a hundred levels
_ATTEMPTS = 64  # of the search by blocks in one reply
_CHARS = 600_000  # that these may read
_EXTENSIONS = 4
_LOOK_BACK = 200  # lines


@dataclass(frozen=True)
class Fault:
    """Why a text does not parse: line and column in the reply, counted from 1, and the parser's words."""

    line: int
    column: int
    message: str

    def plain(self) -> list:
        """As plain data."""
        return [self.line, self.column, self.message]


@dataclass(frozen=True)
class Broken:
    """A wanted definition that is there but does not parse."""

    text: str
    fault: Fault

    @property
    def returns(self) -> bool:
        """Whether it seems to return something; it cannot be parsed, so its words decide."""
        return bool(_RETURN.search(self.text))


@dataclass
class Reply:
    """What a reply holds.

    Attributes:
        statements: top-level statements in reading order, of whatever parses.
        broken: wanted names whose definitions are there but do not parse, none of which also parses elsewhere.
    """

    statements: list[ast.stmt] = field(default_factory=list)
    broken: dict[str, Broken] = field(default_factory=dict)


@dataclass(frozen=True)
class _Segment:
    """Lines of a reply: fenced ones, or the prose between fences."""

    first: int  # line number of its first line, from 1
    lines: list[str]
    fenced: bool

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def read(text: str, wanted: Collection[str], *, methods: bool = False) -> Reply:
    """Find the definitions in a reply.

    Args:
        text: the reply, whatever it is.
        wanted: names of functions to look for by all means. What stands beside them is taken along where it
            parses.
        methods: whether they are methods, which may also stand in a class that does not parse.
    """
    text = clean(text)
    whole = _parse(text)
    if isinstance(whole, list) and any(isinstance(node, (*_FUNCTIONS, ast.ClassDef)) for node in whole):
        return Reply(whole)
    segments = _segments(text)
    # Prose between fences rarely parses, and where it does it is no code: it is searched for names alone.
    order = [s for s in segments if s.fenced] + [s for s in segments if not s.fenced]
    reply = Reply()
    budget = [_ATTEMPTS, _CHARS]
    for segment in order:
        is_code = segment.fenced or len(segments) == 1
        parsed = _parse(_dedented(segment.text)) if is_code else None
        if isinstance(parsed, list):
            reply.statements += parsed
            continue
        found = _defined(reply.statements)
        missing = [name for name in wanted if segment.fenced or name not in found]
        _Search(segment, missing, reply, budget, extras=is_code, methods=methods).run()
    for name in _defined(reply.statements):
        reply.broken.pop(name, None)
    return reply


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def clean(text: str) -> str:
    """A reply with one kind of line end, tabs at line starts as four spaces, and no thoughts or stray signs.

    What is taken out leaves its line ends behind, so that line numbers stay those of the reply.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "").replace("\ufeff", "")
    text = text.encode("utf-8", "replace").decode("utf-8")
    text = _without_thoughts(text)
    lines = text.split("\n")[:_MAX_LINES]
    return "\n".join(_spaced(line) for line in lines)


def _spaced(line: str) -> str:
    rest = line.lstrip(" \t\u00a0\u3000")
    margin = line[: len(line) - len(rest)].replace("\t", "    ").replace("\u00a0", " ").replace("\u3000", " ")
    return margin[:_MAX_MARGIN] + rest


def _without_thoughts(text: str) -> str:
    """Blank out `<think>` blocks, unclosed ones included, and all before a lone closing tag."""
    kept: list[str] = []
    start = text.rfind("</think>")
    if start >= 0 and "<think>" not in text[:start]:
        return "\n" * text.count("\n", 0, start) + text[start + len("</think>") :]
    at = 0
    while (begin := text.find("<think>", at)) >= 0:
        kept.append(text[at:begin])
        end = text.find("</think>", begin)
        stop = len(text) if end < 0 else end + len("</think>")
        kept.append("\n" * text.count("\n", begin, stop))
        at = stop
    return "".join([*kept, text[at:]])


def _segments(text: str) -> list[_Segment]:
    """Cut a reply at its fences. An unclosed fence reaches to the end."""
    segments: list[_Segment] = []
    lines: list[str] = []
    first, fence, skip = 1, "", False

    def close(next_line: int) -> None:
        nonlocal lines, first
        if any(map(str.strip, lines)) and not skip:
            segments.append(_Segment(first, lines, bool(fence)))
        lines, first = [], next_line

    for number, line in enumerate(text.split("\n"), 1):
        line_text = line.lstrip()
        match = _FENCE.match(line_text)
        if match is None or (fence and not match[1].startswith(fence)):
            lines.append(line)
            continue
        language, rest = match[2], match[3]
        if language in _CODE_WORDS:  # no language was named
            language, rest = "", line_text[match.end(1) :].strip()
        inline, mark, _ = rest.partition(match[1])
        if not fence and mark:  # a fence of one line
            close(number)
            segments.append(_Segment(number, [inline.strip()], True))
            first = number + 1
            continue
        close(number + 1)
        skip = not fence and bool(_FOREIGN.match(language))
        fence = "" if fence else match[1]
        if fence and rest.strip():  # code that begins on the fence's own line
            lines, first = [rest], number
    close(0)
    return segments


def _dedented(text: str) -> str:
    return textwrap.dedent(text).strip("\n") if text[:1].isspace() else text


def _parse(text: str) -> list[ast.stmt] | Fault:
    """The statements of a text, or why it has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in a reply is nobody's business here
            return ast.parse(text).body
    except SyntaxError as error:
        return Fault(error.lineno or 1, error.offset or 1, str(error.msg)[:120])
    except PARSE_ERRORS as error:
        return Fault(1, 1, f"{type(error).__name__} while parsing")


def _defined(statements: list[ast.stmt]) -> set[str]:
    """Names of the functions at the top level or in classes at the top level."""
    found = set()
    for node in statements:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        found |= {item.name for item in inner if isinstance(item, _FUNCTIONS)}
    return found


@dataclass
class _Search:
    """Looks for definitions block by block in a segment that does not parse as a whole.

    Attributes:
        segment: where to look.
        wanted: names to look for at every depth.
        reply: where finds are put.
        budget: attempts to parse, and characters to read, that are left to the whole reply.
        extras: whether to take other functions and imports at the margin along.
        methods: whether what stands in a class counts.
    """

    segment: _Segment
    wanted: Collection[str]
    reply: Reply
    budget: list[int]
    extras: bool
    methods: bool

    def run(self) -> None:
        lines, number = self.segment.lines, 0
        while number < len(lines) and self.budget[0] > 0:
            match = _HEADER.match(lines[number])
            if match is None:
                if self.extras and lines[number].startswith(("import ", "from ")):
                    self._take_import(lines[number])
                number += 1
                continue
            name, margin = match[2], len(match[1])
            is_extra = self.extras and not margin
            if (name in self.wanted or is_extra) and not self._enclosed(number, margin):
                number = self._take_block(number, margin, name)
            else:
                number += 1

    def _take_import(self, line: str) -> None:
        self.budget[0] -= 1
        parsed = _parse(line)
        if isinstance(parsed, list):
            self.reply.statements += parsed

    def _enclosed(self, number: int, margin: int) -> bool:
        """Whether the nearest line above with a smaller margin opens a block of code."""
        lines = self.segment.lines
        for above in range(number - 1, max(-1, number - _LOOK_BACK), -1):
            line = lines[above]
            if line.strip() and _margin(line) < margin:
                return bool(_OPENS.match(line) or (not self.methods and _CLASS.match(line)))
        return False

    def _take_block(self, number: int, margin: int, name: str) -> int:
        """Parse the block under a header, decorators included; the next line to look at."""
        lines = self.segment.lines
        first = number
        while first and lines[first - 1][margin : margin + 1] == "@" and _margin(lines[first - 1]) == margin:
            first -= 1
        nearest = end = _end(lines, number + 1, margin)
        fault = Fault(1, 1, "too much to read")
        for attempt in range(_EXTENSIONS):
            text = textwrap.dedent("\n".join(lines[first:end]))
            if self.budget[0] <= 0 or self.budget[1] < len(text):
                break
            self.budget[0] -= 1
            self.budget[1] -= len(text)
            parsed = _parse(text)
            if isinstance(parsed, list):
                self.reply.statements += parsed
                return end
            fault = fault if attempt else parsed
            # A string may hold text at the margin: then the block ends at a later line.
            if end >= len(lines) or ('"""' not in text and "'''" not in text):
                break
            end = _end(lines, end + 1, margin)
        if name in self.wanted:
            place = Fault(self.segment.first + first + fault.line - 1, fault.column + margin, fault.message)
            self.reply.broken[name] = Broken("\n".join(lines[first:nearest]), place)
        return number + 1


def _margin(line: str) -> int:
    return len(line) - len(line.lstrip())


def _end(lines: list[str], number: int, margin: int) -> int:
    """The line that ends a block: the first from `number` on at its margin or left of it (see `_GOES_ON`)."""
    while number < len(lines):
        line = lines[number]
        if line.strip() and _margin(line) <= margin and not line.lstrip().startswith(_GOES_ON):
            break
        number += 1
    return number
