"""Where training tasks are played: in this process, or by workers on a Ray cluster.

For experiments. Ray is only imported where it was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from collm_agents.config import Config
from collm_agents.trainer import Collects

if TYPE_CHECKING:
    from collm_agents.clock import Clock
    from collm_agents.experiment import Experiment
    from collm_agents.team import AgentTeam


def check_runner(config: Config) -> None:
    """Raise an `InputError` that names the extra where workers are asked for and Ray is not installed."""
    if config.runner.workers:
        import collm_agents.distributed  # noqa: F401


@contextmanager
def collecting(experiment: Experiment, team: AgentTeam, clock: Clock) -> Iterator[Collects]:
    """What plays an experiment's training tasks. Workers end with the block."""
    if not experiment.config.runner.workers:
        yield experiment.collector(team, clock)
        return
    from collm_agents.distributed.collector import on_workers

    with on_workers(experiment, team, clock) as collector:
        yield collector
