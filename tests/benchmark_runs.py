"""Made-up results of a benchmark, for tests of reports."""

from __future__ import annotations

import numpy as np

from collm_agents.records import Point, Record, Results

HOSTILE = (
    "<script>document.title='stolen'</script>",
    "</script><img src=x onerror=\"document.title='stolen'\">",
    "a\"b'c|d`e$x_1$ <!-- {{DATA}} ]]>",
    '=HYPERLINK("http://example.org")',
)


def made_run(environment, task, algorithm, seed, *, skill=0.5, points=11, budget=1280, more=(), **changed):
    """One run whose score climbs from the novice's 1 towards the oracle's 3."""
    rng = np.random.default_rng([seed, len(environment), len(task), round(1000 * skill)])
    reach = float(np.clip(skill + rng.normal(0, 0.08), 0, 1))
    steps = np.linspace(0, 1, points)
    scores = 1 + 2 * reach * (1 - np.exp(-4 * steps)) + rng.normal(0, 0.04, points)

    def point(i, episodes):
        score = float(scores[i])
        metrics = {"score": score, "return": 10 * score, "success": float(np.clip((score - 1) / 2, 0, 1))}
        metrics |= {name: float(rng.random()) for name in more}
        samples = round(budget * steps[i])
        return Point(samples, 45 * samples + seed, round(samples * (0.1 + 0.01 * seed), 3), episodes, metrics)

    levels = {"score": 1.0, "return": 10.0, "success": 0.0}, {"score": 3.0, "return": 30.0, "success": 1.0}
    values = {
        "points": tuple(point(i, 32) for i in range(points)),
        "final": point(points - 1, 128),
        "references": {"novice": levels[0], "oracle": levels[1], "random": {"score": 0.7}},
        "high": 3.0,
        "variant": f"{algorithm}[mean, branching 4]",
        "settings": ("learner.lr=1e-4",),
        **changed,
    }
    return Record(environment, task, algorithm, seed, **values)


def made_results(
    algorithms=("collm-cc", "collm-dc", "mc"),
    environments=("writing/tldr-mini-v0", "coding/add-mini-v0"),
    tasks=("dense-h1", "sparse-h2"),
    seeds=5,
    failed=1,
    **changed,
):
    """Every algorithm on every task; the last `failed` runs of the first algorithm failed."""
    runs = []
    for e, environment in enumerate(environments):
        for t, task in enumerate(tasks):
            for a, algorithm in enumerate(algorithms):
                skill = 0.85 - 0.6 * a / max(1, len(algorithms) - 1) - 0.05 * e + 0.1 * t
                runs += [
                    made_run(environment, task, algorithm, s, skill=skill, **changed) for s in range(seeds)
                ]
    lost = [i for i, run in enumerate(runs) if run.algorithm == algorithms[0]][len(runs) :: -1][:failed]
    for i in lost:
        run = runs[i]
        runs[i] = Record(
            *run.place, points=run.points[:3], variant=run.variant, error="NonFiniteError: loss is nan"
        )
    about = {
        "suite": "made-up",
        "budget": {"joint_samples": changed.get("budget", 1280), "evaluations": 11},
        "commit": "0123abc",
        "machine": "2 CPU cores",
        "versions": {"python": "3.11", "numpy": "2.0"},
    }
    return Results(tuple(runs), about)
