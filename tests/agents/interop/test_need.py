"""Without the optional libraries the package imports, and the error says what to install."""

import subprocess
import sys

import pytest

from collm_agents.interop import need
from collm_envs import InputError

LIGHT = """
import sys
sys.modules["{library}"] = None  # as if it were not installed
import collm_envs, collm_agents.interop
assert not {{"torch", "transformers", "trl", "torchrl"}} & {{name for name, found in sys.modules.items() if found}}
try:
    import collm_agents.interop.{library}
except collm_envs.InputError as error:
    print(error)
"""


@pytest.mark.system  # importing torch takes seconds
@pytest.mark.parametrize("library", ["torchrl", "trl"])
def test_a_missing_library_is_named_with_what_installs_it(library):
    done = subprocess.run(
        [sys.executable, "-c", LIGHT.format(library=library)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert (
        f"collm_agents.interop.{library} needs {library}, which is not here: pip install 'collm[interop]'"
        in (done.stdout)
    )


def test_what_is_there_is_returned():
    assert need("json").__name__ == "json"
    with pytest.raises(InputError, match="needs nowhere_at_all"):
        need("nowhere_at_all")
