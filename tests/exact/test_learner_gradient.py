"""The real collector and learner on the small game: whole trees, and the gradient that an optimizer is handed."""

import dataclasses

import numpy as np
import pytest
import torch
from game import AGENTS, Game
from tabular import SAYS, GameEnv, TableCritic, TableTeam
from trees import far_from, tree_gradients

from collm_agents.algorithms.cc import CentralisedCritic
from collm_agents.algorithms.dc import DecentralisedCritics
from collm_agents.algorithms.mc import MonteCarlo
from collm_agents.collect import Collector
from collm_agents.config import LearnerConfig
from collm_agents.learner import Learner
from collm_envs.vector import VecEnv


def played(game, branching, trees, *, mode="aligned", seed=0, greedy=False):
    env = GameEnv(num_turns=len(branching))
    env.game = game
    players = TableTeam(game)
    collector = Collector(VecEnv(env), players, branching, seed, joint_mode=mode, greedy_sibling=greedy)
    return players, collector.collect([env.tasks[0]] * trees, 0)


def plain(game, players, rollouts):
    """The same rollouts with prompts and replies as rows and columns of the tables, for `tree_gradients`."""
    rows = rollouts.rows
    prompt = tuple((players.place(AGENTS[a], p),) for a, p in zip(rows.agent, rows.prompt, strict=True))
    reply = tuple((r[0] - SAYS,) for r in rows.reply)
    return dataclasses.replace(rollouts, rows=dataclasses.replace(rows, prompt=prompt, reply=reply))


def learner(players, estimator, **settings):
    fixed = {"lr": 1.0, "critic_lr": 1.0, "lr_schedule": "constant", "max_grad_norm": 0.0, "update_epochs": 1}
    return Learner(players, None, estimator, LearnerConfig(**{**fixed, "advantage_norm": "none", **settings}))


def handed_over(found, rollouts):
    """The gradient that the optimizers are given, flat."""
    kept = {}
    for member in AGENTS:
        found.optimizers[member].step = lambda member=member: kept.update(
            {member: found.team.tables[member].grad.detach().double().numpy().ravel().copy()}
        )
    found.update(rollouts)
    return -np.concatenate([kept[agent] for agent in AGENTS])  # the loss is descended


@pytest.mark.parametrize(("branching", "mode"), [((3, 2), "aligned"), ((3, 1), "aligned"), ((2, 2), "cross")])
def test_what_the_real_collector_plays_follows_the_policy_gradient(branching, mode):
    game = Game(3, gamma=0.8, early=False)
    players, rollouts = played(game, branching, 700, mode=mode)
    rollouts = plain(game, players, rollouts)
    estimator = MonteCarlo(gamma=0.8, baseline="leave_one_out")
    found = learner(players, estimator, turn_weight="discounted")
    advantage, weight = found.row_signals(rollouts, estimator(rollouts))
    assert far_from(tree_gradients(game, rollouts, advantage, weight), game.gradient()) < 4.6


@pytest.mark.parametrize("ratio", ["none", "sequence", "token"])
@pytest.mark.parametrize("clip", [0.0, 0.2])
def test_the_first_steps_gradient_is_the_closed_form(ratio, clip):
    game = Game(3, gamma=0.8, early=False)
    players, rollouts = played(game, (3, 2), 20)
    estimator = MonteCarlo(gamma=0.8, baseline="mean")
    found = learner(players, estimator, ratio=ratio, clip=clip, turn_weight="discounted")
    own = plain(game, players, rollouts)
    advantage, weight = found.row_signals(own, estimator(own))
    formula = tree_gradients(game, own, advantage, weight).mean(0)
    given = handed_over(found, rollouts)
    assert np.abs(formula).max() > 0.01
    assert np.allclose(given, formula, atol=1e-6)


