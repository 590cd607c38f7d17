"""A run's episodes for other tools: a data set with one row per turn and agent, and pairs of replies to one prompt.

For the verb `export` and for scripts that fine-tune or analyse elsewhere. Reads what a run kept (`samples.jsonl`);
plays and scores nothing. Rows are plain data; `datasets` and pyarrow are imported inside the functions that need
them, here and nowhere else.
"""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from collm_agents.episodes import Episode, kept_episodes, read_episodes
from collm_agents.whole_file import whole
from collm_envs.errors import InputError

Row = dict[str, Any]
EPISODES, PAIRS = "episodes", "pairs"
FORMATS = ("parquet", "jsonl")
# What an episode's row says of itself, beside its texts; floats may be missing in runs from before turns were kept.
_ABOUT = {
    "env": "string",
    "algorithm": "string",
    "seed": "int64",
    "joint_samples": "int64",
    "episode": "int64",
    "task_id": "string",
    "turn": "int64",
    "agent": "string",
    "role": "string",
    "script": "string",
}
_WORTH = {"reward": "float64", "return": "float64", "score": "float64"}
_END = {"final_score": "float64", "success": "bool", "tokens": "int64", "cut": "bool", "clipped": "bool"}
_PAIR = ("env", "algorithm", "seed", "task_id", "turn", "agent", "role")


def episode_rows(run_dir: str | Path) -> Iterator[Row]:
    """One row per turn and agent of every episode that a run kept.

    Args:
        run_dir: the run's folder; it may still be going on.

    Yields:
        `prompt` (messages: all that the agent had seen and said, up to its newest observation) and `completion`
        (one message: its reply); `env`, `algorithm`, `seed`, `joint_samples` trained on, number of the `episode`,
        `task_id`, `turn` from 0, `agent`, `role`, and the kind of `script` where it is no model; the turn's joint
        `reward`, `score`, `parts` and `measured`, and the `return`: rewards from this turn on, undiscounted; the
        episode's `final_score` and `success`; reply `tokens`, whether the limit `cut` it and whether its
        observation was `clipped`. A line of a text that began with "@" has a space before it, as in the history.

    Raises:
        InputError: when the folder is no run or holds no episodes.
    """
    run_dir = Path(run_dir)
    about = _about(run_dir)
    file, _ = kept_episodes(run_dir)
    if file is None:
        raise InputError(f"{run_dir} kept no episodes; a run keeps them with track.samples above 0")
    for number, episode in enumerate(read_episodes(file)):
        yield from _rows_of(episode, number, about)


def _about(run_dir: Path) -> dict[str, Any]:
    file = run_dir / "config.toml"
    if not file.is_file():
        raise InputError(f"{run_dir} is not a run: it has no config.toml")
    try:
        config = tomllib.loads(file.read_text(encoding="utf-8"))
        scripts = {
            name: own.get("script", "") for name, own in config.get("team", {}).get("agents", {}).items()
        }
        return {
            "env": config["env"]["id"],
            "algorithm": config["algorithm"]["name"],
            "seed": config["run"]["seed"],
            "scripts": scripts,
        }
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{file}: {type(error).__name__} {error}") from None


def _rows_of(episode: Episode, number: int, about: Mapping[str, Any]) -> Iterator[Row]:
    rewards = [turn["reward"] for turn in episode["turns"]]
    memory: dict[str, list[dict[str, str]]] = {}
    for place, turn in enumerate(episode["turns"]):
        left = rewards[place:]
        for agent, own in turn["agents"].items():
            seen = memory.setdefault(agent, [])
            seen.append({"role": "user", "content": own.get("sees", "")})
            reply = {"role": "assistant", "content": own.get("says", "")}
            yield {
                "env": about["env"],
                "algorithm": about["algorithm"],
                "seed": about["seed"],
                "joint_samples": episode["joint_samples"],
                "episode": number,
                "task_id": episode["task_id"],
                "turn": place,
                "agent": agent,
                "role": agent.rpartition("_")[0] or agent,
                "script": about["scripts"].get(agent, ""),
                "prompt": list(seen),
                "completion": [reply],
                "reward": turn["reward"],
                "return": None if None in left else sum(left),
                "score": turn["score"],
                "parts": turn["parts"],
                "measured": turn["measured"],
                "final_score": episode["score"],
                "success": episode["success"],
                "tokens": own.get("tokens"),
                "cut": own.get("cut"),
                "clipped": own.get("clipped"),
            }
            seen.append(reply)


