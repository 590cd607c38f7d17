"""Joint replies of every combination, `joint_mode="cross"`: what is played, and who shares what."""

import itertools
from collections import Counter

import numpy as np
import pytest
from builders import ScriptedTeam, critic, learner, same, team, weights

from collm_agents.algorithms.cc import CentralisedCritic
from collm_agents.algorithms.mc import MonteCarlo
from collm_agents.branching import tree_size
from collm_agents.collect import Collector
from collm_envs import VecEnv, make


def names(count):
    return tuple(f"agent_{i}" for i in range(count))


def collect(players, branching, *, tasks=1, mode="cross", env=None, **settings):
    env = env or make("debug/echo-v0", num_agents=len(players.agents), num_turns=len(branching))
    vec, sent = VecEnv(env), []
    send = vec.send
    vec.send = lambda row, actions: sent.append(dict(actions)) or send(row, actions)
    found = Collector(vec, players, branching, 3, joint_mode=mode, **settings)
    return found.collect([env.tasks[i] for i in range(tasks)], 5), sent


def talkers(count):
    return ScriptedTeam(names(count), lambda agent, prompt, node: f"{agent}:{node}")


@pytest.mark.parametrize(("agents", "width"), [(1, 3), (2, 2), (2, 3), (3, 2)])
def test_every_combination_is_played_once_and_every_reply_drawn_once(agents, width):
    players = talkers(agents)
    rollouts, sent = collect(players, (width,), tasks=2)
    assert len(rollouts.nodes) == len(sent) == 2 * width**agents
    assert len(rollouts.rows) == 2 * width * agents
    assert sum(map(len, players.requests)) == 2 * width * agents
    said = [tuple(rollouts.rows.text[row] for row in rows) for rows in rollouts.row_of]
    own = [[f"{agent}:({g},)" for g in range(width)] for agent in players.agents]
    assert said == list(itertools.product(*own)) * 2
    # Sent as soon as they are complete, which is another order.
    assert Counter(said) == Counter(tuple(joint[a] for a in players.agents) for joint in sent)


def test_every_node_has_the_score_of_its_own_replies():
    env = make("paying_env:Paying")
    rollouts, _ = collect(talkers(2), (3,), env=env)
    said = [tuple(rollouts.rows.text[row] for row in rows) for rows in rollouts.row_of]
    assert rollouts.nodes.score.tolist() == [
        sum(ord(c) for reply in replies for c in reply) % 7 / 8 for replies in said
    ]
    assert len(set(rollouts.nodes.score)) > 3


@pytest.mark.parametrize(("agents", "width"), [(1, 3), (2, 2), (3, 2)])
def test_weights_are_those_of_the_branching(agents, width):
    rollouts, _ = collect(talkers(agents), (width, width), tasks=2)
    joint = width**agents
    by_turn = [1 / (2 * joint), 1 / (2 * joint**2)]
    assert rollouts.nodes.weight.tolist() == pytest.approx([by_turn[t] for t in rollouts.turn])
    turn = rollouts.points.turn[rollouts.rows.point]
    # A reply of the first turn weighs 1 / K; those of the second share what each of K^n branches weighs.
    expected = np.where(turn == 0, 1 / (2 * width), 1 / (2 * joint * width))
    assert rollouts.row_weight().tolist() == pytest.approx(expected.tolist())
    for agent in range(agents):
        own = rollouts.rows.agent == agent
        assert rollouts.row_weight()[own & (turn == 1)].sum() == pytest.approx(1.0)
    assert len(rollouts.nodes) == 2 * tree_size((width, width), replies=agents)


def test_siblings_of_a_point_are_one_group_and_later_points_their_own():
    rollouts, _ = collect(talkers(2), (2, 2))
    assert rollouts.nodes.group[:4].tolist() == [0] * 4
    assert rollouts.nodes.group[4:].reshape(4, 4).tolist() == [[g] * 4 for g in (1, 2, 3, 4)]
    assert rollouts.nodes.parent[4:].reshape(4, 4).tolist() == [[p] * 4 for p in range(4)]


def test_paths_branch_at_the_first_turn_alone():
    rollouts, _ = collect(talkers(2), (2, 1))
    assert rollouts.turn.tolist() == [0] * 4 + [1] * 4
    assert len(set(rollouts.nodes.group[4:])) == 1
    assert len(rollouts.rows) == 4 + 8  # each of four paths has rows of its own


