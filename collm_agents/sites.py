"""Which processes a run's members live in, where `placement.apart` asks for more than this one.

For experiments, before anything is started. Pure arithmetic on settings; `distributed.placement` starts them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from collm_agents.config import Config
from collm_agents.config_places import MemberPlace, PlacementConfig
from collm_agents.critic import CENTRAL, critic_members
from collm_agents.recipe import Recipe
from collm_envs.errors import SettingError, suggest


@dataclass(frozen=True)
class Site:
    """One process, or several that hold a model between them.

    Attributes:
        name: of the agent whose weights it holds, `team` where all share them, or `critic`.
        members: what it holds.
        cpus: CPUs that it asks for.
        gpus: GPUs, or the fraction of one; with 0 it computes on a CPU.
        ranks: processes that its models are spread over.
        node: IP address, or the name of a resource that the node declares; empty for any.
    """

    name: str
    members: tuple[str, ...]
    cpus: float
    gpus: float
    ranks: int
    node: str

    @property
    def resources(self) -> dict[str, float]:
        """What Ray is asked for, so that it is this node."""
        if not self.node:
            return {}
        address = self.node.replace(".", "").isdigit() or ":" in self.node
        return {f"node:{self.node}" if address else self.node: 0.001}

    @property
    def asks(self) -> dict[str, float]:
        """All that Ray is asked for."""
        return {"CPU": self.cpus, "GPU": self.gpus, **self.resources}


def sites(recipe: Recipe) -> list[Site]:
    """The processes of a run: one per agent, or for all that share weights; one for a critic of all agents.

    An agent's own critic lives with the agent: what it reads and what it says is then nobody else's.

    Raises:
        SettingError: where `placement` names a process that there is not.
    """
    settings, bases = recipe.config.placement, recipe.agent_base()
    members = {member: [member] for member in bases}
    if recipe.owners == "each":
        learners = recipe.learners
        for agent, critic in zip(learners, critic_members("each", learners), strict=True):
            members[recipe.member_of[agent]].append(critic)
    for name in settings.agents:
        if name not in members:
            raise SettingError(f"placement.agents.{name}: {_nobody(recipe, name, members)}")
    found = [_site(name, own, settings, settings.agents.get(name)) for name, own in members.items()]
    if recipe.owners == "one":
        found.append(_site(CENTRAL, [CENTRAL], settings, settings.critic))
    elif settings.critic != MemberPlace():
        why = "its critics live with their agents" if recipe.owners else "the algorithm has no critic"
        raise SettingError(f"placement.critic: there is no process of a critic: {why}")
    return found


def _nobody(recipe: Recipe, name: str, known: Collection[str]) -> str:
    """Why no process has that name."""
    if any(spec.name == name and spec.script for spec in recipe.specs):
        return "a scripted agent has no weights, so no process"
    if name in recipe.agents:
        return "agents share their weights (team.shared=true), so there is one process, placement.agents.team"
    return f"no agent has that name{suggest(name, known)}"


def _site(name: str, members: list[str], settings: PlacementConfig, own: MemberPlace | None) -> Site:
    own = own or MemberPlace()
    gpus = settings.gpus if own.gpus < 0 else own.gpus
    return Site(name, tuple(members), own.cpus or settings.cpus, gpus, own.ranks, own.node)


def check_sites(config: Config, recipe: Recipe) -> None:
    """Raise a `SettingError` where `placement` could not be followed."""
    if not config.placement.apart:
        return
    if config.runner.workers:
        raise SettingError(
            "placement.apart=true with runner.workers: workers draw with copies of all weights, and apart no "
            "process but its own has a member's; choose one"
        )
    found = sites(recipe)
    if recipe.device.startswith("cuda") and not any(site.gpus for site in found):
        raise SettingError(
            f"placement.apart=true: processes that ask for no GPU compute on CPUs, and run.device is "
            f"{recipe.device!r} here; set placement.gpus, or run.device=cpu"
        )
    bases = {**recipe.agent_base(), **recipe.critic_base()}
    for site in found:
        if site.ranks == 1:
            continue
        if site.gpus % 1:
            raise SettingError(
                f"placement: {site.name} is spread over {site.ranks} processes, and each needs a GPU to itself; "
                f"gpus={site.gpus:g} would let two share one"
            )
        if config.team.cuda_graphs == "true":
            raise SettingError(
                f"placement: {site.name} is spread over {site.ranks} processes, and nothing can be recorded across "
                "them; leave team.cuda_graphs at auto"
            )
        adapters = [m for m in site.members if m in bases and bases[m][1] != "full"]
        if adapters or config.learner.optimizer != "adamw":
            why = (
                f"{adapters[0]} trains adapters"
                if adapters
                else "its optimizer keeps moments of whole tensors"
            )
            raise SettingError(
                f"placement: {site.name} cannot be spread over {site.ranks} processes, for {why}; take tuning=full "
                "and learner.optimizer=adamw"
            )
