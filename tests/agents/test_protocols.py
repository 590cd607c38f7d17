"""Who sees what in which order, and what is remembered, in every way of coming to a joint reply."""

import numpy as np
import pytest
from builders import ScriptedTeam, team

from collm_agents.chat import History
from collm_agents.collect import Collector
from collm_agents.draws import DrawKey
from collm_agents.evaluate import evaluate
from collm_agents.protocols import DISCUSSION, PIPELINE, PROTOCOLS, Seat, discussion, parallel, pipeline
from collm_agents.team import scripted_reply
from collm_envs import VecEnv, make
from collm_envs.errors import InputError

AGENTS = ("a_0", "b_1", "c_2")


def talkers(agents=AGENTS, **settings):
    """Each says how often it has been asked in this turn: `a_0!1`, then `a_0!2`."""
    asked = {}

    def say(agent, prompt, node):
        asked[agent, node] = asked.get((agent, node), 0) + 1
        return f"{agent}!{asked[agent, node]}"

    return ScriptedTeam(agents, say, **settings)


def seats(players, seen="count birds", *, before=None, scripts=(), greedy=False, node=(0,)):
    found = []
    for agent in players.agents:
        memory = (before or {}).get(agent, History())
        history = memory if agent in scripts else players.observe(agent, memory, seen)
        key = None if greedy else DrawKey(1, 2, "task*0", node, agent)
        script = scripted_reply(f"{agent} reads lines") if agent in scripts else None
        found.append(Seat(agent, memory, seen, history, key, script))
    return found


def play(protocol, players, tables):
    said, order = {}, []
    protocol(players, tables, lambda number, own: (order.append(number), said.update({number: list(own)})))
    assert sorted(order) == list(range(len(tables)))  # every table is told of exactly once
    return [said[number] for number in range(len(tables))]


def shown(players, request):
    return players.form.tokenizer.decode(request.prompt, skip_special_tokens=False)


def test_in_parallel_everybody_sees_the_task_alone():
    players = talkers()
    (said,) = play(parallel, players, [seats(players)])
    assert [one.reply.text for one in said] == ["a_0!1", "b_1!1", "c_2!1"]
    assert [one.drafted for one in said] == [0, 0, 0]
    (requests,) = players.requests
    for request in requests:
        text = shown(players, request)
        assert "count birds" in text
        assert not [name for name in AGENTS if name in text]


def test_in_a_pipeline_each_sees_the_task_and_all_replies_before_its_own_in_their_order():
    players = talkers()
    (said,) = play(pipeline, players, [seats(players)])
    assert [[r.agent for r in batch] for batch in players.requests] == [["a_0"], ["b_1"], ["c_2"]]
    first, second, third = (shown(players, batch[0]) for batch in players.requests)
    assert "a_0" not in first
    told = "count birds\n\n" + PIPELINE.format(said="a_0:\na_0!1")
    assert told in second
    assert "count birds\n\n" + PIPELINE.format(said="a_0:\na_0!1\n\nb_1:\nb_1!1") in third
    assert [one.reply.text for one in said] == ["a_0!1", "b_1!1", "c_2!1"]
    assert [one.drafted for one in said] == [0, 0, 0]
    # What stands in its memory is what it was shown: in place of the plain observation, not after it.
    assert second.count("count birds") == 1
    assert said[1].history.ids == players.requests[1][0].prompt
    assert [r.key for batch in players.requests for r in batch] == [s.key for s in seats(players)]


def test_in_a_discussion_each_replies_again_after_its_own_draft_and_the_others_replies():
    players = talkers()
    (said,) = play(discussion, players, [seats(players)])
    drafts, finals = players.requests
    assert [r.agent for r in drafts] == [r.agent for r in finals] == list(AGENTS)
    for place, (draft, final) in enumerate(zip(drafts, finals, strict=True)):
        own = AGENTS[place]
        others = "\n\n".join(f"{name}:\n{name}!1" for name in AGENTS if name != own)
        text = shown(players, final)
        assert final.prompt[: len(draft.prompt)] == draft.prompt  # the memory grows token by token
        added = text[len(shown(players, draft)) :]
        assert added.startswith(f"{own}!1")  # its own draft, as what it said
        assert DISCUSSION.format(said=others) in added
        assert added.count(f"{own}:") == 0  # and is not told of it as of another's
        assert said[place].history.ids == final.prompt
        assert final.key != draft.key
        assert final.key.uniforms(4).tolist() != draft.key.uniforms(4).tolist()
    assert len({r.key for batch in players.requests for r in batch}) == 6
    assert [one.reply.text for one in said] == ["a_0!2", "b_1!2", "c_2!2"]
    assert [one.drafted for one in said] == [len("a_0!1") + 1] * 3  # the end token is drawn as well


