"""The model that ships with the package: its tokenizer, its size, what it can do at the start."""

import filecmp
import functools
import subprocess
import sys
from itertools import islice, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collm_agents.chat import ChatFormat, History
from collm_agents.config import SamplingConfig
from collm_agents.draws import DrawKey
from collm_agents.models import loading, vocabulary
from collm_agents.models.sampler import draw
from collm_agents.models.warmstart import SIZES, Plan, Size, build_model, rebuild
from collm_envs import make
from collm_envs.history import label
from collm_envs.registry import spec
from collm_envs.scripted import KINDS

# A change of the vocabulary changes every saved policy's meaning: see "Changing it" in the model card.
FINGERPRINT = "7f82131742d6fb51ea92201b9cac9ffe49733e54bbcc85ef96c1e3296223ac0c"
SPEAKS = [env.id for env in vocabulary.warm_envs()]
REPLY_TOKENS = 40


@functools.cache
def shipped_form():
    return ChatFormat(loading.load_tokenizer("builtin"))


@pytest.fixture(scope="module")
def form():
    return shipped_form()


@pytest.fixture(scope="module")
def tokenizer():
    return shipped_form().tokenizer


@pytest.fixture(scope="module")
def model():
    return loading.load_model("builtin", torch.float32, "cpu")


def texts(env_id, kind, episodes=12):
    """What is seen and said in episodes of one kind of script, over all feedback modes and up to four agents."""
    cls = make(env_id).__class__
    seen, said, rng = [], [], np.random.default_rng(5)
    for feedback, agents in product(cls.feedback_modes, islice(cls.agent_counts, 4)):
        env = make(env_id, num_turns=3, feedback=feedback, num_agents=agents)
        for episode in range(episodes):
            observations, _ = env.reset(seed=episode)
            while env.agents:
                replies = {agent: env.scripted(kind, agent, rng) for agent in env.agents}
                seen += observations.values()
                said += replies.values()
                observations, *_ = env.step(replies)
    return seen, said


def play(model, form, env, tasks, seed):
    """Scores and successes of one-turn episodes with sampled replies, and the replies as they were drawn."""
    prompts, keys = [], []
    for task in tasks:
        seen, _ = env.reset(seed=0, options={"task": task})
        for agent in env.possible_agents:
            prompts.append(History().observe(seen[agent], form, 900, "error").ids)
            keys.append(DrawKey(seed, -1, task.id, (0,), agent))
    uniforms = np.stack([key.uniforms(REPLY_TOKENS) for key in keys])
    drawn = draw(
        model,
        prompts,
        uniforms,
        SamplingConfig(max_new_tokens=REPLY_TOKENS),
        stop_ids=form.stop_ids,
        banned=form.banned,
        pad_id=form.tokenizer.pad_token_id,
    )
    replies = iter(drawn)
    scores, solved = [], []
    for task in tasks:
        env.reset(seed=0, options={"task": task})
        said = {agent: form.decode(next(replies).ids) for agent in env.possible_agents}
        *_, infos = env.step(said)
        info = infos[env.possible_agents[0]]
        scores.append(info["score"])
        solved.append(info["success"])
    return float(np.mean(scores)), float(np.mean(solved)), drawn


def test_the_folder_is_complete_and_small():
    folder = loading.BUILTIN_FOLDER
    names = {file.name for file in folder.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
    } <= names
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 8_000_000


def test_the_vocabulary_is_frozen(tokenizer):
    assert vocabulary.fingerprint(tokenizer) == FINGERPRINT


def test_the_model_has_one_row_per_token_and_about_half_a_million_parameters(model, tokenizer):
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    assert 300_000 <= model.num_parameters() <= 1_000_000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("env_id", SPEAKS)
def test_every_text_of_the_mini_and_debug_environments_comes_back(env_id, kind, form):
    for text in {*texts(env_id, kind)[0], *texts(env_id, kind)[1]}:
        assert form.decode(form.encode(text)) == text


@pytest.mark.parametrize("env_id", SPEAKS)
def test_scripted_replies_fit_the_longest_reply(env_id, form):
    replies = {*texts(env_id, "novice")[1], *texts(env_id, "oracle")[1]}
    assert max(len(form.encode(reply)) + 1 for reply in replies) <= REPLY_TOKENS


@pytest.mark.parametrize("env_id", SPEAKS)
def test_words_of_the_mini_and_debug_environments_are_one_token_each_wherever_they_stand(env_id, form):
    for word in vocabulary.env_words(spec(env_id)):
        if word.strip() and word[0].isalnum():
            assert len(form.encode(word)) == 1, word
            assert form.encode(f"so {word}")[-1:] == form.encode(word) == form.encode(f"so\n{word}")[-1:]


@pytest.mark.parametrize("env_id", ["debug/echo-v0", "debug/handshake-v0"])
def test_a_letter_shown_is_the_token_of_the_letter_said(env_id, form):
    env = make(env_id, num_agents=4)
    seen, _ = env.reset(seed=3)
    for agent in env.agents:
        said = form.encode(env.scripted("oracle", agent, np.random.default_rng(0)))
        assert len(said) == 1
        assert said[0] in form.encode(seen[agent])


