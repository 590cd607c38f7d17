"""Collaborative text tasks as PettingZoo parallel environments.

Several agents act at once on a shared task, each seeing only its own prompt, and are paid one joint reward.
`make("writing/tldr-v0")` builds one; `@register` adds one; any trainer that speaks PettingZoo can use them.
Needs numpy, gymnasium and pettingzoo; never torch.
"""

from collm_envs import coding, debug, games, writing  # noqa: F401  # importing a domain registers its environments
from collm_envs.checker import CheckError, CheckReport, check_env
from collm_envs.env import CollabEnv
from collm_envs.errors import (
    CollmError,
    DataError,
    EnvFault,
    InputError,
    SettingError,
    UnknownEnvError,
)
from collm_envs.partners import Partner
from collm_envs.registry import EnvSpec, list_envs, load_plugins, make, make_vec, register, spec
from collm_envs.reward import RewardModel, Score, component
from collm_envs.reward_probe import ProbeReport, probe_rewards
from collm_envs.scripted import play_scripted
from collm_envs.single_agent import SingleAgentEnv
from collm_envs.spaces import UnicodeText
from collm_envs.task import RowFormat, Task, TaskSource
from collm_envs.vector import Step, VecEnv
from collm_envs.views import TextDict, to_aec

load_plugins()

__all__ = [
    "CheckError",
    "CheckReport",
    "CollabEnv",
    "CollmError",
    "DataError",
    "EnvFault",
    "EnvSpec",
    "InputError",
    "Partner",
    "ProbeReport",
    "RewardModel",
    "RowFormat",
    "Score",
    "SettingError",
    "SingleAgentEnv",
    "Step",
    "Task",
    "TaskSource",
    "TextDict",
    "UnicodeText",
    "UnknownEnvError",
    "VecEnv",
    "check_env",
    "component",
    "list_envs",
    "load_plugins",
    "make",
    "make_vec",
    "play_scripted",
    "probe_rewards",
    "register",
    "spec",
    "to_aec",
]
