"""Where a named model lies: in a folder, on the hub, or in the package. No torch, so that suites can ask early."""

from __future__ import annotations

from pathlib import Path

from collm_envs.errors import InputError

BUILTIN_FOLDER = Path(__file__).parent / "builtin"


def resolve(name: str) -> str:
    """What Hugging Face is asked for: the shipped folder for `builtin`, FOLDER for `builtin:FOLDER`, else the name.

    Raises:
        InputError: for a path that is not there, or no folder of a whole model.
    """
    if name == "builtin":
        return str(BUILTIN_FOLDER)
    if name.startswith("builtin:"):
        name = str(Path(name.removeprefix("builtin:")).expanduser().absolute())
    looks_like_path = (
        name.startswith((".", "/", "~")) or name.count("/") != 1 or Path(name).expanduser().exists()
    )
    if "/" in name and looks_like_path:
        folder = Path(name).expanduser()
        if folder.is_file():
            raise InputError(f"model folder {name!r} is a file; a model is a folder")
        if not folder.is_dir():
            raise InputError(f"model folder {name!r} does not exist")
        if not (folder / "config.json").is_file():
            if (folder / "adapter_config.json").is_file():
                raise InputError(
                    f"model folder {name!r} holds an adapter, not a whole model: name its base as the model, and "
                    "the folder as team.agents.NAME.weights"
                )
            raise InputError(f"model folder {name!r} holds no model: there is no config.json in it")
        return str(folder)
    return name
