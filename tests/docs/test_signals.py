"""Every number that runs record stands in `docs/signals.md`, and nothing stands there that no run records."""

import re
from pathlib import Path

import pytest

from collm_agents.experiment import Experiment
from collm_agents.overrides import load_config
from collm_agents.tracking import METRICS, read_rows

PAGE = Path(__file__).resolve().parents[2] / "docs" / "signals.md"
HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
ROW = re.compile(r"^\| `([^`]+)` \|(.*)\|$", re.MULTILINE)
ALL_ON = (
    "num_turns=2",
    "joint_samples=24",
    "rollout.buffer=8",
    "rollout.samples=2",
    "eval.tasks=2",
    "eval.final_tasks=2",
    "eval.every=1000",
    "learner.kl_coef=0.01",
    "learner.entropy_coef=0.01",
    "learner.clip=0.2",
    "learner.critic_warmup=1",
    "learner.value_norm=true",
    "learner.value_clip=0.5",
    "learner.value_targets=refreshed",
    "track.live=false",
    "track.tensorboard=false",
)
RUNS = {
    # One critic per agent, an environment that measures things and waits for judges.
    "dc": ("games/strbuild-mini-v0", "algorithm=collm-dc"),
    # One critic, shared weights.
    "cc": ("debug/handshake-v0", "algorithm=collm-cc", "team.shared=true", "algorithm.critic=q"),
    "mc": ("debug/handshake-v0", "algorithm=mc", "joint_mode=cross"),
}


def documented():
    """Names by kind of row; those of both kinds are in both."""
    text = PAGE.read_text(encoding="utf-8")
    found = {"update": set(), "eval": set()}
    _, *sections = HEADING.split(text)
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        names = [name for name, _ in ROW.findall(body)]
        assert len(names) == len(set(names)), title
        kinds = ["update"] * (title != "Evaluations") + ["eval"] * (not title.startswith("Updates"))
        for kind in kinds:
            found[kind] |= set(names)
    return found


def general(name, agents):
    """A recorded name with what depends on the run replaced: `entropy/agent_0/t1` -> `entropy/<agent>/t<turn>`."""
    head, *rest = name.split("/")
    turn = [part for part in rest if re.fullmatch(r"t\d+", part)]
    own = "/".join(part for part in rest if part not in turn)
    if head == "parts":
        own = "<part>"
    elif head == "measured":
        own = "<quantity>"
    elif own.startswith("critic"):
        assert own == "critic" or own.removeprefix("critic_") in agents
        own = "<critic>" if head == "explained_variance" else "<member>"
    elif own:
        assert own in agents or own == "team"
        own = "<agent>" if turn else "<member>"
    return "/".join([head, *([own] if own else []), *(["t<turn>"] if turn else [])])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """General names by kind of row, over the runs above and an evaluation with a discussion."""
    found = {"update": set(), "eval": set()}
    for label, (env_id, *words) in RUNS.items():
        folder = tmp_path_factory.mktemp("runs") / label
        config = load_config(env_id, overrides=[*words, *ALL_ON, f"out={folder}"])
        experiment = Experiment(config)
        experiment.run()
        agents = experiment.env.possible_agents
        for row in read_rows(folder / METRICS):
            intervals = {n for n in row if n.endswith(("/low", "/high", "/n"))}
            if row["kind"] == "eval":
                values = row.keys() - intervals - {"kind", "joint_samples", "wall_s"}
                assert intervals == {f"{name}/{end}" for name in values for end in ("low", "high", "n")}
            found[row["kind"]] |= {general(name, agents) for name in row.keys() - intervals}
    told = Experiment.evaluate(folder, protocol="discussion")["metrics"]
    found["eval"] |= {general(name, agents) for name in told}
    return found


@pytest.mark.parametrize("kind", ["update", "eval"])
def test_every_recorded_name_is_documented_and_every_documented_one_recorded(kind, recorded):
    elsewhere = ("workers/", "placement/")  # tested where Ray runs
    names = {name for name in documented()[kind] if not name.startswith(elsewhere)}
    assert recorded[kind] - names == set(), "recorded, but not in docs/signals.md"
    assert names - recorded[kind] == set(), "in docs/signals.md, but never recorded"


def test_every_signal_has_its_unit_meaning_and_both_looks():
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert len(rows) > 50
    for name, cells in rows:
        found = [cell.strip() for cell in cells.split("|")]
        assert len(found) == 4, name
        assert all(found), name


def test_names_are_made_general_as_they_are_written():
    agents = ("a_0", "b_1")
    assert general("entropy/a_0/t1", agents) == "entropy/<agent>/t<turn>"
    assert general("loss/critic_b_1", agents) == general("loss/team", agents) == "loss/<member>"
    assert general("parts/covered/t0", agents) == "parts/<part>/t<turn>"
    with pytest.raises(AssertionError):
        general("loss/somebody", agents)
