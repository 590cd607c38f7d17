"""A connection to Ray: to a cluster that runs, or to one that is started here and stopped with its user.

For whatever runs on Ray. Where a program has connected already, as a notebook may have, its connection is used and
left as it is.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayError

from collm_envs.errors import InputError

CONNECT_S = 10.0
GRACE_S = 5.0  # from the request to end to the end


@contextmanager
def connected(address: str, cpus: float = 0.0) -> Iterator[None]:
    """Inside, Ray can be used.

    Args:
        address: `local` starts Ray on this machine and stops it at the end; `auto` finds the cluster that runs
            here; HOST:PORT is its head's.
        cpus: with `local`, CPUs that are promised at least, whether or not the machine has as many cores.

    Raises:
        InputError: when no cluster answers.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told without being asked
    # The driver loads the same models, so what workers would print has been printed.
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    _reach(address)
    try:
        if address == "local":
            count = max(int(-(-cpus // 1)), _cores())
            ray.init(address="local", num_cpus=count, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except ConnectionError as error:
        raise InputError(f"no Ray cluster answers at {address!r}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def end(actors: Sequence[Any], up: Sequence[Any]) -> None:
    """Let actors go that are up; those that do not go by themselves, and all others, are killed."""
    if asked := [actor.__ray_terminate__.remote() for actor in up]:
        ray.wait(asked, num_returns=len(asked), timeout=GRACE_S)
    for actor in actors:
        with suppress(RayError):
            ray.kill(actor)


def _reach(address: str) -> None:
    """Raise an `InputError` where nothing listens at HOST:PORT; Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise InputError(f"no Ray cluster answers at {address!r}: {error}") from None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def told(resources: dict[str, float]) -> str:
    """Resources for people: `CPU 2, GPU 1`."""
    hidden = ("node:", "object_store", "memory")
    own = {name: amount for name, amount in resources.items() if amount and not name.startswith(hidden)}
    return ", ".join(f"{name} {amount:g}" for name, amount in sorted(own.items())) or "nothing"
