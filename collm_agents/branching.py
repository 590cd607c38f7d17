"""How many replies are drawn where: the shapes of trees.

For experiments. A shape is one number per turn: replies that each agent draws at every point of that turn.
"""

from __future__ import annotations

from collections.abc import Sequence

from collm_envs.errors import SettingError


def resolve_branching(
    setting: str | Sequence[int], samples: int, default: str, num_turns: int
) -> tuple[int, ...]:
    """Joint replies per turn.

    Args:
        setting: `auto`, `tree`, `paths`, or a list with one number per turn.
        samples: K.
        default: what `auto` stands for: `tree` or `paths`.
        num_turns: the horizon H.

    Returns:
        `[K] * H` for a tree, `[K, 1, 1, ...]` for paths, or the list itself.
    """
    if not isinstance(setting, str):
        if len(setting) != num_turns:
            raise SettingError(f"rollout.branching has {len(setting)} numbers for {num_turns} turns")
        return tuple(setting)
    kind = default if setting == "auto" else setting
    return (samples,) * num_turns if kind == "tree" else (samples,) + (1,) * (num_turns - 1)


def tree_size(branching: Sequence[int], greedy_sibling: bool = False, replies: int = 1) -> int:
    """Most joint samples that one task's tree can take.

    Args:
        branching: replies per agent and turn.
        greedy_sibling: a greedy joint reply is played at every point, too.
        replies: 1 where the g-th replies pair up, the number of agents where every combination is played.
    """
    total, width, greedy = 0, 1, 0
    for k in (k**replies for k in branching):
        greedy = greedy + width if greedy_sibling else 0
        width *= k
        total += width + greedy
    return total
