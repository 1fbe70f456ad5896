"""A benchmark of patches over noise, weights that know nothing, and processes to measure with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional, Set, Tuple

import cv2
import numpy as np
import torch

from lib.files import ROOT
from lib.measure import quality
from lib.measure.measurement import Measurement
from lib.measure.variants import Variant
from lib.measure.worker import Serial
from lib.siamrpn.checkpoint import save_weights
from lib.siamrpn.network import NetworkConfig, SiamRPN
from lib.vot.dataset import load_dataset

NAMES = ("first", "second", "third")
FRAMES = 8


def save_tiny(path: Path, seed: int = 0) -> None:
    """Weights of a network that knows nothing and so loses its target again and again; a frame
    takes milliseconds."""
    torch.manual_seed(seed)
    save_weights(path, SiamRPN(NetworkConfig.resnet50(1 / 32)).state_dict())


def make_patches(folder: Path, frames: int = FRAMES) -> Path:
    """A VOT folder of three sequences: a bright patch that moves over noise."""
    random = np.random.RandomState(0)
    for at, name in enumerate(NAMES):
        (folder / name / "color").mkdir(parents=True)
        boxes = []
        for index in range(frames):
            image = random.randint(0, 90, (90, 120, 3), np.uint8)
            x, y = 20 + 4 * index, 30 + at * 5
            image[y : y + 20, x : x + 25] = 200 + random.randint(0, 50, (20, 25, 3))
            cv2.imwrite(str(folder / name / "color" / f"{index + 1:08d}.png"), image)
            boxes.append(f"{x},{y},25,20\n")
        (folder / name / "groundtruth.txt").write_text("".join(boxes))
    (folder / "list.txt").write_text("".join(f"{name}\n" for name in NAMES))
    return folder


def make_program(path: Path, code: str) -> Path:
    """A command that runs Python code, whose interpreter may lie in any folder."""
    path.parent.mkdir(exist_ok=True)
    script = path.with_suffix(".py")
    script.write_text(code)
    path.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{script}' \"$@\"\n")
    path.chmod(0o755)
    return path


def measure(patches: Path, weights: Path, run: Path, **options: Any) -> Measurement:
    variant = Variant("tiny", str(weights))
    return quality.measure([variant], load_dataset(patches), str(run), shown=False, **options)[0]


@contextmanager
def serially(*_: Any) -> Iterator[Serial]:
    """In place of `quality.open_executor`: other processes take seconds to start."""
    yield Serial()


# -- What is in a run ------------------------------------------------------------------------------


def raw_files(folder: Path) -> Dict[str, bytes]:
    """Raw results below a folder, by path: what decides every number but speed."""
    found = sorted(folder.rglob("*_001.txt"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}


def written(folder: Path) -> Dict[str, int]:
    """When each result of trackers was written."""
    found = [path for path in folder.glob("*/*/baseline/*/*") if path.is_file()]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in found}


def state(folder: Path) -> Dict[str, Tuple[int, int]]:
    """Time and size of everything below a folder."""
    found = sorted(folder.rglob("*"))
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in found}


# -- Processes -------------------------------------------------------------------------------------


def start(script: str, *arguments: object, **environ: str) -> subprocess.Popen:
    """Python on one thread, in the repository."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **environ}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)


def wait_for(
    ready: Callable[[], object],
    process: Optional[subprocess.Popen] = None,
    seconds: float = 120,
) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert process is None or process.poll() is None, f"it ended: {process.communicate()}"
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def children(pid: int) -> Set[int]:
    """The processes below a process, of all generations."""
    found: Set[int] = set()
    queue = [pid]
    while queue:
        below = _started_by(queue.pop())
        found.update(below)
        queue.extend(below)
    return found


def workers_of(pid: int) -> Set[int]:
    """The worker processes of a process, without what multiprocessing starts beside them."""
    return {child for child in _started_by(pid) if "spawn_main" in _proc(child, "cmdline")}


def _started_by(pid: int) -> Set[int]:
    every = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    fields = {each: _proc(each, "stat").rpartition(")")[2].split() for each in every}
    return {each for each, found in fields.items() if found[1:2] == [str(pid)]}


def _proc(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""


def alive(pid: int) -> bool:
    return _proc(pid, "stat").rpartition(")")[2].split()[:1] not in ([], ["Z"], ["X"])


class Dask:
    """A scheduler and its workers, each a process of the command `dask`, on one thread."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.folder, self.environ, self.file = folder, environ, folder / "scheduler.json"
        self.workers: Dict[str, subprocess.Popen] = {}
        folder.mkdir(parents=True)
        where = ("--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(self.file))
        self.scheduler = self._start("scheduler", *where, "--dashboard-address", "127.0.0.1:0")
        wait_for(lambda: self.file.is_file() and self.file.read_text(), self.scheduler, 60)
        self.address = json.loads(self.file.read_text())["address"]

    def _start(self, *arguments: str, **environ: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "dask", *arguments, "--no-dashboard"]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with open(self.folder / "log", "a") as log:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env={**env, **self.environ, **environ},
            )

    def add(self, name: str, threads: int = 1, **environ: str) -> None:
        how = ("--name", name, "--nthreads", str(threads), "--no-nanny")
        own = ("--local-directory", str(self.folder / name))
        self.workers[name] = self._start("worker", self.address, *how, *own, **environ)

    def known(self) -> Dict[str, str]:
        """The workers that the scheduler knows: address by name."""
        import distributed

        with distributed.Client(self.address) as client:
            workers = client.scheduler_info(n_workers=-1)["workers"]
            return {str(worker["name"]): address for address, worker in workers.items()}

    def wait_for(self, *names: str) -> None:
        """Return when the scheduler knows these workers and none else."""
        wait_for(lambda: set(self.known()) == set(names), self.scheduler, 60)

    def remove(self, name: str) -> None:
        process = self.workers.pop(name)
        process.kill()
        process.wait()

    def close(self) -> None:
        for process in (*self.workers.values(), self.scheduler):
            process.kill()
            process.wait()
