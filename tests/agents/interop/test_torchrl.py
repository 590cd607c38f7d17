"""Our environments in the real TorchRL: specs, rollouts, a collector, and texts that arrive as they are."""

import pytest

pytest.importorskip("torchrl")

import torch
from pettingzoo.utils import BaseParallelWrapper
from tensordict import NonTensorStack
from torchrl.collectors import Collector
from torchrl.envs import PettingZooWrapper
from torchrl.envs.utils import MarlGroupMapType, check_env_specs

from collm_agents.interop.torchrl import TextPettingZooEnv
from collm_envs import EnvFault, SettingError, make

GROUPS = (None, MarlGroupMapType.ONE_GROUP_PER_AGENT, MarlGroupMapType.ALL_IN_ONE_GROUP)
HOSTILE = ("", "🜚\x00", "a string", "@agent_1 turn 1 says:\nZ")

pytestmark = [
    pytest.mark.system,  # importing torchrl takes seconds
    pytest.mark.filterwarnings("error:Meta data at 'data'"),
    pytest.mark.filterwarnings("ignore:PettingZoo in TorchRL is tested"),
    pytest.mark.filterwarnings("ignore:Creating .* which inherits from WeightUpdaterBase:DeprecationWarning"),
]


def handshake(**options):
    return TextPettingZooEnv(make("debug/handshake-v0", num_turns=3), **options)


def saying(env, texts):
    """A policy that says one text after the other, agents in their groups' order."""
    left = iter(texts)

    def act(tensordict):
        for group, agents in env.group_map.items():
            tensordict.set((group, "action"), NonTensorStack(*(next(left) for _ in agents)))
        return tensordict

    return act


@pytest.mark.parametrize("groups", GROUPS, ids=str)
@pytest.mark.parametrize("return_state", [False, True])
def test_torchrls_own_check(groups, return_state):
    check_env_specs(handshake(group_map=groups, return_state=return_state, seed=0))
    check_env_specs(TextPettingZooEnv("writing/tldr-mini-v0", group_map=groups, return_state=return_state))


def test_a_rollout_is_the_episode_of_the_parallel_environment():
    env = handshake(return_state=True)
    env.set_seed(4)
    env._env.unwrapped.np_random = make("debug/handshake-v0").np_random  # another task than the seed's
    done = env.rollout(
        9, saying(env, ["A", "B", *HOSTILE]), auto_reset=False, tensordict=env.reset(options={"task": 3})
    )
    plain = make("debug/handshake-v0", num_turns=3)
    seen, _ = plain.reset(options={"task": 3})
    assert len(done) == 3
    for turn, said in enumerate((("A", "B"), HOSTILE[:2], HOSTILE[2:])):
        here = done[turn]
        assert here.get(("agent", "observation")).tolist() == list(seen.values())
        assert here.get("state").data == plain.state()
        assert here.get(("agent", "action")).tolist() == list(said)
        seen, rewards, ended, cut, infos = plain.step(dict(zip(plain.agents, said, strict=True)))
        after = here["next"]
        assert after.get(("agent", "observation")).tolist() == list(seen.values())
        assert after["agent", "reward"].flatten().tolist() == pytest.approx(list(rewards.values()))
        assert after["agent", "terminated"].flatten().tolist() == list(ended.values())
        assert after["agent", "truncated"].flatten().tolist() == list(cut.values())
        assert after["agent", "info", "score"].tolist() == pytest.approx([i["score"] for i in infos.values()])
        assert after["agent", "info", "turn"].tolist() == [turn + 1] * 2
    assert after.get("state").data == plain.state()
    assert after["done"].item()
    assert not plain.agents


def test_replies_reach_the_agents_by_group():
    env = handshake(group_map={"late": ["agent_1"], "early": ["agent_0"]})
    order = [agent for agents in env.group_map.values() for agent in agents]
    replies = {"agent_0": "zero", "agent_1": "one"}
    env.rollout(1, saying(env, [replies[agent] for agent in order]))
    state = env._env.unwrapped.state()
    assert "@agent_0 turn 1 says:\nzero\n" in state
    assert "@agent_1 turn 1 says:\none\n" in state


def test_a_seed_fixes_the_rollouts():
    def rollouts(seed):
        env = handshake(return_state=True)
        env.set_seed(seed)
        return [env.rollout(2, saying(env, "ABCD")).get("state").tolist() for _ in range(6)]

    assert rollouts(1) == rollouts(1)
    assert rollouts(1) != rollouts(2)


def test_a_collector_collects():
    env = handshake()
    collector = Collector(env, saying(env, ("B" for _ in iter(int, 1))), frames_per_batch=7, total_frames=14)
    batches = list(collector)
    assert [len(batch) for batch in batches] == [7, 7]
    texts = [batch.get(("agent", "observation")).tolist() for batch in batches]
    assert all("a string" not in row for batch in texts for row in batch)
    starts = [row for batch in texts for row in batch if row[0].startswith("Share the letters")]
    assert len(starts) >= 4  # 14 frames in episodes of at most 3 turns
    collector.shutdown()


def test_an_outside_limit_truncates_and_a_success_terminates():
    cut = TextPettingZooEnv(make("debug/handshake-v0", num_turns=3, max_cycles=1))
    after = cut.rollout(5, saying(cut, "??"))["next"]
    assert (after["truncated"].item(), after["terminated"].item()) == (True, False)
    solved = TextPettingZooEnv("debug/echo-v0")
    start = solved.reset(options={"task": 0})
    answers = [text.split()[-1] for text in start.get(("agent", "observation")).tolist()]
    after = solved.rollout(5, saying(solved, answers), auto_reset=False, tensordict=start)["next"]
    assert (after["terminated"].item(), after["agent", "info", "success"].tolist()) == (True, [[1.0, 1.0]])


def test_a_reply_that_is_no_text_is_a_fault():
    env = handshake()
    with pytest.raises(EnvFault, match="agent_0: replied with int, not str"):
        env.rollout(1, saying(env, [3, "B"]))
    with pytest.raises(SettingError, match="takes an id or a CollabEnv"):
        TextPettingZooEnv(make)


def test_what_the_wrapper_alone_does_to_texts():
    """The three reasons for the adapter; when one goes, the adapter can shrink."""
    with pytest.raises(TypeError, match="invalid data type 'str'"):
        PettingZooWrapper(make("debug/handshake-v0"))

    class NoInfos(BaseParallelWrapper):
        def reset(self, seed=None, options=None):
            seen, _ = self.env.reset(seed=seed, options=options)
            return seen, {agent: {} for agent in seen}

    alone = PettingZooWrapper(NoInfos(make("debug/handshake-v0")))
    with pytest.warns(UserWarning, match="Meta data at 'data'"):
        reset = alone.reset()
    assert reset.get(("agent", "observation")).tolist() == ["a string", "a string"]
    with pytest.raises(NotImplementedError, match="Invalid type of data"):
        alone.step(alone.rand_action(reset))


def test_torch_keeps_its_own_chance():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    env = handshake(seed=1)
    env.rollout(2, saying(env, "ABCD"))
    assert torch.equal(torch.rand(2), expected)
