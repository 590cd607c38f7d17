"""What a user may get wrong, in one table: each case is one clear line with place and remedy, and exit code 2."""

import os
import sys
import time
from dataclasses import dataclass

import broken_things
import pytest
from cli_process import REPO, collm, python

from collm_agents.cli import main


@dataclass(frozen=True)
class Case:
    """A command line and what its one line of error has to say: the place, then what would do."""

    words: str
    says: tuple[str, ...]


def case(words, *says):
    return pytest.param(Case(words, says), id=words.replace("/", "."))


TLDR = "play writing/tldr-v0 split=all source="
MC = "train debug/echo-v0 algorithm=mc joint_samples=8 "
MODEL = MC + "model="

DATA = [
    case(
        TLDR + "nocolumn.jsonl",
        "nocolumn.jsonl, row 1: needs the fields {prompt} or {source} or {post}; found {text}",
    ),
    case(
        "score writing/tldr-v0 split=all --reply summary_0=a --reply detail_1=b --task 1 source=nothing.jsonl",
        "nothing.jsonl, row 2, field 'prompt': missing",
    ),
    case(
        "score writing/tldr-v0 split=all --reply summary_0=a --reply detail_1=b --task 1 source=spaces.jsonl",
        "spaces.jsonl, row 2, field 'prompt': empty",
    ),
    case(TLDR + "empty.jsonl", "empty.jsonl: no rows"),
    case(TLDR + "blank.jsonl", "blank.jsonl: no rows"),
    case(TLDR + "latin.jsonl", "latin.jsonl: not UTF-8 text", "save it as UTF-8"),
    case(TLDR + "utf16.jsonl", "utf16.jsonl: not UTF-8 text", "save it as UTF-8"),
    case(TLDR + "broken.jsonl", "broken.jsonl, row 2 (line 2): not JSON"),
    case(TLDR + "lists.jsonl", "lists.jsonl, row 1: expected an object with named fields, found list"),
    case(TLDR + "deep.jsonl", "deep.jsonl, row 1 (line 1): not JSON"),
    case(TLDR + "object.json", "object.json: expected a list of rows, found dict"),
    case(TLDR + "half.json", "half.json: not JSON"),
    case(TLDR + "cells.csv", "cells.csv, row 2: has not as many cells as the header"),
    case(TLDR + "open.csv", "open.csv, row 1: unexpected end of data (.jsonl holds long and odd texts"),
    case(TLDR + "header.csv", "header.csv: no rows"),
    case(
        TLDR + "table.xlsx",
        "table.xlsx: unknown kind of file; known: .jsonl, .json, .csv (each also .gz), .parquet",
    ),
    case(
        TLDR + "nosuffix",
        "nosuffix: unknown kind of file; known: .jsonl, .json, .csv (each also .gz), .parquet",
    ),
    case(TLDR + "not.parquet", "not.parquet"),
    case(
        TLDR + "plain.jsonl.gz",
        "plain.jsonl.gz: cannot be read as gzip (Not a gzipped file",
        "copy it again, or take .gz off its name",
    ),
    case(
        TLDR + "cut.jsonl.gz",
        "cut.jsonl.gz: cannot be read as gzip (Compressed file ended",
        "copy it again, or take .gz off its name",
    ),
    case(TLDR + "picture.jsonl.gz", "picture.jsonl.gz: not UTF-8 text", "save it as UTF-8"),
    case(TLDR + "bomb.jsonl.gz", "bomb.jsonl.gz: line 1 is longer than 64 MB; a row is one line: break it"),
    case(TLDR + "endless.jsonl", "endless.jsonl: line 1 is longer than 64 MB; a row is one line: break it"),
    case(
        TLDR + "endless.json",
        "endless.json: larger than 256 MB, too much for one document; write .jsonl, a row a line",
    ),
    case(TLDR + "endless.csv", "endless.csv: line 1 is longer than 64 MB; a row is one line: break it"),
    case(TLDR + "folder", "no such file: folder (for a hub data set write hub:owner/name"),
    case(TLDR + "absent.jsonl", "no such file: absent.jsonl (for a hub data set write hub:owner/name"),
    case(
        "play writing/tldr-v0 source=one.jsonl",
        "one.jsonl: one row cannot be divided into train and test; use split='all'",
    ),
    case(
        "play writing/tldr-v0 source=good.jsonl split=dev",
        "one file has the splits all, train and test, not 'dev'",
    ),
    case(
        "play writing/tldr-v0 source=good.jsonl split=train[9:]",
        "good.jsonl: split 'train[9:]' is empty; 'train' has 3 rows",
    ),
    case(
        "play writing/tldr-v0 source=good.jsonl split=train[1]",
        "split 'train[1]' is not a name with an optional slice, such as train[:1000]",
    ),
    case(
        "play writing/tldr-v0 source=train=good.jsonl split=test",
        "source 'train=good.jsonl' names no file for the split 'test'; known: train",
    ),
    case(
        "play writing/tldr-v0 source=train=good.jsonl,test=",
        "source 'train=good.jsonl,test=' does not read split=file,split=file",
    ),
    case(
        "train writing/tldr-v0 source=number.jsonl split=all eval.split=all",
        "number.jsonl, row 2, field 'prompt': expected str, found int",
    ),
    case(
        "train writing/tldr-v0 source=good.jsonl eval.source=absent.jsonl",
        "no such file: absent.jsonl (for a hub data set write hub:owner/name",
    ),
    case(
        "score debug/echo-v0 --reply agent_0=@mute.txt --reply agent_1=a",
        "--reply agent_0: cannot read mute.txt",
    ),
    case(
        "score debug/echo-v0 --reply agent_0=@folder --reply agent_1=a", "--reply agent_0: cannot read folder"
    ),
]
SETTINGS = [
    case(MC + "--config broken.toml", "broken.toml: cannot be read as TOML"),
    case(MC + "--config twice.toml", "twice.toml: cannot be read as TOML"),
    case(
        MC + "--config key.toml",
        "key.toml: unknown setting 'learner.learning_rate'; `collm train --help` lists all",
    ),
    case(
        MC + "--config section.toml",
        "section.toml: unknown setting 'lerner.lr'; did you mean 'learner.lr' or 'learner.lr_end'?",
    ),
    case(MC + "--config type.toml", "type.toml: run.seed must be a whole number, not 'one'"),
    case(MC + "--config range.toml", "range.toml: team.sampling.top_p must be at most 1, not 2.0"),
    case(
        MC + "--config scalar.toml", "scalar.toml: 'team' is a section, not a setting; write team.key=value"
    ),
    case(
        "train debug/echo-v0 --config budgets.toml",
        "budgets.toml: give run.joint_samples or run.tokens as the budget, not both",
    ),
    case(
        MC + "--config extends.toml",
        "extends.toml: extends: unknown preset 'no/such'",
        "`collm train --help` lists them, and a TOML file goes by its path",
    ),
    case(
        MC + "--config extends-number.toml",
        "extends-number.toml: extends must name one preset or file, not 3",
    ),
    case(
        MC + "--config loop.toml", "loop.toml: extends='loop.toml' leads back to a file that extends this one"
    ),
    case(
        MC + "--config agent.toml",
        "team.agents.writer_9: the environment has no such agent; known: agent_0, agent_1",
    ),
    case(
        "train --config noenv.toml",
        "noenv.toml: no environment given; name one, such as writing/tldr-mini-v0 (`collm envs` lists them",
    ),
    case(
        "train --config env.toml",
        "env.toml: unknown environment 'debug/ecko-v0'",
        "did you mean 'debug/echo-v0' or 'debug/echo-sparse-v0'?",
    ),
    case(
        "train --config number-env.toml",
        "number-env.toml: an environment id is a string such as 'debug/echo-v0', not 3",
    ),
    case(
        MC + "--config date.toml", "date.toml: run.seed must be a whole number, not datetime.date(2024, 1, 1"
    ),
    case(MC + "--config latin.toml", "latin.toml: cannot be read as TOML"),
    case(MC + "--config huge.toml", "huge.toml: 2048 MB are no settings; name a TOML file"),
    case(MC + "--config folder", "folder: cannot be read as TOML"),
    case(
        MC + "--preset folder",
        "unknown preset 'folder'; `collm train --help` lists them, and a TOML file goes by its path",
    ),
    case(MC + "lr=fast", "command line: learner.lr must be a number, not 'fast'"),
    case(MC + "lr=inf", "command line: learner.lr must be finite, not inf"),
    case(MC + "lr=1e999", "command line: learner.lr must be finite, not inf"),
    case(MC + "seed=1.5", "command line: run.seed must be a whole number, not 1.5"),
    case(MC + "threads=100000", "command line: run.threads must be at most 1024, not 100000"),
    case(MC + "clip=-0.1", "command line: learner.clip must be at least 0, not -0.1"),
    case(MC + "rollout.samples=0", "command line: rollout.samples must be at least 1, not 0"),
    case(
        MC + "rollout.samples=1",
        "mc with 'mean' compares siblings",
        "rollout.samples (or the first number of rollout.branching) must be at least 2",
    ),
    case(MC + "branching=[2,2]", "rollout.branching has 2 numbers for 1 turns"),
    case(
        MC + "branching=[2.5]",
        "command line: rollout.branching='[2.5]' is not a choice; known: auto, paths, tree",
    ),
    case(
        MC + "branching=[]", "command line: rollout.branching as a list needs one whole number >= 1 per turn"
    ),
    case(MC + "tuning=none", "command line: team.tuning='none' is not a choice; known: auto, full, lora"),
    case(MC + "team.lora.target_modules=nothing tuning=lora", "team.lora.target_modules='nothing'"),
    case(
        MC + "sampling=1",
        "command line: 'team.sampling' is a section, not a setting; write team.sampling.key=value",
    ),
    case(
        MC + "max_context=10",
        "a context of 10 tokens leaves no room beside max_new_tokens=40 (agent agent_0)",
        "raise team.max_context, or lower team.sampling.max_new_tokens",
    ),
    case(MC + "device=cuda:77", "run.device='cuda:77': there are 0 CUDA devices; try auto or cpu"),
    case(MC + "device=gpu", "run.device='gpu' is not a device; try auto, cpu, cuda or cuda:0"),
    case(
        MC + "joint_samples=0",
        "the run has no budget: run.joint_samples, run.task_passes, run.tokens, run.wall_s are all 0",
    ),
    case(
        MC + "tokens=5 wall_s=3",
        "command line: give run.joint_samples or run.tokens or run.wall_s as the budget, not both",
    ),
    case(MC + "out=run", "run.out='run' is not an empty folder; to go on with it use --resume"),
    case(MC + "out=good.jsonl", "run.out='good.jsonl' is not an empty folder; to go on with it use --resume"),
    case(MC + "out=good.jsonl/run", "run.out='good.jsonl/run'", "good.jsonl is a file; name another folder"),
    case(
        MC + "team.agents.agent_0.script=novice team.agents.agent_1.script=oracle",
        "nobody learns: every agent is scripted or has trainable=false",
    ),
    case(
        MC + "team.agents.agent_0.script=clever",
        "command line: team.agents.agent_0.script='clever' is not a choice; known: novice, oracle, random",
    ),
    case(MC + "rewards.ecoed=1", "unknown reward component 'ecoed'; did you mean 'echoed'?"),
    case(MC + "rewards.echoed=-1", "weight of reward component 'echoed' must be a number >= 0, not -1"),
    case(MC + "rewards=7", "rewards must give a weight by component name, not 7"),
    case(MC + "success_at=2", "success_at must lie in (0, 1], not 2.0"),
    case(MC + "runner.workers=-1", "command line: runner.workers must be at least 0, not -1"),
    case(
        MC + "track.project",
        "one environment is wanted, not debug/echo-v0 and track.project; settings read key=value",
    ),
    case(
        MC + "eval.monitor=loss",
        "command line: eval.monitor='loss' is not a choice; known: return, score, success",
    ),
]
MODELS = [
    case(MODEL + "./absent", "model folder './absent' does not exist"),
    case(MODEL + "./good.jsonl", "model folder './good.jsonl' is a file; a model is a folder"),
    case(MODEL + "./folder", "model folder './folder' holds no model: there is no config.json in it"),
    case(MODEL + "./noconfig", "model folder './noconfig' holds no model: there is no config.json in it"),
    case(
        MODEL + "./notokenizer",
        "model './notokenizer': has no tokenizer, or an empty one; tokenizer.json is wanted",
    ),
    case(MODEL + "./noweights", "model './noweights': cannot load a causal language model in safetensors"),
    case(
        MODEL + "./pickled",
        "model './pickled': cannot load a causal language model in safetensors",
        "it holds pickled weights, which may run code: convert them to safetensors",
    ),
    case(
        MODEL + "./cut",
        "model './cut': cannot load a causal language model in safetensors",
        "the file is damaged: copy or download it again",
    ),
    case(
        MODEL + "./garbage",
        "model './garbage': cannot load a causal language model in safetensors",
        "the file is damaged: copy or download it again",
    ),
    case(
        MODEL + "./noweight",
        "model './noweight': cannot load a causal language model in safetensors",
        "the file is damaged: copy or download it again",
    ),
    case(MODEL + "./badconfig", "model './badconfig': cannot load a model configuration"),
    case(MODEL + "./unknown", "model './unknown': cannot load a model configuration"),
    case(
        MODEL + "./encoder",
        "model './encoder': its files lack bert.embeddings.LayerNorm.bias and 43 more",
        "which a BertLMHeadModel has; copy the model again, or mend its config.json",
    ),
    case(
        MODEL + "./wide",
        "model './wide': lm_head.weight has another shape than its config.json says",
        "the two are not of one model",
    ),
    case(MODEL + "./deep", "model './deep': cannot load a model configuration"),
    case(
        MODEL + "./shallow",
        "model './shallow': its files lack model.layers.1.input_layernorm.weight and 10 more",
        "which a Qwen3ForCausalLM has; copy the model again, or mend its config.json",
    ),
    case(MODEL + "./vocabulary", "model './vocabulary': its tokenizer has 269 tokens, the model only 264"),
    case(
        MODEL + "./badtokenizer",
        "model './badtokenizer': cannot load a tokenizer",
        "look at its tokenizer.json",
    ),
    case(
        MODEL + "./adapter",
        "model folder './adapter' holds an adapter, not a whole model",
        "name its base as the model, and the folder as team.agents.NAME.weights",
    ),
    case(MODEL + "builtin:./absent", "model folder '", "absent' does not exist"),
    case(
        MODEL + "./qwen3 tuning=full team.shared=true team.agents.agent_1.model=./llama",
        "team.shared=true: agents that share weights have one model, tuning and starting point",
        "and learn together or not at all",
    ),
    case(
        MODEL + "./qwen3 tuning=full team.agents.agent_1.weights=./llama",
        "llama: does not fit './qwen3'",
        "lm_head.weight is missing, unknown or of another shape",
    ),
    case(
        MODEL + "./qwen3 tuning=lora team.agents.agent_1.weights=./qwen3",
        "qwen3: there are no weights of an adapter in it (tuning='lora'",
    ),
    case(
        MODEL + "./qwen3 team.agents.agent_0.weights=./absent",
        "team.agents.agent_0.weights: there is no folder ./absent",
    ),
    case(
        MC + "team.agents.agent_0.weights=./folder",
        "folder: there are no weights of a whole model in it (tuning='full'",
    ),
    case(
        MC + "team.agents.agent_0.weights=run-cut/checkpoints/000000008/agents/agent_0",
        "run-cut/checkpoints/000000008/agents/agent_0/model.safetensors: cannot be read",
        "it is damaged: take another copy",
    ),
    case(
        "train debug/echo-v0 algorithm=collm-cc critic.model=./absent",
        "model folder './absent' does not exist",
    ),
    case(
        "train debug/echo-v0 algorithm=collm-cc critic.model=./cut",
        "model './cut': cannot load a causal language model in safetensors",
        "the file is damaged: copy or download it again",
    ),
]
ENVIRONMENTS = [
    case(
        "play debug/echo",
        "unknown environment 'debug/echo'; did you mean 'debug/echo-v0' or 'debug/echo-sparse-v0'?",
    ),
    case(
        "play Debug/Echo-v0",
        "unknown environment 'Debug/Echo-v0'; did you mean 'debug/echo-v0' or 'debug/echo-sparse-v0'?",
    ),
    case(
        "play debug/ecko-v0",
        "unknown environment 'debug/ecko-v0'; did you mean 'debug/echo-v0' or 'debug/echo-sparse-v0'?",
    ),
    case(
        "play drill_raises:Env",
        "environment 'drill_raises:Env': importing drill_raises failed: RuntimeError: no licence",
        "its traceback shows where (--debug",
    ),
    case(
        "play drill_exits:Env",
        "environment 'drill_exits:Env': importing drill_exits failed: SystemExit: 3",
        "its traceback shows where (--debug",
    ),
    case(
        "play drill_interrupts:Env",
        "environment 'drill_interrupts:Env': importing drill_interrupts failed: Odd: odd",
        "its traceback shows where (--debug",
    ),
    case(
        "play drill_syntax:Env",
        "environment 'drill_syntax:Env': importing drill_syntax failed: SyntaxError",
        "invalid syntax (drill_syntax.py, line 1); its traceback shows where (--debug",
    ),
    case(
        "play drill_latin:Env",
        "environment 'drill_latin:Env': importing drill_latin failed: SyntaxError",
        "its traceback shows where (--debug",
    ),
    case(
        "play drill_needs:Env",
        "environment 'drill_needs:Env': importing drill_needs failed",
        "No module named 'surely_not_installed'; its traceback shows where (--debug",
    ),
    case("play drill_empty:Env", "drill_empty has no CollabEnv class 'Env'; it holds none at all"),
    case("play drill_other:Env", "drill_other has no CollabEnv class 'Env'; it holds none at all"),
    case(
        "play drill_init:Env",
        "environment 'drill_init:Env': building it failed: RuntimeError: no data",
        "its traceback shows where (--debug",
    ),
    case("play drill_roles:Env", "agent name 'Writer' is not a role with an index, such as writer_0"),
    case(
        "play drill_absent:Env", "environment 'drill_absent:Env': there is no module 'drill_absent' to import"
    ),
    case("play :Env", "environment ':Env' does not read module:Class"),
    case("play drill_empty:", "environment 'drill_empty:' does not read module:Class"),
    case(
        "play ./drill_empty.py",
        "unknown environment './drill_empty.py'; a file goes by module:Class, such as drill_empty:DrillEmpty",
    ),
    case(
        "train drill_raises:Env",
        "environment 'drill_raises:Env': importing drill_raises failed: RuntimeError: no licence",
        "its traceback shows where (--debug",
    ),
    case(
        "check drill_raises:Env",
        "environment 'drill_raises:Env': importing drill_raises failed: RuntimeError: no licence",
        "its traceback shows where (--debug",
    ),
    case(
        "envs drill_raises:Env",
        "environment 'drill_raises:Env': importing drill_raises failed: RuntimeError: no licence",
        "its traceback shows where (--debug",
    ),
    case(
        "eval drill_raises:Env --agents oracle",
        "environment 'drill_raises:Env': importing drill_raises failed: RuntimeError: no licence",
        "its traceback shows where (--debug",
    ),
    case("envs nowhere/", "unknown environment 'nowhere/'; `collm envs` lists them"),
    case(
        "new task good.jsonl",
        "'good.jsonl' is no Python file; a path such as my_tasks/negotiation.py is wanted",
    ),
    case("new task drill_empty.py", "drill_empty.py exists; nothing was written"),
    case(
        "new task folder/1bad.py",
        "'folder/1bad.py': '1bad' cannot name a module; use small letters, digits and _, from a letter on",
    ),
]
RUNS = [
    case("eval absent", "no run in absent: there is no absent/config.toml"),
    case("eval good.jsonl", "no run in good.jsonl: there is no good.jsonl/config.toml"),
    case("eval folder", "no run in folder: there is no folder/config.toml"),
    case("eval run-noconfig", "no run in run-noconfig: there is no run-noconfig/config.toml"),
    case(
        "eval run-emptyconfig",
        "run-emptyconfig/config.toml: no environment given",
        "name one, such as writing/tldr-mini-v0 (`collm envs` lists them",
    ),
    case("eval run-badconfig", "run-badconfig/config.toml: cannot be read as TOML"),
    case(
        "eval run-oldconfig",
        "run-oldconfig/config.toml: unknown setting 'learner.momentum'; `collm train --help` lists all",
    ),
    case(
        "eval run-otherenv",
        "run-otherenv/config.toml: unknown environment 'gone/echo-v0'; did you mean 'debug/echo-v0'?",
    ),
    case(
        "eval run-nocheckpoint",
        "run-nocheckpoint holds no checkpoint: it ended before its first one; begin it anew",
    ),
    case(
        "eval run-noagent",
        "run-noagent/checkpoints/000000008 is damaged: agents/agent_1/",
        "take another checkpoint, or another copy",
    ),
    case(
        "eval run-cut",
        "run-cut/checkpoints/000000008 is damaged",
        "agents/agent_0/model.safetensors is not what was written (SHA-256)",
        "take another checkpoint, or another copy",
    ),
    case(
        "eval run-tampered",
        "run-tampered/checkpoints/000000008 is damaged",
        "agents/agent_0/model.safetensors is not what was written (SHA-256)",
        "take another checkpoint, or another copy",
    ),
    case("eval run --checkpoint 7", "run has no checkpoint at 7 joint samples; it has 0, 8"),
    case("eval run --checkpoint best", "run keeps no best checkpoint; train with checkpoint.best=true"),
    case(
        "eval run --checkpoint first",
        "argument --checkpoint: joint samples or best, not 'first' (see collm eval --help",
    ),
    case("eval run tasks=-1", "command line: eval.final_tasks must be at least 0, not -1"),
    case(
        "eval run env.num_turns=0",
        "command line: 'env.num_turns=0' sets nothing of [eval]",
        "known: final_episodes, final_tasks, greedy, samples, seed, source, split, tasks",
    ),
    case("train --resume folder", "no run in folder: there is no folder/config.toml"),
    case("train --resume run-badconfig", "run-badconfig/config.toml: cannot be read as TOML"),
    case(
        "train --resume run-nocheckpoint",
        "run-nocheckpoint holds no checkpoint: it ended before its first one; begin it anew",
    ),
    case(
        "train --resume run-noagent joint_samples=16",
        "run-noagent/checkpoints/000000008 is damaged: agents/agent_1/",
        "take another checkpoint, or another copy",
    ),
    case(
        "train --resume run-cut joint_samples=16",
        "run-cut/checkpoints/000000008 is damaged",
        "agents/agent_0/model.safetensors is not what was written (SHA-256)",
        "take another checkpoint, or another copy",
    ),
    case(
        "train --resume run-learner joint_samples=16",
        "run-learner/checkpoints/000000008 is damaged: learner.safetensors is not what was written (SHA-256)",
        "take another checkpoint, or another copy",
    ),
    case(
        "train --resume run-evil joint_samples=16",
        "run-evil/checkpoints/000000008 is damaged: learner.safetensors is not what was written (SHA-256)",
        "take another checkpoint, or another copy",
    ),
    case(
        "train --resume run-nolearner joint_samples=16",
        "run-nolearner/checkpoints/000000008 is damaged: learner.safetensors is missing",
        "take another checkpoint, or another copy",
    ),
    case(
        "train --resume run-progress joint_samples=16",
        "run-progress/checkpoints/000000008 is damaged: progress.json is not what was written (SHA-256)",
        "take another checkpoint, or another copy",
    ),
    case(
        "train --resume run-tampered joint_samples=16",
        "run-tampered/checkpoints/000000008 is damaged",
        "agents/agent_0/model.safetensors is not what was written (SHA-256)",
        "take another checkpoint, or another copy",
    ),
    case(
        "train --resume run-metrics joint_samples=16",
        "run-metrics/metrics.jsonl, line 1: not JSON; take the line out",
    ),
    case(
        "train --resume run-evaluations joint_samples=16",
        "run-evaluations/evaluations.json: not JSON",
        "put back a copy of it",
    ),
    case("train --resume run team.lora.rank=0", "command line: team.lora.rank must be at least 1, not 0"),
    case(
        "train --resume run model=./qwen3 tuning=full joint_samples=16",
        "run/checkpoints/000000008/agents/agent_0: does not fit './qwen3'",
        "lm_head.weight is missing, unknown or of another shape",
    ),
    case(
        "train --resume run learner.optimizer=adafactor joint_samples=16",
        "learner.optimizer='adafactor': the checkpoint's moments are adamw's; leave it so",
    ),
    case(
        "train --resume run algorithm=collm-cc joint_samples=16",
        "run/checkpoints/000000008/critics/critic: there are no weights of a whole model in it (tuning='full'",
    ),
    case(
        "train --resume run num_agents=3 joint_samples=16",
        "run/checkpoints/000000008: no weights of 'agent_2'",
    ),
    case("view absent", "absent is not a run: it has no config.toml"),
    case(
        "view run-metrics --out page.html", "run-metrics/metrics.jsonl, line 1: not JSON; take the line out"
    ),
    case(
        "view run-badconfig --out page.html",
        "run-badconfig/config.toml: Expected ']' at the end of a table declaration (at line 1, column 9",
    ),
    case(
        "view run-oddsamples --out page.html",
        "run-oddsamples/samples.jsonl, conversation 1: 'text' is missing; take the line out",
    ),
    case("view run --out folder", "--out folder: not a file in a folder that exists"),
    case("view run --out nowhere/page.html", "--out nowhere/page.html: not a file in a folder that exists"),
    case("view run --port 99999999 --serve", "--port 99999999 cannot be taken"),
    case("crossplay run", "cross-play wants at least two runs; `collm eval` evaluates one"),
    case("crossplay run absent", "no run in absent: there is no absent/config.toml"),
    case("crossplay run run", "run is named twice; a run plays with itself in any case"),
    case(
        "crossplay run shake",
        "run and shake cannot play together",
        "env.id is 'debug/echo-v0' in the one and 'debug/handshake-v0' in the other",
    ),
    case(
        "crossplay run adapters",
        "run and adapters cannot play together",
        "team.sampling.max_new_tokens is 40 in the one and 256 in the other",
        "team.sampling.max_new_tokens=VALUE settles it for all runs",
    ),
    case(
        "crossplay run run-cut tasks=1",
        "run-cut/checkpoints/000000008 is damaged",
        "agents/agent_0/model.safetensors is not what was written (SHA-256)",
        "take another checkpoint, or another copy",
    ),
    case(
        "crossplay run run-nocheckpoint",
        "run-nocheckpoint holds no checkpoint: it ended before its first one; begin it anew",
    ),
    case("crossplay run run-badconfig", "run-badconfig/config.toml: cannot be read as TOML"),
    case("crossplay run shake --out folder", "--out folder: is a folder; name a file"),
    case(
        "crossplay run shake lr=1",
        "command line: 'lr=1' sets nothing that runs are evaluated with",
        "`collm crossplay --help` lists what does",
    ),
    case("export agents run", "the following arguments are required: --out (see collm export --help"),
    case("export models run --out here", "argument what: invalid choice: 'models'"),
    case("export agents absent --out here", "absent is not a run: it has no config.toml"),
    case("export agents run --out folder --format jsonl", "--format is for episodes, not for agents"),
    case("export agents run --out good.jsonl", "--out good.jsonl is not an empty folder"),
    case(
        "export agents run-nocheckpoint --out here",
        "run-nocheckpoint holds no checkpoint: it ended before its first one; begin it anew",
    ),
    case(
        "export agents run-noagent --out here",
        "run-noagent/checkpoints/000000008 is damaged: agents/agent_1/",
        "take another checkpoint, or another copy",
    ),
    case(
        "export agents run-cut --out here",
        "run-cut/checkpoints/000000008 is damaged",
        "agents/agent_0/model.safetensors is not what was written (SHA-256)",
        "take another checkpoint, or another copy",
    ),
    case(
        "export episodes run-samples --out here",
        "run-samples/samples.jsonl, line 1: not JSON; take the line out",
    ),
    case(
        "export episodes run-oddsamples --out here",
        "run-oddsamples/samples.jsonl, conversation 1: 'text' is missing; take the line out",
    ),
    case(
        "export metrics run-metrics --out here.csv",
        "run-metrics/metrics.jsonl, line 1: not JSON; take the line out",
    ),
    case(
        "export metrics run-nometrics --out here.csv",
        "run-nometrics has recorded nothing yet: there is no metrics.jsonl",
    ),
    case("export metrics run --out nowhere/here.csv", "--out nowhere/here.csv: its folder does not exist"),
]
AGENTS = [
    case(
        "eval debug/echo-v0 --agents oracel", "--agents: 'oracel' is no kind of agent; did you mean 'oracle'?"
    ),
    case(
        "eval debug/echo-v0 --agents oracle,novice,random", "--agents: 3 kinds for 2 agents (agent_0, agent_1"
    ),
    case("eval debug/echo-v0 --agents agent_0=oracle", "--agents: nobody plays agent_1"),
    case(
        "eval debug/echo-v0 --agents agent_0=oracle,agent_0=novice",
        "--agents: an agent is named twice in 'agent_0=oracle,agent_0=novice'; each has one kind",
    ),
    case(
        "eval debug/echo-v0 --agents agent_9=oracle,agent_1=novice",
        "--agents: there is no agent 'agent_9'; did you mean 'agent_1' or 'agent_0'?",
    ),
    case("eval debug/echo-v0 --agents=", "--agents: '' is no kind of agent; known: novice, oracle, random"),
    case(
        "eval debug/echo-v0 --agents human",
        "--agents: 'human' is no kind of agent; known: novice, oracle, random",
    ),
    case(
        "eval debug/echo-v0 --agents oracle --episodes 0",
        "--episodes must be at least 1 and --seed at least 0",
    ),
    case(
        "eval debug/echo-v0 --agents oracle --seed -1", "--episodes must be at least 1 and --seed at least 0"
    ),
    case("eval debug/echo-v0 --agents oracle --gif nowhere/a.gif", "debug/echo-v0 draws no pictures"),
    case(
        "eval debug/echo-v0 --agents agent_0=ftp://a/v1,agent_1=oracle",
        "--agents agent_0=ftp://a/v1: an address reads http://HOST:PORT/v1, with #MODEL if need be",
    ),
    case(
        "eval debug/echo-v0 --agents agent_0=http://,agent_1=oracle",
        "--agents agent_0=http://: an address reads http://HOST:PORT/v1, with #MODEL if need be",
    ),
    case(
        "eval debug/echo-v0 --agents agent_0=http://u:p@127.0.0.1/v1,agent_1=oracle",
        "--agents agent_0: keys belong into the environment variable COLLM_API_KEY_AGENT_0",
    ),
    case(
        "eval debug/echo-v0 --agents http://127.0.0.1/v1",
        "--agents: 'http://127.0.0.1/v1' does not read NAME=URL for one of agent_0, agent_1",
    ),
    case(
        "eval debug/echo-v0 --agents agent_0=http://127.0.0.1:99999/v1,agent_1=oracle",
        "--agents agent_0=http://127.0.0.1:99999/v1",
        "an address reads http://HOST:PORT/v1, with #MODEL if need be",
    ),
    case(
        "eval debug/echo-v0 lr=1 --agents agent_0=http://127.0.0.1:1/v1,agent_1=oracle",
        "settings of [learner] are about models of this process, and the agents are behind servers",
        "team.sampling is what they are asked with",
    ),
    case(
        "play debug/echo-v0 --agents agent_0=http://127.0.0.1:1/v1",
        "--agents: 'http://127.0.0.1:1/v1' is no kind of agent; known: human, novice, oracle, random",
    ),
    case("eval run --agents clever", "--agents: 'clever' is no kind of agent; known: novice, oracle, random"),
    case(
        "eval run --agents oracle --checkpoint best",
        "--checkpoint is for the trained agents, not for the scripts of --agents",
    ),
]
RESULTS = [
    case("report absent.json", "absent.json: there is no such results file"),
    case("report folder", "folder/results.json: there is no such results file"),
    case(
        "report results-half.json",
        "results-half.json: not JSON: Expecting property name enclosed in double quotes",
        "line 1 column 11 (char 10",
    ),
    case("report results-mute.json", "results-mute.json: not JSON"),
    case("report results-list.json", "results-list.json: a results file holds an object, not list"),
    case(
        "report results-empty.json", "results-empty.json: the results hold no run; `collm bench` makes some"
    ),
    case(
        "report results-flat.json",
        "results-flat.json is no results file: environment → task → algorithm → seed_N is what one holds",
    ),
    case(
        "report results-seed.json",
        "results-seed.json is no results file: environment → task → algorithm → seed_N is what one holds",
        "with base 10: 'first'",
    ),
    case(
        "report results-noend.json",
        "results-noend.json: echo / dense / mc / 0: 'absolute_metrics' is missing",
    ),
    case("report results-step.json", "results-step.json: echo / dense / mc / 0"),
    case("report results-text.json", "results-text.json: echo / dense / mc / 0"),
    case("report results-nobody.json", "results-nobody.json: echo / dense / mc / 0: an empty list"),
    case(
        "report results-nan.json",
        "results-nan.json: echo / dense / mc / 0: score is nan; a run that broke has no place among results",
    ),
    case(
        "report results-about.json",
        "results-about-about.json: not JSON: Expecting property name enclosed in double quotes",
        "line 1 column 2 (char 1",
    ),
    case(
        "report results-aboutlist.json",
        "results-aboutlist-about.json: a results file holds an object, not list",
    ),
    case(
        "report results-aboutruns.json",
        "results-aboutruns-about.json: runs",
        "`collm bench` writes this file",
    ),
    case(
        "report results-aboutkeys.json",
        "results-aboutkeys-about.json: runs: 'task' is missing; `collm bench` writes this file",
    ),
    case(
        "report results-aboutpoints.json",
        "results-aboutpoints-about.json: echo / dense / mc / 1",
        "Point.__init__() got an unexpected keyword argument 'x'",
    ),
    case("report results-good.json --metric scroe", "no run has the metric 'scroe'; did you mean 'score'?"),
    case("report results-good.json --out good.jsonl", "--out good.jsonl is a file, not a folder"),
    case("bench suite-good.toml --out here --from absent.json", "absent.json: there is no such results file"),
    case(
        "bench suite-good.toml --out here --from results-other.json",
        "none of the 1 runs to be taken over is of the suite 'suite-good'",
        "environment, task, algorithm and seed have to be its own",
    ),
    case(
        "bench suite-good.toml --out here --from results-half.json",
        "results-half.json: not JSON: Expecting property name enclosed in double quotes",
        "line 1 column 11 (char 10",
    ),
    case(
        "bench suite-good.toml --out here --from results-list.json",
        "results-list.json: a results file holds an object, not list",
    ),
]
SUITES = [
    case(
        "bench",
        "name one suite, of medium, ",
        "paper, smoke or a TOML file, or --algorithms and --envs",
    ),
    case("bench smok", "no suite 'smok'; did you mean 'smoke'?"),
    case("bench suite-half.toml", "suite-half.toml: cannot be read as TOML"),
    case(
        "bench suite-bare.toml", "suite-bare.toml: budget: give exactly one of joint_samples, tokens, wall_s"
    ),
    case(
        "bench suite-algorithm.toml",
        "suite-algorithm.toml: algorithms.mcc.algorithm: unknown algorithm 'mcc'; did you mean 'mc'?",
    ),
    case(
        "bench suite-env.toml",
        "suite-env.toml: environments[0].env: unknown environment 'debug/ecko-v0'",
        "did you mean 'debug/echo-v0' or 'debug/echo-sparse-v0'?",
    ),
    case("bench suite-key.toml", "suite-key.toml: sedes: there is no such key; did you mean 'seeds'?"),
    case("bench suite-budget.toml", "suite-budget.toml: budget.joint_samples must be greater than 0, not 0"),
    case(
        "bench suite-budgets.toml",
        "suite-budgets.toml: budget: give exactly one of joint_samples, tokens, wall_s",
    ),
    case(
        "bench suite-seeds.toml",
        "suite-seeds.toml: seeds must be how many, up to 10000, or a list of different whole numbers, not [1, 1]",
    ),
    case(
        "bench suite-settings.toml",
        "suite-settings.toml: settings: run.seed is the suite's own to say, under a key of its own",
    ),
    case(
        "bench suite-unknown.toml",
        "suite-unknown.toml: debug/echo-v0 with mc: unknown setting 'lr_'; did you mean 'lr' or 'lr_end'?",
    ),
    case(
        "bench suite-reward.toml",
        "suite-reward.toml: environments[0].reward: 'dens' is not a reward schedule; did you mean 'dense'?",
    ),
    case("bench suite-list.toml", "suite-list.toml: algorithms must be a table, not [1]"),
    case("bench good.jsonl", "good.jsonl: cannot be read as TOML"),
    case(
        "bench smoke suite-good.toml",
        "name one suite, of medium, ",
        "paper, smoke or a TOML file, or --algorithms and --envs",
    ),
    case(
        "bench smoke --seeds 0",
        "command line: seeds must be how many, up to 10000, or a list of different whole numbers, not 0",
    ),
    case(
        "bench smoke --seeds x",
        "command line: seeds must be how many, up to 10000, or a list of different whole numbers, not 'x'",
    ),
    case("bench smoke --processes -1", "--processes must be at least 1, not -1"),
    case("bench smoke --out good.jsonl", "good.jsonl is not a folder"),
    case("bench --algorithms mc", "--algorithms and --envs go together"),
    case(
        "bench --algorithms mcc --envs debug/echo-v0",
        "--algorithms: unknown algorithm 'mcc'; did you mean 'mc'?",
    ),
    case(
        "bench --algorithms mc --envs debug/echo-v0,nope",
        "unknown environment 'nope'; `collm envs` lists them",
    ),
    case("bench smoke tokens=1 wall_s=1", "command line: give one budget, of joint_samples, tokens, wall_s"),
    case(
        "bench smoke model=./absent",
        "smoke: debug/handshake-v0 with mc: model folder './absent' does not exist",
    ),
    case("search", "the following arguments are required: SUITE|key=value (see collm search --help"),
    case(
        "search absent.toml",
        "no suite 'absent.toml'; known: medium, ",
        "paper, smoke",
    ),
    case(
        "search suite-good.toml",
        "suite-good.toml: needs a table [search]; without one it is a suite for `collm bench`",
    ),
    case(
        "search search-bare.toml",
        "search-bare.toml: needs a table [search]; without one it is a suite for `collm bench`",
    ),
    case(
        "search search-suite.toml",
        "search-suite.toml: needs a table [search]; without one it is a suite for `collm bench`",
    ),
    case(
        "search search-key.toml",
        "search-key.toml: needs a table [search]; without one it is a suite for `collm bench`",
    ),
    case("sandbox run", "sandbox run wants a file of programs (.jsonl, .json, .csv"),
    case("sandbox run absent.jsonl", "no such file: absent.jsonl (for a hub data set write hub:owner/name"),
    case("sandbox run noprogram.jsonl", "noprogram.jsonl, row 1, field 'code': a text is wanted"),
    case(
        "sandbox run notests.jsonl",
        "notests.jsonl, row 1, field 'tests': a list of asserts or the source of unittest classes is wanted",
    ),
    case(
        "sandbox run badtests.jsonl --tier castle",
        "tier='castle' is not offered by the sandbox; known: auto, full, no-userns, rlimits, seccomp",
    ),
    case("sandbox run badtests.jsonl --time-limit 0", "--time-limit must be above 0"),
    case("sandbox fix", "argument action: invalid choice: 'fix'"),
]
CASES = [*DATA, *SETTINGS, *MODELS, *ENVIRONMENTS, *RUNS, *AGENTS, *RESULTS, *SUITES]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    broken_things.build(root)
    return root


