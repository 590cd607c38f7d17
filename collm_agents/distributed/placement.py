"""Agents and critics in processes of their own, wherever the cluster has a device for them.

For experiments that ask for `placement.apart`. The driver plays the environment and does the arithmetic between
members; it holds shapes and tokenizers, and no weights. To each member go its own requests, rows and numbers; all
of a turn's agents draw at the same time, and all members learn at the same time.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from collm_agents.batch import Rollouts
from collm_agents.collect import Collector
from collm_agents.critic import Critic
from collm_agents.distributed.home import Given, Home
from collm_agents.distributed.parcels import pack, unpack
from collm_agents.distributed.session import GRACE_S, connected, end, told
from collm_agents.models.kvcache import PrefixStore
from collm_agents.recipe import Recipe
from collm_agents.sites import Site, sites
from collm_agents.team import AgentTeam, Reply, Request
from collm_envs.errors import CollmError
from collm_envs.task import Task

if TYPE_CHECKING:
    from collm_agents.experiment import Built, Experiment

CHUNK = 2**26  # bytes of a file that are on their way at a time
# What the arguments of a side's methods count as, the last kind for all further ones, and what their answers do;
# all else is of checkpoints.
SENT = {"update": ("rows", "advantages"), "begin": ("queries",), "values": ("queries",), "fit": ("targets",)}
ANSWERED = {"update": "results", "begin": "values", "values": "values", "fit": "results"}
KINDS = ("requests", "rows", "advantages", "queries", "targets", "replies", "values", "results")


Refs = tuple[Any, ...]  # to what each process of a home gives


class MemberLost(CollmError, RuntimeError):
    """A member's process died, or there is none to be had."""


@dataclass(frozen=True)
class Awaited:
    """An answer that is on its way from a home."""

    homes: Homes
    home: str
    kind: str
    refs: Refs

    def result(self) -> Any:
        """Wait for it."""
        return self.homes.heard(self.home, self.kind, self.homes.get(self.home, self.refs))


