"""A run's agents as partners: they say what they would say in their own team."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from collm_agents.experiment import Experiment
from collm_agents.interop.frozen import FrozenAgent, frozen_agents
from collm_agents.overrides import load_config
from collm_envs import EnvFault, InputError, SingleAgentEnv, make

ENV = "debug/handshake-v0"
WORDS = (
    "algorithm=mc",
    "num_turns=2",
    "joint_samples=8",
    "rollout.samples=2",
    "rollout.buffer=8",
    "eval.tasks=2",
    "eval.final_tasks=4",
    "eval.greedy=true",
    "track.samples=4",
    "track.tensorboard=false",
    "track.live=false",
    "run.threads=1",
    "run.device=cpu",
    "seed=3",
)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    out = tmp_path_factory.mktemp("frozen") / "run"
    return Experiment(load_config(ENV, overrides=[*WORDS, f"out={out}"])).run().run_dir


def view(partner, seed=0, **kwargs):
    return SingleAgentEnv(make(ENV, num_turns=2, split="test", **kwargs), "agent_0", {"agent_1": partner})


def test_greedy_they_play_the_conversations_of_their_own_evaluation(run_dir):
    kept = Experiment.evaluate(run_dir)["samples"]
    agents = frozen_agents(run_dir, greedy=True)
    one = view(agents["agent_1"])
    tasks = {task.id: i for i, task in enumerate(one.env.tasks)}
    rng = np.random.default_rng(0)
    for sample in kept:
        seen, _ = one.reset(seed=5, options={"task": tasks[sample["task_id"]]})
        history, over = (seen,), False
        while not over:
            reply = agents["agent_0"](history, rng)
            seen, _, over, _, _ = one.step(reply)
            history = (*history, reply, seen)
        assert one.env.state() == sample["text"]
    assert len(kept) == 4


def test_a_view_with_a_frozen_partner_is_deterministic_given_its_seed(run_dir, capsys):
    one, other = view(frozen_agents(run_dir)["agent_1"]), view(frozen_agents(run_dir)["agent_1"])
    check_env(one, skip_render_check=True)

    def states(played):
        played.reset(seed=9)
        found = []
        for _ in range(8):
            played.reset()
            played.step("A")
            found.append(played.env.state())
        return found

    assert states(one) == states(other)
    greedy = states(view(frozen_agents(run_dir, greedy=True)["agent_1"]))
    assert states(one) != greedy


def test_histories_of_others_and_too_many_turns_are_refused(run_dir):
    agent = frozen_agents(run_dir)["agent_1"]
    rng = np.random.default_rng(0)
    said = agent(("Share the letters: A B",), rng)
    agent(("Share the letters: A B", said, "Score 0.00. Try again."), rng)
    with pytest.raises(InputError, match="agent_1 did not give the reply 'made up'"):
        agent(("Share the letters: A B", "made up", "Score 0.00. Try again."), rng)
    with pytest.raises(InputError, match=r"a run of 2 turn\(s\); overrides"):
        agent(("o", "a", "o", "a", "o"), rng)
    longer = frozen_agents(run_dir, overrides=["env.num_turns=3"])["agent_1"]
    history = ("Share the letters: A B",)
    for _ in range(3):
        history = (*history, longer(history, rng), "Score 0.00. Try again.")
    one = view(agent)
    one.env.num_turns = 3  # an environment that is longer than the run's
    one.reset(seed=0)
    one.step("?")
    one.step("?")
    with pytest.raises(EnvFault, match=r"agent_1: this partner raised InputError: agent_1 comes from"):
        one.step("?")


def test_an_agent_forgets_the_oldest_histories(run_dir, monkeypatch):
    monkeypatch.setattr("collm_agents.interop.frozen.REMEMBERED", 2)
    agent, rng = frozen_agents(run_dir)["agent_1"], np.random.default_rng(0)
    starts = [(f"Share the letters: {letter} B",) for letter in "ACD"]
    said = [agent(start, rng) for start in starts]
    assert len(agent._known) == 2
    with pytest.raises(InputError, match="or long ago"):
        agent((*starts[0], said[0], "Score 0.00. Try again."), rng)
    agent((*starts[2], said[2], "Score 0.00. Try again."), rng)


def test_scripted_members_come_as_their_kind_and_missing_runs_are_told(tmp_path):
    words = [*WORDS, "team.agents.agent_1.script=oracle", f"out={tmp_path / 'run'}"]
    run = Experiment(load_config(ENV, overrides=words)).run()
    agents = frozen_agents(run.run_dir)
    assert agents["agent_1"] == "oracle"
    assert isinstance(agents["agent_0"], FrozenAgent)
    with pytest.raises(InputError, match="no checkpoint at 7"):
        frozen_agents(run.run_dir, checkpoint_at=7)
    with pytest.raises(InputError):
        frozen_agents(tmp_path / "nowhere")
