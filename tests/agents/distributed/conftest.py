"""One thread, and no Ray telling anybody; where there is no Ray, none of these tests."""

import os
from importlib.util import find_spec

import torch

torch.set_num_threads(1)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
collect_ignore_glob = [] if find_spec("ray") else ["test_*.py"]
