"""What runs in the process of a member: its weights, what draws from them and what trains them.

For `placement`, which makes Ray actors of it. What comes in is requests, rows and numbers; what goes out is
replies, values and numbers. Weights leave it as a checkpoint's files alone. An agent's own critic lives with it.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import ray

from collm_agents.critic import Critic
from collm_agents.distributed.parcels import pack, unpack
from collm_agents.models.loading import pick_dtype
from collm_agents.models.sharding import Shards, join
from collm_agents.recipe import Recipe
from collm_agents.sides import sides_of
from collm_agents.team import AgentTeam


@dataclass(frozen=True)
class Given:
    """An answer, packed, and the seconds that were worked for it."""

    data: bytes
    seconds: float


class Home:
    """Holds some members of a run, and no other's weights.

    Args:
        path: where the driver finds modules.
    """

    def __init__(self, path: Sequence[str]) -> None:
        sys.path.extend(place for place in path if place not in sys.path)
        self._turns = ExitStack()
        self._held = False
        self._folder: tempfile.TemporaryDirectory | None = None

    def where(self) -> str:
        """Process and address, for people."""
        return f"{os.getpid()} at {ray.util.get_node_ip_address()}"

    def meeting_point(self) -> str:
        """Where the other processes of a member may find this one: HOST:PORT."""
        with socket.socket() as free:
            free.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def build(
        self, recipe: Recipe, device: str, members: Collection[str], rank: int, size: int, address: str
    ) -> None:
        """Load the models of some members.

        Args:
            recipe: of all.
            device: where they live here.
            members: an agent's, with its critic; or a critic alone.
            rank: this process's number among those that hold these members.
            size: how many do.
            address: where they meet, if there are several.
        """
        self._team: AgentTeam
        self._critic: Critic | None
        if size > 1:  # loaded on the CPU, in the type that they are spread in
            dtype = str(pick_dtype(recipe.config.team.dtype, device)).removeprefix("torch.")
            team = replace(recipe.config.team, dtype=dtype)
            recipe = replace(recipe, device="cpu", config=replace(recipe.config, team=team))
        else:
            recipe = replace(recipe, device=device)
        # Weights to begin with come from the driver, which has the folders.
        self._team, self._critic = recipe.models(only=members, stored=True)
        if size > 1:
            self._spread(join(address, rank, size, device))
        self._sides = sides_of(self._team, self._critic, recipe.config.learner)

    def _spread(self, shards: Shards) -> None:
        critics = self._critic.backbones.values() if self._critic is not None else ()
        for backbone in dict.fromkeys([*self._team.backbones.values(), *critics]):
            shards.spread(backbone)
        for head in self._critic.heads.values() if self._critic is not None else ():
            head.to(shards.device)

    def ask(self, member: str, what: str, data: Sequence[bytes], named: bytes) -> Given:
        """Have a member's side do something.

        Args:
            member: whose.
            what: name of the side's method.
            data: its arguments, packed.
            named: those with a name.
        """
        started = time.perf_counter()
        method = getattr(self._sides[member], what)
        answer = pack(method(*map(unpack, data), **unpack(named)))
        return Given(answer, time.perf_counter() - started)

    def act(self, requests: bytes, taking: bool | None) -> Given:
        """Draw replies.

        Args:
            requests: packed.
            taking: whether what was computed is kept for later turns; None outside a tree, where nothing is.
        """
        started = time.perf_counter()
        if taking is not None:
            if not self._held:
                self._turns.enter_context(self._team.holding())
                self._held = True
            self._team.store.taking = taking
        answer = pack(self._team.act(unpack(requests)))
        return Given(answer, time.perf_counter() - started)

    def release(self) -> None:
        """Forget what was kept between turns."""
        self._turns.close()
        self._held = False

    # -- files -----------------------------------------------------------------------------------------------

    def save(self, member: str) -> dict[str, int]:
        """Write a member's weights as a checkpoint has them; returns the files' names and sizes."""
        folder = self._files()
        self._holder(member).save(member, folder)
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        return {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}

    def load(self, member: str) -> None:
        """Take a member's weights from the files that were written here."""
        self._holder(member).load(member, self._files())
        self.clean()

    def read(self, name: str, start: int, count: int) -> bytes:
        """Part of a file."""
        with (self._files() / name).open("rb") as file:
            file.seek(start)
            return file.read(count)

    def write(self, name: str, data: bytes) -> None:
        """Add to a file."""
        place = self._files() / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("ab") as file:
            file.write(data)

    def clean(self) -> None:
        """Remove the files."""
        if self._folder is not None:
            self._folder.cleanup()
        self._folder = None

    def _files(self) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="collm-")
        return Path(self._folder.name)

    def _holder(self, member: str) -> AgentTeam | Critic:
        if self._critic is not None and member in self._critic.members:
            return self._critic
        return self._team
