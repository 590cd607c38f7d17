import base64
import http.client
import io
import json
import math
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from made_run import HOSTILE, made_run, sample

from collm_agents import cli, waiting
from collm_agents.episodes import kept_episodes, read_episodes, said_and_seen
from collm_agents.pictures import Pictures
from collm_agents.thinning import thinned
from collm_agents.view_command import HOST, page_server
from collm_agents.view_page import BLOCK_EPISODES, view_page, write_page
from collm_envs import InputError, make
from collm_envs.render import as_png

TURNS = [{"agent_0": ("letter: A", "A"), "agent_1": ("letter: B", "z")}]


def scripts(html):
    """Data of the page by id."""
    found = re.findall(r'<script type="application/json" id="(\w+)">(.*?)</script>', html, re.DOTALL)
    return {name: json.loads(text) for name, text in found}


def test_a_history_is_taken_apart_into_turns_and_agents():
    text = "@a turn 1 sees:\nx\n @a turn 9 says:\n@b turn 1 sees:\n\n@a turn 1 says:\np\n\nq\n@b turn 1 says:\n\n"
    assert said_and_seen(text) == [
        {"a": {"sees": "x\n @a turn 9 says:", "says": "p\n\nq"}, "b": {"sees": "", "says": ""}}
    ]
    assert said_and_seen("") == []


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_is_said_comes_back(text):
    from collm_envs.history import entry

    told = entry("a", 0, "sees", "go") + entry("a", 0, "says", text) + entry("a", 1, "sees", text)
    first, second = said_and_seen(told)
    assert (first["a"]["says"], second["a"]["sees"]) == (text, text)


def test_episodes_come_with_or_without_their_turns_kept(tmp_path):
    made_run(tmp_path, [sample("t0", TURNS, at=8), sample("t1", TURNS, kept=False)])
    path, count = kept_episodes(tmp_path)
    one, old = read_episodes(path)
    assert count == 2
    assert (one["task_id"], one["joint_samples"], one["score"], one["success"]) == ("t0", 8, 0.5, False)
    assert one["turns"][0]["agents"]["agent_0"] == {
        "sees": "letter: A", "says": "A", "tokens": 1, "cut": False, "clipped": False,
    }  # fmt: skip
    assert one["turns"][0]["parts"] == {"echoed": 0.5}
    assert old["turns"][0]["agents"]["agent_1"] == {"sees": "letter: B", "says": "z"}
    assert old["turns"][0]["score"] is None


def test_evaluations_are_read_where_there_are_no_samples(tmp_path):
    row = sample("t0", TURNS)
    kept = [{"joint_samples": 4, "edge": True, "metrics": {}, "samples": [row | {"joint_samples": 4}] * 2}]
    (tmp_path / "evaluations.json").write_text(json.dumps(kept))
    path, count = kept_episodes(tmp_path)
    assert count == len(list(read_episodes(path))) == 2
    assert kept_episodes(tmp_path / "none") == (None, 0)


def test_metrics_of_few_rows_are_kept_and_of_many_put_together(tmp_path):
    made_run(tmp_path, updates=6)
    found = thinned(tmp_path / "metrics.jsonl")
    assert found["update"].x["joint_samples"] == [8, 16, 24, 32, 40, 48]
    assert found["update"].lines["score"].y == pytest.approx([i / 6 for i in range(6)])
    assert found["eval"].lines["score"].low == [0.25] * 3
    assert "score/low" not in found["eval"].lines
    found = thinned(tmp_path / "metrics.jsonl", points=2)
    assert found["update"].together == 3
    assert found["update"].x["joint_samples"] == [24, 48]
    line = found["update"].lines["score"]
    assert line.y == pytest.approx([1 / 6, 4 / 6])
    assert line.low == pytest.approx([0, 3 / 6])
    assert line.high == pytest.approx([2 / 6, 5 / 6])


