"""Building games: agents place blocks in one shared world by text commands."""

from collm_envs.games import housebuild, housebuild_mini, strbuild, strbuild_mini

__all__ = ["housebuild", "housebuild_mini", "strbuild", "strbuild_mini"]
