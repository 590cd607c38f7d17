"""A run's agents as partners: trained before, learning no more. For `SingleAgentEnv` and trainers of one policy.

Each reply is drawn alone, so this is for evaluation and for small runs, not for speed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from collm_agents.interop import need
from collm_envs.errors import InputError
from collm_envs.partners import Choice

need("torch")

from collm_agents import checkpoint  # noqa: E402
from collm_agents.chat import History  # noqa: E402
from collm_agents.draws import DrawKey  # noqa: E402
from collm_agents.experiment import Experiment  # noqa: E402
from collm_agents.results import stored_config  # noqa: E402
from collm_agents.team import AgentTeam, Request  # noqa: E402

REMEMBERED = 4096  # histories whose token ids an agent keeps


class FrozenAgent:
    """One agent of a team, as a `collm_envs.Partner`.

    It goes on from the very tokens that it drew in earlier turns, which it keeps by history.

    Args:
        team: the team, with its weights.
        agent: which of its models.
        num_turns: most turns of an episode that the team was built for.
        greedy: take the likeliest tokens; else draw as in the run.
    """

    def __init__(self, team: AgentTeam, agent: str, *, num_turns: int, greedy: bool = False) -> None:
        self.team, self.agent, self.num_turns, self.greedy = team, agent, num_turns, greedy
        self._known: OrderedDict[tuple[str, ...], History] = OrderedDict()

    def __call__(self, history: tuple[str, ...], rng: np.random.Generator) -> str:
        """The agent's reply.

        Args:
            history: its observations and replies in turn, the newest observation last.
            rng: seeds the draws of this reply.

        Raises:
            InputError: when the history has a reply that this agent did not give, more turns than it was built
                for, or does not fit its context.
        """
        if len(history) > 2 * self.num_turns:
            raise InputError(
                f"{self.agent} comes from a run of {self.num_turns} turn(s); "
                'overrides=["env.num_turns=N"] builds it for more'
            )
        memory = self.team.observe(self.agent, self._remember(history[:-1]), history[-1])
        if memory is None:
            raise InputError(f"what {self.agent} has seen no longer fits its context")
        key = None if self.greedy else DrawKey(int(rng.integers(2**63)), -1, "", (), self.agent)
        (reply,) = self.team.act([Request(self.agent, memory.ids, key)])
        self._known[(*history, reply.text)] = memory.reply(reply.ids)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return reply.text

    def _remember(self, past: tuple[str, ...]) -> History:
        if not past:
            return History()
        if past not in self._known:
            raise InputError(f"{self.agent} did not give the reply {past[-1]!r} in this history, or long ago")
        self._known.move_to_end(past)
        return self._known[past]


def frozen_agents(
    run_dir: str | Path,
    *,
    checkpoint_at: int | None = None,
    greedy: bool = False,
    overrides: Sequence[str] = (),
) -> dict[str, Choice]:
    """The agents of a run, by name: a `FrozenAgent` for each model, the kind of script for the others.

    Args:
        run_dir: the run's folder.
        checkpoint_at: joint samples of the checkpoint; default the newest.
        greedy: take the likeliest tokens; else draw as in the run.
        overrides: such as `env.num_turns=2` or `team.sampling.temperature=0.5`.

    Raises:
        InputError: when there is no such run or checkpoint.
    """
    run_dir = Path(run_dir)
    experiment = Experiment(stored_config(run_dir, overrides))
    folder = checkpoint.pick(run_dir, checkpoint_at)
    team = experiment.build_team(stored=True)
    checkpoint.load_team(folder, team)
    turns = experiment.env.num_turns
    return {
        agent: team.scripted.get(agent) or FrozenAgent(team, agent, num_turns=turns, greedy=greedy)
        for agent in team.agents
    }
