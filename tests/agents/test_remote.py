"""Agents behind servers: good ones are played with, bad ones are waited for, tried again and named."""

import asyncio
import json
import socket
import time

import pytest
from chat_server import completion, cut_off, endless, hang, serving, trickle

from collm_agents.cli import main
from collm_agents.config import SamplingConfig
from collm_agents.config_places import RemoteConfig
from collm_agents.overrides import load_config
from collm_agents.remote import RemoteAgent, RemoteError, endpoint
from collm_agents.remote_eval import evaluate_remote, parse_players
from collm_envs import EnvFault, InputError, SettingError

QUICK = RemoteConfig(timeout_s=0.5, retries=2, backoff_s=0.01)
TALK = [{"role": "user", "content": "Say é."}]


def ask(server, settings=QUICK, seed=7, talk=TALK, model="", **sampling):
    """One reply of a server."""
    place = endpoint("writer_0", f"{server if isinstance(server, str) else server.url}{model}")
    chosen = SamplingConfig(**{"max_new_tokens": 9, **sampling})

    async def run():
        async with RemoteAgent(place, chosen, settings) as agent:
            return await agent.reply(talk, seed)

    return asyncio.run(run())


# -- one reply -----------------------------------------------------------------------------------------------


def test_a_reply_and_what_was_asked():
    with serving(lambda number, body: completion("é and more", 4, "length")) as server:
        answer = ask(server, temperature=0.7, top_p=0.9, top_k=5)
    assert (answer.text, answer.cut, answer.tokens, answer.tries) == ("é and more", True, 4, 1)
    sampling = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "max_tokens": 9, "seed": 7}
    assert server.asked == [{"path": "/v1/chat/completions", "messages": TALK, **sampling}]
    assert "Authorization" not in server.headers[0]


