"""`RayPool`: the programs of a benchmark as tasks of a Ray cluster.

For `benchmark`, which cannot tell it from the pool of this machine. Nodes need not share a file system: a program
runs in a scratch folder of its node, which comes back through Ray, with every checkpoint and at the end. So
a run whose node died goes on elsewhere from what came back last.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from collm_agents.distributed import guard
from collm_agents.distributed.session import connected, told
from collm_agents.pool import Job, OnRay, Pool, Running, environment
from collm_envs.errors import CollmError

log = logging.getLogger(__name__)

RETRIES = 3  # workers that one run may cost
LOOK_S = 0.2  # between two looks of a worker at its program
SEND_S = 2.0  # least time between two checkpoints that are sent
ROOM_S = 5.0  # between two looks at the cluster
PATIENCE_S = 600.0  # without a node that could ever take a run
GRACE_S = 20.0  # from the request to stop to the end
MOST_BYTES = 1 << 30  # of a run's files; beyond, its checkpoints stay behind
CHECKPOINTS = "checkpoints"
TEXTS = (".toml", ".json", ".jsonl")  # files that name folders

Files = Mapping[str, bytes]


class NoRoom(CollmError, RuntimeError):
    """No node of the cluster could take a run."""


# -- folders as values --------------------------------------------------------------------------------------


def pack(folder: Path, moved: Mapping[str, str], without: str = "") -> Files:
    """The files below a folder by their place in it; empty where there is none.

    Args:
        folder: what to read.
        moved: old places and new ones, as texts name them.
        without: name of folders that are left out.
    """
    found = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if file.is_file() and not (without and without in name.parts):
            data = file.read_bytes()
            if file.suffix in TEXTS and CHECKPOINTS not in name.parts:  # those have checksums
                for old, new in moved.items():
                    data = data.replace(old.encode(), new.encode())
            found[name.as_posix()] = data
    return found


def unpack(files: Files, folder: Path) -> None:
    """Write files below a folder; each name right below it is replaced as a whole."""
    landing = folder / ".landing"
    shutil.rmtree(landing, ignore_errors=True)
    for name, data in files.items():
        place = landing / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    for new in sorted(landing.iterdir()) if files else []:
        old, aside = folder / new.name, landing / f".old-{new.name}"
        if old.exists():
            old.rename(aside)
        new.rename(old)
    shutil.rmtree(landing, ignore_errors=True)


# -- what runs on a node ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """A program for a node.

    Attributes:
        command: as the driver would say it; a first word that is its interpreter is the node's there.
        interpreter: the driver's.
        folder: the job's, on the driver.
        files: what is in it.
        needs: places of more files that are sent along, on the driver.
        landmark: as of `Job`.
        path: the driver's PYTHONPATH.
        cwd: the driver's; taken where it exists.
        most_bytes: see `MOST_BYTES`.
    """

    command: tuple[str, ...]
    interpreter: str
    folder: str
    files: Files
    needs: tuple[str, ...]
    landmark: str
    path: str
    cwd: str
    most_bytes: int


@dataclass(frozen=True)
class News:
    """What a node has to say about its program.

    Attributes:
        where: process and address, for people.
        files: of the job's folder; None at the beginning.
        code: exit code, once it ended.
        left: bytes of checkpoints that stayed behind.
    """

    where: str
    files: Files | None = None
    code: int | None = None
    left: int = 0


def play(order: Order, *needs: Files) -> Iterator[News]:
    """Run a program in a scratch folder; there is news when it began, at each checkpoint and at the end."""
    where = f"{os.getpid()} at {ray.util.get_node_ip_address()}"
    scratch = Path(tempfile.mkdtemp(prefix="collm-run-"))
    home = scratch / "run"
    moved = {order.folder: str(home)}
    moved |= {place: str(scratch / f"need{i}") for i, place in enumerate(order.needs)}
    with _Guarded(scratch, home, order.cwd) as guarded:
        for place, files in zip(order.needs, needs, strict=True):
            unpack_at(files, Path(moved[place]))
        unpack_at(order.files, home)
        _rewrite(home, moved)
        words = [sys.executable if word == order.interpreter else word for word in order.command]
        seen, sent = _marks(home, order.landmark), time.monotonic()
        guarded.start([_replaced(word, moved) for word in words], order.path)
        yield News(where)
        back = {new: old for old, new in moved.items()}
        while (code := guarded.code()) is None:
            time.sleep(LOOK_S)
            marks = _marks(home, order.landmark)
            if marks != seen and time.monotonic() > sent + SEND_S:
                with suppress(FileNotFoundError):  # a checkpoint was dropped meanwhile: at the next look
                    yield news(where, home, back, order.most_bytes)
                    seen, sent = marks, time.monotonic()
        yield news(where, home, back, order.most_bytes, code)


def unpack_at(files: Files, place: Path) -> None:
    """Write what `pack` read to a place that is not there yet."""
    place.mkdir()
    unpack(files, place)


def _rewrite(home: Path, moved: Mapping[str, str]) -> None:
    for name, data in pack(home, moved).items():
        if Path(name).suffix in TEXTS:
            (home / name).write_bytes(data)


def _replaced(word: str, moved: Mapping[str, str]) -> str:
    for old, new in moved.items():
        word = word.replace(old, new)
    return word


def _marks(home: Path, landmark: str) -> set[str]:
    return {str(file) for file in home.glob(landmark)} if landmark else set()


def news(where: str, home: Path, back: Mapping[str, str], most: int, code: int | None = None) -> News:
    """The files of a run that are not too much to be sent."""
    files = pack(home, back)
    size = sum(map(len, files.values()))
    if size <= most:
        return News(where, files, code)
    files = pack(home, back, without=CHECKPOINTS)
    return News(where, files, code, left=size - sum(map(len, files.values())))


class _Guarded:
    """A program under a guard, which ends it and removes the scratch folder when this process goes."""

    def __init__(self, scratch: Path, home: Path, cwd: str) -> None:
        self._scratch, self._home = scratch, home
        self._place = cwd if Path(cwd).is_dir() else str(scratch)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> _Guarded:
        return self

    def start(self, command: Sequence[str], path: str) -> None:
        words = [sys.executable, "-S", guard.__file__, str(self._scratch), str(self._home), self._place]
        self._process = subprocess.Popen(
            [*words, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(path),
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    def code(self) -> int | None:
        """The program's exit code, once it ended."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return int(line) if line else None

    def __exit__(self, *error: Any) -> None:
        if self._process is None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            return
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        os.set_blocking(process.stdout.fileno(), True)
        process.stdout.read()  # ends when the guard has tidied up
        process.stdout.close()
        process.wait()


