"""The packaged presets: each makes an experiment, and the paper's are the paper's by numbers worked out by hand."""

import json

import pytest
from builders import folder

from collm_agents.config import AgentConfig, CriticConfig
from collm_agents.experiment import Experiment
from collm_agents.layers import list_presets
from collm_agents.models import loading
from collm_agents.overrides import load_config
from collm_envs import spec

PAPER = [name for name in list_presets() if name.startswith("paper/")]
TASKS = ("writing", "arxiv", "coding", "strbuild", "housebuild")
METHODS = {"mc": "mc", "cc": "collm-cc", "dc": "collm-dc"}
# Rows of the hub's data sets, so many that the presets' slices are whole.
ROWS = {
    "writing": ({"prompt": "A post."}, {"train": 1005, "test": 1105}),
    "arxiv": ({"abstract_text": "An abstract."}, {"train": 1005, "test": 1105}),
    "coding": (
        {
            "prompt": "def double(x):\n    '''Twice x.'''\n",
            "entry_point": "double",
            "test": "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(2) == 4\n",
        },
        {"test": 82},
    ),
}
SIZES = {
    # (training tasks, held-out tasks, turns)
    "writing": (1000, 100, 1),
    "arxiv": (1000, 100, 1),
    "coding": (66, 16, 2),
    "strbuild": (8, 2, 4),
    "housebuild": (8, 2, 4),
}
BUDGETS = {
    # (joint samples of a task's tree, trees per update, joint samples in all, updates), at most.
    # Writing: 1,000 posts x 2 passes x 4 replies; 1,000 x 20 x 1, four to an update.
    ("writing", "mc"): (4, 1, 8_000, 2_000),
    ("writing", "ac"): (1, 4, 20_000, 5_000),
    # Coding: 66 x 8 x (4 + 16) = 66 x 80 x 2 = 10,560, of which the paper counts 9,640 and 8,438.
    ("coding", "mc"): (20, 1, 10_560, 528),
    ("coding", "ac"): (2, 2, 10_560, 2_640),
    # Games: 8 x 16 x (2 + 4 + 8 + 16) = 8 x 120 x 4 = 3,840.
    ("games", "mc"): (30, 1, 3_840, 128),
    ("games", "ac"): (4, 1, 3_840, 960),
}
# lr of Monte Carlo, lr of the actor-critics, critic's lr, advantage clip, temperature, top-p, tokens
LEARNING = {
    "writing": (5e-6, 5e-6, 3e-6, 0.2, 0.7, 0.9, 256),
    "arxiv": (5e-6, 5e-6, 3e-6, 0.2, 0.7, 0.9, 256),
    "coding": (2e-5, 5e-6, 3e-6, 0.2, 0.6, 0.6, 256),
    "strbuild": (5e-6, 2.5e-6, 1.5e-6, 0.05, 0.6, 0.6, 256),
    "housebuild": (1e-5, 5e-6, 3e-6, 0.05, 0.6, 0.6, 512),
}
SMALL, LARGE, CODER = "Qwen/Qwen2.5-3B-Instruct", "Qwen/Qwen3-4B-Instruct-2507", "Qwen/Qwen2.5-Coder-3B"
MODELS = {
    # models of the two agents in the environment's order, and the critic's
    "writing": ("Qwen/Qwen3-1.7B", "Qwen/Qwen3-1.7B", "Qwen/Qwen3-1.7B"),
    "arxiv": ("Qwen/Qwen3-1.7B", "Qwen/Qwen3-1.7B", "Qwen/Qwen3-1.7B"),
    "coding": (CODER, LARGE, CODER),
    "strbuild": (SMALL, LARGE, LARGE),
    "housebuild": (SMALL, LARGE, LARGE),
}


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a plan loads no weights")

    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", refuse)


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A local file per split in the place of each hub data set: task -> `env.source`."""
    place, found = tmp_path_factory.mktemp("rows"), {}
    for task, (row, splits) in ROWS.items():
        files = []
        for split, count in splits.items():
            named = ({**row, "task_id": f"{split}/{i}"} for i in range(count))
            file = place / f"{task}_{split}.jsonl"
            file.write_text("".join(json.dumps(one) + "\n" for one in named), encoding="utf-8")
            files.append(f"{split}={file}")
        found[task] = ",".join(files)
    return found


def parts(name):
    """Task, method and whether adapters are trained, of a paper preset's name."""
    task, method, *rest = name.removeprefix("paper/").split("-")
    assert rest in ([], ["lora"])
    return task, method, bool(rest)