@pytest.fixture
def inside(world, monkeypatch, capfd):
    """In that folder; what a case imports or puts on the path is forgotten after it."""
    monkeypatch.chdir(world)
    monkeypatch.setattr(sys, "path", [*sys.path])
    capfd.readouterr()
    yield world
    for name in [name for name in sys.modules if name.startswith("drill_")]:
        del sys.modules[name]


def made(root):
    """Every file of the world with when it was written, sparse and broken ones too."""
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if "__pycache__" not in path.parts}


@pytest.mark.parametrize(
    "wrong", [*DATA, *SETTINGS, *MODELS, *ENVIRONMENTS, *RUNS, *AGENTS, *RESULTS, *SUITES]
)
def test_one_line_with_the_place_and_the_remedy(inside, capfd, wrong):
    before = made(inside)
    code = main(wrong.words.split())
    out, err = capfd.readouterr()
    assert (code, out) == (2, ""), err
    assert err.startswith("collm: error: ")
    assert err.count("\n") == 1, err
    assert len(err) < 700
    assert wrong.says
    assert [part for part in wrong.says if part not in err] == [], err
    assert made(inside) == before


@pytest.mark.parametrize(
    "words",
    [
        TLDR + "broken.jsonl",
        MC + "--config broken.toml",
        MODEL + "./cut",
        "play drill_raises:Env",
        "eval run-cut",
        "report results-step.json",
    ],
)
def test_debug_adds_the_traceback(inside, capfd, words):
    assert main([*words.split(), "--debug"]) == 2
    err = capfd.readouterr().err
    assert err.startswith("Traceback (most recent call last)")
    assert err.splitlines()[-1].startswith("collm: error: ")


