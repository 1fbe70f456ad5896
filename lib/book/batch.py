"""The notebooks as one batch, for machines where a run takes hours and no book is built (`siambook
run`; chapter 4 on a Jetson).

Every notebook of _toc.yml is executed, in that order and the front page last, with the parameters
of a profile. The run keeps

    notebooks.csv                       a row a notebook: done or failed, seconds, start, reason
    notebooks/<notebook>.ipynb          executed to its end
    notebooks/<notebook>.failed.ipynb   executed up to the cell that raised something
    notebooks/<notebook>.log            what it and its kernel printed

A failure is written down and the rest still done. Killed at any moment and started again, a batch
goes on where it was: a notebook is finished when it lies under its own name, which is given to it
last and at once, and its code cells are those that would be executed now (`lib.book.notebook`).
What a notebook had measured before it was killed is in the run already (`lib.measure`).

The kernel dies with the batch. One batch works in a run at a time. Needs nbclient, ipykernel and
nbformat, which are imported where they are used, and no Jupyter Book.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Sequence

import pandas as pd
from tqdm import tqdm

from lib.book.notebook import (
    Profile,
    code_cells,
    execute,
    fingerprint,
    open_profile,
    prepared,
    refuse_unknown,
)
from lib.environment import device
from lib.errors import InputError
from lib.files import ROOT, locked, write_text
from lib.measure import runs
from lib.progress import progress

NEEDS = ("nbclient", "ipykernel", "nbformat")
LOCK = ".batch"
DONE, FAILED = "done", "failed"
COLUMNS = ["notebook", "status", "seconds", "started", "message"]


def notebooks(root: Path) -> dict[str, dict[str, Any]]:
    """The book's notebooks by name, in its order; the front page (root) last, because it shows what
    the others measure. Raises InputError for a file that is none."""
    contents = (root / "_toc.yml").read_text(encoding="utf-8")
    names = re.findall(r"file: notebooks/(\S+)", contents)
    names += re.findall(r"root: notebooks/(\S+)", contents)
    return {name: _read(root / "notebooks" / f"{name}.ipynb") for name in names}


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a notebook ({' '.join(str(error).split())})") from None


def selected(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """The names that begin with one of the prefixes; all without prefixes. Raises InputError for a
    prefix of none."""
    for prefix in only:
        if not any(name.startswith(prefix) for name in names):
            raise InputError(
                f"--only {prefix}: no notebook begins with that (there are {', '.join(names)})"
            )
    return [name for name in names if not only or name.startswith(tuple(only))]


def run_notebooks(
    root: Path = ROOT, profile: str | None = None, only: Sequence[str] = (), name: str | None = None
) -> list[str]:
    """Execute the notebooks that the run has not finished; returns what failed, in sentences.

    profile, name (of the run): as in `open_profile`. only: prefixes of notebooks. Raises InputError
    where nothing can be executed: a package, profile or notebook that is not there, a run that was
    recorded on another machine, one that another batch works in, or one that cannot be written.
    """
    missing = [package for package in NEEDS if not find_spec(package)]
    if missing:
        raise InputError(f"{', '.join(missing)} not installed: pip install {' '.join(NEEDS)}")
    chosen, book = open_profile(root, profile, name), notebooks(root)
    refuse_unknown(chosen, book.values())
    names, into = selected(list(book), only), chosen.values["run"]
    if runs.is_recorded(into, device()):
        raise InputError(
            f"run {into} was recorded on another machine and is only read here; --run names "
            "another one"
        )
    folder = runs.run_folder(into)
    with locked(folder / LOCK, f"{folder}: another `siambook run` is working in this run"):
        rows = {row["notebook"]: row for row in runs.notebook_times(into).to_dict("records")}
        with progress(len(names), "notebooks") as bar:
            for each in names:
                bar.set_description(each)
                rows[each] = _one(each, root, chosen, folder / "notebooks")
                table = pd.DataFrame([rows[one] for one in book if one in rows], columns=COLUMNS)
                write_text(folder / runs.NOTEBOOKS, table.to_csv(index=False))
                bar.update(1)
    return [f"{each}: {rows[each]['message']}" for each in names if rows[each]["status"] == FAILED]


def stop_at_ctrl_c() -> None:
    """Let Ctrl-C and SIGTERM end the process at once, as a kill does: a batch stands that at any
    moment, and its kernel ends with it. An exception would have to find its way out through callbacks of
    asyncio and what nbclient does behind it. Where Ctrl-C is ignored, as in a job in the
    background, or has another handler, it stays so."""

    def stop(number: int, frame: Any) -> None:
        os.write(sys.stderr.fileno(), b"\nsiambook: stopped\n")  # 2 is quiet (`lib.guard`)
        os._exit(130)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def _one(name: str, root: Path, profile: Profile, folder: Path) -> dict[Any, Any]:
    """Execute a notebook, unless it is finished, and keep it; returns its row."""
    import nbformat

    kept, failed = folder / f"{name}.ipynb", folder / f"{name}.failed.ipynb"
    begin, started = time.perf_counter(), f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
    row = {"notebook": name, "status": DONE, "seconds": 0.0, "started": started, "message": ""}
    page = None
    try:
        notebook = _read(root / "notebooks" / f"{name}.ipynb")
        ready = prepared(notebook, profile, fingerprint(notebook, root, profile.values))
        with suppress(InputError, KeyError):  # there is none, or a power cut emptied it
            done = _read(kept)
            if code_cells(done) == code_cells(ready):
                return dict(done["metadata"]["batch"])
        page = nbformat.reads(json.dumps(ready), as_version=4)
        folder.mkdir(parents=True, exist_ok=True)
        # In a thread of its own: in the main one nbclient has its own answer to Ctrl-C
        with open(folder / f"{name}.log", "wb", buffering=0) as log, ThreadPoolExecutor(1) as pool:
            pool.submit(execute, page, root, log).result()
        row["seconds"] = round(time.perf_counter() - begin, 1)
        page.metadata["batch"] = row
        write_text(kept, nbformat.writes(page))
        failed.unlink(missing_ok=True)
    except Exception as error:  # whatever stops a notebook does not stop the rest
        row.update(status=FAILED, message=fault(error))
        row["seconds"] = round(time.perf_counter() - begin, 1)
        tqdm.write(f"{name}: {row['message']}", file=sys.stderr)
        if page is not None and hasattr(error, "ename"):  # raised in a cell, which the page shows
            with suppress(InputError):
                write_text(failed, nbformat.writes(page))
    return row


def fault(error: BaseException) -> str:
    """Why a notebook failed, on one line."""
    kind = getattr(error, "ename", type(error).__name__)
    text = " ".join(str(getattr(error, "evalue", error)).split())
    if kind == InputError.__name__:
        return text
    return f"{kind}: {text}" if text else kind