def preference_pairs(rows: Iterable[Row], *, across: bool = False) -> tuple[list[Row], int]:
    """Pairs of replies of one agent to the very same prompt, of which one was followed by the greater return.

    Siblings are replies of one policy: of one evaluation that played its tasks more than once. A reply that was
    given several times counts with its mean return. The best reply is paired with every one that earned less.
    Rewards are joint, so a pair also tells of what the partners happened to say.

    Args:
        rows: as `episode_rows` gives them.
        across: pair replies of different evaluations too, of policies that were trained differently long.

    Returns:
        The pairs (`prompt`, `chosen`, `rejected`, `chosen_return`, `rejected_return`; across, `joint_samples` is
        None), and the number of prompts that have more than one reply.
    """
    groups: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    first: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        if row["return"] is None or row["script"]:
            continue
        at = None if across else row["joint_samples"]
        key = (at, row["task_id"], row["turn"], row["agent"], json.dumps(row["prompt"]))
        first.setdefault(key, row)
        said = row["completion"][0]["content"]
        groups.setdefault(key, {}).setdefault(said, []).append(row["return"])
    pairs, several = [], 0
    for key, replies in groups.items():
        worth = {text: fmean(returns) for text, returns in replies.items()}
        best = max(worth, key=lambda text: worth[text])
        several += sum(map(len, replies.values())) > 1
        for text, value in worth.items():
            if value < worth[best]:
                pairs.append(
                    {
                        **{name: first[key][name] for name in _PAIR},
                        "joint_samples": key[0],
                        "prompt": first[key]["prompt"],
                        "chosen": [{"role": "assistant", "content": best}],
                        "rejected": [{"role": "assistant", "content": text}],
                        "chosen_return": worth[best],
                        "rejected_return": value,
                    }
                )
    return pairs, several


# -- data sets ---------------------------------------------------------------------------------------------


def episodes_dataset(run_dir: str | Path) -> Any:
    """The rows of `episode_rows` as a `datasets.Dataset`; arguments and errors are the same.

    `prompt` and `completion` are conversations as TRL's supervised fine-tuning reads them; quantities by name are
    structs, left out where the environment has none.
    """
    return _episodes(list(episode_rows(run_dir)))


def pairs_dataset(run_dir: str | Path, *, across: bool = False) -> Any:
    """The pairs of `preference_pairs` as a `datasets.Dataset`, as TRL's preference trainers read it.

    Raises:
        InputError: when there are none, saying why.
    """
    pairs, several = preference_pairs(episode_rows(run_dir), across=across)
    if not pairs:
        raise InputError(f"{run_dir}: {no_pairs(several)}")
    return _pairs(pairs)


def no_pairs(several: int) -> str:
    """Why there are no pairs, and what to do about it.

    Args:
        several: prompts that have more than one reply.
    """
    if several:
        return f"no pairs: at {several} prompts there are several replies, and those of each earned the same"
    return (
        "no pairs: the run kept one reply to each prompt (siblings come from eval.samples above 1, as many kept as "
        "track.samples says; --across pairs those of different evaluations)"
    )


def _episodes(rows: Sequence[Row]) -> Any:
    import datasets

    named = {
        key: {name: datasets.Value("float64") for row in rows for name in row[key]}
        for key in ("parts", "measured")
    }
    features = {
        **_values(_ABOUT),
        "prompt": _conversation(),
        "completion": _conversation(),
        **_values(_WORTH),
        **{key: names for key, names in named.items() if names},
        **_values(_END),
    }
    full = [{**row, **{k: {n: row[k].get(n) for n in names} for k, names in named.items()}} for row in rows]
    kept = [{key: row[key] for key in features} for row in full]
    return datasets.Dataset.from_list(kept, features=datasets.Features(features))


