"""The book's stale pages, executed beside each other before Sphinx reads them: one process per
core, one thread in each.

Jupyter Book executes one notebook after the other. Here their outputs are put into its cache
beforehand, so that it finds them. A page that fails is left to it, which then reports the cell.
Pages read what others wrote to the run, so they have turns in their metadata, `"siambook": {"turn":
1}`: a page runs after all of an earlier turn.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Mapping

from lib.book.notebook import code_cells, execute
from lib.environment import SPEED_THREADS, cores, threads
from lib.progress import progress


def fill_cache(
    folder: Path, pages: Mapping[Path, Mapping[str, Any]], root: Path, timeout: int
) -> None:
    """Execute the pages that Jupyter Book's cache lacks, and put those without fault into it.

    folder: of the cache. pages: notebooks with all their cells, by file. timeout: of a cell, s.
    """
    import nbformat
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn

    cache = get_cache(folder)
    stale = {}
    for path, page in pages.items():
        # Read, since files keep a cell's lines as a list
        notebook = nbformat.reads(json.dumps(page), as_version=4)
        try:
            cache.match_cache_notebook(notebook)
        except KeyError:
            stale[path] = notebook
    variables = {"OMP_NUM_THREADS": "1"}
    if any("lib.measure" in code for notebook in stale.values() for code in code_cells(notebook)):
        _measure(root)
        variables[SPEED_THREADS] = str(threads())
    with progress(len(stale), "pages", shown=bool(stale)) as bar:
        for turn in sorted({_turn(notebook) for notebook in stale.values()}):
            with ThreadPoolExecutor(cores() or 1) as pool:
                jobs = {
                    pool.submit(_execute, notebook, root, timeout, variables): path
                    for path, notebook in stale.items()
                    if _turn(notebook) == turn
                }
                for job in as_completed(jobs):
                    path = jobs[job]
                    if job.result():
                        bundle = CacheBundleIn(stale[path], str(path))
                        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
                    bar.set_description(f"pages: {path.stem}", refresh=False)
                    bar.update(1)


def _measure(root: Path) -> None:
    """Measure what pages would measure one after the other; what cannot be measured, they say."""
    subprocess.run([sys.executable, "-m", "lib.cli", "measure"], cwd=root, check=False)


def _turn(notebook: Any) -> int:
    return int(notebook["metadata"].get("siambook", {}).get("turn", 0))


def _execute(notebook: Any, root: Path, timeout: int, variables: Mapping[str, str]) -> bool:
    """Execute a notebook in place; returns whether all its cells could be."""
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    for _ in range(2):
        try:
            with tempfile.TemporaryFile() as log:
                execute(notebook, root, log, timeout, **variables)
            return True
        # The last: of kernels that die, or never start
        except (CellExecutionError, CellTimeoutError, RuntimeError) as error:
            if "before replying" not in str(error):
                break  # else another that started at once may have taken the same port
    return False