def test_the_likeliest_tokens():
    with serving(lambda number, body: completion("x")) as server:
        ask(server, seed=None, temperature=0.7)
    assert server.asked[0]["temperature"] == 0
    assert not {"seed", "top_p", "top_k"} & server.asked[0].keys()


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (hang(1.0), "no answer in 0.5 s"),
        (trickle, "no answer in 0.5 s"),  # each byte comes in time
        (500, "HTTP 500: it is broken"),
        (503, "HTTP 503"),
        ((429, {"Retry-After": "0"}), "HTTP 429"),
        (cut_off, "RemoteProtocolError"),
        (endless, "an answer of more than 4000000 bytes"),
        (b"", "no JSON: an empty body"),
        (b"<html>\x00\x1b[31m gateway", "no JSON: <html>"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff\xfe\xff", "no JSON"),
        (b"[]", "no chat completion"),
        ({"choices": []}, "no chat completion: {"),
        ({"choices": [{"message": None}]}, "no chat completion"),
        (completion(None), "a chat completion whose text is None"),
        (completion(["x"]), "a chat completion whose text is"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_may_pass_is_tried_again_and_then_told_with_the_agents_name(bad, told):
    with serving(lambda number, body: bad) as server:
        with pytest.raises(RemoteError) as error:
            ask(server)
        assert len(server.asked) == 3
    assert str(error.value).startswith(
        f"agent writer_0 at {server.url}: no reply in 3 tries; the last time: "
    )
    assert told in str(error.value)
    assert str(error.value).isprintable()
    # The same, once: nobody notices but the count.
    with serving(lambda number, body: bad if number == 1 else completion("fine")) as server:
        answer = ask(server)
    assert (answer.text, answer.tries) == ("fine", 2)


@pytest.mark.parametrize("status", [401, 403, 404, 422, 302])
def test_what_will_not_pass_is_told_at_once(status):
    with serving(lambda number, body: status) as server:
        with pytest.raises(RemoteError, match=rf"agent writer_0 at http.*: HTTP {status}: it is broken"):
            ask(server)
        assert len(server.asked) == 1


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(RemoteError, match=r"writer_0 .*in 3 tries; the last time: ConnectError"):
        ask(f"http://127.0.0.1:{port}/v1")


def test_pauses_grow_and_a_server_may_ask_for_longer_ones():
    def timed(answer, settings):
        started = time.perf_counter()
        with serving(answer) as server, pytest.raises(RemoteError):
            ask(server, settings)
        return time.perf_counter() - started

    growing = RemoteConfig(retries=3, backoff_s=0.2)
    assert 0.7 <= timed(lambda number, body: 500, growing) < 20  # at least half of 0.2 + 0.4 + 0.8
    assert timed(lambda number, body: (429, {"Retry-After": "1"}), RemoteConfig(retries=1, backoff_s=0)) >= 1


def test_a_server_that_wants_a_name_gets_its_only_models():
    with serving(lambda number, body: completion(body["model"]), models=["one"], needs_model=True) as server:
        assert ask(server).text == "one"
    with serving(
        lambda number, body: completion(body["model"]), models=["one", "two"], needs_model=True
    ) as server:
        assert ask(server, model="#two").text == "two"
        with pytest.raises(RemoteError, match=r"HTTP 400: .*model is required"):
            ask(server)
    with (
        serving(lambda number, body: 1, needs_model=True) as server,
        pytest.raises(RemoteError, match="HTTP 400"),
    ):
        ask(server)


def test_keys_come_from_the_environment_and_go_to_their_agents_server(monkeypatch):
    monkeypatch.setenv("COLLM_API_KEY", "all")
    with serving(lambda number, body: completion("x")) as server:
        ask(server)
        monkeypatch.setenv("COLLM_API_KEY_WRITER_0", "own")
        ask(server)
    assert [own["Authorization"] for own in server.headers] == ["Bearer all", "Bearer own"]


def test_half_characters_do_not_stop_the_next_turn():
    with serving(lambda number, body: b'{"choices": [{"message": {"content": "a\\ud800b"}}]}') as server:
        answer = ask(server)
        assert (answer.text, answer.tokens) == ("a?b", None)
        ask(server, talk=[{"role": "user", "content": answer.text}])


# -- who plays ------------------------------------------------------------------------------------------------


def test_players():
    found = parse_players("b_1=oracle, a_0=https://host:8/v1/#m/n", ("a_0", "b_1"))
    assert list(found) == ["a_0", "b_1"]
    assert (found["a_0"].url, found["a_0"].model, found["b_1"]) == ("https://host:8/v1", "m/n", "oracle")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("http://h/v1", "does not read NAME=URL for one of a_0, b_1"),
        ("c_2=http://h/v1", "does not read NAME=URL"),
        ("a_0=http://h/v1", "nobody plays b_1"),
        ("a_0=http://h/v1,a_0=oracle", "a_0 is named twice"),
        ("a_0=http://h/v1,b_1=orcale", "did you mean 'oracle'"),
        ("a_0=ftp://h/v1,b_1=oracle", "an address reads http"),
        ("a_0=http://,b_1=oracle", "an address reads http"),
        ("a_0=http://me:secret@h/v1,b_1=oracle", "COLLM_API_KEY_A_0"),
    ],
)
def test_players_that_are_refused(text, told):
    with pytest.raises(InputError, match=told) as error:
        parse_players(text, ("a_0", "b_1"))
    assert "secret" not in str(error.value)


# -- whole evaluations ----------------------------------------------------------------------------------------


def config(*words, env="debug/echo-v0"):
    return load_config(
        env, overrides=["remote.retries=1", "remote.backoff_s=0.01", "eval.final_tasks=6", *words]
    )


def letter(number, body):
    """What an ideal agent of `debug/echo-v0` says: the last letter of its prompt."""
    seen = body["messages"][-1]["content"]
    return completion(next(c for c in reversed(seen) if c.isupper()), 2)


def test_a_team_behind_two_servers():
    with serving(letter) as one, serving(letter) as two:
        report = evaluate_remote(config("eval.samples=2"), f"agent_0={one.url},agent_1={two.url}")
    metrics = report["metrics"]
    assert metrics["score"]["mean"] == metrics["success"]["mean"] == 1
    assert metrics["reply_tokens"]["mean"] == 2
    assert metrics["tries"]["mean"] == 1
    assert metrics["score"]["n"] == 6
    assert len(report["episodes"]) == 12
    assert len(report["samples"]) == 4
    assert len(one.asked) == len(two.asked) == 12
    seeds = {body["seed"] for body in one.asked}
    assert len(seeds) == 12  # every reply has draws of its own
    assert max(seeds) < 2**31
    assert one.most_at_once <= 8


