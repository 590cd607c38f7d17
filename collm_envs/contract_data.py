"""The contract's part on an environment's own data: every split opens, and it is said where two share tasks.

Beside `contract`, for `check_env`. A run that is evaluated on what it was trained on measures memory.
"""

from __future__ import annotations

from collections.abc import Mapping

from collm_envs.contract import CHECKS, Note, Problems
from collm_envs.errors import CollmError
from collm_envs.probe import Subject
from collm_envs.task import Task

MOST_TASKS = 1000  # of a split that are read


def _splits(subject: Subject) -> Problems:
    if not {"source", "split"} <= subject.settings:
        raise Note("source and split are given; the environment's own were not looked at")
    hook, seen = subject.where("builtin_rows()"), {}
    splits = tuple(subject.env_class.builtin_splits)
    if not subject.has("builtin_rows"):
        raise Note("no tasks of its own; a file or hub data set must be named")
    for split in splits:
        try:
            tasks = subject.build(split=split).tasks
            seen[split] = {_content(tasks[i]): tasks[i].id for i in range(min(len(tasks), MOST_TASKS))}
        except CollmError as error:
            yield f"split {split!r} cannot be read: {error}", f"give rows of {split!r} in {hook}"
    shared = [
        f"{len(both)} tasks of {other!r} are in {split!r} too, such as {seen[split][min(both)]!r}"
        for i, split in enumerate(splits)
        for other in splits[i + 1 :]
        if (both := seen.get(split, {}).keys() & seen.get(other, {}).keys())
    ]
    if shared:  # a small closed world may want it so
        raise Note(f"{'; '.join(shared)}: scores on them say nothing of new tasks")
    if "test" not in splits:
        raise Note("no split 'test'; runs must name one to be evaluated on")


def _content(task: Task) -> str:
    return repr((_sorted(task.public), _sorted(task.hidden)))


def _sorted(fields: Mapping) -> list:
    return sorted(fields.items(), key=lambda item: str(item[0]))


CHECKS["splits"] = _splits
