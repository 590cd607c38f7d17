"""Settings files: presets by name, TOML files by path, and what each of them extends.

For `overrides`, which gives the tables their meaning. A preset or file that begins with `extends = "NAME"` is laid
over the preset or file of that name, so it holds only what differs. Nothing here knows a setting.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collm_envs.errors import SettingError, suggest

PRESETS = Path(__file__).parent / "presets"
EXTENDS = "extends"
LARGEST = 16 * 2**20  # bytes of a settings file


def list_presets() -> list[str]:
    """Names of the packaged presets."""
    return sorted(path.relative_to(PRESETS).with_suffix("").as_posix() for path in PRESETS.rglob("*.toml"))


def find_preset(name: str, folder: Path = Path()) -> Path:
    """Path of a preset, by its name or as a path to a TOML file.

    Args:
        name: of a packaged preset, or a path.
        folder: what a relative path starts from.

    Raises:
        SettingError: with the nearest names, where there is neither.
    """
    packaged = PRESETS / f"{name}.toml"
    if packaged.is_file():
        return packaged
    if (folder / name).is_file():
        return folder / name
    near = (
        suggest(name, list_presets()) or "; `collm train --help` lists them, and a TOML file goes by its path"
    )
    raise SettingError(f"unknown preset {name!r}{near}")


def read_layers(path: Path, place: str, above: Sequence[Path] = ()) -> list[tuple[dict[str, Any], str]]:
    """A file's table after those that it extends; later ones win.

    Args:
        path: the file.
        place: what messages call it.
        above: files that led here by extending one another.

    Returns:
        Tables without `extends`, each with what messages call it.

    Raises:
        SettingError: for a file that is missing or not TOML, or extends something unknown or, in the end, itself.
    """
    table = read_toml(path)
    if EXTENDS not in table:
        return [(table, place)]
    name = table.pop(EXTENDS)
    if not isinstance(name, str):
        raise SettingError(f"{place}: {EXTENDS} must name one preset or file, not {name!r}")
    try:
        base = find_preset(name, path.parent)
    except SettingError as error:
        raise SettingError(f"{place}: {EXTENDS}: {error}") from None
    chain = [*above, path.resolve()]
    if base.resolve() in chain:
        raise SettingError(f"{place}: {EXTENDS}={name!r} leads back to a file that extends this one")
    kind = "preset " if base.is_relative_to(PRESETS) else ""
    return [*read_layers(base, f"{kind}{name}", chain), (table, place)]


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dict.

    Raises:
        SettingError: when it is missing or not TOML.
    """
    path = path.expanduser()
    try:
        if path.stat().st_size > LARGEST:
            raise SettingError(f"{path}: {path.stat().st_size >> 20} MB are no settings; name a TOML file")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except SettingError:
        raise
    except FileNotFoundError:
        raise SettingError(f"no such config file: {path}") from None
    except (OSError, ValueError) as error:
        raise SettingError(f"{path}: cannot be read as TOML ({error})") from None