def test_each_agent_is_sent_its_own_conversation_alone():
    def secretive(word):
        return lambda number, body: completion(f"{word} {len(body['messages'])}")

    with serving(secretive("alpha")) as one, serving(secretive("beta")) as two:
        words = ("num_turns=3", "eval.final_tasks=1")
        report = evaluate_remote(
            config(*words, env="paying_env:Paying"), f"agent_0={one.url},agent_1={two.url}"
        )
    assert report["metrics"]["turns"]["mean"] == 3
    for server, word, other in ((one, "alpha", "beta"), (two, "beta", "alpha")):
        talk = server.asked[-1]["messages"]
        assert [m["role"] for m in talk] == ["user", "assistant", "user", "assistant", "user"]
        assert [m["content"] for m in talk[1::2]] == [f"{word} 1", f"{word} 3"]
        assert other not in json.dumps(server.asked)
    sample = report["samples"][0]
    assert "@agent_1 turn 3 says:\nbeta 5" in sample["text"]
    assert [turn["replies"]["agent_0"]["tokens"] for turn in sample["turns"]] == [3, 3, 3]


def test_a_server_and_a_script_and_a_judge_elsewhere():
    with serving(lambda number, body: completion("x", None)) as server:
        report = evaluate_remote(
            config("eval.final_tasks=2", env="paying_env:Judged"), f"agent_0={server.url},agent_1=random"
        )
    assert "reply_tokens" not in report["metrics"]
    assert all("reply_tokens" not in row for row in report["episodes"])


def test_the_one_that_fails_is_named_with_its_task():
    with (
        serving(letter) as one,
        serving(lambda number, body: 500) as two,
        pytest.raises(RemoteError) as error,
    ):
        evaluate_remote(config(), f"agent_0={one.url},agent_1={two.url}")
    told = f"turn 0: agent agent_1 at {two.url}: no reply in 2 tries; the last time: HTTP 500"
    assert str(error.value).startswith("debug/echo-v0, task 'builtin:test#")
    assert told in str(error.value)


def test_a_broken_judge_is_told_as_ever():
    with (
        serving(lambda number, body: completion("x")) as one,
        pytest.raises(EnvFault, match="the scorer broke"),
    ):
        evaluate_remote(config(env="failing_env:Failing"), f"agent_0={one.url},agent_1={one.url}")


def test_the_command_line(capsys):
    with serving(letter) as one, serving(letter) as two:
        agents = f"agent_0={one.url},agent_1={two.url}"
        assert main(["eval", "debug/echo-v0", "tasks=3", "--agents", agents, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["metrics"]["success"]["mean"] == 1
        assert main(["eval", "debug/echo-v0", "tasks=3", "greedy=true", "--agents", agents]) == 0
        assert "reply s" in capsys.readouterr().out
        assert one.asked[-1]["temperature"] == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["model=builtin", "tuning=lora"], "settings of [team] are about models of this process"),
        (["learner.lr=1"], "settings of [learner]"),
        (["--episodes", "3"], "--episodes does not go with agents behind servers"),
        (["--protocol", "pipeline"], "--protocol does not go"),
        (["remote.timeout_s=0"], "remote.timeout_s must be greater than 0"),
    ],
)
def test_words_that_mean_nothing_there(capsys, words, told):
    agents = "agent_0=http://127.0.0.1:1/v1,agent_1=oracle"
    assert main(["eval", "debug/echo-v0", "--agents", agents, *words]) == 2
    assert told in capsys.readouterr().err


def test_a_dead_server_ends_with_one_line(capsys):
    agents = "agent_0=http://127.0.0.1:1/v1,agent_1=oracle"
    assert main(["eval", "debug/echo-v0", "remote.retries=0", "--agents", agents]) == 1
    err = capsys.readouterr().err
    assert "agent agent_0 at http://127.0.0.1:1/v1: no reply in 1 tries" in err
    assert err.count("\n") == 1


def test_settings_are_checked():
    with pytest.raises(SettingError, match=r"remote\.retries must be at least 0"):
        RemoteConfig(retries=-1)