class Homes:
    """The processes of a run's members.

    Args:
        recipe: the run's models.

    Attributes:
        where: process and address of each home, by its name.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe, self._sites = recipe, sites(recipe)
        self._home_of = {member: site.name for site in self._sites for member in site.members}
        self._actors: dict[str, list[Any]] = {}
        self.where: dict[str, str] = {}
        self.reset()

    # -- their life ------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start all processes and have them load their models, all at the same time.

        Raises:
            MemberLost: when there is no room for one in time, or one dies.
        """
        self._actors = {site.name: [self.started(site) for _ in range(site.ranks)] for site in self._sites}
        asked = {name: self.call(name, "where") for name in self._actors}
        self._wait_for_room(asked)
        self.where = {name: self.get(name, ref) for name, ref in asked.items()}
        built = {site.name: self._built(site) for site in self._sites}
        for name, ref in built.items():
            self.get(name, ref)

    def started(self, site: Site) -> Any:
        """A process, which starts wherever the cluster has room for it."""
        kind = ray.remote(Home).options(
            num_cpus=site.cpus, num_gpus=site.gpus, resources=site.resources, max_restarts=0
        )
        return kind.remote(sys.path)

    def _built(self, site: Site) -> Refs:
        address = (
            self.get(site.name, self.call_each(site.name, "meeting_point", [()])) if site.ranks > 1 else ""
        )
        plan = self._recipe, "cuda" if site.gpus else "cpu", site.members
        return self.call_each(
            site.name, "build", [(*plan, rank, site.ranks, address) for rank in range(site.ranks)]
        )

    def _wait_for_room(self, asked: Mapping[str, Any]) -> None:
        patience_s = self._recipe.config.runner.patience_s
        ready = self.ready(list(asked.values()), len(asked), patience_s)
        for site in self._sites:
            if asked[site.name] not in ready:
                free, whole = told(ray.available_resources()), told(ray.cluster_resources())
                raise MemberLost(
                    f"no process for {site.name} in {patience_s:g} s: it asks for {told(site.asks)}, and the "
                    f"cluster has {free} free of {whole}"
                )

    def close(self) -> None:
        """End all processes."""
        actors = self._actors
        end(
            [one for own in actors.values() for one in own],
            [one for name in self.where for one in actors[name]],
        )
        self._actors = {}

    # -- the wire --------------------------------------------------------------------------------------------

    def call(self, home: str, method: str, *args: Any) -> Refs:
        """Have a home do something: all of its processes, where there are several."""
        return self.call_each(home, method, [args] * len(self._actors[home]))

    def call_each(self, home: str, method: str, args: Sequence[tuple[Any, ...]]) -> Refs:
        """Have the first processes of a home do something, one each; returns references to what comes of it."""
        pairs = zip(self._actors[home], args, strict=False)
        return tuple(getattr(actor, method).remote(*own) for actor, own in pairs)

    def ready(self, asked: Sequence[Refs], count: int, timeout_s: float | None = None) -> list[Refs]:
        """Wait until some answers are there, those of first processes."""
        by_first = {refs[0]: refs for refs in asked}
        return [by_first[ref] for ref in ray.wait(list(by_first), num_returns=count, timeout=timeout_s)[0]]

    def get(self, home: str, refs: Refs) -> Any:
        """What a home gave: its first process, once all are done.

        Raises:
            MemberLost: when it died.
        """
        try:
            return ray.get(list(refs))[0]
        except RayTaskError as error:  # it lives; what it was asked to do went wrong
            if death := _death(refs[1:]):  # as it does where another process of the same model has gone
                raise self._lost(home, death) from error
            raise error.cause if isinstance(error.cause, Exception) else error from error
        except RayError as error:
            raise self._lost(home, error) from error

    def _lost(self, home: str, error: RayError) -> MemberLost:
        why, place = str(error).strip().splitlines()[0], self.where.get(home, "which had not begun")
        return MemberLost(
            f"the process of {home} ({place}) died, and its weights with it: {why} `collm train --resume` goes on "
            "from the newest checkpoint"
        )

    def heard(self, home: str, kind: str, given: Given) -> Any:
        """Count an answer; returns what it says."""
        self._bytes[kind] += len(given.data)
        self._worked[home] += given.seconds
        return unpack(given.data)

    def reset(self) -> None:
        """Begin to count anew."""
        self._bytes: Counter[str] = Counter()
        self._worked = dict.fromkeys((site.name for site in self._sites), 0.0)
        self._since = time.perf_counter()

    def told(self) -> dict[str, float]:
        """What was counted since `reset`, see docs/signals.md."""
        seconds = time.perf_counter() - self._since
        found = {f"placement/{kind}_bytes": float(self._bytes[kind]) for kind in KINDS}
        for site in self._sites:
            found[f"placement/worked_s/{site.name}"] = self._worked[site.name]
            found[f"placement/idle/{site.name}"] = 1.0 - min(1.0, self._worked[site.name] / seconds)
        return found

    # -- what members are asked ------------------------------------------------------------------------------

    def ask(self, member: str, what: Callable[..., Any], *args: Any, **named: Any) -> Awaited:
        """As `sides.Ask`; the member may be anywhere."""
        home, method = self._home_of[member], what.__name__
        data, rest = [pack(arg) for arg in args], pack(named)
        kinds = SENT.get(method, ("other",))
        for place, one in enumerate([*data, rest]):
            self._bytes[kinds[min(place, len(kinds) - 1)]] += len(one)
        ref = self.call(home, "ask", member, method, data, rest)
        return Awaited(self, home, ANSWERED.get(method, "other"), ref)

    def replies(
        self, asked: Mapping[str, Sequence[Request]], taking: bool | None
    ) -> Iterator[tuple[str, list[Reply]]]:
        """Replies of several members, which draw at the same time; whoever is done first comes first.

        Args:
            asked: requests by member.
            taking: as for `Home.act`.

        Yields:
            Member, and its replies in the order of its requests, without their texts.
        """
        waiting = {}
        for member, requests in asked.items():
            home, data = self._home_of[member], pack(list(requests))
            self._bytes["requests"] += len(data)
            waiting[self.call(home, "act", data, taking)] = member, home
        while waiting:
            (refs,) = self.ready(list(waiting), 1)
            member, home = waiting.pop(refs)
            yield member, self.heard(home, "replies", self.get(home, refs))

    def release(self) -> None:
        """Let all forget what they kept between turns."""
        for name in self._actors:
            self.call(name, "release")

    # -- weights, as files of a checkpoint -------------------------------------------------------------------

    def fetch(self, member: str, folder: Path) -> None:
        """Write a member's weights into a folder, which is all that ever takes them out of their process."""
        home = self._home_of[member]
        for name, size in self.get(home, self.call(home, "save", member)).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("wb") as file:
                for start in range(0, size, CHUNK):
                    file.write(self.get(home, self.call_each(home, "read", [(name, start, CHUNK)])))
        self.get(home, self.call(home, "clean"))

    def bring(self, member: str, folder: Path) -> None:
        """Let a member take its weights from a folder that is here."""
        home = self._home_of[member]
        for file in sorted(own for own in folder.rglob("*") if own.is_file()):
            with file.open("rb") as handle:
                while data := handle.read(CHUNK):
                    self.get(home, self.call(home, "write", file.relative_to(folder).as_posix(), data))
        self.get(home, self.call(home, "load", member))


