"""A notebook of the book: its parameters, all that decides its outputs, and how it is executed.

The book (`lib.book.extension`) and a batch (`lib.book.batch`) execute a notebook with one cell
more, exactly where papermill would put its own; the file stays as it is:

    # profiles/demo.yaml (3f9c...)        <- digest of all that decides the outputs
    run = "workstation"                   <- parameters that differ from the notebook's defaults

Whether a notebook runs again is then a comparison of its code cells. What decides:

- its parameters; one that is the path of a file or folder, the run excepted, counts with its
  contents;
- the modules of lib/ that the notebook imports, directly or through others;
- the files that the notebook declares as its data: `"siambook": {"depends": ["data/thesis/*.csv"]}`
  in its metadata, globs relative to the repository, `**` included;
- runs that no notebook writes here: the one that is shown, where it was recorded on another
  machine, and all others for a page that shows runs side by side;
- the metadata of its code cells (captions and tags, which Jupyter Book's cache would bring back);
- Python, the packages that pyproject.toml names as dependencies and those of the engines, processor,
  its threads (OMP_NUM_THREADS) and GPU: the book shows measurements.
"""

from __future__ import annotations

import ast
import json
import os
import platform
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO, Iterable, Iterator

from lib.environment import DISTRIBUTIONS, device, gpus, processor
from lib.errors import InputError
from lib.files import digest
from lib.measure import runs
from lib.reading import read_mapping

DEFAULT_PROFILE = "profiles/demo.yaml"
SIDE_BY_SIDE = "lib/report/others.py"  # a page that uses it shows other runs, too
INJECTED = "injected-parameters"  # papermill's tag and id of the cell

# Linux ends the kernel together with the process that started it; elsewhere ipykernel looks every
# second whether it is there.
KERNEL = """
import contextlib, ctypes, os, signal
with contextlib.suppress(AttributeError, TypeError):
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != int(os.environ["JPY_PARENT_PID"]):
    raise SystemExit  # that process ended before
from ipykernel.kernelapp import launch_new_instance
launch_new_instance()
"""


# -- Parameters ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Profile:
    """Parameters of the notebooks. file: relative to the repository."""

    file: str
    values: dict[str, Any]


def open_profile(root: Path, profile: str | None = None, run: str | None = None) -> Profile:
    """The profile of this name, else SIAMBOOK_PROFILE's, else the demo's; with the run of this
    name, else SIAMBOOK_RUN's, in place of its own. Raises InputError."""
    name = profile or os.environ.get("SIAMBOOK_PROFILE") or DEFAULT_PROFILE
    path = Path(name) if Path(name).is_file() else root / name
    try:
        values = read_mapping(path)
        json.dumps(values)  # plain values only: they are written into a cell
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: no profile, which has `name: value` lines ({reason})") from None
    run = run or os.environ.get("SIAMBOOK_RUN") or str(values.get("run") or runs.LOCAL)
    return Profile(os.path.relpath(path, root), {**values, "run": run})


def refuse_unknown(profile: Profile, notebooks: Iterable[dict[str, Any]]) -> None:
    """A key that no notebook of the book has as a parameter is a slip of the pen, not a setting."""
    known = {name for notebook in notebooks for name in default_parameters(notebook)}
    unknown = sorted(set(profile.values) - known)
    if known and unknown:
        raise InputError(
            f"{profile.file}: no notebook has a parameter {', '.join(unknown)} "
            f"(they have {', '.join(sorted(known))})"
        )


def parameters_cell(notebook: dict[str, Any]) -> int | None:
    """Position of the cell tagged `parameters`, papermill's convention."""
    for position, cell in enumerate(notebook["cells"]):
        if "parameters" in cell["metadata"].get("tags", []):
            return position
    return None


def default_parameters(notebook: dict[str, Any]) -> dict[str, Any]:
    """The literal assignments of the parameters cell: {"profile": "demo", ...}."""
    position = parameters_cell(notebook)
    source = "" if position is None else "".join(notebook["cells"][position]["source"])
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


# -- What decides its outputs ----------------------------------------------------------------------


def code_cells(notebook: dict[str, Any]) -> list[str]:
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def notebook_code(notebook: dict[str, Any]) -> str:
    """The notebook's code as one module: magics (`%`, `!`, `?`) become `pass`."""
    lines = "\n".join(code_cells(notebook)).splitlines()
    return "\n".join("pass" if re.match(r"\s*[%!?]", line) else line for line in lines)


def lib_modules(source: str, root: Path) -> set[Path]:
    """The modules of lib/ that `source` reaches, as files.

    Read from the code, never run: imports inside functions count, and so does a module's name in a
    string, which is how `importlib.import_module("lib.engines.trt")` says it. Relative imports are
    not followed (ruff forbids them).
    """
    found: set[Path] = set()
    queue = list(_names(source))
    while queue:
        name = queue.pop()
        base = root.joinpath(*name.split("."))
        for path in (base / "__init__.py", base.with_suffix(".py")):
            if path not in found and path.is_file():
                found.add(path)
                # Importing lib.vot.metrics runs lib and lib.vot first
                queue += [*_names(path.read_text(encoding="utf-8")), name.rpartition(".")[0]]
    return found


