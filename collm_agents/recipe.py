"""`Recipe`: what a run's models are and how they are made, in whole or in part.

For experiments, and for processes that hold single members: a recipe is all that these need, and neither the
environment nor its tasks are part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from collm_agents.config import Config, resolve_tuning
from collm_agents.critic import CENTRAL, Critic, critic_members
from collm_agents.members import AgentSpec, agent_specs, build_backbones
from collm_agents.models.backbone import Backbone
from collm_agents.models.loading import choose_threads
from collm_agents.team import AgentTeam
from collm_envs.errors import SettingError


@dataclass(frozen=True)
class Recipe:
    """The models of a run.

    Attributes:
        config: resolved settings.
        agents: agent names in the environment's order.
        num_turns: turns of an episode.
        view: what the algorithm's critic reads, or None.
        owners: whose the critics are, or None.
        device: where models live.
    """

    config: Config
    agents: tuple[str, ...]
    num_turns: int
    view: str | None
    owners: str | None
    device: str

    @cached_property
    def specs(self) -> list[AgentSpec]:
        """All agents, scripted ones included."""
        return agent_specs(self.config.team, self.agents)

    @property
    def learners(self) -> list[str]:
        """Agents that learn."""
        return [spec.name for spec in self.specs if spec.trainable]

    @property
    def member_of(self) -> dict[str, str]:
        """The member that each agent uses, by agent; scripted ones use none."""
        shared = self.config.team.shared
        return {spec.name: "team" if shared else spec.name for spec in self.specs if not spec.script}

    def agent_base(self) -> dict[str, tuple[str, str]]:
        """Member name -> (model, tuning) of the agents: their own names, or `team` where weights are shared.

        Raises:
            SettingError: when agents are to share weights but name different bases, or only some learn, or when
                all are scripted.
        """
        models = [spec for spec in self.specs if not spec.script]
        if not models:
            raise SettingError(
                "every agent is scripted, so there is no model to evaluate; `collm eval ENV --agents` plays scripts"
            )
        if not self.config.team.shared:
            return {spec.name: (spec.model, spec.tuning) for spec in models}
        if len({(spec.model, spec.tuning, spec.trainable, spec.weights) for spec in models}) > 1:
            raise SettingError(
                "team.shared=true: agents that share weights have one model, tuning and starting point, and learn "
                "together or not at all"
            )
        return {"team": (models[0].model, models[0].tuning)}

    def critic_base(self) -> dict[str, tuple[str, str]]:
        """Member name -> (model, tuning) of the critics; empty where none has a model of its own."""
        config = self.config.critic
        if self.owners is None or config.share_backbone:
            return {}
        members = critic_members(self.owners, self.learners)
        by_name = {spec.name: spec for spec in self.specs}
        own = [by_name[name].model for name in self.learners]
        models = own if self.owners == "each" else own[:1]
        if config.model:
            models = [config.model] * len(members)
        tuning = self.config.team.tuning if config.tuning == "auto" else config.tuning
        return {m: (model, resolve_tuning(tuning, model)) for m, model in zip(members, models, strict=True)}

    def backbones(self, wanted: Mapping[str, tuple[str, str]], **options: Any) -> dict[str, Backbone]:
        """Load models by member, as in `build_backbones`, and choose torch's threads for them."""
        backbones = build_backbones(wanted, self.config.team, self.device, self.config.run.seed, **options)
        models = [model for backbone in backbones.values() for model in backbone.models()]
        choose_threads(models, self.device, self.config.run.threads)
        return backbones

    def team(
        self,
        backbones: Mapping[str, Backbone],
        *,
        protocol: str = "parallel",
        stored: bool = False,
        kind: Callable[..., AgentTeam] = AgentTeam,
    ) -> AgentTeam:
        """The agents whose member is among the backbones, and the scripted ones.

        Args:
            backbones: by member.
            protocol: how agents come to a joint reply.
            stored: all weights will come from a checkpoint, so those to begin with are not read.
            kind: makes the team.
        """
        members = {name: member for name, member in self.member_of.items() if member in backbones}
        models = [spec for spec in self.specs if spec.name in members]
        made = kind(
            tuple(spec.name for spec in self.specs if spec.script or spec.name in members),
            {agent: backbones[member] for agent, member in members.items()},
            self.config.team,
            members=members,
            scripted={spec.name: spec.script for spec in self.specs if spec.script},
            frozen=[spec.name for spec in models if not spec.trainable],
            # In a discussion agents are shown something after their first reply, whatever the number of turns.
            num_turns=self.num_turns * (2 if protocol == "discussion" else 1),
        )
        for spec in models:
            if spec.weights and not stored:
                folder = Path(spec.weights).expanduser()
                if not folder.is_dir():
                    raise SettingError(f"team.agents.{spec.name}.weights: there is no folder {spec.weights}")
                made.load(members[spec.name], folder)
        return made

    def critic(
        self, backbones: Mapping[str, Backbone], kind: Callable[..., Critic] = Critic
    ) -> Critic | None:
        """The critics whose model is among the backbones; None where the algorithm has none, or none is here."""
        if self.view is None or self.owners is None:
            return None
        share, learners = self.config.critic.share_backbone, self.learners
        if self.owners == "each":
            held = learners if share else critic_members(self.owners, learners)
            learners = [name for name, member in zip(learners, held, strict=True) if member in backbones]
        if not learners or (self.owners == "one" and CENTRAL not in backbones):
            return None
        return kind(
            self.view,
            self.owners,
            self.agents,
            backbones,
            learners=learners,
            share=share,
            global_info=self.config.critic.global_info,
        )

    def models(
        self,
        *,
        only: Collection[str] | None = None,
        stored: bool = False,
        weightless: bool = False,
        kind: Callable[..., AgentTeam] = AgentTeam,
        critic_kind: Callable[..., Critic] = Critic,
    ) -> tuple[AgentTeam, Critic | None]:
        """Load all models, or those of some members.

        Args:
            only: their names; None for all.
            stored: see `team`.
            weightless: shapes alone, on torch's device `meta`.
            kind: makes the team.
            critic_kind: makes the critic.

        Raises:
            SettingError: when an agent's name is a critic's.
        """
        agents, critics = self.agent_base(), self.critic_base()
        clash = set(agents) & set(critics)
        if clash:
            raise SettingError(f"the agent name {clash.pop()!r} is taken by a critic; rename the role")
        wanted = {m: base for m, base in {**agents, **critics}.items() if only is None or m in only}
        trained = list(agents) if self.config.team.shared else self.learners
        referenced = trained if self.config.learner.kl_coef else []
        backbones = self.backbones(wanted, referenced=referenced, weightless=weightless)
        return self.team(backbones, stored=stored, kind=kind), self.critic(backbones, critic_kind)
