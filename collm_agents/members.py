"""Who is on a team, from its settings: each agent's model, and the backbones that hold them.

For experiments. Agents that name the same base with the same tuning share one `Backbone`; each has its own member
of it. What a team does is `team`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from collm_agents.config import AgentConfig, TeamConfig, resolve_tuning
from collm_agents.models import loading
from collm_agents.models.backbone import Backbone
from collm_envs.errors import SettingError, suggest


@dataclass(frozen=True)
class AgentSpec:
    """One agent of a team.

    Attributes:
        name: as in the environment.
        model: `builtin`, a hub name or a folder.
        tuning: `lora` or `full`.
        trainable: whether it learns.
        weights: folder of saved weights to begin with; empty for the base's own.
        script: kind of scripted agent that plays in a model's place; empty for a model.
    """

    name: str
    model: str
    tuning: str
    trainable: bool = True
    weights: str = ""
    script: str = ""


def agent_specs(config: TeamConfig, agents: Sequence[str]) -> list[AgentSpec]:
    """The team's agents with their defaults filled in.

    Raises:
        SettingError: when `team.agents` names an agent that the environment does not have, or gives a scripted
            agent a model.
    """
    for name in config.agents:
        if name not in agents:
            raise SettingError(
                f"team.agents.{name}: the environment has no such agent{suggest(name, agents)}"
            )
    specs = []
    for name in agents:
        own = config.agents.get(name, AgentConfig())
        model = own.model or config.model
        if own.script and (own.model or own.tuning or own.weights):
            raise SettingError(
                f"team.agents.{name}.script={own.script!r}: a scripted agent has no model of its own"
            )
        tuning = resolve_tuning(own.tuning or config.tuning, model)
        specs.append(
            AgentSpec(name, model, tuning, own.trainable and not own.script, own.weights, own.script)
        )
    return specs


def build_backbones(
    wanted: Mapping[str, tuple[str, str]],
    config: TeamConfig,
    device: str,
    seed: int,
    *,
    referenced: Collection[str] = (),
    weightless: bool = False,
) -> dict[str, Backbone]:
    """One backbone per distinct base and tuning.

    Args:
        wanted: member name -> (model, tuning).
        config: dtype and adapter sizes.
        device: where the models live.
        seed: for the adapters' initial weights.
        referenced: members whose untrained base will be asked for.
        weightless: shapes alone, on torch's device `meta`.

    Returns:
        Backbone by member name.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for member, base in wanted.items():
        groups.setdefault(base, []).append(member)
    dtype = loading.pick_dtype(config.dtype, device)
    found: dict[str, Backbone] = {}
    for (model, tuning), members in groups.items():
        backbone = Backbone(
            model,
            members,
            tuning=tuning,
            lora=config.lora,
            dtype=dtype,
            device="meta" if weightless else device,
            seed=seed,
            reference=not set(members).isdisjoint(referenced),
        )
        found.update(dict.fromkeys(members, backbone))
    return found
