"""Our environments in TorchRL: `TextPettingZooEnv`, its `PettingZooWrapper` where texts survive.

For users of TorchRL's collectors, transforms and losses. The wrapper as it comes does not take texts: it makes
tensors of all infos, cannot split a batch of replies among the agents, and leaves every observation the placeholder
of its spec without a word. All three are mended here, and nothing else is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from collm_agents.interop import need
from collm_envs import CollabEnv, SettingError, UnicodeText, make

need("torchrl")

from pettingzoo.utils import BaseParallelWrapper  # noqa: E402
from tensordict import NonTensorStack, TensorDictBase  # noqa: E402
from torchrl.envs import PettingZooWrapper  # noqa: E402

NUMBERS = ("turn", "score", "success")
STATE_CHARS = 2**31 - 1


class TextPettingZooEnv(PettingZooWrapper):
    """A collaborative text task as a TorchRL environment.

    Keys are those of `PettingZooWrapper`, by group of agents: `(group, "observation")` and `(group, "action")` hold
    one string per agent as non-tensor data, `(group, "reward")` [agents, 1]. `(group, "info", name)` [agents] holds
    `turn`, `score` (of the last turn, 0 before any) and `success`. `options={"task": n}` at `reset` picks a task.

    Args:
        env: a registered id, or an environment.
        options: those of `PettingZooWrapper`, such as `group_map` or `seed`; with `return_state=True` the key
            `state` holds the joint history. Settings of the environment are given to `make` instead.

    Raises:
        SettingError: for anything that is no `CollabEnv`.
    """

    def __init__(self, env: str | CollabEnv, **options: Any) -> None:
        built = make(env) if isinstance(env, str) else env
        if not isinstance(built, CollabEnv):
            raise SettingError(f"TextPettingZooEnv takes an id or a CollabEnv, not {env!r}")
        super().__init__(env=_Numbers(built), **options)
        group = next(iter(self.group_map))
        self._env.placeholder = self.cached_reset_output_zero.get((group, "observation")).data

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        return self._with_texts(super()._reset(tensordict, **kwargs))

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        return self._with_texts(super()._step(tensordict))

    def _step_parallel(self, tensordict: TensorDictBase) -> tuple[dict, dict, dict, dict, dict]:
        actions: dict[str, str] = {}
        for group, agents in self.group_map.items():
            actions.update(zip(agents, tensordict.get((group, "action")).tolist(), strict=True))
        return self._env.step(actions)

    def _with_texts(self, out: TensorDictBase) -> TensorDictBase:
        seen = self._env.seen
        for group, agents in self.group_map.items():
            texts = NonTensorStack(*(seen[agent] for agent in agents))
            out.set((group, "observation"), texts)
        return out


class _Numbers(BaseParallelWrapper[str, str, str]):
    """What the wrapper can take: infos of numbers alone, the same at every step, and no texts but its placeholder.

    It would leave the placeholder there anyway, and warn. The texts are in `seen`.
    """

    def __init__(self, env: CollabEnv) -> None:
        super().__init__(env)
        self.state_space = UnicodeText(STATE_CHARS)
        self.seen: Mapping[str, str] = {}
        self.placeholder = ""

    def reset(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, str], dict[str, dict]]:
        self.seen, infos = self.env.reset(seed=seed, options=options)
        return dict.fromkeys(self.seen, self.placeholder), _numbers(infos)

    def step(self, actions: Mapping[str, str]) -> tuple[dict, dict, dict, dict, dict]:
        self.seen, rewards, terminated, truncated, infos = self.env.step(actions)
        return dict.fromkeys(self.seen, self.placeholder), rewards, terminated, truncated, _numbers(infos)


def _numbers(infos: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    return {agent: {name: float(info.get(name, 0)) for name in NUMBERS} for agent, info in infos.items()}
