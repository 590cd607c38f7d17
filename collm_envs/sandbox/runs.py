"""One program and its tests on their way through the slots: attempts, verdicts, result.

For the supervisor. A test that hangs or kills its process costs the others nothing: they get a fresh process,
up to a number of times. A run is voided where an answer comes that nobody asked for.
"""

from __future__ import annotations

import os
from typing import Any

from collm_envs.sandbox import verdict
from collm_envs.sandbox.frames import BadFrame, unpack

MAX_CRASHES = 3  # processes that a program may bring down before its other tests count as errors
LOAD_FRAMES = 4  # ready, facts, loaded or broken, done


MAX_MESSAGE = 300  # characters
START_S = (
    0.25  # what must be left for another attempt: a process without time to start looks like a fault of ours
)


def _is(frame: list[Any], kind: str, *types: type) -> bool:
    """Whether a frame is of a kind and has values of exactly these types: hostile until then."""
    return (
        frame[0] == kind
        and len(frame) == 1 + len(types)
        and all(map(lambda v, t: type(v) is t, frame[1:], types))
    )


class Infra(Exception):
    """The sandbox itself failed; the program is not to blame."""


class Run:
    """State of one submitted program.

    Args:
        message: `id`, `program`, `plan` (as `Plan.wire` writes it), `limit_s` (seconds a test may take),
            `max_timeouts` (after so many, the other tests count as timed out), `total_s` (for all).
    """

    def __init__(self, message: dict[str, Any]) -> None:
        self.id: int = message["id"]
        self.program, self.plan = message["program"], message["plan"]
        self.mode: str = self.plan["mode"]
        self.limit_s, self.total_s = message["limit_s"], message["total_s"]
        self.max_timeouts: int = message["max_timeouts"]
        self.faults = 0
        self.restart()

    def restart(self) -> None:
        """Forget everything but the number of faults."""
        self.outcomes: list[tuple[str, str] | None] = [None] * len(self.plan["names"])
        self.facts: dict[str, Any] = {}
        self.error, self.seconds, self.foul = "", 0.0, False
        self.timeouts = self.crashes = 0
        self._begin()

    def _begin(self) -> None:
        self.nonce = os.urandom(8).hex()
        self.heard: dict[str, dict[str, Any]] = {}

    @property
    def left(self) -> list[int]:
        """Tests without an outcome, in order."""
        return [index for index, outcome in enumerate(self.outcomes) if outcome is None]

    @property
    def finished(self) -> bool:
        """Whether every test has its outcome."""
        return bool(self.error) or not self.left

    @property
    def complete(self) -> bool:
        """Whether every process of this attempt has reported."""
        wanted = {"calls": 1, "inproc": 1}.get(self.mode, 2)
        return len(self.heard) == wanted

    def jobs(self) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """What the cell and the bench are to do in this attempt."""
        left = self.left
        spent = {"limit_s": self.limit_s, "total_s": max(self.total_s - self.seconds, 0.001)}
        common = {"id": self.id, "nonce": self.nonce, **spent, "most": LOAD_FRAMES + len(left)}
        tests = {**self.plan["tests"], "mode": self.mode, "only": left}
        if self.mode == "calls":
            calls = [self.plan["calls"][index] for index in left]
            return {**common, **self.program, "mode": "calls", "calls": calls}, None
        if self.mode == "inproc":
            return None, {**common, **self.program, **tests}
        # While the tests run the program's child says nothing, so it has the time of all of them.
        served = {**common, **self.program, "mode": "serve", "calls": [], "limit_s": spent["total_s"]}
        return served, {**common, **tests}

    def hear(self, report: dict[str, Any], of_tests: bool) -> None:
        """Take a worker's report of this attempt."""
        self.heard["tests" if of_tests else "program"] = report

    def close_attempt(self) -> None:
        """Turn the reports of an attempt into outcomes.

        Raises:
            Infra: when a process of ours failed before anything untrusted ran.
        """
        heard = self.heard
        self.seconds += max(report["seconds"] for report in heard.values())
        try:
            frames = {who: self._frames(report) for who, report in heard.items()}
            for who in frames:
                if self._loads(who):
                    self._read_loading(frames[who], judged=len(frames.get("tests", ())) > 0)
            if any(report["end"] == "flood" for report in heard.values()):
                raise BadFrame("the program sent more than it was asked for")
            if self.error or not self.left:
                pass
            elif self.mode == "calls":
                self._read_answers(frames["program"], heard["program"]["end"])
            else:
                self._read_verdicts(frames["tests"], heard["tests"]["end"])
        except BadFrame as error:
            self.foul = True
            self.outcomes = [("protocol", str(error))] * len(self.outcomes)
        if self.error:
            self._fill("error", self.error)
        self._begin()

    def _frames(self, report: dict[str, Any]) -> list[list[Any]]:
        frames = [unpack(body.encode("latin-1")) for body in report["frames"]]
        if not frames or frames[0] != [self.nonce, "ready"]:
            if report["end"] == "flood":  # so much, and so soon, that nothing of it could be read
                raise BadFrame("the program sent more than it was asked for")
            raise Infra(f"a child was not ready: {report['end']}")
        for frame in frames:
            if not isinstance(frame, list) or len(frame) < 2 or frame[0] != self.nonce:
                raise BadFrame("an answer without its number")
            if type(frame[1]) is not str:
                raise BadFrame("an answer of no known kind")
        return [frame[1:] for frame in frames[1:]]

    def _read_loading(self, frames: list[list[Any]], judged: bool) -> None:
        """Facts, and whether the program loaded; takes these frames off the list.

        Tests that could not be set up end before the program has loaded; what they said then stands.

        Facts are the first frame of a child whose program has a recipe: the recipe runs before anything untrusted.
        """
        if self.program.get("prepare") and frames and _is(frames[0], "facts", dict):
            self.facts = frames.pop(0)[1]
        if frames and _is(frames[0], "loaded"):
            frames.pop(0)
        elif frames and _is(frames[0], "broken", str, str):
            self.error = f"{frames[0][1]}: {frames[0][2]}"
        elif frames:
            raise BadFrame("a program that neither loaded nor broke")
        else:
            (report,) = (self.heard[who] for who in ("program", "tests") if self._loads(who))
            if report["end"] == "stopped" and judged:
                return
            if report["end"] in ("timeout", "stopped"):
                self._fill("timeout", "the program did not finish loading")
            else:
                self.error = f"the program ended while it was loading ({report['end']})"

    def _loads(self, who: str) -> bool:
        return who == ("tests" if self.mode == "inproc" else "program")

    def _read_answers(self, frames: list[list[Any]], end: str) -> None:
        """Outcomes of calls, each judged by what its test expects."""
        asked = self.left
        done = bool(frames) and frames[-1] == ["done"]
        answers = frames[:-1] if done else frames
        if len(answers) > len(asked):
            raise BadFrame("an answer to no question")
        for index, answer in zip(asked, answers, strict=False):
            self.outcomes[index] = self._judge(index, answer)
        if done:
            if self.left:
                raise BadFrame("a question without its answer")
        elif self.left:
            self._stumble(end)

    def _judge(self, index: int, answer: list[Any]) -> tuple[str, str]:
        if len(answer) < 2 or type(answer[1]) is not int or answer[1] != index:
            raise BadFrame("an answer to another question")
        if answer[0] == "value" and len(answer) == 3:
            return verdict.judge(self.plan["expects"][index], answer[2])
        if _is(answer, "raised", int, str, str):
            return "error", f"{answer[2]}: {answer[3]}"[:MAX_MESSAGE]
        raise BadFrame("an answer of no known kind")

    def _read_verdicts(self, frames: list[list[Any]], end: str) -> None:
        """Outcomes that the bench reached (or, `inproc`, that the program's own process claims)."""
        asked = set(self.left)
        for frame in frames:
            if _is(frame, "test", int, str, str) and frame[1] in asked and frame[2] in verdict.STATUSES:
                asked.discard(frame[1])
                self.outcomes[frame[1]] = (frame[2], frame[3][:MAX_MESSAGE])
            elif frame != ["done"]:
                raise BadFrame("an answer to no question")
        if self.left:
            self._stumble("never answered" if ["done"] in frames else end)

    def _stumble(self, end: str) -> None:
        """The first test without an answer hung or brought its process down; the rest get another try."""
        at = self.left[0]
        if end in ("timeout", "stopped"):
            self.timeouts += 1
            self.outcomes[at] = ("timeout", f"no answer within {self.limit_s:g} s")
            if self.timeouts >= self.max_timeouts or self.seconds >= self.total_s:
                self._fill("timeout", "not run after so many timeouts")
        else:
            self.crashes += 1
            self.outcomes[at] = ("error", f"the process ended ({end})")
            if self.crashes >= MAX_CRASHES:
                self._fill("error", "not run after so many crashes")
        if self.total_s - self.seconds < START_S:
            self._fill("timeout", "not run: the time for all tests was over")

    def _fill(self, status: str, message: str) -> None:
        for index in self.left:
            self.outcomes[index] = (status, message)

    def result(self) -> dict[str, Any]:
        """What the trainer is told."""
        return {
            "id": self.id,
            "outcomes": [(status, _line(message)) for status, message in filter(None, self.outcomes)],
            "facts": self.facts,
            "trust": "inproc" if self.mode == "inproc" else "judged",
            "seconds": self.seconds,
            "error": _line(self.error),
        }


def _line(text: str) -> str:
    """Text that a program may have made as one line without control characters."""
    words = " ".join(text.split())[:MAX_MESSAGE]
    shown = "".join(part if part.isprintable() else ascii(part)[1:-1] for part in words)
    return shown[:MAX_MESSAGE]
