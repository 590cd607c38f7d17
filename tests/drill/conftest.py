"""One thread: tests run beside each other, and results are then the same wherever they run."""

import torch

torch.set_num_threads(1)
