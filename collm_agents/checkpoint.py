"""Checkpoints: everything a run needs to go on as if it had not stopped.

A checkpoint is a folder `checkpoints/<joint samples>` written beside its place and renamed into it, so there is
never half of one. Agents and critics are saved as plain transformers or peft would load them; optimizers and
heads go beside. Random draws are keyed by counters, so there is no generator state to save.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from collm_agents.critic import Critic
from collm_agents.learner import Learner
from collm_agents.models.backbone import Backbone
from collm_agents.team import AgentTeam
from collm_envs.errors import InputError


def save(
    run_dir: Path,
    team: AgentTeam,
    critic: Critic | None,
    learner: Learner,
    progress: dict[str, Any],
    keep: int,
) -> Path:
    """Write a checkpoint and drop the oldest beyond `keep`.

    Args:
        run_dir: the run's folder.
        team: the agents.
        critic: or None.
        learner: for its optimizers.
        progress: the trainer's counters; `joint_samples` names the folder.
        keep: newest checkpoints that stay.

    Returns:
        The checkpoint's folder.
    """
    root = run_dir / "checkpoints"
    final = root / f"{progress['joint_samples']:09d}"
    partial = root / f".writing-{final.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for member, users in team.users.items():
        team.backbones[users[0]].save(member, partial / "agents" / member)
    if critic is not None:
        for member in critic.members:
            if critic.share:  # its weights are the agent's
                (partial / "critics" / member).mkdir(parents=True)
            else:
                critic.backbones[member].save(member, partial / "critics" / member)
            head = {k: v.detach().cpu().contiguous() for k, v in critic.heads[member].state_dict().items()}
            save_file(head, partial / "critics" / member / "value_head.safetensors")
    torch.save(learner.state_dict(), partial / "learner.pt")
    (partial / "progress.json").write_text(json.dumps(progress, indent=1) + "\n", encoding="utf-8")
    _sync(partial)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    for old in found(run_dir)[:-keep]:
        shutil.rmtree(old)
    return final


def _sync(folder: Path) -> None:
    """Bring a folder's files to the disk before it gets its name."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())


def found(run_dir: Path) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    root = run_dir / "checkpoints"
    return sorted(p for p in root.glob("[0-9]*") if (p / "progress.json").is_file()) if root.is_dir() else []


def pick(run_dir: Path, joint_samples: int | None = None) -> Path:
    """The newest checkpoint, or the one of a number of joint samples.

    Raises:
        InputError: when there is none.
    """
    present = found(run_dir)
    if not present:
        raise InputError(f"{run_dir} holds no checkpoint")
    if joint_samples is None:
        return present[-1]
    for folder in present:
        if int(folder.name) == joint_samples:
            return folder
    known = ", ".join(str(int(p.name)) for p in present)
    raise InputError(f"{run_dir} has no checkpoint at {joint_samples} joint samples; it has {known}")


def load_team(folder: Path, team: AgentTeam) -> None:
    """Restore the agents' weights."""
    for member, users in team.users.items():
        load_member(folder, member, team.backbones[users[0]], member)


def load_member(folder: Path, saved: str, backbone: Backbone, member: str) -> None:
    """Restore the weights that were saved under one name into a backbone's member of any name."""
    if not (folder / "agents" / saved).is_dir():
        raise InputError(f"{folder}: no weights of {saved!r}")
    backbone.load(member, folder / "agents" / saved)


def load(folder: Path, team: AgentTeam, critic: Critic | None, learner: Learner) -> dict[str, Any]:
    """Restore a whole run; returns the trainer's counters."""
    load_team(folder, team)
    if critic is not None:
        for member in critic.members:
            place = folder / "critics" / member
            if not critic.share:
                critic.backbones[member].load(member, place)
            critic.heads[member].load_state_dict(load_file(place / "value_head.safetensors"))
    learner.load_state_dict(torch.load(folder / "learner.pt", map_location="cpu", weights_only=True))
    return json.loads((folder / "progress.json").read_text(encoding="utf-8"))
