import dataclasses
import time

import numpy as np
import pytest
from builders import ScriptedTeam, team
from paying_env import Judged

from collm_agents.branching import resolve_branching, tree_size
from collm_agents.collect import Collector
from collm_envs import make
from collm_envs.errors import InputError, SettingError
from collm_envs.vector import VecEnv

AGENTS = ("agent_0", "agent_1")


def wrong(agent, prompt, node):
    return "z"


def collect(say=wrong, branching=(2,), tasks=2, turns=None, env="debug/echo-v0", **kwargs):
    found = make(env, num_turns=turns or len(branching))
    options = {k: kwargs.pop(k) for k in ("limit", "overflow") if k in kwargs}
    players = ScriptedTeam(AGENTS, say, **options)
    collector = Collector(VecEnv(found), players, branching, 3, **kwargs)
    return collector.collect([found.tasks[i] for i in range(tasks)], 5), players, found


def test_one_turn_is_one_point_and_k_siblings_per_task():
    rollouts, _, env = collect(branching=(3,))
    assert rollouts.tasks == (env.tasks[0].id, env.tasks[1].id)
    assert rollouts.points.tree.tolist() == [0, 1]
    assert rollouts.nodes.point.tolist() == [0, 0, 0, 1, 1, 1]
    assert rollouts.nodes.group.tolist() == [0, 0, 0, 1, 1, 1]
    assert rollouts.nodes.parent.tolist() == [-1] * 6
    assert rollouts.nodes.terminated.all()
    assert rollouts.nodes.weight.tolist() == pytest.approx([1 / 6] * 6)
    assert len(rollouts.rows) == 12
    assert np.unique(rollouts.row_of).size == 12  # aligned: every node has rows of its own


def test_a_tree_has_every_node_in_its_place():
    rollouts, _, _ = collect(branching=(2, 3), tasks=1)
    assert rollouts.nodes.parent.tolist() == [-1, -1, 0, 0, 0, 1, 1, 1]
    assert rollouts.nodes.group.tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    assert rollouts.nodes.point.tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    assert rollouts.nodes.next_point.tolist() == [1, 2] + [-1] * 6
    assert rollouts.nodes.weight.tolist() == pytest.approx([1 / 2] * 2 + [1 / 6] * 6)
    assert rollouts.turn.tolist() == [0, 0] + [1] * 6
    assert rollouts.nodes.terminated.tolist() == [False] * 2 + [True] * 6
    assert rollouts.joint_samples == tree_size((2, 3))


def test_single_children_on_paths_are_grouped_with_their_uncles_children():
    rollouts, _, _ = collect(branching=(3, 1, 1), tasks=2)
    groups = rollouts.nodes.group.reshape(3, 2, 3)  # turn, task, path
    assert all(len(set(groups[t, k])) == 1 for t in range(3) for k in range(2))
    assert len(np.unique(groups)) == 6


def test_an_episode_that_ends_early_has_no_children_and_its_siblings_go_on():
    def say(agent, prompt, node):
        right = prompt.partition("letter: ")[2][:1]
        return right if node[0] == 1 else "z"

    rollouts, _, _ = collect(say, branching=(3, 2), tasks=1)
    assert rollouts.nodes.success[:3].tolist() == [False, True, False]
    assert rollouts.nodes.terminated[:3].tolist() == [False, True, False]
    assert rollouts.nodes.parent.tolist() == [-1, -1, -1, 0, 0, 2, 2]
    assert rollouts.nodes.weight.tolist() == pytest.approx([1 / 3] * 3 + [1 / 6] * 4)
    assert rollouts.nodes.reward[:3].tolist() == [-1.0, 0.0, -1.0]
    assert rollouts.nodes.parts[1] == {"echoed": 1.0}


def test_prompts_are_token_in_token_out_with_ones_own_reply_inside():
    def say(agent, prompt, node):
        return f"{agent} {node[-1]} of turn {len(node)}"

    rollouts, players, _ = collect(say, branching=(2, 2, 1))
    for node in range(len(rollouts.nodes)):
        parent = rollouts.nodes.parent[node]
        if parent < 0:
            continue
        for agent in (0, 1):
            row, before = rollouts.row_of[node, agent], rollouts.row_of[parent, agent]
            said = rollouts.rows.prompt[before] + rollouts.rows.reply[before]
            assert rollouts.rows.prompt[row][: len(said)] == said
            shown = players.form.tokenizer.decode(rollouts.rows.prompt[row])
            assert rollouts.rows.text[before] in shown
            assert AGENTS[1 - agent] not in shown


def test_histories_of_points_grow_and_are_what_the_environment_holds():
    rollouts, _, _ = collect(branching=(2, 1, 1))
    points = rollouts.points
    for point, parent in enumerate(points.parent):
        if parent >= 0:
            assert points.state[point].startswith(points.state[parent])
            assert len(points.state[point]) > len(points.state[parent])
            for agent in (0, 1):
                assert points.local[point][agent].startswith(points.local[parent][agent])
        for name in AGENTS:
            assert f"@{name} turn {points.turn[point] + 1} sees:" in points.state[point]
        assert points.info[point]["turn"] == points.turn[point]


def test_with_one_agent_the_own_history_is_the_joint_history():
    env = make("debug/echo-v0", num_agents=1, num_turns=3)
    rollouts = Collector(VecEnv(env), ScriptedTeam(["agent_0"], wrong), (2, 1, 1), 0).collect(
        [env.tasks[0]], 0
    )
    assert [local[0] for local in rollouts.points.local] == list(rollouts.points.state)