def test_a_metric_that_comes_late_and_goes_leaves_gaps(tmp_path):
    file = tmp_path / "metrics.jsonl"
    rows = [
        {"kind": "update", "joint_samples": i, "wall_s": i, **({"late": i} if i == 1 else {})}
        for i in range(3)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"kind": "upd')  # killed while writing
    y = thinned(file)["update"].lines["late"].y
    assert [None if math.isnan(v) else v for v in y] == [None, 1.0, None]


def test_the_page_holds_every_episode_in_blocks(tmp_path):
    made_run(tmp_path, [sample(f"t{i}", TURNS, at=i // 100) for i in range(3 * BLOCK_EPISODES + 1)])
    found = scripts("".join(view_page(tmp_path)))
    index = found["data"]["episodes"]
    assert index["starts"] == [0, 64, 128, 192]
    assert [len(found[f"block{i}"]) for i in range(4)] == [64, 64, 64, 1]
    assert index["task"][-1] == "t192"
    assert found["block1"][0][0]["agents"]["agent_1"]["says"] == "z"
    assert found["data"]["references"]["oracle"] == {"score": 1.0}
    assert found["data"]["phases_s"] == {"decode": 4.0, "actor": 2.0}
    assert found["data"]["told"].startswith("debug/echo-v0, mc[whole], seed 3. 48 joint samples")


def test_hostile_texts_cannot_leave_their_element(tmp_path):
    rows = [sample(text, [{"agent_0": (text, text), "agent_1": ("x" * 1_000_000, text)}]) for text in HOSTILE]
    html = "".join(view_page(made_run(tmp_path, rows)))
    assert html.count("<script") == html.count("</script>") == 2 + len(HOSTILE)
    found = scripts(html)
    assert found["data"]["episodes"]["task"] == list(HOSTILE)


def test_a_run_that_goes_on_or_kept_nothing_has_a_page_too(tmp_path):
    made_run(tmp_path, result=False)
    assert "has not come to its end" in scripts("".join(view_page(tmp_path)))["data"]["told"]
    (tmp_path / "metrics.jsonl").unlink()
    found = scripts("".join(view_page(tmp_path)))["data"]
    assert found["told"].endswith("Nothing was recorded yet.")
    assert found["episodes"]["at"] == []


def episode_of(env, scripts_kind="novice"):
    """An episode of scripted agents, as an evaluation keeps it."""
    from collm_agents.draws import derive

    task = env.tasks[0]
    rng = np.random.default_rng(0)
    env.reset(seed=derive(12345, "env", -1, f"{task.id}*0"), options={"task": task})
    while env.agents:
        env.step({a: env.scripted(scripts_kind, a, rng) for a in env.agents})
    return {"joint_samples": 0, "task_id": task.id, "text": env.state(), "score": 0.0, "success": False}


@pytest.mark.parametrize("env_id", ["games/strbuild-mini-v0", "games/housebuild-mini-v0"])
def test_turns_of_games_have_pictures(tmp_path, env_id):
    rows = [episode_of(make(env_id, split="test"))]
    made_run(
        tmp_path, [*rows, rows[0] | {"text": rows[0]["text"].replace(" says:", " says:\nwrong")}], env=env_id
    )
    drawer = Pictures(tmp_path)
    one, other = read_episodes(tmp_path / "samples.jsonl")
    pictures = drawer.of(one)
    assert len(pictures) == len(one["turns"])
    assert base64.b64decode(pictures[0]["png"]).startswith(b"\x89PNG")
    assert "\x1b" not in pictures[0]["text"]
    changed = dict(other, task_id="nowhere")
    assert drawer.of(changed) == []
    assert (drawer.drawn, drawer.lost) == (1, 1)
    html = "".join(view_page(tmp_path, pictures=1))
    assert html.count('"picture":{') == len(one["turns"])
    assert "--pictures" in scripts(html)["data"]["notes"][0]


def test_texts_that_no_replay_gives_are_not_drawn(tmp_path):
    row = episode_of(make("games/strbuild-mini-v0", split="test"))
    row["text"] = row["text"].replace(" sees:\n", " sees:\nforged ", 1)
    made_run(tmp_path, [row], env="games/strbuild-mini-v0")
    drawer = Pictures(tmp_path)
    assert drawer.of(next(read_episodes(tmp_path / "samples.jsonl"))) == []
    assert drawer.lost == 1


def test_only_environments_of_this_package_that_draw_are_played(tmp_path):
    assert not Pictures(made_run(tmp_path / "a")).possible
    (tmp_path / "evil.py").write_text("raise SystemExit")
    found = Pictures(made_run(tmp_path / "b", env="evil:Env"))
    assert not found.possible
    assert not Pictures(made_run(tmp_path / "c", env="games/none-v0")).possible


@pytest.mark.parametrize("colours", [3, 300])
def test_a_png_holds_the_pixels(colours):
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, size=(colours, 3), dtype=np.uint8)[rng.integers(0, colours, size=(20, 31))]
    image = pytest.importorskip("PIL.Image")

    assert (np.asarray(image.open(io.BytesIO(as_png(frame))).convert("RGB")) == frame).all()


# -- the verb ----------------------------------------------------------------------------------------------


def test_the_verb_writes_into_the_run_or_where_it_is_told(tmp_path, capsys):
    made_run(tmp_path / "run")
    assert cli.main(["view", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "run" / "view.html")
    assert cli.main(["view", str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    assert not list(tmp_path.rglob("*.part"))


def broken(tmp_path, name, text):
    made_run(tmp_path / "run", [sample("t", TURNS)])
    (tmp_path / "run" / name).write_text(text)
    return ["view", str(tmp_path / "run")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (lambda p: ["view", str(p / "none")], "is not a run"),
        (lambda p: ["view", str(made_run(p / "run")), "--out", str(p)], "not a file"),
        (lambda p: ["view", str(made_run(p / "run")), "--out", str(p / "no" / "x.html")], "not a file"),
        (lambda p: ["view", str(made_run(p / "run")), "--port", "8000"], "--port is for --serve"),
        (lambda p: ["view", str(made_run(p / "run")), "--pictures", "-1"], "0 or more"),
        (lambda p: ["view", str(made_run(p / "run")), "--serve", "--port", "99999"], "--port 99999"),
        (lambda p: broken(p, "metrics.jsonl", "{}\nno\n{}\n"), "line 2: not JSON"),
        (lambda p: broken(p, "samples.jsonl", '{"joint_samples": 1}\n'), "conversation 1"),
        (lambda p: broken(p, "samples.jsonl", "[]\n"), "line 1: not an object"),
        (lambda p: broken(p, "result.json", "{"), "result.json"),
        (lambda p: broken(p, "config.toml", "["), "config.toml"),
    ],
)
def test_what_cannot_be_shown_is_one_line(tmp_path, capsys, words, message):
    assert cli.main(words(tmp_path)) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("collm: error: ")
    assert told.err.count("\n") == 1
    assert message in told.err
    assert not list(tmp_path.rglob("view.html*"))


def test_it_never_imports_torch(tmp_path):
    made_run(tmp_path, [sample("t", TURNS)])
    code = (
        "import sys; sys.modules.update(torch=None, transformers=None, peft=None, PIL=None, rich=None)\n"
        "from collm_agents.cli import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code, "view", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


# -- the server --------------------------------------------------------------------------------------------


@pytest.fixture
def served():
    made = []

    def make_page():
        made.append(1)
        if len(made) == 3:
            raise InputError("half written")
        return f"page {len(made)}"

    with page_server(make_page, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server, path="/", method="GET", host=None):
    connection = http.client.HTTPConnection(HOST, server.server_port, timeout=10)
    connection.request(method, path, headers={"Host": host or f"localhost:{server.server_port}"})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body, dict(answer.getheaders())


def test_it_listens_on_the_loopback_address_only(served):
    assert served.server_address[0] == "127.0.0.1"
    status, body, headers = get(served)
    assert (status, body) == (200, "page 1")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "frame-ancestors" in headers["Content-Security-Policy"]
    assert get(served, host=f"127.0.0.1:{served.server_port}")[1] == "page 2"  # made anew
    assert get(served)[0] == 503  # and a run in the middle of a write is no end
    assert get(served, method="HEAD")[1] == ""


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost", "localhost:1", "127.0.0.1.e:{}"]
)
def test_other_hosts_get_nothing(served, host):
    status, body, _ = get(served, host=host.format(served.server_port))
    assert status == 421
    assert "page" not in body.replace("this page is for its own machine", "")


def test_there_is_the_page_and_nothing_else(served):
    for path in ("/config.toml", "/../config.toml", "/%2e%2e/x"):
        assert get(served, path)[0] == 404
    assert get(served, method="POST")[0] == 501


def test_a_taken_port_is_bad_input(served):
    with pytest.raises(InputError, match="cannot be taken"):
        page_server(lambda: "", served.server_port)


# -- waiting -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_for_terminals_and_long_work(monkeypatch, capsys, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with waiting.Waiting("work", quiet_s=0) as bar:
        bar.at(0.5)
    told = capsys.readouterr().err
    assert ("work [###############               ]  50%" in told) is terminal
    assert told.endswith("\r\x1b[K") or not terminal
    with waiting.Waiting("work") as bar:
        bar.at(0.5)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_million_lines_of_metrics_load(tmp_path):
    made_run(tmp_path, updates=1_000_000)
    started = time.process_time()
    write_page(tmp_path, tmp_path / "view.html")
    assert time.process_time() - started < 60
    assert (tmp_path / "view.html").stat().st_size < 2e6
