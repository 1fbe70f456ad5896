"""Systems without what Linux has: each thing is taken away from a process and its children, and
the work is done."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest

from lib.files import ROOT

from .helpers import make_patches, save_tiny

# A sitecustomize.py: Python reads it before anything else
NO_PROC = """
import io, os
def without_proc(function):
    def wrapped(path, *arguments, **options):
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(("/proc", "/sys")):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return function(path, *arguments, **options)
    return wrapped
io.open, os.stat, os.scandir, os.listdir = map(
    without_proc, (io.open, os.stat, os.scandir, os.listdir)
)
"""
NO_AFFINITY = "import os\ndel os.sched_getaffinity, os.sched_setaffinity\n"
NO_LIBC = """
import ctypes
class CDLL(ctypes.CDLL):
    def __init__(self, name, *arguments, **options):
        if name is None:
            raise TypeError("LoadLibrary() argument 1 must be str, not None")
        super().__init__(name, *arguments, **options)
ctypes.CDLL = CDLL
"""
NO_LOCKS = "import sys\nsys.modules.update(dict.fromkeys(('fcntl', 'pwd', 'grp', 'resource')))\n"
MACOS = NO_PROC + NO_AFFINITY + "import ctypes\nctypes.CDLL.prctl = property()\n"
WINDOWS = NO_PROC + NO_AFFINITY + NO_LIBC + NO_LOCKS

IMPORT_ALL = """
import importlib, pkgutil, lib
for module in pkgutil.walk_packages(lib.__path__, "lib."):
    importlib.import_module(module.name)
"""
MEASURE = """
from pathlib import Path
from lib import environment
from tests.measure.helpers import measure
if __name__ == "__main__":
    measured = measure(Path("patches"), Path("tiny.pth").resolve(), Path("run").resolve(), workers=2)
    print(len(measured.trajectories), environment.memory_gb(), environment.busy_seconds())
"""
KERNEL = """
import nbformat
from pathlib import Path
from lib.book.notebook import execute
Path("notebooks").mkdir()
page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(6 * 7)")])
with open("log", "wb") as log:
    execute(page, Path.cwd(), log)
print(page.cells[0].outputs[0]["text"])
"""


@pytest.fixture
def system(tmp_path: Path, request: Any) -> Iterator[Any]:
    """Runs Python in an empty folder without what the parameter takes away."""
    (tmp_path / "sitecustomize.py").write_text(request.param)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


def script(folder: Path, text: str) -> str:
    (folder / "script.py").write_text(text)
    return "script.py"


@pytest.mark.parametrize("system", [MACOS, WINDOWS], ids=["macOS", "Windows"], indirect=True)
def test_every_module_can_be_imported(system: Any, tmp_path: Path) -> None:
    done = system("-c", IMPORT_ALL)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("system", [MACOS], ids=["macOS"], indirect=True)
def test_a_mac_measures_with_processes(system: Any, tmp_path: Path) -> None:
    make_patches(tmp_path / "patches")
    save_tiny(tmp_path / "tiny.pth")
    done = system(script(tmp_path, MEASURE))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3", "None", "0.0"]


@pytest.mark.parametrize("system", [MACOS, NO_LIBC], ids=["macOS", "Windows"], indirect=True)
def test_pages_are_executed_without_prctl(system: Any, tmp_path: Path) -> None:
    done = system(script(tmp_path, KERNEL))
    assert (done.returncode, done.stdout.strip()) == (0, "42"), done.stderr


@pytest.mark.parametrize("system", [WINDOWS], ids=["Windows"], indirect=True)
def test_windows_evaluates_raw_results_and_says_that_it_does_not_measure(
    system: Any, tmp_path: Path
) -> None:
    make_patches(tmp_path / "patches")
    save_tiny(tmp_path / "tiny.pth")
    for name in ("first", "second", "third"):
        raw = tmp_path / "raw" / "baseline" / name / f"{name}_001.txt"
        raw.parent.mkdir(parents=True)
        boxes = (tmp_path / "patches" / name / "groundtruth.txt").read_text().split()
        raw.write_text("\n".join(["1.0000", *boxes[1:]]) + "\n")
    done = system("-m", "lib.cli", "evaluate", "raw", "--dataset", "patches")
    assert done.returncode == 0, done.stderr
    assert "1.000" in done.stdout
    done = system("-m", "lib.cli", "evaluate", "--weights", "tiny.pth", "--dataset", "patches")
    assert done.returncode == 2 and done.stderr.splitlines()[-1].endswith("run it in WSL")
