"""CoLLM-CC: one centralised critic (paper section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

from collm_agents.algorithms import algorithm
from collm_agents.algorithms.actor_critic import TemporalDifference


@algorithm("collm-cc", view="joint", owners="one")
@dataclass(frozen=True)
class CentralisedCritic(TemporalDifference):
    """One value V(h_t) of the joint history; every agent uses the same advantage.

    The critic reads `env.state()`, the role-labelled history of all agents, during training only; execution
    stays decentralised.
    """
