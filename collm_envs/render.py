"""Episodes as moving pictures, for environments that render to arrays.

For the command line, docs and notebooks. Drawing itself belongs to each environment.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from collm_envs.env import CollabEnv
from collm_envs.errors import InputError, SettingError
from collm_envs.scripted import play_scripted
from collm_envs.task import Task

TURN_MS = 900  # how long a turn is shown
END_MS = 2500


def scripted_frames(
    env: CollabEnv, kinds: str | Mapping[str, str], task: Task, *, seed: int = 0
) -> list[np.ndarray]:
    """Pictures of one episode played by scripted agents: the start, then every turn.

    Args:
        env: an environment with the render mode `rgb_array`; a copy of it is played.
        kinds: one kind for all agents, or a kind by agent.
        task: what is played.
        seed: seed of the scripts and of the reset.

    Returns:
        Arrays [height, width, 3] of uint8, all of one size.

    Raises:
        SettingError: when the environment draws no pictures.
    """
    if "rgb_array" not in env.metadata["render_modes"]:
        raise SettingError(f"{env.env_id} draws no pictures")
    frames: list[np.ndarray] = []
    drawn = env.clone()
    drawn.render_mode = "rgb_array"
    play_scripted(drawn, kinds, [task], seed=seed, watch=lambda env: frames.append(env.render()))  # type: ignore[arg-type]
    return frames


def write_gif(frames: list[np.ndarray], path: str | Path) -> None:
    """Write pictures as an animated GIF that repeats; the last stays longer.

    Raises:
        InputError: when Pillow is missing or the file cannot be written.
    """
    try:
        from PIL import Image
    except ImportError:
        raise InputError("writing a GIF needs the package pillow: pip install 'collm[report]'") from None
    pictures = [Image.fromarray(frame) for frame in frames]
    times = [TURN_MS] * (len(pictures) - 1) + [END_MS]
    try:
        pictures[0].save(path, "GIF", save_all=True, append_images=pictures[1:], duration=times, loop=0)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {path}: {error}") from None


def as_png(frame: np.ndarray) -> bytes:
    """A picture [height, width, 3] of uint8 as a PNG file, at most 256 colours by palette; needs no Pillow."""
    height, width, _ = frame.shape
    packed = (frame.astype(np.uint32) << np.array([16, 8, 0], dtype=np.uint32)).sum(axis=2, dtype=np.uint32)
    colours, index = np.unique(packed, return_inverse=True)
    if len(colours) <= 256:
        pixels, kind = index.reshape(height, width).astype(np.uint8), 3
        palette = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.uint8)
        chunks = [_png_chunk(b"PLTE", palette.tobytes())]
    else:
        pixels, kind, chunks = np.ascontiguousarray(frame).reshape(height, width * 3), 2, []
    rows = np.concatenate(
        [np.zeros((height, 1), np.uint8), pixels], axis=1
    )  # each begins with its filter, none
    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    body = [_png_chunk(b"IHDR", head), *chunks, _png_chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body) + _png_chunk(b"IEND", b"")


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
