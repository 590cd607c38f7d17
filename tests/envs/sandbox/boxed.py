"""Run sources in confined children of one worker, in a process of their own, and bring back what they found."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parents[3]
LIBRARY, SITE = sysconfig.get_path("stdlib"), str(Path(numpy.__file__).parents[1])
READABLE = [
    path for path in (LIBRARY, SITE, "/usr/lib", "/lib", "/lib64", "/etc/ld.so.cache") if os.path.exists(path)
]

WORKER = r"""
import errno, json, os, sys, time, types
given = json.loads(sys.argv[1])
for name in ("collm_envs", "collm_envs.sandbox"):
    module = types.ModuleType(name)
    module.__path__ = [given["root"] + "/" + name.replace(".", "/")]
    sys.modules[name] = module
sys.path[:] = given["path"]
from collm_envs.sandbox import confine, linux, syscalls

walls = confine.Walls(given["tier"], "", tuple(given["readable"]), tuple(given["listable"]), given["slot"])
limits = confine.Limits(**given["limits"])
walls = confine.enter(walls, limits)
worker = os.getpid()


def child(source, cpu_s=10):
    # What it leaves in `out`, or the name of its error, and its wait status.
    answers, say = os.pipe()
    pid = os.fork()
    if not pid:
        space = {"walls": walls, "worker": worker, "say": say, "out": None, **given["names"]}
        try:
            confine.confine_child(walls, limits, cpu_s, keep=(say,))
            exec(source, space)
            text = space["out"]
        except OSError as error:
            text = errno.errorcode.get(error.errno, str(error))
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(say, json.dumps(text).encode())
        os._exit(0)
    os.close(say)
    with open(answers, "rb") as file:
        data = file.read()
    status = os.waitpid(pid, 0)[1]
    return [json.loads(data) if data else None, status]


results = []
for source in given["sources"]:
    results.append(child(source))
exec(given["after"])
print(json.dumps({"results": results, "scratch": walls.scratch, "uid": os.getuid()}))
sys.stdout.flush()
confine.leave(walls)
"""


def command(tier, sources=(), after="", names=None, readable=(), listable=(), slot=0, **limits):
    """The command line of a worker."""
    given = {
        "root": str(ROOT),
        "path": [LIBRARY, LIBRARY + "/lib-dynload", SITE],
        "tier": tier,
        "readable": [*READABLE, *map(str, readable)],
        "listable": [LIBRARY, SITE, *map(str, listable)],
        "limits": limits,
        "sources": list(sources),
        "after": after,
        "names": names or {},
        "slot": slot,
    }
    return [sys.executable, "-I", "-S", "-c", WORKER, json.dumps(given)]


def run(tier, sources=(), **settings):
    """Run the sources one after the other; `after` runs in the worker and may add to `results`."""
    done = subprocess.run(
        command(tier, sources, **settings),
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["scratch"]
    assert not os.path.exists(found["scratch"]), "the scratch was left behind"
    return found["results"]


def value(tier, source, **settings):
    """What one source left in `out`."""
    ((out, status),) = run(tier, [source], **settings)
    assert status == 0, (out, status)
    return out
