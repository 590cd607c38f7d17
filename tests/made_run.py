"""Folders of runs written by hand, with as many metrics and episodes as a test wants."""

import json

HOSTILE = (
    "<script>document.documentElement.dataset.ran = 1</script>",
    "</script><script>document.documentElement.dataset.ran = 1</script>",
    "<!--<script>",
    '<img src="x" onerror="document.documentElement.dataset.ran = 1">',
    "line\u2028separator\u2029and\x00\x1b[31m controls",
    "\u202eright to left\u202c \u2066isolated\u2069",
    "{{SCRIPT}} &lt;b&gt; \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    "]]> <svg onload=alert(1)> javascript:alert(1)",
)


def history(turns):
    """The joint history of turns, each a mapping from agent to what it saw and said."""
    return "".join(
        f"@{agent} turn {t} {kind}:\n{text}\n"
        for t, turn in enumerate(turns, 1)
        for place, kind in enumerate(("sees", "says"))
        for agent, both in turn.items()
        for text in [both[place]]
    )


def sample(task, turns, *, at=0, score=0.5, success=False, kept=True):
    """A row of samples.jsonl."""
    row = {"joint_samples": at, "task_id": task, "text": history(turns), "score": score, "success": success}
    if kept:
        row["turns"] = [
            {
                "reward": score - 1,
                "score": score,
                "parts": {"echoed": score},
                "measured": {"seen": 2.0},
                "replies": {
                    agent: {"tokens": len(said), "cut": False, "clipped": False}
                    for agent, (_, said) in turn.items()
                },
            }
            for turn in turns
        ]
    return row


def metrics(updates, evaluations=3):
    """Rows of metrics.jsonl."""
    for i in range(updates):
        if evaluations and i % max(1, updates // evaluations) == 0:
            levels = {
                "score": 0.5,
                "score/low": 0.25,
                "score/high": 0.75,
                "score/n": 8.0,
                "parts/echoed": 0.5,
            }
            yield {"kind": "eval", "joint_samples": 8 * i, "wall_s": float(i), **levels}
        found = {"score": i / updates, "parts/echoed": i / updates, "decode_s": 1.0}
        lengths = {"reply_tokens/agent_0/t0": 3.0, "reply_tokens/agent_1/t0": float(i % 7)}
        yield {"kind": "update", "joint_samples": 8 * (i + 1), "wall_s": i + 0.5, **found, **lengths}


def made_run(folder, samples=(), updates=6, env="debug/echo-v0", result=True):
    """Write a run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(f'[env]\nid = "{env}"\n[algorithm]\nname = "mc"\n[run]\nseed = 3\n')
    with (folder / "metrics.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in metrics(updates))
    if samples:
        with (folder / "samples.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in samples)
    if result:
        levels = {
            kind: {"metrics": {"score": {"mean": mean}}} for kind, mean in (("novice", 0.2), ("oracle", 1.0))
        }
        told = {"variant": "mc[whole]", "joint_samples": 48, "updates": 6, "tokens": 99, "wall_s": 6.5, "high": 1.0,
                "phases_s": {"decode": 4.0, "actor": 2.0, "judge_wait": 0.0}, "references": levels}  # fmt: skip
        (folder / "result.json").write_text(json.dumps(told))
    return folder
