"""Runs that are killed at the n-th event of a phase, in a program that loads the libraries once and forks for each.

As a program: jobs on stdin, one JSON list; what became of each on stdout, one JSON line per job. Nothing in the
packages knows of it: phases are counted by wrapping what they call.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

PHASES = ("sampling", "env step", "update", "checkpoint", "evaluation", "anywhere")


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        words: of `collm`.
        phase: what is counted; empty: nothing.
        at: the event at which the signal is sent, from 1; 0: never, and the counts of all phases are told.
        signal: name of it.
        go_on: folder of a run: where it has a checkpoint it is resumed, else it is begun anew with `words`.
    """

    words: tuple[str, ...]
    phase: str = ""
    at: int = 0
    signal: str = "SIGKILL"
    go_on: str = ""


@dataclass(frozen=True)
class Ended:
    """How it ended: exit code, or -signal; what was printed on stderr; counts by phase; whether it began anew."""

    code: int
    err: str
    counts: dict[str, int]
    anew: bool = False


def run(jobs, cwd, timeout_s=900):
    """Run jobs one after the other."""
    from cli_process import environment

    told = json.dumps([asdict(job) for job in jobs])
    done = subprocess.run(
        [sys.executable, __file__],
        cwd=cwd,
        input=told,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    return [Ended(**json.loads(line)) for line in done.stdout.splitlines()]


class Trap:
    """Counts events by phase, and sends the signal at one of them."""

    def __init__(self, phase, at, number):
        self.phase, self.at, self.number = phase, at, number
        self.counts = dict.fromkeys(PHASES, 0)
        self.evaluating = 0

    def hit(self, phase):
        self.counts[phase] += 1
        if (phase, self.counts[phase]) == (self.phase, self.at):
            os.kill(os.getpid(), self.number)

    def before(self, owner, name, phase):
        """Count calls of a function before they begin."""
        function = getattr(owner, name)

        def counted(*args, **kwargs):
            self.hit(phase() if callable(phase) else phase)
            return function(*args, **kwargs)

        setattr(owner, name, counted)

    def set(self):
        """Wrap what the phases call."""
        from collm_agents.experiment import Experiment
        from collm_agents.models import decode
        from collm_agents.sides import Side
        from collm_envs.vector import VecEnv

        def played(name):
            return lambda: "evaluation" if self.evaluating else name

        self.before(decode._Batch, "draw", played("sampling"))
        self.before(VecEnv, "send", played("env step"))
        self.before(Side, "_step", "update")
        for name in ("fsync", "rename", "replace", "mkdir", "rmdir", "unlink"):
            self.before(os, name, "checkpoint")  # what is on the disk changes between these
        evaluate = Experiment._evaluate

        def evaluated(*args, **kwargs):
            self.evaluating += 1
            try:
                return evaluate(*args, **kwargs)
            finally:
                self.evaluating -= 1

        Experiment._evaluate = evaluated
        if self.phase in ("", "anywhere"):
            sys.setprofile(self._called)

    def _called(self, frame, event, _):
        if event == "call" and "/collm_" in frame.f_code.co_filename:
            self.hit("anywhere")


def _do(job):
    """In a child: run the command, and print what was counted."""
    from collm_agents import cli

    cli._draw_curve = lambda run_dir: None  # a second of every run, and nothing that is lost
    words, anew = list(job["words"]), False
    if job["go_on"]:
        place = Path(job["go_on"])
        anew = not any(place.glob("checkpoints/*[0-9]/progress.json"))
        if anew:
            shutil.rmtree(place, ignore_errors=True)
        else:
            words = ["train", "--resume", job["go_on"]]
    trap = Trap(job["phase"], job["at"], signal.Signals[job["signal"]])
    trap.set()
    code = cli.main(words)
    sys.setprofile(None)
    return code, trap.counts, anew


def _fork(job):
    err, out = Path("stderr.part"), Path("counts.part")
    out.unlink(missing_ok=True)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            with err.open("w") as file:
                os.dup2(file.fileno(), 2)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                code, counts, anew = _do(job)
                sys.stderr.flush()
                out.write_text(json.dumps([counts, anew]))
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    counts, anew = json.loads(out.read_text()) if out.exists() else ({}, False)
    told = err.read_text(errors="replace")
    err.unlink()
    return Ended(os.waitstatus_to_exitcode(status), told, counts, anew)


if __name__ == "__main__":
    import torch
    from torch.utils.tensorboard import SummaryWriter  # noqa: F401

    import collm_agents.experiment
    import collm_agents.plots
    import collm_agents.stops  # noqa: F401

    torch.set_num_threads(1)
    for given in json.load(sys.stdin):
        print(json.dumps(asdict(_fork(given))), flush=True)  # noqa: T201
