"""A run on a disk of its own that is too small, then large enough, then for reading only.

The disk is a tmpfs in a mount namespace, so that nothing of it outlives the test.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_survival import assert_same, single

pytestmark = pytest.mark.system
NAMESPACE = ["unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",))]
FULL = "No space left on device"


def collm(*words):
    done = subprocess.run(
        [sys.executable, "-m", "collm_agents.cli", *words], capture_output=True, text=True, check=False
    )
    return [done.returncode, done.stderr]


def mount(folder, options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def contents(run):
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in run.rglob("*") if file.is_file()
    }


def story(disk, options):
    """Played in the namespace: what each command said, and what was on the disk after the first of them."""
    mount(disk, options)
    run = disk / "run"
    told = {
        "small": collm(*single(run)),
        "left": sorted(str(path.relative_to(disk)) for path in disk.rglob("*")),
    }
    mount_again = ["mount", "-o", "remount,size=200m,nr_inodes=10000"]
    subprocess.run([*mount_again, str(disk)], check=True)
    told["large"] = collm("train", "--resume", str(run))
    shutil.copytree(run, disk.parent / "kept")
    before = contents(run)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    told["read only"] = collm("train", "--resume", str(run), "joint_samples=32")
    told["page"] = collm("view", str(run), "--out", str(disk / "page.html"))
    told["unchanged"] = before == contents(run)
    sys.stdout.write(json.dumps(told))


def told(tmp_path, options):
    disk = tmp_path / "disk"
    disk.mkdir()
    probe = subprocess.run(
        [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if probe.returncode:
        pytest.skip(f"no disk can be mounted here: {probe.stderr.decode(errors='replace').strip()}")
    done = subprocess.run(
        [*NAMESPACE, sys.executable, __file__, str(disk), options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def last_line(err):
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("collm: error: ")]
    assert len(lines) == 1
    return lines[0]


def check_stopped(found, disk, kept):
    """The run ended with a line that names a file, left whole checkpoints and no rest, and says how to go on."""
    code, err = found["small"]
    assert code == 1
    line = last_line(err)
    assert line.startswith(f"collm: error: {disk}/run/")
    assert FULL in line
    places = [path for path in found["left"] if path.startswith("run/checkpoints/") and path.count("/") == 2]
    assert [path.rpartition("/")[2] for path in places] == kept
    assert not [path for path in found["left"] if Path(path).name.startswith(".")]
    if kept:
        assert line.endswith(
            f"keeps its checkpoint at {int(kept[-1])}; to go on: collm train --resume {disk}/run"
        )
    else:
        assert line.endswith("has no checkpoint yet; begin it anew")


def check_read_only(found, disk):
    code, err = found["read only"]
    assert code == 1
    assert last_line(err).endswith("Read-only file system; training had not begun")
    assert found["page"][0] == 2
    assert last_line(found["page"][1]).endswith(f"cannot write {disk}/page.html: Read-only file system")
    assert found["unchanged"]


# A checkpoint has 11 MB. The third is written before the first goes.
@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ("size=30m", ["000000008", "000000016"]),
        pytest.param("size=20m", ["000000000", "000000008"], marks=pytest.mark.drill),
        pytest.param("size=9m", ["000000000"], marks=pytest.mark.drill),
        pytest.param("size=30m,nr_inodes=50", ["000000000", "000000008"], marks=pytest.mark.drill),
    ],
)
def test_a_run_goes_on_once_its_full_disk_has_room(options, kept, tmp_path):
    disk = tmp_path / "disk"
    found = told(tmp_path, options)
    check_stopped(found, disk, kept)
    assert found["large"][0] == 0, found["large"][1]
    check_read_only(found, disk)
    code, err = collm(*single(tmp_path / "whole"))
    assert code == 0, err
    assert_same(tmp_path / "whole", tmp_path / "kept")


@pytest.mark.drill
@pytest.mark.parametrize("size", ["16k", "64k", "1m"])
def test_a_disk_too_small_for_a_checkpoint_is_told(size, tmp_path):
    found = told(tmp_path, f"size={size}")
    check_stopped(found, tmp_path / "disk", [])
    assert found["large"][0] == 2
    assert last_line(found["large"][1]).endswith("it ended before its first one; begin it anew")


if __name__ == "__main__":
    story(Path(sys.argv[1]), sys.argv[2])
