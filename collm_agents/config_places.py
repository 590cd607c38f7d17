"""Settings of where things run: workers that play, processes of members, and servers that agents live behind.

For `config`, of which they are sections. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from collm_agents.sections import Section, setting


@dataclass(frozen=True)
class RunnerConfig(Section):
    """Where rollouts are played: in this process, or by workers on a Ray cluster."""

    _where = "runner"
    workers: int = setting(0, "processes that play training tasks, on Ray; 0: this one does", low=0)
    shard: int = setting(
        0,
        "tasks that are played side by side, by one worker; 0: an update's, dealt out evenly. Fixed, results are "
        "the same bit for bit whatever the number of workers; else up to rounding",
        low=0,
    )
    staleness: int = setting(
        0,
        "1: workers play the next update's tasks while this one is learned from, by the weights from before it; "
        "0: they wait for the new weights",
        low=0,
        high=1,
    )
    address: str = setting(
        "local", "local (Ray is started for the run), auto (the cluster that is running) or HOST:PORT"
    )
    cpus: float = setting(1.0, "CPUs that a worker asks of the cluster", above=0)
    gpus: float = setting(
        0.0, "GPUs, or the fraction of one, that a worker asks for; 0: it computes on a CPU", low=0
    )
    patience_s: float = setting(
        600.0, "seconds without a single worker, after which the run fails in place of waiting", above=0
    )


@dataclass(frozen=True)
class RemoteConfig(Section):
    """Agents behind servers, for `collm eval --agents NAME=http://...`."""

    _where = "remote"
    timeout_s: float = setting(60.0, "seconds until a request without an answer is given up", above=0)
    retries: int = setting(4, "further tries after one that failed", low=0)
    backoff_s: float = setting(
        1.0, "pause before the second try; doubled at each one after, at random down to its half", low=0
    )
    at_once: int = setting(8, "most requests to one agent's server at a time", low=1)


@dataclass(frozen=True)
class MemberPlace(Section):
    """Where one member's process runs, with `placement.apart`; what is left out follows [placement]."""

    _where = "placement.agents"
    cpus: float = setting(0.0, "CPUs that this process asks for; 0: placement.cpus", low=0)
    gpus: float = setting(
        -1.0, "GPUs, or the fraction of one, that this process asks for; -1: placement.gpus", low=-1
    )
    ranks: int = setting(
        1,
        "processes that the model is spread over, each asking for as much: layers in shards (FSDP), batches of "
        "updates dealt out; with tuning=full and adamw",
        low=1,
    )
    node: str = setting(
        "", "its node: an IP address, or a resource that the node declares (ray start --resources)"
    )


@dataclass(frozen=True)
class PlacementConfig(Section):
    """Members' weights: all in this process, or each agent's and the critic's in one of its own, on Ray."""

    _where = "placement"
    apart: bool = setting(
        False,
        "each agent's and the critic's weights in a process of their own (on Ray, at runner.address), collm-dc's "
        "critics with their agents",
    )
    cpus: float = setting(1.0, "CPUs that a member's process asks for", above=0)
    gpus: float = setting(
        0.0, "GPUs, or the fraction of one, that a member's process asks for; 0: it computes on a CPU", low=0
    )
    agents: Mapping[str, MemberPlace] = setting(
        {}, "what single agents' processes ask for, by agent name; `team` where weights are shared"
    )
    critic: MemberPlace = setting(MemberPlace(), "what the process of a critic of all agents asks for")
