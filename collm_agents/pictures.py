"""Pictures of the turns of an episode, by playing its replies once more.

For the page of a run. Only environments of this package that draw themselves are played, none that runs programs,
and a picture is shown only where the replay has the episode's own history. Needs no model and no Pillow.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collm_agents.draws import derive
from collm_agents.overrides import load_config
from collm_envs import CollabEnv, CollmError, list_envs, make
from collm_envs.render import as_png

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Pictures:
    """Draws the episodes of a run's evaluations.

    Args:
        run_dir: the run.

    Attributes:
        drawn: episodes that were drawn.
        lost: episodes whose replay was another one.
        trouble: why nothing can be drawn although the environment draws, else "".
    """

    def __init__(self, run_dir: Path) -> None:
        self.drawn = self.lost = 0
        self.trouble = ""
        self._env: CollabEnv | None = None
        self._places: dict[str, int] = {}
        try:
            config = load_config(None, files=[run_dir / "config.toml"])
            self._seed = config.eval.seed
            if config.env_id not in {spec.id for spec in list_envs()}:
                return
            held_out: dict[str, Any] = {**config.env_kwargs, "split": config.eval.split}
            if config.eval.source:
                held_out["source"] = config.eval.source
            env = make(config.env_id, **held_out)
            if "rgb_array" not in env.metadata["render_modes"]:
                return
            env.render_mode = "rgb_array"
            self._places = {task.id: place for place, task in enumerate(env.tasks)}
            self._env = env
        except (CollmError, OSError) as error:
            self.trouble = " ".join(str(error).split())

    @property
    def possible(self) -> bool:
        """Whether the environment draws."""
        return self._env is not None

    def of(self, episode: Mapping[str, Any]) -> list[dict[str, str]]:
        """A picture after each turn: `png` in base64, and what stands there as lines of `text`."""
        env = self._env
        if env is None:
            return []
        try:
            found = self._replay(env, episode)
        except CollmError:
            found = []
        if found and env.state().startswith(episode["text"]):
            self.drawn += 1
            return found
        self.lost += 1
        return []

    def _replay(self, env: CollabEnv, episode: Mapping[str, Any]) -> list[dict[str, str]]:
        task = episode["task_id"]
        if task not in self._places:
            return []
        env.reset(seed=derive(self._seed, "env", -1, f"{task}*0"), options={"task": self._places[task]})
        found = []
        for turn in episode["turns"]:
            if not env.agents:
                return []
            env.step({agent: turn["agents"].get(agent, {}).get("says", "") for agent in env.agents})
            png = base64.b64encode(as_png(env.render())).decode("ascii")  # type: ignore[arg-type]
            found.append({"png": png, "text": _COLOURS.sub("", env.look())})
        return found
