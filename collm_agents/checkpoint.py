"""Checkpoints: everything a run needs to go on as if it had not stopped.

A checkpoint is a folder `checkpoints/<joint samples>` written beside its place and renamed into it, so there is
never half of one. The SHA-256 of its files is kept with them (`integrity`), so that one which was damaged later is
refused by name, and a run goes on from the one before it. Agents and critics are saved as plain transformers or
peft would load them; optimizers and heads go beside. Random draws are keyed by counters, so there is no
generator state to save.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from collm_agents.critic import Critic
from collm_agents.integrity import HASHES, DamagedError, read, seal, sync, verify
from collm_agents.learner import Learner
from collm_agents.models.backbone import Backbone
from collm_agents.team import AgentTeam
from collm_agents.tensor_file import read_state, write_state
from collm_envs.errors import CollmError, InputError

log = logging.getLogger(__name__)

LEARNER = "learner.safetensors"
CALLBACKS, BEST, REPLACED = "callbacks.json", "best-", ".replaced-"


class CheckpointWriteError(CollmError, OSError):
    """A checkpoint could not be written, such as on a full disk; nothing of it is left."""


def save(
    run_dir: Path,
    team: AgentTeam,
    critic: Critic | None,
    learner: Learner,
    progress: dict[str, Any],
    keep: int,
    callbacks: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint and drop the oldest beyond `keep`.

    Args:
        run_dir: the run's folder.
        team: the agents.
        critic: or None.
        learner: for its optimizers.
        progress: the trainer's counters; `joint_samples` names the folder.
        keep: newest checkpoints that stay.
        callbacks: what callbacks remember, by name.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointWriteError: when it cannot be written; those before it are as they were.
    """
    final = folder_of(run_dir, progress["joint_samples"])
    root = final.parent
    partial = root / f".writing-{final.name}"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _write(partial, team, critic, learner)
        (partial / "progress.json").write_text(json.dumps(progress, indent=1) + "\n", encoding="utf-8")
        if callbacks:
            (partial / CALLBACKS).write_text(json.dumps(callbacks, indent=1) + "\n", encoding="utf-8")
        seal(partial)
    except (OSError, RuntimeError, SafetensorError) as error:  # how full disks look depends on the writer
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, CollmError):  # such as that a member's process died: it says so itself
            raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointWriteError(f"{final} could not be written: {first}") from error
    for rest in root.glob(".writing-[0-9]*"):  # of a run that was killed as it wrote
        if rest != partial:
            shutil.rmtree(rest)
    _take_place(partial, final)
    for old in found(run_dir)[:-keep]:
        shutil.rmtree(old)
    return final


def _write(partial: Path, team: AgentTeam, critic: Critic | None, learner: Learner) -> None:
    for member in team.users:
        team.save(member, partial / "agents" / member)
    if critic is not None:
        for member in critic.members:
            critic.save(member, partial / "critics" / member)
    write_state(partial / LEARNER, learner.state_dict())


def _take_place(partial: Path, final: Path) -> None:
    """Give a checkpoint its name; what had it before is dropped only then."""
    before = final.with_name(f"{REPLACED}{final.name}")
    if final.is_dir():
        shutil.rmtree(before, ignore_errors=True)
        final.rename(before)
    partial.rename(final)
    sync(final.parent)
    shutil.rmtree(before, ignore_errors=True)


def found(run_dir: Path) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    root = run_dir / "checkpoints"
    return sorted(p for p in root.glob("[0-9]*") if (p / "progress.json").is_file()) if root.is_dir() else []


def folder_of(run_dir: Path, joint_samples: int) -> Path:
    """Where the checkpoint of a number of joint samples lies, or would lie."""
    return run_dir / "checkpoints" / f"{joint_samples:09d}"


def samples_of(folder: Path) -> int:
    """Joint samples of a checkpoint, the best one included."""
    return int(folder.name.removeprefix(BEST))