def test_memories_of_the_second_turn_are_those_of_the_combination_that_led_there():
    players = talkers(2)
    rollouts, _ = collect(players, (2, 1))
    for node in range(4, 8):
        for agent in (0, 1):
            row, before = rollouts.row_of[node, agent], rollouts.row_of[rollouts.nodes.parent[node], agent]
            said = rollouts.rows.prompt[before] + rollouts.rows.reply[before]
            assert rollouts.rows.prompt[row][: len(said)] == said


def assert_equal_rollouts(one, other):
    for part in ("points", "nodes", "rows"):
        for name, column in vars(getattr(one, part)).items():
            found = getattr(getattr(other, part), name)
            if isinstance(column, np.ndarray):
                assert np.array_equal(column, found), name
            elif name == "logprob":
                assert all(np.array_equal(x, y) for x, y in zip(column, found, strict=True))
            else:
                assert column == found, name
    assert np.array_equal(one.row_of, other.row_of)


def test_with_one_reply_each_crossing_changes_nothing():
    players = team(names(2), num_turns=2)
    assert_equal_rollouts(*(collect(players, (1, 1), tasks=2, mode=m)[0] for m in ("cross", "aligned")))


def test_with_one_agent_crossing_changes_nothing():
    players = team(names(1), num_turns=2)
    assert_equal_rollouts(*(collect(players, (3, 2), tasks=2, mode=m)[0] for m in ("cross", "aligned")))


def test_the_replies_of_the_first_turn_are_those_that_would_be_aligned():
    players = team(names(2))
    crossed, aligned = (collect(players, (3,), tasks=2, mode=m)[0] for m in ("cross", "aligned"))

    def said(rollouts):
        point = rollouts.points.tree[rollouts.rows.point]
        return sorted(zip(point, rollouts.rows.agent, rollouts.rows.reply, strict=True))

    assert said(crossed) == said(aligned)


def test_a_greedy_joint_reply_stands_beside_all_combinations():
    players = talkers(2)
    rollouts, _ = collect(players, (2, 2), greedy_sibling=True)
    first = rollouts.nodes.greedy[rollouts.turn == 0]
    assert first.tolist() == [False] * 4 + [True]
    # At the second turn: one beside each of four points, and the greedy path's own.
    assert rollouts.nodes.greedy[rollouts.turn == 1].sum() == 5
    assert len(rollouts.nodes) == tree_size((2, 2), greedy_sibling=True, replies=2) == 4 + 1 + 16 + 5
    assert (rollouts.nodes.weight[rollouts.nodes.greedy] == 0).all()
    drawn = rollouts.row_weight() > 0
    assert not set(rollouts.row_of[rollouts.nodes.greedy].ravel()) & set(np.flatnonzero(drawn))
    advantage = MonteCarlo(baseline="greedy")(rollouts)
    assert advantage.keep.tolist() == drawn.tolist()


def test_episodes_that_end_early_leave_the_others_weights_alone():
    def say(agent, prompt, node):
        return prompt.partition("letter: ")[2][:1] if node[0] == 0 and len(node) == 1 else "z"

    rollouts, _ = collect(ScriptedTeam(names(2), say), (2, 2))
    assert rollouts.nodes.success[:4].tolist() == [True, False, False, False]
    assert len(rollouts.nodes) == 4 + 3 * 4
    assert rollouts.nodes.weight[4:].tolist() == pytest.approx([1 / 16] * 12)


@pytest.mark.parametrize("estimator", [MonteCarlo(), MonteCarlo(baseline="greedy"), CentralisedCritic()])
def test_crossed_replies_are_learned_from(estimator):
    players = team(names(2), num_turns=2)
    values = critic("joint", "one", names(2)) if isinstance(estimator, CentralisedCritic) else None
    found = learner(players, estimator, values)
    env = make("paying_env:Paying", num_turns=2)
    rollouts, _ = collect(players, (2, 1), env=env, greedy_sibling=estimator.rollout_needs.greedy, tasks=2)
    before = {a: weights(players.backbones[a], a) for a in names(2)}
    metrics = found.update(rollouts)
    assert all(np.isfinite(v) for v in metrics.values())
    assert not any(same(before[a], weights(players.backbones[a], a)) for a in names(2))
