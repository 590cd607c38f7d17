"""What a run would do and need, told before any weights are loaded: `collm train --dry-run`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from collm_agents.footprint import Footprint

GIB = 1024**3


@dataclass(frozen=True)
class Plan:
    """A run in numbers.

    Attributes:
        env: id.
        algorithm: its variant.
        agents: (model, tuning) by agent.
        critics: (model, tuning) by critic.
        tasks: training tasks.
        eval_tasks: held-out tasks.
        joint_samples: of the whole run, an upper bound where episodes may end early; 0 where nobody knows.
        budget: what the run may spend otherwise, in words; empty where `joint_samples` says it.
        updates: buffers; 0 where nobody knows.
        samples_per_update: joint samples in a buffer of full trees.
        optimizer_steps: of each agent.
        memory: estimate in bytes.
    """

    env: str
    algorithm: str
    agents: Mapping[str, tuple[str, str]]
    critics: Mapping[str, tuple[str, str]]
    tasks: int
    eval_tasks: int
    joint_samples: int
    updates: int
    samples_per_update: int
    optimizer_steps: int
    memory: Footprint
    budget: str = ""

    def __str__(self) -> str:
        lines = [f"environment      {self.env}: {self.tasks} training tasks, {self.eval_tasks} held out"]
        lines.append(f"algorithm        {self.algorithm}")
        for name, (model, tuning) in {**self.agents, **self.critics}.items():
            lines.append(f"  {name:<14} {model} ({tuning})")
        if self.budget:
            lines.append(f"budget           {self.budget}")
            lines.append(f"updates          of up to {self.samples_per_update:,} joint samples")
        else:
            lines.append(f"budget           {self.joint_samples:,} joint samples at most")
            lines.append(
                f"updates          {self.updates:,} of up to {self.samples_per_update:,} joint samples"
            )
            lines.append(f"optimizer steps  {self.optimizer_steps:,} per agent")
        lines.append(f"memory           {self.memory.peak / GIB:.2f} GiB at most, an estimate; by part:")
        sizes = [(field.name, getattr(self.memory, field.name)) for field in fields(self.memory)]
        lines.extend(f"  {name:<14} {size / GIB:.3f} GiB" for name, size in sizes)
        lines.append("  (sampling and learning, which needs gradients and activations, take turns)")
        return "\n".join(lines)
