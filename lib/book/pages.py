"""The book's stale pages, executed beside each other before Sphinx reads them: one process per
core, one thread in each.

Jupyter Book executes one notebook after the other. Here their outputs are put into its cache
beforehand, so that it finds them. A page that fails is left to it, which then reports the cell.
Pages read what others wrote to the run, so they have turns in their metadata, `"siambook": {"turn":
1}`: a page runs after all of an earlier turn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, BinaryIO, Mapping

from lib.environment import cores
from lib.progress import progress

# Linux ends the kernel together with the process that started it; elsewhere ipykernel looks every
# second whether it is there.
KERNEL = """
import ctypes, os, signal
if hasattr(ctypes.CDLL(None), "prctl"):
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != int(os.environ["JPY_PARENT_PID"]):
    raise SystemExit  # that process ended before
from ipykernel.kernelapp import launch_new_instance
launch_new_instance()
"""


def kernel_manager(root: Path, log: BinaryIO, **environ: str) -> Any:
    """A class of kernels that are this interpreter with this library, whose own output goes to the
    log."""
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-c", KERNEL, "-f", "{connection_file}"]
    spec = KernelSpec(
        argv=command,
        display_name="Python 3",
        language="python",
        env={"PYTHONPATH": path, **environ},
    )

    class Kernel(AsyncKernelManager):
        kernel_spec = spec

        async def start_kernel(self, **more: Any) -> None:  # type: ignore[override]
            await super().start_kernel(**more, stdout=log, stderr=log)

    return Kernel


def fill_cache(
    folder: Path, pages: Mapping[Path, Mapping[str, Any]], root: Path, timeout: int
) -> dict[str, float]:
    """Execute the pages that Jupyter Book's cache lacks; returns seconds by page.

    folder: of the cache. pages: notebooks with all their cells, by file. timeout: of a cell, s.
    """
    import nbformat
    from jupyter_cache import get_cache

    cache = get_cache(folder)
    notebooks = {  # read, since files keep a cell's lines as a list
        path: nbformat.reads(json.dumps(notebook), as_version=4) for path, notebook in pages.items()
    }
    stale = {
        path: notebook for path, notebook in notebooks.items() if not _is_cached(cache, notebook)
    }
    if not stale:
        return {}
    if any(map(_measures, stale.values())):
        _measure(root)
    seconds: dict[str, float] = {}
    with progress(len(stale), "pages") as bar:
        for turn in sorted({_turn(notebook) for notebook in stale.values()}):
            chosen = {path: notebook for path, notebook in stale.items() if _turn(notebook) == turn}
            with ThreadPoolExecutor(cores() or 1) as pool:
                jobs = {
                    pool.submit(_execute, notebook, path, root, timeout): path
                    for path, notebook in chosen.items()
                }
                for job in as_completed(jobs):
                    path, took = jobs[job], job.result()
                    if took is not None:
                        seconds[path.stem] = took
                        _keep(cache, notebooks[path], path, took)
                    bar.set_description(f"pages: {path.stem}", refresh=False)
                    bar.update(1)
    return seconds


def _measure(root: Path) -> None:
    """Measure what pages would measure one after the other; what cannot be measured, they say."""
    subprocess.run([sys.executable, "-m", "lib.cli", "measure"], cwd=root, check=False)


def _measures(notebook: Any) -> bool:
    """Whether a page reads from a run; a book without such pages has nothing to measure."""
    return any(
        cell["cell_type"] == "code" and "lib.measure" in cell["source"]
        for cell in notebook["cells"]
    )


def _turn(notebook: Any) -> int:
    return int(notebook["metadata"].get("siambook", {}).get("turn", 0))


def _is_cached(cache: Any, notebook: Any) -> bool:
    try:
        cache.match_cache_notebook(notebook)
    except KeyError:
        return False
    return True


def _execute(notebook: Any, path: Path, root: Path, timeout: int) -> float | None:
    """Execute a notebook in place; returns seconds, None where a cell failed."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    begin = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        client = NotebookClient(
            notebook,
            timeout=timeout,
            kernel_name="python3",
            kernel_manager_class=kernel_manager(root, log, OMP_NUM_THREADS="1"),
            record_timing=False,  # times in the cells would make it another notebook to the cache
            resources={"metadata": {"path": str(path.parent)}},
        )
        try:
            client.execute()
        # The last: of kernels that die, or never start
        except (CellExecutionError, CellTimeoutError, RuntimeError):
            return None
    return time.perf_counter() - begin


def _keep(cache: Any, notebook: Any, path: Path, seconds: float) -> None:
    from jupyter_cache.base import CacheBundleIn

    bundle = CacheBundleIn(notebook, str(path), data={"execution_seconds": seconds})
    cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
