"""One thread, and no Ray telling anybody."""

import os

import torch

torch.set_num_threads(1)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