@pytest.mark.parametrize(("view", "kind"), [("joint", CentralisedCritic), ("local", DecentralisedCritics)])
def test_a_learned_critic_moves_the_agents_by_its_closed_form_and_itself_towards_its_targets(view, kind):
    game = Game(3, gamma=0.8, early=False)
    players, rollouts = played(game, (3, 1), 20)
    values = TableCritic(view)
    with torch.no_grad():
        for i, table in enumerate(values.weights.values()):
            table.add_(torch.sin(torch.arange(256.0) + i))
    estimator = kind(gamma=0.8)
    settings = LearnerConfig(
        lr=1.0,
        critic_lr=1.0,
        lr_schedule="constant",
        max_grad_norm=0.0,
        update_epochs=1,
        critic_epochs=1,
        advantage_norm="none",
        turn_weight="discounted",
        value_coef=0.6,
    )
    found = Learner(players, values, estimator, settings)
    own = plain(game, players, rollouts)
    before = {m: w.detach().clone() for m, w in values.weights.items()}
    encoded = values.encode(rollouts, estimator.critic_queries(rollouts))
    estimate = estimator(own, values.values(encoded, 0))
    advantage, weight = found.row_signals(own, estimate)
    kept = {}
    for member in values.members:
        found.optimizers[member].step = lambda m=member: kept.update({m: values.weights[m].grad.clone()})
    given = handed_over(found, rollouts)
    assert np.allclose(given, tree_gradients(game, own, advantage, weight).mean(0), atol=1e-6)
    share = estimate.target_weight / estimate.target_weight.sum()
    for member in values.members:
        by_hand = np.zeros(256)
        target = values.own(member, estimate.target)
        for (place,), goal, part in zip(encoded[member], target, share, strict=True):
            by_hand[place] += 0.6 * part * 2 * (float(before[member][place]) - goal)
        assert np.abs(by_hand).max() > 0.01
        assert np.allclose(kept[member].numpy(), by_hand, atol=1e-6)


def test_later_passes_correct_by_the_ratio_of_replies_not_of_histories():
    """After a step the ratio is pi_new / pi_old of the reply: hand-worked on one row."""
    game = Game(3, gamma=1.0, early=False, turns=1)
    players, rollouts = played(game, (2,), 4)
    found = learner(players, MonteCarlo(gamma=1.0, baseline="none"), ratio="sequence", clip=0.0)
    old = {a: torch.softmax(players.tables[a].detach(), -1).numpy().copy() for a in AGENTS}
    with torch.no_grad():
        for table in players.tables.values():
            table.add_(torch.linspace(-0.5, 0.5, table.numel()).reshape(table.shape))
    new = {a: torch.softmax(players.tables[a].detach(), -1).numpy() for a in AGENTS}
    # What sampled is what teacher forcing says before the first step: hand it the old tables' log-probs.
    own = plain(game, players, rollouts)
    for agent, side in found.sides.items():

        def look_back(batch, rows, agent=agent):
            for row in rows:
                place = players.place(agent, batch.rows.prompt[row]), batch.rows.reply[row][0] - SAYS
                batch.before[int(row)] = torch.log(torch.tensor([old[agent][place]])).float()
            return 0.0

        side._look_back = look_back
    given = handed_over(found, rollouts)
    advantage, weight = found.row_signals(own, found.estimator(own))
    rho = np.array(
        [
            new[AGENTS[a]][p[0], r[0]] / old[AGENTS[a]][p[0], r[0]]
            for a, p, r in zip(own.rows.agent, own.rows.prompt, own.rows.reply, strict=True)
        ]
    )
    game.policy = tuple(new[a] for a in AGENTS)
    assert np.allclose(given, tree_gradients(game, own, rho * advantage, weight).mean(0), atol=1e-6)


@pytest.mark.parametrize(("samples", "turns", "calls"), [(4, 2, 40), (2, 4, 60), (3, 3, 78)])
def test_a_tree_takes_as_many_calls_as_proposition_4_3_says(samples, turns, calls):
    players, rollouts = played(Game(1, turns=turns, early=False), (samples,) * turns, 1)
    assert calls == 2 * samples * (samples**turns - 1) // (samples - 1)
    assert players.calls == calls
    assert rollouts.joint_samples == calls // 2
