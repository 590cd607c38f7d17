"""`check_env`: the contract of an environment, for anyone who writes one.

For task authors, inside this project or outside. It plays a few short episodes and reports everything it
finds at once, each with where and how to mend it. It judges whether an environment keeps the contract (pure
hooks, seeds, honest scores, hostile replies survived), not whether the task is a good one. The checks
themselves stand in `contract`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from collm_envs.contract import Note
from collm_envs.contract_data import CHECKS
from collm_envs.env import CollabEnv
from collm_envs.errors import CollmError, InputError
from collm_envs.probe import Subject
from collm_envs.registry import env_settings, make, spec
from collm_envs.tables import wrapped_table


class CheckError(InputError):
    """An environment does not keep its contract; the message is the report."""


@dataclass(frozen=True)
class Finding:
    """One result of the check.

    Attributes:
        check: what was looked at.
        ok: whether it holds.
        message: what was seen, with class, hook, task and turn where they matter.
        remedy: how to mend it, with the hook's full name; empty where nothing is wrong.
        where: file and line of it, such as `my_tasks/negotiation.py:71`; empty where nothing is wrong.
    """

    check: str
    ok: bool
    message: str = ""
    remedy: str = ""
    where: str = ""


@dataclass(frozen=True)
class CheckReport:
    """Everything `check_env` found.

    Attributes:
        name: the environment, as it was named.
        findings: one or more per check, in the order they ran.
    """

    name: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(finding.ok for finding in self.findings)

    def raise_if_failed(self) -> CheckReport:
        """Raise `CheckError` with the report unless every check holds; returns the report."""
        if not self.ok:
            raise CheckError(str(self))
        return self

    def table(self, width: int | None = None) -> str:
        """What was checked, what is wrong, where, and how to mend it.

        Args:
            width: columns of the table; default those of the terminal.
        """
        rows = [
            ("ok" if f.ok else "FAIL", f.check, f.message, f.where, f.remedy)
            for f in sorted(self.findings, key=lambda finding: finding.ok)  # what is to be done stands first
        ]
        return wrapped_table(("", "check", "what is seen", "where", "how to mend it"), rows, width)

    def __str__(self) -> str:
        failed = sum(not finding.ok for finding in self.findings)
        verdict = f"{failed} of {len(self.findings)} failed" if failed else f"all {len(self.findings)} hold"
        return f"{self.name}: {verdict}\n\n{self.table()}"


def check_env(env_or_id: str | type[CollabEnv] | CollabEnv, **kwargs: Any) -> CheckReport:
    """Check that an environment keeps the contract of `CollabEnv`.

    Args:
        env_or_id: a registered id, a `module:Class` name, a class or an instance. An instance is reset and
            played as it is; ids and classes are also built with other settings.
        kwargs: settings for an id or a class; they are not varied.

    Returns:
        The report; `report.raise_if_failed()` turns failures into an error.

    Raises:
        InputError: for something that is no environment, an unknown id or a wrong setting.
    """
    subject = subject_of(env_or_id, kwargs)
    if isinstance(subject, Finding):
        return CheckReport(_name(env_or_id), (subject,))
    findings: list[Finding] = []
    for name, check in CHECKS.items():
        try:
            for what, remedy, *place in check(subject):
                where = place[0] if place else subject.place_in(remedy)
                findings.append(Finding(name, False, what, remedy, where))
        except Note as note:
            findings.append(Finding(name, True, f"note: {note}"))
        except Exception as error:  # whatever a broken environment raises is a finding
            findings.append(_raised(name, subject, error))
        if not any(finding.check == name for finding in findings):
            findings.append(Finding(name, True))
    return CheckReport(subject.name, tuple(findings))


def _raised(check: str, subject: Subject, error: Exception) -> Finding:
    text = str(error) if isinstance(error, CollmError) else f"{type(error).__name__}: {error}"
    remedy = f"mend what raises this in {subject.where('*')}"
    return Finding(check, False, text, remedy, subject.raised_at(error))


def subject_of(env_or_id: Any, kwargs: Mapping[str, Any]) -> Subject | Finding:
    """What is to be checked, built once; a finding where it cannot be built.

    Raises:
        InputError: for something that is no environment, an unknown id or a wrong setting.
    """
    if isinstance(env_or_id, CollabEnv):
        if kwargs:
            raise InputError(f"settings ({', '.join(kwargs)}) are for ids and classes, not for an instance")
        return Subject(env_or_id.env_id, type(env_or_id), lambda: env_or_id, frozenset())
    if isinstance(env_or_id, str):
        env_class = spec(env_or_id).env_class

        def build(**more: Any) -> CollabEnv:
            return make(env_or_id, **{**kwargs, **more})

    elif isinstance(env_or_id, type) and issubclass(env_or_id, CollabEnv):
        env_class = env_or_id

        def build(**more: Any) -> CollabEnv:
            return env_or_id(**{**kwargs, **more})

    else:
        raise InputError(f"check_env takes an id, a CollabEnv class or an instance, not {env_or_id!r}")
    subject = Subject(
        _name(env_or_id), env_class, build, frozenset(env_settings(env_class)) - frozenset(kwargs)
    )
    try:
        build()
    except Exception as error:
        if isinstance(error, InputError) and kwargs:  # a setting of the user's, not of the author's
            raise
        return _raised("construction", subject, error)
    return subject


def _name(env_or_id: Any) -> str:
    return env_or_id if isinstance(env_or_id, str) else f"{env_or_id.__module__}:{env_or_id.__qualname__}"
