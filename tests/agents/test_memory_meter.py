"""The meter of a run's memory, and the heap it looks at."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")

# Blocks between 4 and 32 MB are what glibc would keep once one of them was freed.
HEAP = """
from collm_agents import memory
import torch
{steady}
torch.empty(3 * 2**22, dtype=torch.uint8).fill_(1)
meter = memory.MemoryMeter("cpu")
before = memory._resident()
blocks = [torch.empty(size, dtype=torch.uint8).fill_(1) for size in (6 * 2**20, 2**20) * 20]
peak = meter.peak()
del blocks[::2]
print(peak, memory._resident() - before)
"""


@pytest.mark.parametrize("steady", [False, True])
def test_a_steady_heap_keeps_no_large_block(steady):
    text = HEAP.format(steady="memory.steady_heap()" if steady else "")
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    peak, left = map(int, done.stdout.split())
    assert 139 * 2**20 < peak < 170 * 2**20
    assert (left < 40 * 2**20) == steady  # 20 are in use
