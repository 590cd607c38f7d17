"""A run's agents as folders that plain transformers or peft load, each with a card of its role.

For the verb `export` and for scripts. An agent is written as its checkpoint has it (an adapter, or a whole model),
or merged into a whole model. The tokenizer goes with it, with the chat format that the agent was trained under: a
server that is sent an observation as a user's message then shows the agent what training showed it. Whole models
also name the sampling of training as their default.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import GenerationConfig

from collm_agents import checkpoint
from collm_agents.chat import ChatFormat
from collm_agents.config import is_builtin
from collm_agents.experiment import Experiment
from collm_agents.export import write_folder
from collm_agents.models import loading
from collm_agents.results import stored_config, versions
from collm_envs import CollmError, make, spec
from collm_envs.errors import InputError

# How `ChatFormat` writes without a template: every entry on lines of its own, a reply closed by the end token. The
# text is the same; a tokenizer that joins the end of an entry with its newline may cut it otherwise.
PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for m in messages %}{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
)


def export_agents(
    run_dir: str | Path, folder: str | Path, *, checkpoint_at: int | str | None = None, merge: bool = False
) -> list[Path]:
    """Write every agent that is a model.

    Args:
        run_dir: the run's folder.
        folder: where the agents' folders go, by name; missing or empty, and there whole or not at all.
        checkpoint_at: joint samples of the checkpoint, or `best`; default the newest.
        merge: add adapters into whole models, in the base's own number type.

    Returns:
        The agents' folders.

    Raises:
        InputError: when the run has no such checkpoint, something is in the way, or an adapter could not be loaded
            elsewhere because its base has no name.
    """
    run_dir = Path(run_dir)
    experiment = Experiment(stored_config(run_dir))
    place = checkpoint.pick(run_dir, checkpoint_at)
    models = [agent for agent in experiment.specs if not agent.script]
    for agent in models:
        if agent.tuning == "lora" and is_builtin(agent.model) and not merge:
            raise InputError(
                f"{agent.name} is an adapter on {agent.model!r}, which no other tool finds by that name; --merge "
                "writes whole models"
            )

    def write(target: Path) -> None:
        for agent in models:
            saved = "team" if experiment.config.team.shared else agent.name
            source, own = checkpoint.weights_of(place, saved), target / agent.name
            whole = agent.tuning == "full" or merge
            if agent.tuning == "lora" and merge:
                _merge(agent.model, source, own)
            else:
                shutil.copytree(source, own)
            _write_tokenizer(experiment, agent.model, own)
            if whole:
                _write_sampling(experiment, agent.model, own)
            card = _card(experiment, agent.name, agent.model, place, run_dir, whole=whole)
            (own / "README.md").write_text(card, encoding="utf-8")

    done = write_folder(folder, write)
    return [done / agent.name for agent in models]


def _merge(model: str, adapter: Path, folder: Path) -> None:
    dtype = getattr(loading.load_config(model), "dtype", None)
    base = loading.load_model(model, torch.float32, "cpu")
    merged = peft.PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    merged.to(dtype if isinstance(dtype, torch.dtype) else torch.float32).save_pretrained(folder)


def _write_tokenizer(experiment: Experiment, model: str, folder: Path) -> None:
    tokenizer = loading.load_tokenizer(model)
    if experiment.config.team.template == "none" or not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
    tokenizer.save_pretrained(folder)


def _write_sampling(experiment: Experiment, model: str, folder: Path) -> None:
    """What a server draws with where a request says nothing: as in training, where its own default is top_k=50."""
    sampling, form = experiment.config.team.sampling, _format(experiment, model)
    kept = GenerationConfig.from_pretrained(folder) if (folder / "generation_config.json").is_file() else None
    named = getattr(kept, "eos_token_id", None)
    stops = {*form.stop_ids, *(named if isinstance(named, list) else [named])} - {None}
    GenerationConfig(
        do_sample=True,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=sorted(stops),
        bos_token_id=getattr(kept, "bos_token_id", None),
        pad_token_id=form.tokenizer.pad_token_id,
    ).save_pretrained(folder)


def _format(experiment: Experiment, model: str) -> ChatFormat:
    """How an agent's messages were written in training; no weights are read."""
    team = experiment.config.team
    return ChatFormat(
        loading.load_tokenizer(model),
        template=team.template,
        enable_thinking=team.enable_thinking,
        rewriting="keep",
        multi_turn=False,
    )


# -- cards -------------------------------------------------------------------------------------------------