def test_labels_and_scores_of_histories_cost_few_tokens(form):
    assert len(form.encode(label("summary_0", 0, "sees"))) == 4
    assert len(form.encode("turn 2 of 4 score 1.23 of 3.00\n")) <= 11


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("/setblock 1 2 0 oak_planks", 5),
        ("/fill 0 0 0 1 2 5 stone_bricks", 8),
        ("a1 planks b2 stone", 4),
        ("def aux(x):\n    return x * 2", 11),
    ],
)
def test_the_vocabulary_has_room_for_blocks_and_code(text, tokens, form):
    assert len(form.encode(text)) == tokens


@settings(max_examples=400, deadline=None)
@given(
    st.text()
    | st.text(alphabet=" \n\t\rab<>/_0x41s@▁é.")
    | st.lists(st.sampled_from([*vocabulary.SPECIAL, "<0x41>", "<reserved_1>", " ", "\n", " the"])).map(
        "".join
    )
)
def test_any_text_comes_back_and_none_makes_a_special_token(text):
    form = shipped_form()
    ids = form.encode(text)
    assert form.decode(ids) == text
    assert not {form.tokenizer.convert_ids_to_tokens(i) for i in ids} & {
        *vocabulary.SPECIAL,
        *vocabulary.RESERVED,
    }


def test_the_chat_template_only_adds_to_what_was_there(tokenizer, form):
    def render(*texts, ask=True):
        messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
        return tokenizer.apply_chat_template(messages, add_generation_prompt=ask, return_dict=False)

    memory = History().observe("Say the letter: K", form, 1000, "error")
    assert list(memory.ids) == render("Say the letter: K")
    memory = memory.reply([*form.encode("K"), tokenizer.eos_token_id]).observe(
        "Try again.", form, 1000, "error"
    )
    assert list(memory.ids) == render("Say the letter: K", "K", "Try again.")


@pytest.mark.parametrize("env_id", ["debug/echo-v0", "debug/handshake-v0"])
def test_the_warm_start_seldom_solves_the_debug_environments(env_id, model, form):
    env = make(env_id, split="test")
    _, success, drawn = play(model, form, env, [env.tasks[i] for i in range(400)], seed=1)
    assert 0.1 <= success <= 0.3
    assert np.mean([len(reply.ids) == 2 and not reply.cut for reply in drawn]) > 0.98


def test_the_warm_start_echoes_half_of_the_letters_it_is_shown(model, form):
    env = make("debug/echo-v0", num_agents=1, split="test")
    score, *_ = play(model, form, env, [env.tasks[i] for i in range(400)], seed=2)
    assert 0.4 <= score <= 0.6


def test_the_warm_start_writes_about_as_well_as_the_novice(model, form):
    env = make("writing/tldr-mini-v0", split="test")
    tasks = list(env.tasks)
    score, success, drawn = play(model, form, env, tasks, seed=3)
    assert 0.7 <= score <= 1.3
    assert success <= 0.1
    assert not any(reply.cut for reply in drawn)
    said = [form.decode(reply.ids).split() for reply in drawn]
    posts = [set(task.public["post"].replace(".", "").split()) for task in tasks for _ in env.possible_agents]
    copied = [word in post for words, post in zip(said, posts, strict=True) for word in words]
    assert np.mean(copied) > 0.6  # it reads the post; a quarter of the words would be there by chance


@pytest.mark.slow
def test_a_rebuild_is_equal_bit_by_bit(tmp_path):
    command = [sys.executable, "-m", "collm_agents.models.warmstart", "--no-report", "--out", str(tmp_path)]
    subprocess.run(command, check=True)
    for name in ("model.safetensors", "tokenizer.json", "config.json", "tokenizer_config.json"):
        assert filecmp.cmp(tmp_path / name, loading.BUILTIN_FOLDER / name, shallow=False), name


@pytest.mark.parametrize(
    ("env_id", "low", "high"),
    [
        ("coding/compose-mini-v0", 1.4, 2.5),
        ("games/strbuild-mini-v0", 0.3, 1.2),
        ("games/housebuild-mini-v0", 0.6, 1.3),
    ],
)
def test_the_warm_start_speaks_code_and_blocks_badly(env_id, low, high, model, form):
    env = make(env_id, num_turns=1, split="test")
    score, success, drawn = play(model, form, env, [env.tasks[i] for i in range(96)], seed=4)
    assert low <= score <= high
    assert success <= 0.35
    assert np.mean([reply.cut for reply in drawn]) < 0.02


def test_another_size_is_a_model_of_the_same_words(tmp_path, form):
    rebuild(tmp_path, Plan(steps=1, rows=2, histories=1), Size(32, 48, 2, 4, 0.08, 1e-3, 1))
    model = loading.load_model(f"builtin:{tmp_path}", torch.float32, "cpu")
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (32, 2)
    assert (tmp_path / "tokenizer.json").read_bytes() == (
        loading.BUILTIN_FOLDER / "tokenizer.json"
    ).read_bytes()
    env = make("debug/echo-v0", num_turns=1, split="test")
    *_, drawn = play(model, form, env, [env.tasks[0]], seed=1)
    assert len(drawn) == len(env.possible_agents)


def test_the_medium_size_has_26_million_parameters(form):
    with torch.device("meta"):
        model = build_model(form.tokenizer, SIZES["medium"])
    assert 20e6 < sum(p.numel() for p in model.parameters()) < 60e6
