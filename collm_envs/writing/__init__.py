"""Writing: short texts whose length, vocabulary and style must fit together."""

from collm_envs.writing import arxiv, tldr

__all__ = ["arxiv", "tldr"]
