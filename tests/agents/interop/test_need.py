"""Without the optional libraries the package imports, and the error says what to install."""

import subprocess
import sys

import pytest

from collm_agents.interop import need
from collm_envs import InputError

LIGHT = """
import sys
sys.modules["{package}"] = None  # as if it were not installed
import collm_envs, collm_agents.interop
assert not {{"torch", "transformers", "trl", "torchrl"}} & {{name for name, found in sys.modules.items() if found}}
try:
    import collm_agents.interop.{module}
except collm_envs.InputError as error:
    print(error)
"""


@pytest.mark.system  # importing trl takes seconds
@pytest.mark.parametrize(
    ("module", "package"),
    [("torchrl", "torchrl"), ("trl", "trl"), ("frozen", "torch")],
)
def test_a_missing_package_is_named_with_what_installs_it(module, package):
    code = LIGHT.format(module=module, package=package)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"this needs the package {package}: pip install 'collm[interop]'\n"


def test_what_is_there_is_returned():
    assert need("json").__name__ == "json"
    with pytest.raises(InputError, match="needs the package nowhere_at_all"):
        need("nowhere_at_all")
