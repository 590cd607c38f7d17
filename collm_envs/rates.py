"""Pure measures of repeated trials: the chance that one of k samples passes.

For metrics, reports and anyone who counts passes. Standard library only; nothing here knows of environments, and
intervals are the business of those who report.
"""

from __future__ import annotations

import math

from collm_envs.errors import InputError


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that at least one of k samples passes, where c of the n that were drawn do.

    The unbiased estimate `1 - C(n - c, k) / C(n, k)`: the share of the k-subsets of the samples with a pass among
    them. It is computed in whole numbers and rounded once, so no n is too large and no small chance is lost.

    Args:
        n: samples of one problem.
        c: how many of them pass.
        k: samples that one may try; at most n, since fewer samples say nothing of k tries.

    Returns:
        A chance in [0, 1].

    Raises:
        InputError: unless 0 <= c <= n and 1 <= k <= n.

    Source: Chen et al. 2021 (arXiv 2107.03374), section 2.1, eq. 1.
    """
    if not 0 <= c <= n:
        raise InputError(f"{c} of {n} samples cannot pass")
    if not 1 <= k <= n:
        raise InputError(f"pass@{k} needs 1 <= k <= the number of samples, which is {n}")
    subsets = math.comb(n, k)
    return (subsets - math.comb(n - c, k)) / subsets