def test_endless_files_take_neither_time_nor_memory(inside):
    """In a process of its own, whose memory can be limited: 1 GB beyond what the program itself needs."""
    code = (
        "import resource, sys; from collm_agents.cli import main; import collm_agents.benchmark, pyarrow.parquet; "
        "room = int(open('/proc/self/statm').read().split()[0]) * 4096 + 2**30; "
        "resource.setrlimit(resource.RLIMIT_AS, (room, room)); "
        "sys.exit(max(main(words.split()) for words in sys.argv[1:]) - 2)"
    )
    names = ("endless.jsonl", "endless.json", "endless.csv", "bomb.jsonl.gz")
    words = [TLDR + name for name in names] + [MC + "--config huge.toml"]
    started = time.monotonic()
    done = python("-c", code, *words, cwd=inside)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("collm: error: ") == len(words)
    assert time.monotonic() - started < 60


def test_a_published_environment_that_cannot_be_imported_breaks_no_other(inside):
    done = collm("play", "plugin/raises-v0", cwd=inside, env={"PYTHONPATH": path_with(inside)})
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert "importing drill_raises failed: RuntimeError: no licence" in last
    assert "Traceback" not in done.stderr
    done = collm("envs", "plugin/", cwd=inside, env={"PYTHONPATH": path_with(inside)})
    assert (done.returncode, done.stdout.split()[0]) == (0, "plugin/raises-v0")
    assert "Plugin/BAD" in done.stderr  # said once, and left out


def path_with(folder):
    return os.pathsep.join([str(folder), str(REPO)])
