"""How much memory a run took, above what the process had before its models were loaded.

For experiments, which report it beside the plan's estimate. On an accelerator it is what torch's allocator had
handed out at most; on a CPU the process's greatest resident size, so the interpreter and the libraries that were
imported before are subtracted, and what the allocator keeps for later counts.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import sys
from pathlib import Path
from typing import Any

import torch

_C: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
HEAP_BLOCK = 4 * 2**20  # bytes; larger blocks are the system's, and go back to it when freed
_MMAP_THRESHOLD = -3  # mallopt's M_MMAP_THRESHOLD
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class MemoryMeter:
    """Peak memory since it was made.

    Args:
        device: where the models live.
    """

    def __init__(self, device: str) -> None:
        self._cuda = torch.device(device) if torch.device(device).type == "cuda" else None
        if self._cuda is not None:
            torch.cuda.reset_peak_memory_stats(self._cuda)
            self._before = torch.cuda.memory_allocated(self._cuda)
            return
        # Linux counts the peak anew from here; elsewhere it is the process's since it began, too high where it did
        # other things before.
        with contextlib.suppress(OSError):
            _CLEAR.write_text("5", encoding="ascii")
        self._before = _resident() or _peak()

    def peak(self) -> int:
        """Bytes at most, above where it started."""
        now = torch.cuda.max_memory_allocated(self._cuda) if self._cuda is not None else _peak()
        return max(0, now - self._before)


def steady_heap() -> None:
    """Keep blocks beyond `HEAP_BLOCK` out of glibc's heap, here and from now on; elsewhere nothing happens.

    As it comes, glibc raises that limit to the largest block ever freed: tensors then leave holes in its heap, and
    a run's peak differs by a fifth from one time to the next. A limit of the user's own
    (`MALLOC_MMAP_THRESHOLD_`) stays.
    """
    if hasattr(_C, "mallopt") and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        _C.mallopt(_MMAP_THRESHOLD, HEAP_BLOCK)


def _resident() -> int:
    return _status("VmRSS")


def _peak() -> int:
    """Greatest resident size in bytes."""
    scale = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _status(name: str) -> int:
    """A size of /proc/self/status in bytes; 0 where there is none."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0
