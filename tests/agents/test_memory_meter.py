"""The meter of a run's memory, and the heap it looks at."""

import subprocess
import sys

import pytest

# Blocks between 4 and 32 MB are what glibc would keep once one of them was freed.
HEAP = """
from collm_agents import memory
import torch
{steady}
torch.empty(3 * 2**22, dtype=torch.uint8).fill_(1)
keep = []
meter = memory.MemoryMeter("cpu")
before = memory._resident()
blocks = [torch.empty(size, dtype=torch.uint8).fill_(1) for size in (6 * 2**20, 2**20) * 20]
peak = meter.peak()
del blocks[::2]
print(peak, memory._resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
@pytest.mark.parametrize("steady", [False, True])
def test_a_steady_heap_keeps_no_large_block(steady):
    text = HEAP.format(steady="memory.steady_heap()" if steady else "")
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    peak, left = map(int, done.stdout.split())
    assert 139 * 2**20 < peak < 170 * 2**20
    assert (left < 40 * 2**20) == steady  # 20 are in use


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_what_the_heap_keeps_is_released():
    text = """
from collm_agents import memory
import torch
before = memory._resident()
small = [torch.empty(2**20, dtype=torch.uint8).fill_(1) for _ in range(60)]
wall = torch.empty(2**10)
del small
kept = memory._resident() - before
memory.release()
print(kept, memory._resident() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        check=True,
        env={"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)},
    )
    kept, left = map(int, done.stdout.split())
    assert kept > 50 * 2**20
    assert left < 20 * 2**20