def test_tables_never_hear_of_each_other():
    players = talkers()
    tables = [seats(players, f"task {i}", node=(i,)) for i in range(3)]
    for protocol in (pipeline, discussion):
        players.requests.clear()
        play(protocol, players, tables)
        for request in (r for batch in players.requests for r in batch):
            text, number = shown(players, request), request.key.node[0]
            assert [f"task {i}" in text for i in range(3)] == [i == number for i in range(3)]


def test_the_likeliest_tokens_are_taken_throughout_where_there_is_no_key():
    for protocol in PROTOCOLS.values():
        players = talkers()
        play(protocol, players, [seats(players, greedy=True)])
        assert {r.key for batch in players.requests for r in batch} == {None}


@pytest.mark.parametrize("protocol", [parallel, pipeline, discussion])
def test_scripted_agents_are_asked_nothing_remember_nothing_and_cost_nothing(protocol):
    players = talkers()
    (said,) = play(protocol, players, [seats(players, scripts=("a_0",))])
    assert "a_0" not in {r.agent for batch in players.requests for r in batch}
    assert said[0].reply.text == "a_0 reads lines"
    assert (said[0].reply.ids, said[0].history.ids, said[0].drafted) == ((), (), 0)
    last = shown(players, players.requests[-1][-1])
    assert ("a_0 reads lines" in last) is (protocol is not parallel)


def test_a_scripted_agent_after_others_says_what_it_would_have_said():
    players = talkers()
    (said,) = play(pipeline, players, [seats(players, scripts=("c_2",))])
    assert said[2].reply.text == "c_2 reads lines"
    assert [[r.agent for r in batch] for batch in players.requests if batch] == [["a_0"], ["b_1"]]


@pytest.mark.parametrize("protocol", [pipeline, discussion])
def test_one_agent_alone_replies_once_from_the_task_alone(protocol):
    players = talkers(("a_0",))
    (said,) = play(protocol, players, [seats(players)])
    assert [len(batch) for batch in players.requests] == [1]
    assert (said[0].reply.text, said[0].drafted) == ("a_0!1", 0)


@pytest.mark.parametrize("protocol", [pipeline, discussion])
def test_what_does_not_fit_the_context_is_an_error_that_names_the_agent(protocol):
    players = talkers(overflow="stop")
    tables = [seats(players)]
    players.limit = len(tables[0][0].history.ids) + 3
    with pytest.raises(InputError, match=r"a_0|b_1"):
        play(protocol, players, tables)


@pytest.mark.parametrize(("name", "drafts"), [("parallel", 0), ("pipeline", 0), ("discussion", 1)])
def test_memories_of_later_turns_hold_all_that_was_shown_and_said(name, drafts):
    env = make("debug/echo-v0", num_turns=2, num_agents=3)
    players = talkers(tuple(env.possible_agents))
    collector = Collector(VecEnv(env), players, (1, 1), 0, protocol=name)
    rollouts = collector.collect([env.tasks[0]], -1)
    for node in np.flatnonzero(rollouts.turn == 1):
        for agent in range(3):
            row, before = rollouts.row_of[node, agent], rollouts.row_of[rollouts.nodes.parent[node], agent]
            said = rollouts.rows.prompt[before] + rollouts.rows.reply[before]
            assert rollouts.rows.prompt[row][: len(said)] == said
    # The environment hears the last replies only, and knows nothing of the rest.
    assert len(rollouts.rows.text) == 6
    assert all(text.endswith(f"!{1 + drafts}") for text in rollouts.rows.text)
    assert not [state for state in rollouts.points.state if "!2" in state and not drafts]
    assert not [state for state in rollouts.points.state if "!1" in state and drafts]
    assert collector.drafted.tolist() == [drafts * 2 * 3 * len("agent_0!1!")]


@pytest.mark.parametrize(("name", "expected"), [("pipeline", 0.0), ("discussion", 2 * len("agent_0!1!"))])
def test_reports_count_drafted_tokens_per_joint_reply(name, expected):
    env = make("debug/echo-v0", split="test", num_turns=3)
    report = evaluate(env, talkers(("agent_0", "agent_1")), env.tasks[:3], seed=0, protocol=name)
    assert report["metrics"]["drafted_tokens"]["mean"] == pytest.approx(expected)
    assert report["metrics"]["turns"]["mean"] == 3.0


def test_without_a_protocol_nothing_is_drafted():
    env = make("debug/echo-v0", split="test")
    report = evaluate(env, talkers(("agent_0", "agent_1")), env.tasks[:3], seed=0)
    assert "drafted_tokens" not in report["metrics"]


def test_models_reply_in_any_protocol_whatever_is_played_beside():
    players = team(("agent_0", "agent_1"), num_turns=2)
    env = make("debug/echo-v0", split="test")
    for name in PROTOCOLS:
        whole = evaluate(env, players, env.tasks[:3], seed=4, protocol=name, keep=9)["samples"]
        alone = [
            evaluate(env, players, env.tasks[i : i + 1], seed=4, protocol=name, keep=9)["samples"][0]
            for i in range(3)
        ]
        assert whole == alone
