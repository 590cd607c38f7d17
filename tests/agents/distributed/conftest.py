"""One thread, and no Ray telling anybody; where there is no Ray, none of these tests."""

import os
from importlib.util import find_spec

import pytest
import torch

torch.set_num_threads(1)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
collect_ignore_glob = [] if find_spec("ray") else ["test_*.py"]


@pytest.fixture(scope="module")
def cluster():
    """Three nodes, and this process joined to them."""
    import ray
    from clusters import three_nodes

    found = three_nodes()
    ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
    yield found
    ray.shutdown()
    found.shutdown()