def local(name, source):
    """A preset with a tiny model in the place of the hub's and a file in the place of its data."""
    config = load_config(presets=[name])
    words = [
        f"model={folder('qwen3')}",
        *([f"critic.model={folder('qwen3')}"] if config.critic.model else []),
    ]
    words += [f"team.agents.{agent}.model={folder('qwen3')}" for agent in config.team.agents]
    if config.env_kwargs.get("source") == "hub":
        words.append(f"source={source[parts(name)[0]]}")
    return load_config(presets=[name], overrides=words)


def test_every_setting_of_the_paper_has_its_presets():
    assert set(PAPER) == {
        f"paper/{task}-{method}{end}" for task in TASKS for method in METHODS for end in ("", "-lora")
    }
    assert {name for name in list_presets() if not name.startswith("paper/")} == {
        f"builtin-{task}" for task in ("writing", "coding", "strbuild", "housebuild")
    }


@pytest.mark.parametrize("name", PAPER)
def test_a_paper_preset_plans_the_papers_samples_and_updates(name, source):
    task, method, lora = parts(name)
    experiment = Experiment(local(name, source))
    plan = experiment.plan()
    tasks, held_out, turns = SIZES[task]
    assert (plan.tasks, plan.eval_tasks, experiment.env.num_turns) == (tasks, held_out, turns)
    group = {"arxiv": "writing", "strbuild": "games", "housebuild": "games"}.get(task, task)
    tree, together, samples, updates = BUDGETS[group, "mc" if method == "mc" else "ac"]
    assert (experiment.tree_size, experiment.tasks_per_update) == (tree, together)
    assert (plan.joint_samples, plan.updates) == (samples, updates)
    assert plan.optimizer_steps == updates  # one pass
    tuning = "lora" if lora else "full"
    assert set(plan.agents) == set(experiment.env.possible_agents)
    assert {kind for _, kind in (*plan.agents.values(), *plan.critics.values())} == {tuning}
    assert len(plan.critics) == {"mc": 0, "cc": 1, "dc": 2}[method]


@pytest.mark.parametrize("name", PAPER)
def test_a_paper_preset_has_the_papers_settings(name):
    task, method, lora = parts(name)
    config = load_config(presets=[name])
    mc_lr, ac_lr, critic_lr, clip, temperature, top_p, tokens = LEARNING[task]
    times, learner, sampling = 10 if lora else 1, config.learner, config.team.sampling
    assert config.algorithm_name == METHODS[method]
    assert learner.lr == pytest.approx(times * (mc_lr if method == "mc" else ac_lr))
    if method == "mc":
        assert (config.critic, learner.critic_lr) == (CriticConfig(), 0.0)
    else:
        assert learner.critic_lr == pytest.approx(times * critic_lr)
        assert (config.critic.model, learner.critic_epochs, learner.value_coef) == (MODELS[task][2], 1, 0.6)
    assert (learner.advantage_clip, learner.lr_schedule) == (clip, "constant")
    assert (learner.ratio, learner.clip, learner.advantage_norm) == ("sequence", 0.0, "none")
    assert (learner.update_epochs, learner.weight_decay) == (1, 0.01)
    assert config.algorithm.get("gamma") == 0.9
    assert (config.algorithm.get("lam", 0), config.algorithm.get("critic", "v")) == (0, "v")
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_new_tokens) == (
        temperature, top_p, 0, tokens
    )  # fmt: skip
    assert config.env_kwargs["formula"] == "paper"
    agents = spec(config.env_id).env_class(num_turns=SIZES[task][2]).possible_agents
    own = [config.team.agents.get(agent, AgentConfig()).model or config.team.model for agent in agents]
    assert tuple(own) == MODELS[task][:2]
    assert config.team.tuning == ("lora" if lora else "full")


@pytest.mark.parametrize("name", [name for name in list_presets() if name.startswith("builtin-")])
def test_a_preset_for_the_builtin_model_makes_an_experiment(name):
    config = load_config(presets=[name])
    experiment = Experiment(config)
    assert set(experiment.agent_base().values()) == {("builtin", "full")}
    assert experiment.variant.startswith("collm-cc[td0")
    assert config.env_id.endswith("-mini-v0")
    assert experiment.config.learner.lr_schedule == "linear"
    assert experiment.env.num_turns == (1 if name == "builtin-writing" else 2)
    assert experiment.env.schedule.resolved == ("final" if name == "builtin-strbuild" else "dense")
    assert 0 < experiment.expected_samples() <= 8000
