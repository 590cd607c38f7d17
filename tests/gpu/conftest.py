"""Tests of this folder need CUDA; `COLLM_TEST_DEVICE=cpu` rehearses them, so that they are known to run."""

import os

import pytest
import torch


@pytest.fixture(scope="session")
def device():
    """Where the tests run."""
    wanted = os.environ.get("COLLM_TEST_DEVICE", "cuda")
    if wanted == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    return wanted
