"""Search for a text that one target of `targets.py` does not bear, with the code that it reaches as the guide.

    python tests/drill/fuzz.py TARGET [RUNS] [FOLDER]

Finished well where nothing was found; the text that broke it is left in FOLDER and shown otherwise.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["collm_envs", "collm_agents"]):
    from targets import SEEDS, TARGETS

SECONDS = 10  # for one text: a hundred times what the slowest takes
LONGEST = 4096  # bytes


def main(name: str, runs: str = "1000000", folder: str = "") -> None:
    """Fuzz one target."""
    function = TARGETS[name]
    place = Path(folder or tempfile.mkdtemp(prefix="collm-fuzz-"))
    corpus = place / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(SEEDS[name]):
        (corpus / f"seed{number}").write_bytes(text.encode("utf-8"))

    def once(data: bytes) -> None:
        function(data.decode("utf-8", "surrogateescape"))

    # No limit of memory: what instruments the code keeps some kilobytes of every text that plays a game; the same
    # texts without it keep nothing.
    options = [f"-runs={runs}", f"-timeout={SECONDS}", f"-max_len={LONGEST}", "-rss_limit_mb=0"]
    options += ["-seed=1", "-print_final_stats=1", "-verbosity=1", f"-artifact_prefix={place}/"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
