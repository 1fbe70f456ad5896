"""The notebooks as one batch, for machines where a run takes hours and no book is built (`siambook
run`; chapter 4 on a Jetson).

Every notebook of _toc.yml is executed through papermill, in that order and the front page last,
with the parameters of a profile. The run keeps

    notebooks.csv                       a row a notebook: done or failed, seconds, start, reason
    notebooks/<notebook>.ipynb          executed to its end
    notebooks/<notebook>.failed.ipynb   executed up to the cell that raised something
    notebooks/<notebook>.log            what it and its kernel printed

A failure is written down and the rest still done. Killed at any moment and started again, a batch
goes on where it was: a notebook is finished when it lies under its own name, which is given to it
last and at once, and its code cells are those that would be executed now. One of these cells is
`lib.book.extension`'s, with the digest of all that decides the outputs. What a notebook had measured before
it was killed is in the run already (`lib.measure`).

The kernel is the interpreter that runs the batch, whatever kernels are installed, and it dies with
the batch. One batch works in a run at a time. Needs papermill, ipykernel and nbformat, which are
imported where they are used, and no Jupyter Book.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Iterator, Sequence

import pandas as pd
import yaml
from tqdm import tqdm

from lib.book.extension import (
    DEFAULT_PROFILE,
    chosen_parameters,
    fingerprint,
    refuse_unknown,
    with_parameters,
)
from lib.book.pages import kernel_manager
from lib.environment import device
from lib.errors import InputError
from lib.files import ROOT, locked, write_text
from lib.measure import runs

NEEDS = ("papermill", "ipykernel", "nbformat")
LOCK = ".batch"
DONE, FAILED = "done", "failed"


# -- What there is to do ---------------------------------------------------------------------------


def in_order(contents: Any) -> list[str]:
    """The files that a table of contents (as read from _toc.yml) names, in the order of the book;
    the front page (root) last, because it shows what the others measure."""
    if isinstance(contents, list):
        return [file for part in contents for file in in_order(part)]
    if not isinstance(contents, dict):
        return []
    own, front = ([str(contents[key])] if key in contents else [] for key in ("file", "root"))
    return own + [file for part in contents.values() for file in in_order(part)] + front


def notebooks(root: Path) -> dict[str, dict[str, Any]]:
    """The book's notebooks by name, in its order. Raises InputError for a file that is none."""
    files = [
        root / f"{file}.ipynb"
        for file in in_order(yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8")))
    ]
    # The other pages are not executed
    return {path.stem: _read(path) for path in files if path.is_file()}


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a notebook ({' '.join(str(error).split())})") from None


def choose(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """The names that begin with one of the prefixes; all without prefixes. Raises InputError for a
    prefix of none."""
    for prefix in only:
        if not any(name.startswith(prefix) for name in names):
            raise InputError(
                f"--only {prefix}: no notebook begins with that (there are {', '.join(names)})"
            )
    return [name for name in names if not only or name.startswith(tuple(only))]


def prepare(
    notebook: dict[str, Any], root: Path, values: dict[str, Any], profile: str
) -> dict[str, Any]:
    """The notebook with the cell of `lib.book.extension`: the digest of what decides its outputs, and its
    parameters."""
    parts = fingerprint(notebook, root, values)
    # A run given by its path: what is measured into it decides nothing
    parts.pop(f"contents of {values['run']}", None)
    return with_parameters(notebook, values, parts, profile)


def code(notebook: dict[str, Any]) -> list[str]:
    """Its code cells."""
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def sentence(error: BaseException) -> str:
    """Why a notebook failed, on one line: what its cell raised, or what kept it from being
    executed."""
    kind, text = (
        getattr(error, "ename", type(error).__name__),
        " ".join(str(getattr(error, "evalue", error)).split()),
    )
    return text if kind == InputError.__name__ else f"{kind}: {text}" if text else kind


# -- Doing it --------------------------------------------------------------------------------------


def profile_file(root: Path, profile: str | None) -> str:
    """A profile's file relative to the repository: the one named, else that of SIAMBOOK_PROFILE,
    else the demo's."""
    chosen = profile or os.environ.get("SIAMBOOK_PROFILE") or DEFAULT_PROFILE
    # One spelling of it in every page
    return os.path.relpath(chosen if Path(chosen).is_file() else root / chosen, root)


def parameters(root: Path, profile: str | None = None, run: str | None = None) -> dict[str, Any]:
    """A profile's values, with the run that is named in place of its own."""
    chosen = {
        "SIAMBOOK_PROFILE": profile_file(root, profile),
        "SIAMBOOK_RUN": run or os.environ.get("SIAMBOOK_RUN", ""),
    }
    values = chosen_parameters(root, chosen)
    values["run"] = str(values.get("run") or runs.LOCAL)
    return values


def run(
    root: Path = ROOT, profile: str | None = None, only: Sequence[str] = (), name: str | None = None
) -> list[str]:
    """Execute the notebooks that the run has not finished; returns what failed, in sentences.

    profile: a file, else that of SIAMBOOK_PROFILE, else the demo's. only: prefixes of notebooks.
    name: of the run, in place of the profile's. Raises InputError where nothing can be executed: a
    package, profile or notebook that is not there, a run that was recorded on another machine, or
    one that another batch works in.
    """
    missing = [package for package in NEEDS if not find_spec(package)]
    if missing:
        raise InputError(
            f"{', '.join(missing)} not installed, and notebooks need it: pip install {' '.join(NEEDS)}"
        )
    profile = profile_file(root, profile)
    values = parameters(root, profile, name)
    book, folder = notebooks(root), runs.run_folder(values["run"])
    refuse_unknown(values, book.values(), profile)
    names = choose(list(book), only)
    _refuse_recorded(values["run"])
    unwritten: list[str] = []
    with locked(folder / LOCK, f"{folder}: another `siambook run` is working in this run"):
        rows = {
            row["notebook"]: dict(row)
            for row in runs.notebook_times(values["run"]).to_dict("records")
        }
        with tqdm(names, unit="notebook") as bar:
            for each in bar:
                bar.set_description(each)
                rows[each] = _one(each, root, values, profile, folder / "notebooks", bar)
                unwritten = _write(
                    folder / runs.NOTEBOOKS,
                    pd.DataFrame([rows[one] for one in book if one in rows]),
                )
    return [
        f"{each}: {rows[each]['message']}" for each in names if rows[each]["status"] == FAILED
    ] + unwritten


@contextmanager
def stopped_by_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C end the process at once, as a kill does: a batch stands that at any moment, and
    its kernel ends with it. An exception would have to find its way out through callbacks of
    asyncio and what papermill does behind it. Where Ctrl-C is ignored, as in a job in the
    background, or has another handler, it stays so."""

    def stop(number: int, frame: Any) -> None:
        os.write(2, b"\nsiambook: stopped\n")
        os._exit(130)

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _one(
    name: str, root: Path, values: dict[str, Any], profile: str, folder: Path, bar: tqdm
) -> dict[Any, Any]:
    """Execute a notebook, unless it is finished, and keep it; returns its row."""
    partial, kept, failed = (
        folder / f".{name}.ipynb",
        folder / f"{name}.ipynb",
        folder / f"{name}.failed.ipynb",
    )
    started, begin = datetime.now(timezone.utc), time.perf_counter()
    try:
        prepared = prepare(_read(root / "notebooks" / f"{name}.ipynb"), root, values, profile)
        if not _finished(kept, prepared):
            write_text(partial, json.dumps(prepared))
            _execute(partial, folder / f"{name}.log", root, bar)
            os.replace(partial, kept)
        failed.unlink(missing_ok=True)
        about = _read(kept)["metadata"]["papermill"]
        return _row(name, DONE, about["duration"], datetime.fromisoformat(about["start_time"]))
    except Exception as error:  # whatever stops a notebook does not stop the rest
        with suppress(OSError):
            if hasattr(error, "ename"):  # raised in a cell, which the page shows
                os.replace(partial, failed)
            partial.unlink()
        bar.write(f"{name}: {sentence(error)}", file=sys.stderr)
        return _row(name, FAILED, time.perf_counter() - begin, started, sentence(error))


def _finished(kept: Path, prepared: dict[str, Any]) -> bool:
    with suppress(InputError):  # there is none, or a power cut emptied it
        return code(_read(kept)) == code(prepared)
    return False


def _row(
    name: str, status: str, seconds: float, started: datetime, message: str = ""
) -> dict[Any, Any]:
    return {
        "notebook": name,
        "status": status,
        "seconds": round(seconds, 1),
        "started": f"{started:%Y-%m-%d %H:%M} UTC",
        "message": message,
    }


def _execute(path: Path, log: Path, root: Path, bar: tqdm) -> None:
    """Execute a notebook in place. Raises what papermill raises."""
    from papermill import execute_notebook

    with open(log, "wb", buffering=0) as file:
        told = _Log(file, bar)
        # Saved at the end alone: a disk that is full for a moment must not end a
        # measurement of hours.
        execute_notebook(
            str(path),
            str(path),
            cwd=str(root / "notebooks"),
            kernel_name="python3",
            progress_bar=False,
            request_save_on_cell_execute=False,
            kernel_manager_class=kernel_manager(root, file),
            stdout_file=told,
            stderr_file=told,
        )


class _Log:
    """A notebook's output to its file, as far as there is room; its last line stands behind the
    progress bar."""

    def __init__(self, file: BinaryIO, bar: tqdm) -> None:
        self.file, self.bar = file, bar

    def write(self, text: str) -> None:
        with suppress(OSError):
            self.file.write(text.encode("utf-8", "replace"))
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        self.bar.set_postfix_str(lines[-1][:60] if lines else "", refresh=sys.stderr.isatty())

    def flush(self) -> None:
        """Nothing waits to be written."""


def _write(path: Path, table: pd.DataFrame) -> list[str]:
    """Write a table; returns why not, where it cannot be."""
    try:
        write_text(path, table.to_csv(index=False))
    except InputError as error:
        return [str(error)]
    return []


def _refuse_recorded(run: str) -> None:
    if (runs.run_folder(run) / runs.ENVIRONMENT).is_file() and runs.is_recorded(run, device()):
        raise InputError(
            f"run {run} was recorded on another machine and is only read here; --run names another one"
        )
