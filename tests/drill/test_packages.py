"""The wheel and the sdist: each builds, and what it installs works in an environment that has nothing else."""

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]


def run(*words, cwd):
    done = subprocess.run(list(map(str, words)), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:] or done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with both, made of what git knows."""
    source = tmp_path_factory.mktemp("source")
    archive = source / "tree.tar"
    run("git", "archive", "--output", archive, "HEAD", cwd=ROOT)
    with tarfile.open(archive) as tree:
        tree.extractall(source, filter="data")
    archive.unlink()
    out = tmp_path_factory.mktemp("dist")
    run(
        sys.executable, "-m", "build", "--outdir", out, source, cwd=source
    )  # the wheel is built from the sdist
    return out


def test_both_hold_data_and_licence_and_no_tests(built):
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as found:
        names = set(found.namelist())
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "examples/"))]
    wanted = {"collm_envs/py.typed", "collm_agents/py.typed", "collm_agents/models/builtin/model.safetensors"}
    wanted |= {"collm_agents/suites/mini-core.toml", "collm_agents/report_page.js"}
    assert wanted <= names
    assert [name for name in names if name.startswith("collm_envs/data/")]
    assert [name for name in names if name.endswith("LICENSE")]
    with tarfile.open(sdist) as found:
        assert [name for name in found.getnames() if name.endswith("/LICENSE")]


def test_the_wheel_alone_plays_environments_without_torch(built, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", next(built.glob("*.whl")), cwd=tmp_path)
    code = "import collm_envs, importlib.util as u; print(u.find_spec('torch'), len(collm_envs.list_envs()))"
    absent, count = run(python, "-c", code, cwd=tmp_path).split()
    assert absent == "None"
    listed = run(python.parent / "collm", "envs", cwd=tmp_path)
    assert listed.count("-v0") >= int(count)
    code = (
        "from collm_envs import make\nfrom collm_envs.scripted import play_scripted\n"
        "env = make('games/strbuild-mini-v0')\n"
        "print([one['success'] for one in play_scripted(env, 'oracle', env.tasks[:2])])"
    )
    assert run(python, "-c", code, cwd=tmp_path).split() == ["[True,", "True]"]