def _pairs(pairs: Sequence[Row]) -> Any:
    import datasets

    features = {
        **_values({name: _ABOUT[name] for name in (*_PAIR, "joint_samples")}),
        **{name: _conversation() for name in ("prompt", "chosen", "rejected")},
        **_values({"chosen_return": "float64", "rejected_return": "float64"}),
    }
    return datasets.Dataset.from_list(list(pairs), features=datasets.Features(features))


def _values(types: Mapping[str, str]) -> dict[str, Any]:
    import datasets

    return {name: datasets.Value(kind) for name, kind in types.items()}


def _conversation() -> Any:
    import datasets

    return datasets.List({"role": datasets.Value("string"), "content": datasets.Value("string")})


# -- files -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exported:
    """What was written: its folder, rows, and pairs; `note` says why there are no pairs, else it is empty."""

    folder: Path
    rows: int
    pairs: int
    note: str


def export_episodes(
    run_dir: str | Path, folder: str | Path, *, form: str = "parquet", across: bool = False
) -> Exported:
    """Write a run's episodes, its pairs where it has any, and a card that lets `datasets` load both by name.

    Args:
        run_dir: the run's folder.
        folder: where the files go; missing or empty, and there whole or not at all.
        form: `parquet` or `jsonl`.
        across: as in `preference_pairs`.

    Raises:
        InputError: when there is nothing to write, or something in the way.
    """
    if form not in FORMATS:
        raise InputError(f"a data set is written as {' or '.join(FORMATS)}, not {form!r}")
    rows = list(episode_rows(run_dir))
    if not rows:
        raise InputError(f"{run_dir} kept no episodes; a run keeps them with track.samples above 0")
    pairs, several = preference_pairs(rows, across=across)
    made = {EPISODES: _episodes(rows), **({PAIRS: _pairs(pairs)} if pairs else {})}
    note = "" if pairs else no_pairs(several)
    with_card = _card(rows[0], form, {name: len(own) for name, own in made.items()}, note)

    def write(place: Path) -> None:
        for name, own in made.items():
            _write_dataset(own, place / f"{name}.{form}")
        (place / "README.md").write_text(with_card, encoding="utf-8")

    return Exported(write_folder(folder, write), len(rows), len(pairs), note)


def _write_dataset(dataset: Any, file: Path) -> None:
    import datasets

    if file.suffix == ".jsonl":  # every digit of a number, which the library's own writer rounds
        with file.open("w", encoding="utf-8", newline="\n") as out:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in dataset)
        return
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        dataset.to_parquet(file)
    finally:
        if shown:
            datasets.enable_progress_bars()


def write_folder(folder: str | Path, write: Callable[[Path], None]) -> Path:
    """Make a folder whose files are there whole or not at all.

    Args:
        folder: missing or empty.
        write: called with a folder beside it, which then takes its place.

    Raises:
        InputError: when something is in the way.
    """
    folder = Path(folder).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--out {folder} is not an empty folder")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        write(part)
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _card(row: Row, form: str, counts: Mapping[str, int], note: str) -> str:
    configs = [
        line
        for name in counts
        for line in (f"- config_name: {name}", f"  data_files: {name}.{form}")
        + (("  default: true",) if name == EPISODES else ())
    ]
    head = "\n".join(["---", "configs:", *configs, "tags: [collm, multi-agent]", "---"])
    pairs = f"`pairs` has {counts[PAIRS]} rows." if PAIRS in counts else f"There are {note}."
    return f"""{head}

# Episodes of a team in `{row["env"]}`

From evaluations of a run of {row["algorithm"]}, seed {row["seed"]}. `episodes` has {counts[EPISODES]} rows, one per
turn and agent: the conversation as the agent saw it (`prompt`), its reply (`completion`), what the turn was worth.
Rewards and scores are joint: all agents of a turn have the same. {pairs} Load one with
`datasets.load_dataset(FOLDER, "episodes", split="train")`.
"""


def write_parquet(columns: Mapping[str, Sequence[Any]], file: Path) -> None:
    """Write columns of one length; the file is whole or not there.

    Args:
        columns: values by name.
        file: to write.

    Raises:
        ImportError: where pyarrow is not installed.
    """
    import pyarrow
    import pyarrow.parquet

    with whole(file) as part:
        pyarrow.parquet.write_table(pyarrow.table(dict(columns)), part)
