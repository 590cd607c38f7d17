import json

import pytest
from cli_process import assert_bad_input, collm

pytestmark = pytest.mark.system

WITHOUT_EXTRAS = """
import sys
for name in ("torch", "transformers", "peft", "rich", "tomli_w", "tensorboard", "matplotlib", "datasets"):
    sys.modules[name] = None
from collm_agents.cli import main
sys.exit(main())
"""


def test_envs_play_and_score_need_no_extra(tmp_path):
    done = collm("envs", cwd=tmp_path, code=WITHOUT_EXTRAS)
    assert done.returncode == 0, done.stderr
    assert "debug/echo-v0" in done.stdout
    assert "writing/tldr-v0" in done.stdout
    assert collm("play", "debug/echo-v0", cwd=tmp_path, code=WITHOUT_EXTRAS).returncode == 0
    done = collm("train", "debug/echo-v0", cwd=tmp_path, code=WITHOUT_EXTRAS)
    assert done.returncode == 1
    assert done.stderr.startswith("collm: error: this needs the package ")
    assert done.stderr.endswith("pip install 'collm[train]'\n")
    assert not list(tmp_path.iterdir())


def test_a_page_shows_the_docstring_and_every_setting_with_its_default(tmp_path):
    done = collm("envs", "debug/echo-sparse-v0", cwd=tmp_path)
    assert done.returncode == 0
    assert "Each agent is shown a letter" in done.stdout
    assert "(default sparse)" in done.stdout
    assert "num_turns" in done.stdout


def test_an_episode_is_printed_with_its_parts_and_repeats_under_its_seed(tmp_path):
    words = (
        "play",
        "debug/handshake-v0",
        "num_turns=2",
        "--agents",
        "oracle",
        "--episodes",
        "2",
        "--seed",
        "5",
    )
    done = collm(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("== episode") == 2
    assert "score 1.000 of 1.000, success" in done.stdout
    assert "covered" in done.stdout
    assert collm(*words, cwd=tmp_path).stdout == done.stdout


def test_a_human_plays_from_standard_input(tmp_path):
    words = ("play", "debug/echo-v0", "--agents", "agent_0=human,agent_1=oracle")
    done = collm(*words, cwd=tmp_path, stdin="not a letter\nat all\n\n")
    assert done.returncode == 0, done.stderr
    assert "    not a letter\n    at all" in done.stdout
    assert "score 0.500" in done.stdout
    done = collm(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "the input ended before agent_0 had replied" in done.stderr


def test_scores_as_json_with_a_reply_from_a_file(tmp_path):
    (tmp_path / "reply.txt").write_text("X")
    done = collm(
        *("score", "debug/echo-v0", "--task", "3", "--json"),
        *("--reply", "agent_0=@reply.txt", "--reply", "agent_1=@@"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["parts"] == {"echoed": told["score"]}
    assert (told["env"], told["success"], told["high"]) == ("debug/echo-v0", False, 1.0)


def test_a_class_in_the_folder_can_be_checked(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from collm_envs.debug.letters import Echo\n"
        "class Mine(Echo):\n"
        "    def oracle(self, state, agent, rng):\n"
        "        return 'wrong'\n"
    )
    done = collm("check", "debug/echo-v0", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    done = collm("check", "mine:Mine", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "FAIL" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["envs", "debug/ecko-v0"], "unknown environment 'debug/ecko-v0'; did you mean 'debug/echo-v0'"),
        (["train", "debug/echo-v0", "lerning_rate=1"], "unknown setting 'lerning_rate'"),
        (["score", "writing/tldr-v0", "source=posts.jsonl"], "no such file: posts.jsonl"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(tmp_path, words, message):
    replies = ["--reply", "summary_0=a", "--reply", "detail_1=b"] if words[0] == "score" else []
    done = collm(*words, *replies, cwd=tmp_path)
    assert_bad_input(done, tmp_path)
    assert message in done.stderr


def test_a_bad_row_names_file_row_and_field(tmp_path):
    (tmp_path / "posts.jsonl").write_text('{"prompt": "fine"}\n{"prompt": 3}\n')
    words = ("score", "writing/tldr-v0", "source=posts.jsonl", "split=all", "--task", "1")
    done = collm(*words, "--reply", "summary_0=a", "--reply", "detail_1=b", cwd=tmp_path)
    assert_bad_input(done, tmp_path, kept=["posts.jsonl"])
    assert "posts.jsonl, row 2, field 'prompt': expected str, found int" in done.stderr


def test_debug_shows_the_traceback(tmp_path):
    done = collm("envs", "debug/x-v0", "--debug", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