def _card(experiment: Experiment, agent: str, model: str, place: Path, run_dir: Path, *, whole: bool) -> str:
    """A model card in Markdown: role, environment, prompt, base, scores, and how to load it."""
    config, env = experiment.config, experiment.env
    local = is_builtin(model) or Path(model).expanduser().is_dir()
    base = "CoLLM's built-in model" if is_builtin(model) else "a local folder" if local else f"`{model}`"
    head = [
        "---",
        *([] if local else [f"base_model: {model}"]),
        f"library_name: {'transformers' if whole else 'peft'}",
        "pipeline_tag: text-generation",
        "tags: [collm, multi-agent]",
        "---",
    ]
    others = ", ".join(f"`{name}`" for name in env.possible_agents if name != agent)
    mates = f" Its teammates: {others}." if others else ""
    sampling = config.team.sampling
    drawn = f"temperature {sampling.temperature:g}, top_p {sampling.top_p:g}, top_k {sampling.top_k}"
    shape = "a whole model" if whole else "a LoRA adapter"
    blocks = [
        "\n".join(head),
        f"# `{agent}` of `{config.env_id}`",
        f"One agent of a team that was trained together with {experiment.variant}, seed {config.run.seed}, for "
        f"{checkpoint.samples_of(place)} joint samples. This is {shape}; the base is {base}.",
        f"**Environment.** {spec(config.env_id).summary} {env.num_turns} turn(s) an episode.{mates} Each agent "
        "sees its own prompt only, and all are paid one joint reward.",
        _prompt(experiment, agent),
        f"**Sampling in training.** {drawn}, at most {sampling.max_new_tokens} new tokens, end token included.",
        _scores(run_dir, checkpoint.samples_of(place), experiment.env.high),
        _usage(whole),
        "Made with " + ", ".join(f"{k} {v}" for k, v in versions("").items() if k in _MAKERS) + ".",
    ]
    return "\n\n".join(blocks) + "\n"


_MAKERS = ("collm", "torch", "transformers", "peft")


def _prompt(experiment: Experiment, agent: str) -> str:
    """What the agent is shown, on a built-in task: a run's own data stay where they are."""
    config = experiment.config
    model = next(own.model for own in experiment.specs if own.name == agent)
    form = _format(experiment, model)
    told = "the tokenizer's chat template" if form.templated else "plain text, entry by entry"
    thinking = f" (enable_thinking={str(config.team.enable_thinking).lower()})" if form.templated else ""
    begun = (
        f"**Prompt.** An observation is a user's message and a reply the assistant's, under {told}{thinking}"
    )
    kept = {key: value for key, value in config.env_kwargs.items() if key not in ("source", "split")}
    try:
        seen, _ = make(config.env_id, **kept).reset(seed=0)
    except CollmError:
        return f"{begun}. The environment has no built-in task to show one."
    return f"{begun}. On a built-in task the first one is:\n\n{_fenced(seen[agent])}"


def _fenced(text: str) -> str:
    """A text in a fence that nothing in it closes."""
    ticks = "```"
    while ticks in text:
        ticks += "`"
    return f"{ticks}text\n{text}\n{ticks}"


def _scores(run_dir: Path, joint_samples: int, high: float) -> str:
    file = run_dir / "evaluations.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    rows = [("before training", kept[0]["metrics"])] if kept else []
    rows += [("these weights", own["metrics"]) for own in kept if own["joint_samples"] == joint_samples][-1:]
    result = run_dir / "result.json"
    if result.is_file():
        found = json.loads(result.read_text(encoding="utf-8"))["references"]
        rows += [(f"scripted {kind}", own["metrics"]) for kind, own in found.items()]
    if not rows:
        return "**Scores.** The run has no evaluations."
    lines = [f"| {who} | {_told(own, 'score')} | {_told(own, 'success')} |" for who, own in rows]
    begun = (
        f"**Scores** of the whole team on held-out tasks (the greatest is {high:.3f}), with 95 % intervals:"
    )
    return f"{begun}\n\n| team | score | success |\n|---|---|---|\n" + "\n".join(lines)


def _told(metrics: Mapping[str, Any], name: str) -> str:
    own = metrics.get(name)
    if own is None:
        return "–"
    ends = "" if own["low"] is None else f" [{own['low']:.3f}, {own['high']:.3f}]"  # one task has none
    return f"{own['mean']:.3f}{ends}, n={own['n']}"


def _usage(whole: bool) -> str:
    served = "`transformers serve FOLDER` serves it on `/v1/chat/completions`."
    if whole:
        return (
            f"**Use.** `AutoModelForCausalLM.from_pretrained(FOLDER)`, with the tokenizer beside it. {served}"
        )
    return (
        "**Use.** `peft.AutoPeftModelForCausalLM.from_pretrained(FOLDER)`, with the tokenizer beside it; the base "
        "is fetched by its name."
    )
