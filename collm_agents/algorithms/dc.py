"""CoLLM-DC: decentralised critics (paper section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

from collm_agents.algorithms import algorithm
from collm_agents.algorithms.actor_critic import TemporalDifference


@algorithm("collm-dc", view="local", owners="each")
@dataclass(frozen=True)
class DecentralisedCritics(TemporalDifference):
    """One value V_i(h_i,t) per agent, of its own history; each agent uses its own advantage.

    Nothing of a partner is in a critic's text, except what the environment's feedback shows the agent itself.
    """