def _names(source: str) -> Iterator[str]:
    """Dotted names that may be modules of lib/."""
    for node in ast.walk(ast.parse(source)):
        names: list[Any] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant):
            names = [node.value]
        for name in names:
            if isinstance(name, str) and re.fullmatch(r"lib(\.\w+)*", name):
                yield name


def fingerprint(notebook: dict[str, Any], root: Path, values: dict[str, Any]) -> dict[str, str]:
    """All that decides the notebook's outputs, part by part, so that a build can say what changed.

    Returns e.g. {"lib/vot/metrics.py": "sha...", "data/thesis/table_4_1.csv": "sha...", "parameter
    run": "'local'", ...}.
    """
    parts = dict(_environment())
    files = lib_modules(notebook_code(notebook), root)
    for pattern in notebook["metadata"].get("siambook", {}).get("depends", []):
        files.update(path for path in root.glob(pattern) if path.is_file())
    for path in sorted(files):
        parts[path.relative_to(root).as_posix()] = digest(path.read_bytes())
    for name, default in default_parameters(notebook).items():
        value = values.get(name, default)
        parts[f"parameter {name}"] = repr(value)
        if name != "run" and isinstance(value, str) and value and (root / value).exists():
            parts[f"contents of {value}"] = _contents(root / value)
    run = values.get("run", runs.LOCAL)
    for name in runs.names() if SIDE_BY_SIDE in parts else ():
        if name not in (run, runs.LOCAL):
            parts[f"run {name}"] = _contents(runs.run_folder(name))
    if run != runs.LOCAL and runs.is_recorded(run, device()):
        parts[f"run {run}"] = _contents(runs.run_folder(run))
    cells = [cell["metadata"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    parts["captions and tags"] = digest(json.dumps(cells, sort_keys=True).encode())
    return parts


def _contents(path: Path) -> str:
    """Digest of a file or folder outside the repository's care, too large to read at every build:
    names, sizes, times."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    told = [f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return digest("\n".join(told).encode())


@lru_cache(maxsize=1)
def _environment() -> dict[str, str]:
    required = [line for line in metadata.requires("siambook") or [] if "extra ==" not in line]
    names = [re.split(r"[^\w.-]", line)[0] for line in required]
    parts = {"Python": platform.python_version(), "GPU": ", ".join(gpus())}
    parts["processor"] = f"{os.cpu_count()} x {processor()}"
    parts["threads"] = os.environ.get("OMP_NUM_THREADS", "")
    for name in (*names, *DISTRIBUTIONS):
        # A requirement of another Python version, an engine that is not there
        with suppress(metadata.PackageNotFoundError):
            parts[name] = metadata.version(name)
    return parts


def prepared(notebook: dict[str, Any], profile: Profile, parts: dict[str, str]) -> dict[str, Any]:
    """The notebook as it is executed: with one cell more, which has the digest of `parts` and the
    parameters that differ from the notebook's own. A page shows the cell only when it sets
    something."""
    lines = [
        f"{name} = {profile.values[name]!r}"
        for name, default in default_parameters(notebook).items()
        if profile.values.get(name, default) != default
    ]
    told = digest(json.dumps(parts, sort_keys=True).encode())
    cell: dict[str, Any] = {
        "cell_type": "code",
        "id": INJECTED,
        "execution_count": None,
        "metadata": {"tags": [INJECTED] if lines else [INJECTED, "remove-cell"]},
        "outputs": [],
        "source": "\n".join([f"# {profile.file} ({told})", *lines]),
    }
    position = parameters_cell(notebook)
    at = len(notebook["cells"]) if position is None else position + 1
    return {**notebook, "cells": [*notebook["cells"][:at], cell, *notebook["cells"][at:]]}


# -- Executing it ----------------------------------------------------------------------------------


def execute(page: Any, root: Path, log: BinaryIO, timeout: int | None = None, **env: str) -> None:
    """Execute a notebook, as nbformat reads it, in place and in the folder notebooks/.

    The kernel is this interpreter with this library, whatever kernels are installed. log: gets what
    the notebook prints and what its kernel does, as far as there is room. timeout: of a cell, in s.
    env: variables of the kernel. Raises what nbclient raises.
    """
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec
    from nbclient import NotebookClient

    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    spec = KernelSpec(
        argv=[sys.executable, "-c", KERNEL, "-f", "{connection_file}"],
        display_name="Python 3",
        language="python",
        env={"PYTHONPATH": path, **env},
    )

    class Kernel(AsyncKernelManager):
        kernel_spec = spec

        async def start_kernel(self, **more: Any) -> None:  # type: ignore[override]
            await super().start_kernel(**more, stdout=log, stderr=log)

    class Client(NotebookClient):
        def process_message(self, msg: Any, *where: Any) -> Any:
            if msg["msg_type"] == "stream":
                with suppress(OSError):
                    log.write(msg["content"]["text"].encode("utf-8", "replace"))
            return super().process_message(msg, *where)

    client = Client(
        page,
        timeout=timeout,
        kernel_name="python3",
        kernel_manager_class=Kernel,
        record_timing=False,  # times in the cells would make it another notebook to the cache
        resources={"metadata": {"path": str(root / "notebooks")}},
    )
    client.execute()
