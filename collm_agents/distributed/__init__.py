"""Ray: collectors on workers, and runs of a benchmark on a cluster. Nothing else in the package imports ray.

For experiments and benchmarks that were asked for more than this process. The trainer stays one, on the driver:
workers only play. Importing this package is what needs ray, so it is imported where it is used.
"""

from __future__ import annotations

from collm_envs.errors import InputError

try:
    import ray  # noqa: F401
except ModuleNotFoundError as missing:
    if missing.name != "ray":
        raise
    raise InputError("this needs Ray: pip install 'collm[ray]'") from missing
