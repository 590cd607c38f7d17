"""Where a run's models live and where its training tasks are played: in this process, or on a Ray cluster.

For experiments. Ray is only imported where it was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from collm_agents.config import Config
from collm_agents.trainer import Collects

if TYPE_CHECKING:
    from collm_agents.experiment import Built, Experiment


def check_runner(config: Config) -> None:
    """Raise an `InputError` that names the extra where Ray is asked for and not installed."""
    if config.runner.workers or config.placement.apart:
        import collm_agents.distributed  # noqa: F401


@contextmanager
def built(experiment: Experiment, *, stored: bool = False) -> Iterator[Built]:
    """An experiment's models and learner. Processes that members live in end with the block.

    Args:
        experiment: of the run.
        stored: all weights will come from a checkpoint.
    """
    experiment.check_training()
    if not experiment.config.placement.apart:
        yield experiment.build(stored=stored)
        return
    from collm_agents.distributed.placement import apart

    with apart(experiment, stored=stored) as made:
        yield made


@contextmanager
def collecting(experiment: Experiment, made: Built) -> Iterator[Collects]:
    """What plays an experiment's training tasks. Workers end with the block."""
    config, team, clock = experiment.config, made.team, made.clock
    if config.placement.apart:
        from collm_agents.distributed.placement import PlacedCollector

        yield experiment.collector(team, clock, PlacedCollector)
    elif config.runner.workers:
        from collm_agents.distributed.collector import on_workers

        with on_workers(experiment, team, clock) as collector:
            yield collector
    else:
        yield experiment.collector(team, clock)
