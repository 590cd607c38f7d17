"""A Ray cluster of three nodes on this machine."""

from __future__ import annotations

import os

from ray.cluster_utils import Cluster

# A busy machine makes Ray slow to start; it is not what is tested.
os.environ["RAY_worker_register_timeout_seconds"] = "300"  # noqa: SIM112
NODE = {"object_store_memory": 80_000_000, "include_dashboard": False}


def three_nodes(cpus=(2, 2, 2), tries=4):
    """Nodes that declare so many CPUs; the driver lives on the first. Ray gives a node half a minute to start."""
    cluster = Cluster()
    for number, count in enumerate(cpus, start=1):
        for left in reversed(range(tries)):
            try:
                cluster.add_node(**NODE, num_cpus=count, resources={f"node{number}": 1})
                break
            except Exception as error:
                if "timed out during startup" not in str(error) or not left:
                    cluster.shutdown()
                    raise
    return cluster
