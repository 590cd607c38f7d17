"""An update in parts: the parts' rollouts put together are those of one collector."""

import pytest
from builders import ScriptedTeam, team
from forests import assert_equal

from collm_agents.collect import Collector
from collm_agents.shards import merge, split
from collm_envs import VecEnv, make


def say(agent, prompt, node):
    """Differs by agent, place and history; some say what ends an episode of `debug/handshake-v0`."""
    return "ABC"[(len(prompt) + sum(node or (7,)) + len(agent)) % 3]


def collector(players, branching, shard=0, env="debug/handshake-v0", **settings):
    made = make(env, num_turns=len(branching), num_agents=len(players.agents))
    return made, Collector(VecEnv(made), players, branching, 3, shard=shard, **settings)


@pytest.mark.parametrize("size", [1, 2, 3, 99])
@pytest.mark.parametrize(
    ("branching", "settings"),
    [
        ((2, 2, 2), {}),
        ((3, 1, 1), {"greedy_sibling": True}),
        ((2, 2), {"joint_mode": "cross"}),
        ((1,), {}),
    ],
)
def test_merged_parts_are_what_one_collector_plays(size, branching, settings):
    players = ScriptedTeam(("agent_0", "agent_1"), say)
    made, whole = collector(players, branching, **settings)
    tasks = [made.tasks[i] for i in (4, 1, 4, 0, 4)]  # the same task in several parts
    expected = whole.collect(tasks, 5)
    _, parted = collector(players, branching, size, **settings)
    assert_equal(parted.collect(tasks, 5), expected)


def test_parts_of_a_real_team_draw_the_same_tokens():
    players = team(("agent_0", "agent_1"), num_turns=2)
    made, whole = collector(players, (2, 2), env="debug/echo-v0")
    _, parted = collector(players, (2, 2), 2, env="debug/echo-v0")
    tasks = [made.tasks[i % 2] for i in range(5)]
    one, other = whole.collect(tasks, 0), parted.collect(tasks, 0)
    assert one.rows.reply == other.rows.reply
    assert one.rows.prompt == other.rows.prompt
    assert (one.row_of == other.row_of).all()
    assert (one.nodes.group == other.nodes.group).all()


def test_sums_over_parts():
    players = ScriptedTeam(("agent_0", "agent_1"), say)
    made, parted = collector(players, (1, 1), 2, protocol="discussion")
    tasks = [made.tasks[i] for i in range(5)]
    parted.collect(tasks, 0)
    _, whole = collector(players, (1, 1), protocol="discussion")
    whole.collect(tasks, 0)
    assert parted.drafted.tolist() == whole.drafted.tolist()
    assert parted.drafted.shape == (5,)


def test_tasks_are_named_within_the_whole_update():
    made = make("debug/echo-v0")
    tasks = [made.tasks[i] for i in (0, 1, 0, 0)]
    shards = split(tasks, 3)
    assert [len(shard.tasks) for shard in shards] == [3, 1]
    assert [name.rpartition("*")[2] for shard in shards for name in shard.names] == ["0", "0", "1", "2"]
    assert {shard.trees for shard in shards} == {4}
    assert split(tasks)[0].tasks == tuple(tasks)


def test_one_part_is_handed_through():
    players = ScriptedTeam(("agent_0", "agent_1"), say)
    made, one = collector(players, (2,))
    rollouts = one.collect([made.tasks[0]], 0)
    assert merge([rollouts]) is rollouts