def _death(refs: Refs) -> RayError | None:
    """Of processes that were asked something, why one died."""
    for ref in refs:
        try:
            ray.get(ref, timeout=GRACE_S)
        except (RayTaskError, GetTimeoutError):
            continue
        except RayError as error:
            return error
    return None


class PlacedTeam(AgentTeam):
    """A team whose members are elsewhere: tokenizers and memories are here, and no weights.

    Args:
        homes: where the members are.
        args: those of `AgentTeam`, with backbones on `meta`.
        kwargs: those of `AgentTeam`.
    """

    def __init__(self, *args: Any, homes: Homes, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.homes = homes

    def act(
        self, requests: Sequence[Request], on_reply: Callable[[int, Reply], None] | None = None
    ) -> list[Reply]:
        """Draw one reply per request, as `AgentTeam.act`; replies of one member come all at once."""
        numbers: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            numbers.setdefault(self.member[request.agent], []).append(number)
        asked = {member: [requests[i] for i in own] for member, own in numbers.items()}
        replies: dict[int, Reply] = {}
        for member, found in self.homes.replies(asked, self.store.taking if self._holding else None):
            for number, reply in zip(numbers[member], found, strict=True):
                text = self.formats[requests[number].agent].decode(reply.ids)
                replies[number] = replace(reply, text=text)
                if on_reply is not None:
                    on_reply(number, replies[number])
        return [replies[number] for number in range(len(requests))]

    @contextmanager
    def holding(self) -> Iterator[PrefixStore]:
        """As `AgentTeam.holding`; what is kept is kept where it was computed."""
        with super().holding() as store:
            try:
                yield store
            finally:
                self.homes.release()

    def save(self, member: str, folder: Path) -> None:
        """Write a member's weights."""
        self.homes.fetch(member, folder)

    def load(self, member: str, folder: Path) -> None:
        """Read them back."""
        self.homes.bring(member, folder)


class PlacedCritic(Critic):
    """Critics that are elsewhere: their tokenizers are here.

    Args:
        homes: where they are.
        args: those of `Critic`, with backbones on `meta`.
        kwargs: those of `Critic`.
    """

    def __init__(self, *args: Any, homes: Homes, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.homes = homes

    def save(self, member: str, folder: Path) -> None:
        """Write one critic."""
        self.homes.fetch(member, folder)

    def load(self, member: str, folder: Path) -> None:
        """Read it back."""
        self.homes.bring(member, folder)


class PlacedCollector(Collector):
    """Plays training tasks with a placed team; its metrics are of a collection and of the update after it."""

    team: PlacedTeam

    def collect(self, tasks: Sequence[Task], update: int, upcoming: Sequence[Task] = ()) -> Rollouts:
        """As `Collector.collect`."""
        self.team.homes.reset()
        return super().collect(tasks, update, upcoming)

    @property
    def metrics(self) -> Mapping[str, float]:  # type: ignore[override]
        """What members were sent and did since the last collection began."""
        return self.team.homes.told()


@contextmanager
def apart(experiment: Experiment, *, stored: bool) -> Iterator[Built]:
    """A run's models in processes of their own; inside, Ray is connected, and afterwards nothing of it is left.

    Args:
        experiment: of the run.
        stored: all weights will come from a checkpoint.
    """
    recipe = experiment.recipe
    with connected(recipe.config.runner.address, sum(site.cpus for site in sites(recipe))):
        homes = Homes(recipe)
        try:
            homes.open()
            team, critic = recipe.models(
                stored=stored,
                weightless=True,
                kind=partial(PlacedTeam, homes=homes),
                critic_kind=partial(PlacedCritic, homes=homes),
            )
            yield experiment.assembled(team, critic, homes.ask)
        finally:
            homes.close()