def test_draws_are_keyed_by_occurrence_path_and_agent():
    env = make("debug/echo-v0", num_turns=2)
    players = ScriptedTeam(AGENTS, wrong)
    task = env.tasks[0]
    Collector(VecEnv(env), players, (2, 2), 3).collect([task, task], 5)
    keys = [request.key for batch in players.requests for request in batch]
    assert len(set(keys)) == len(keys) == 2 * (2 + 4) * 2
    assert {key.node for key in keys} == {(0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1)}
    assert {key.task for key in keys} == {f"{task.id}*0", f"{task.id}*1"}
    assert {(key.seed, key.update) for key in keys} == {(3, 5)}


def test_greedy_siblings_are_played_at_every_point_and_follow_their_own_path():
    rollouts, players, _ = collect(branching=(2, 2), tasks=1, greedy_sibling=True)
    nodes = rollouts.nodes
    # Root: two and a greedy one; each sampled branch again two and a greedy one; the greedy branch goes on alone.
    assert nodes.greedy.tolist() == [False, False, True, False, False, True, False, False, True, True]
    assert nodes.parent.tolist() == [-1, -1, -1, 0, 0, 0, 1, 1, 1, 2]
    assert (nodes.weight[nodes.greedy] == 0).all()
    assert rollouts.joint_samples == tree_size((2, 2), greedy_sibling=True)
    keys = [request.key for batch in players.requests for request in batch]
    assert [key is None for key in keys[::2]] == nodes.greedy.tolist()
    assert not set(rollouts.leaves) & set(np.flatnonzero(nodes.greedy))


def test_greedy_play_is_one_greedy_path():
    rollouts, players, _ = collect(branching=(3, 1), tasks=2, greedy=True)
    assert len(rollouts.nodes) == 4
    assert all(request.key is None for batch in players.requests for request in batch)
    assert len(rollouts.leaves) == 2


def test_a_memory_that_no_longer_fits_truncates_the_episode():
    first, _, _ = collect(branching=(2, 1))
    longest = max(map(len, first.rows.prompt[:4]))
    rollouts, _, _ = collect(branching=(2, 1), limit=longest + 4, overflow="stop")
    assert rollouts.nodes.truncated.all()
    assert not rollouts.nodes.terminated.any()
    assert (rollouts.nodes.next_point >= 0).all()  # critics bootstrap from where it was cut
    assert len(rollouts.nodes) == 4


def test_a_first_prompt_that_does_not_fit_names_the_task():
    with pytest.raises(InputError, match="first prompt of task"):
        collect(limit=10, overflow="stop")


def test_rows_hold_what_was_said():
    rollouts, _, _ = collect(lambda agent, prompt, node: f"{agent}{node}", branching=(2,), tasks=1)
    assert rollouts.rows.text == ("agent_0(0,)", "agent_1(0,)", "agent_0(1,)", "agent_1(1,)")
    assert rollouts.rows.agent.tolist() == [0, 1, 0, 1]
    assert not rollouts.rows.cut.any()
    assert [len(lp) for lp in rollouts.rows.logprob] == [len(r) for r in rollouts.rows.reply]


def test_replies_cut_by_the_token_limit_are_flagged():
    players = team(AGENTS, sampling={"max_new_tokens": 3})
    env = make("debug/echo-v0")
    rollouts = Collector(VecEnv(env), players, (4,), 0).collect([env.tasks[0]], 0)
    eos = players.formats["agent_0"].tokenizer.eos_token_id
    ended = np.array([reply[-1] == eos for reply in rollouts.rows.reply])
    assert (rollouts.rows.cut == ~ended).all()
    assert all(len(r) == 3 for r, cut in zip(rollouts.rows.reply, rollouts.rows.cut, strict=True) if cut)


@pytest.mark.parametrize(
    ("setting", "default", "expected"),
    [
        ("auto", "tree", (3, 3)),
        ("auto", "paths", (3, 1)),
        ("tree", "paths", (3, 3)),
        ("paths", "tree", (3, 1)),
        ([4, 2], "tree", (4, 2)),
    ],
)
def test_branching_settings(setting, default, expected):
    assert resolve_branching(setting, 3, default, 2) == expected


def test_branching_of_another_length_is_refused():
    with pytest.raises(SettingError, match="2 numbers for 3 turns"):
        resolve_branching([2, 2], 4, "tree", 3)


def test_tree_sizes():
    # n * K * (K^H - 1) / (K - 1) with n = 1.
    assert tree_size((3, 3, 3)) == 3 * (27 - 1) // 2
    assert tree_size((4, 1, 1)) == 12
    assert tree_size((4,), greedy_sibling=True) == 5


def test_rollouts_are_frozen():
    rollouts, _, _ = collect()
    with pytest.raises(dataclasses.FrozenInstanceError):
        rollouts.tasks = ()


class OneByOne(ScriptedTeam):
    """Replies come one at a time, each some time after the one before."""

    def act(self, requests, on_reply=None):
        found = super().act(requests)
        for number in reversed(range(len(requests))):  # in an order of its own
            time.sleep(0.02)
            on_reply(number, found[number])
        return found


def test_joint_replies_are_judged_while_others_are_still_drawn():
    env = Judged(num_turns=1)
    players = OneByOne(AGENTS, lambda agent, prompt, node: f"{agent} {node}")
    collector = Collector(VecEnv(env), players, (6,), 3)
    before = collector.clock.read()
    rollouts = collector.collect([env.tasks[0]], 0)
    spent = collector.clock.since(before)
    assert [text.split()[1] for text in rollouts.rows.text[::2]] == [f"({g},)" for g in range(6)]
    assert (rollouts.nodes.score > 0).any()
    # Six judgements of 0.05 s each ran beside 0.24 s of drawing; only the last ones were waited for.
    assert collector.overlapped_s > 0.1
    assert spent["judge_wait"] < 0.1
    assert spent["decode"] >= 0.2