def keep_best(folder: Path) -> Path:
    """Keep the agents of a checkpoint beside the newest ones, in place of those kept before.

    They cost no room while the checkpoint itself is there. Optimizers and critics are not kept, so a run cannot be
    resumed from here.

    Args:
        folder: the checkpoint.

    Returns:
        `checkpoints/best-<joint samples>`.
    """
    final = folder.with_name(f"{BEST}{folder.name}")
    if not final.is_dir():
        partial = folder.with_name(f".writing-{final.name}")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(folder / "agents", partial / "agents", copy_function=_link)
        for name in ("progress.json", HASHES):
            if (folder / name).is_file():
                shutil.copy2(folder / name, partial)
        for file in partial.rglob("*"):
            sync(file)
        partial.rename(final)
    for other in [*folder.parent.glob(f"{BEST}*"), *folder.parent.glob(f".writing-{BEST}*")]:
        if other != final:
            shutil.rmtree(other)
    return final


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # not every file system has links
        shutil.copy2(source, target)
    return target


def pick(run_dir: Path, which: int | str | None = None) -> Path:
    """The newest checkpoint, the one of a number of joint samples, or the `best`.

    Raises:
        InputError: when there is none.
    """
    if which == "best":
        best = sorted((run_dir / "checkpoints").glob(f"{BEST}[0-9]*"))
        if not best:
            raise InputError(f"{run_dir} keeps no best checkpoint; train with checkpoint.best=true")
        return best[-1]
    present = found(run_dir)
    if not present:
        raise InputError(f"{run_dir} holds no checkpoint: it ended before its first one; begin it anew")
    if which is None:
        return present[-1]
    for folder in present:
        if samples_of(folder) == which:
            return folder
    known = ", ".join(str(int(p.name)) for p in present)
    raise InputError(f"{run_dir} has no checkpoint at {which} joint samples; it has {known}")


def newest_whole(run_dir: Path) -> Path:
    """The newest checkpoint whose files are what was written; damaged ones are put aside, which the log says.

    Raises:
        InputError: when there is none; names what is damaged.
    """
    for before in (run_dir / "checkpoints").glob(f"{REPLACED}[0-9]*"):
        if not (final := before.with_name(before.name.removeprefix(REPLACED))).exists():
            before.rename(final)  # the run was killed between two names
    damaged: dict[Path, DamagedError] = {}
    for folder in reversed(found(run_dir)):
        try:
            verify(folder)
        except DamagedError as error:
            damaged[folder] = error
            continue
        for other, why in damaged.items():
            log.warning("%s; it is put aside, and the run goes on from %s", why, folder.name)
            other.rename(other.with_name(f"damaged-{other.name}"))
        return folder
    if damaged:
        raise next(iter(damaged.values()))
    return pick(run_dir)


def load_team(folder: Path, team: AgentTeam) -> None:
    """Restore the agents' weights."""
    for member in team.users:
        team.load(member, weights_of(folder, member))


def load_member(folder: Path, saved: str, backbone: Backbone, member: str) -> None:
    """Restore the weights that were saved under one name into a backbone's member of any name."""
    backbone.load(member, weights_of(folder, saved))


def weights_of(folder: Path, saved: str) -> Path:
    """Where the weights lie that were saved under a name.

    Raises:
        InputError: when there are none, or they are not what was written.
    """
    verify(folder, f"agents/{saved}/")
    if not (folder / "agents" / saved).is_dir():
        raise InputError(f"{folder}: no weights of {saved!r}")
    return folder / "agents" / saved


def callback_states(folder: Path) -> dict[str, dict[str, Any]]:
    """What callbacks remembered at a checkpoint, by name."""
    file = folder / CALLBACKS
    return read(file, _json) if file.is_file() else {}


def load(folder: Path, team: AgentTeam, critic: Critic | None, learner: Learner) -> dict[str, Any]:
    """Restore a whole run; returns the trainer's counters.

    Raises:
        InputError: for another team, or a file that is missing or damaged.
    """
    load_team(folder, team)
    if critic is not None:
        for member in critic.members:
            critic.load(member, folder / "critics" / member)
    learner.load_state_dict(read(folder / LEARNER, read_state))
    return read(folder / "progress.json", _json)


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
