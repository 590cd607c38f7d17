"""Running untrusted programs: confined processes, judged from outside.

`Sandbox().submit(program, tests)` gives a future of a `RunResult`. For environments whose replies are code, and
for anyone who scores programs. It keeps programs from the host and from their own verdicts; it does not hide what a
program was asked to compute.
"""

from collm_envs.sandbox.client import Sandbox, SandboxError, shared
from collm_envs.sandbox.confine import TIERS, Limits
from collm_envs.sandbox.probe import best_tier, probe
from collm_envs.sandbox.probe import report as layers_report
from collm_envs.sandbox.results import Asserts, Program, RunResult, TestResult, UnitTests

__all__ = [
    "TIERS",
    "Asserts",
    "Limits",
    "Program",
    "RunResult",
    "Sandbox",
    "SandboxError",
    "TestResult",
    "UnitTests",
    "best_tier",
    "layers_report",
    "probe",
    "shared",
]
