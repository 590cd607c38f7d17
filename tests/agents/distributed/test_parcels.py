"""What goes to a member's process and back is, afterwards, what it was: to the bit."""

import numpy as np
import torch
from builders import learner, played, team

from collm_agents.algorithms.mc import MonteCarlo
from collm_agents.distributed.parcels import LARGE, pack, unpack
from collm_agents.draws import DrawKey
from collm_agents.sides import MemberRows
from collm_agents.team import Reply, Request

AGENTS = ("agent_0", "agent_1")


def test_requests_with_and_without_draws():
    key = DrawKey(3, 7, "tâsk#1", (0, 2), "agent_0/final")
    asked = [Request("agent_0", (1, 70_000, 3), key), Request("agent_1", (), None)]
    assert unpack(pack(asked)) == asked
    assert unpack(pack([])) == []


def test_replies_but_for_their_texts():
    draw = np.random.default_rng(0)
    given = [
        Reply("so", (5, 400), draw.normal(size=2).astype(np.float32), cut=True),
        Reply("", (9,), draw.normal(size=1).astype(np.float32), cut=False),
    ]
    found = unpack(pack(given))
    assert [(one.text, one.ids, one.cut) for one in found] == [("", (5, 400), True), ("", (9,), False)]
    for one, other in zip(found, given, strict=True):
        assert one.logprob.dtype == np.float32
        assert one.logprob.tobytes() == other.logprob.tobytes()


def test_rows_of_one_member_and_no_others():
    rollouts = played(team(AGENTS), (2, 2), tasks=3)
    rows = np.flatnonzero((rollouts.rows.agent == 1) & (np.arange(len(rollouts.rows)) % 3 > 0))
    own = MemberRows.of(rollouts, rows)
    found = unpack(pack(own))
    assert found.prompt == own.prompt == tuple(rollouts.rows.prompt[row] for row in rows)
    assert (found.reply, found.tasks) == (own.reply, own.tasks)
    assert found.tree.tolist() == rollouts.points.tree[rollouts.rows.point[rows]].tolist()
    assert found.turn.tolist() == own.turn.tolist()
    assert all((a == b).all() for a, b in zip(found.logprob, own.logprob, strict=True))
    assert found.named([0, 1]) == own.named([0, 1])


def test_lists_of_tokens_numbers_arrays_and_nothing():
    for value in ([(1, 2), (), (300,)], [], None, 0.1, {"track": True}):
        assert unpack(pack(value)) == value
    array = np.array([np.pi, -0.0, np.nan])
    assert unpack(pack(array)).tobytes() == array.tobytes()


def test_moments_however_large():
    made = learner(team(AGENTS), MonteCarlo())
    made.update(played(made.team, (2,)))
    state = made.sides["agent_0"].state()
    found = unpack(pack(state))
    assert found["param_groups"] == state["param_groups"]
    assert found["state"].keys() == state["state"].keys()
    for number, entry in state["state"].items():
        assert all(torch.equal(entry[name], found["state"][number][name]) for name in entry)
    large = torch.arange(LARGE // 4 + 1, dtype=torch.int32)
    data = pack(large)
    assert len(data) > LARGE  # no time was spent on making it smaller
    assert torch.equal(unpack(data), large)