# -- the pool -----------------------------------------------------------------------------------------------


@dataclass
class _Away(Running):
    """A job on the cluster: where its news come from, since when it runs, and what it cost so far."""

    news: Any
    began: float = 0.0
    where: str = ""
    spent_s: float = 0.0
    lost: int = 0

    def pause(self) -> None:
        """Count the seconds of an attempt that is over."""
        self.spent_s += time.monotonic() - self.began if self.began else 0.0
        self.began, self.where = 0.0, ""


class RayPool(Pool):
    """Runs jobs on a cluster, in order.

    Args:
        on: the cluster, and what a job takes of it.
        processes: most programs at once; 0: as many as the cluster has room for.
        told: as for `Pool`.
        most_bytes: of a job's files; beyond, its checkpoints stay behind.

    Raises:
        InputError: when no cluster answers.
        NoRoom: when no node could ever take a job.
    """

    def __init__(
        self,
        on: OnRay,
        processes: int = 0,
        *,
        told: Callable[[Sequence[Job], int], Any] = lambda running, waiting: None,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        super().__init__(processes, told=told)
        self._on, self._most_bytes = on, most_bytes
        self._needs: dict[Path, Any] = {}
        self._looked, self._fits, self._alone_since = 0.0, 0, 0.0

    def run(self, jobs: Sequence[Job]) -> bool:
        """As `Pool.run`, connected to the cluster."""
        with connected(self._on.address, max(1, self.processes) * self._on.cpus):
            self._needs.clear()
            self._looked, self._alone_since = 0.0, time.monotonic()
            return super().run(jobs)

    @property
    def slots(self) -> int:
        """Programs at once: as many as nodes have room for; one waits where none has, since clusters may grow."""
        if time.monotonic() > self._looked + ROOM_S:
            self._looked, self._fits = time.monotonic(), sum(map(self._room, ray.nodes()))
            if self._fits:
                self._alone_since = time.monotonic()
            elif time.monotonic() - self._alone_since > PATIENCE_S:
                asks, whole = {"CPU": self._on.cpus, "GPU": self._on.gpus}, ray.cluster_resources()
                raise NoRoom(
                    f"no node could take a run in {PATIENCE_S:g} s: it asks for {told(asks)}, and the cluster "
                    f"has {told(whole)} in all"
                )
        return min(self.processes or self._fits, self._fits) or 1

    def _room(self, node: Mapping[str, Any]) -> int:
        if not node["Alive"]:
            return 0
        asks = {"CPU": self._on.cpus, "GPU": self._on.gpus}
        return min(int(node["Resources"].get(kind, 0) / amount) for kind, amount in asks.items() if amount)

    def _start(self, job: Job, slot: int) -> _Away:
        return _Away(job, slot, self._asked(job))

    def _asked(self, job: Job) -> Any:
        """Hand a job to the cluster; the news of it come one by one."""
        command = job.begin()
        folder, needs = job.folder.absolute(), [need.absolute() for need in job.needs]
        for need in needs:
            if need not in self._needs:
                self._needs[need] = ray.put(pack(need, {}))
        files = {k: v for k, v in pack(folder, {}).items() if "/" in k}  # `run.json` is the driver's
        path = os.environ.get("PYTHONPATH", "")
        order = Order(
            tuple(command),
            sys.executable,
            str(folder),
            files,
            tuple(map(str, needs)),
            job.landmark,
            path,
            os.getcwd(),
            self._most_bytes,
        )
        task = ray.remote(play).options(
            num_cpus=self._on.cpus,
            num_gpus=self._on.gpus,
            max_retries=0,  # a run is gone on with, not begun again
            scheduling_strategy="SPREAD",
            num_returns="streaming",
        )
        return task.remote(order, *(self._needs[need] for need in needs))

    def _ended(self, one: _Away) -> bool:
        """Take what a node has to say; True once the program is over, well or not."""
        while _ready(one.news):
            try:
                found = ray.get(next(one.news))
            except RayTaskError as error:  # such as a full disk: told, not tried again
                return self._lost(one, error, RETRIES)
            except (RayError, StopIteration) as error:
                return self._lost(one, error, 1)
            if found.files is None:
                one.began, one.where = time.monotonic(), found.where
                continue
            unpack(found.files, one.job.folder)
            if found.code is not None:
                if found.left:
                    lost = f"{found.left >> 20} MB of checkpoints are too large to be sent, and are gone"
                    log.warning("%s: %s", one.job.name, lost)
                one.pause()
                one.job.finish(found.code, one.spent_s)
                return True
        return False

    def _lost(self, one: _Away, error: Exception, times: int) -> bool:
        why = (str(error).strip() or type(error).__name__).splitlines()[-1 if times > 1 else 0]
        where, one.lost = one.where, one.lost + times
        one.pause()
        if one.lost < RETRIES:
            log.warning("%s: its worker %s died; it is begun again: %s", one.job.name, where or "to be", why)
            one.news = self._asked(one.job)
            return False
        one.job.folder.mkdir(parents=True, exist_ok=True)
        what = why if times > 1 else f"{one.lost} workers died at it; the last one: {why}"
        (one.job.folder / "stderr.txt").write_text(what + "\n", encoding="utf-8")
        one.job.finish(1, one.spent_s)
        return True

    def _stop(self, running: Sequence[_Away]) -> None:
        """End all that were started; workers tidy up before they go."""
        for force, patience in ((False, GRACE_S), (True, 1.0)):
            until = time.monotonic() + patience
            left = [one for one in running if not _over(one)]
            for one in left:
                with suppress(RayError):
                    ray.cancel(one.news, force=force)
            while any(not _over(one) for one in left) and time.monotonic() < until:
                time.sleep(LOOK_S / 4)


def _over(one: _Away) -> bool:
    """Whether nothing more is to be heard."""
    while _ready(one.news):
        try:
            ray.get(next(one.news))
        except (RayError, StopIteration):
            return True
    return False


def _ready(news: Any) -> bool:
    """Whether there is news, wherever it lies; to wait for no time until it is here would never fetch it."""
    return bool(ray.wait([news], timeout=0, fetch_local=False)[0])
