"""Sphinx extension: what decides a notebook's outputs decides whether it runs again.

Jupyter Book's cache compares the code cells of a notebook and nothing else. This extension, named
in `_config.yml`, adds one cell to the notebook as Sphinx reads it (the file stays as it is),
exactly where papermill would put its own:

    # 3f9c... profiles/demo.yaml          <- digest of all that decides the outputs
    run = "workstation"                   <- parameters that differ from the notebook's defaults

so that the cache itself misses when the digest changes, and finds the former run again when the
change is taken back. What decides:

- the parameters: `profiles/demo.yaml` or the file named by SIAMBOOK_PROFILE, with `run` replaced by
  SIAMBOOK_RUN if set; one that is the path of an existing file or folder counts with its contents;
- the modules of lib/ that the notebook imports, directly or through others;
- the files that the notebook declares as its data: `"siambook": {"depends": ["data/thesis/*.csv"]}`
  in its metadata, globs relative to the repository, `**` included;
- for pages that show runs side by side: the tables of the other runs under data/runs; and all of
  the run that is shown, where it was recorded on another machine (what this machine's own run holds
  is what the notebooks write);
- the metadata of its code cells (captions and tags, which the cache would otherwise bring back);
- Python, the packages that pyproject.toml names as dependencies and those of the engines, processor
  and GPU: the book shows measurements.

Serves every chapter; `lib.book.batch` takes the same digest for notebooks that are executed without a
book.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import re
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterable, Iterator

import yaml

from lib.book.pages import fill_cache
from lib.environment import DISTRIBUTIONS, cores, gpus, processor
from lib.errors import InputError

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

PACKAGE = "lib"
DISTRIBUTION = "siambook"
DEFAULT_PROFILE = "profiles/demo.yaml"
SIDE_BY_SIDE = "lib/report/others.py"  # a page that uses it shows other runs, too


# -- What a notebook imports -----------------------------------------------------------------------


def lib_modules(source: str, root: Path) -> dict[str, Path]:
    """The modules of lib/ that `source` reaches, by dotted name: {"lib": .../lib/__init__.py,
    "lib.vot.metrics": ...}.

    Read from the code, never run: imports inside functions count, and so does a module's name in a
    string, which is how `importlib.import_module("lib.engines.trt")` says it.
    """
    found: dict[str, Path] = {}
    queue = list(_names(ast.parse(source), package=""))
    while queue:
        name = queue.pop()
        path = _module_file(name, root)
        if path is None or name in found:
            continue
        found[name] = path
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        queue += _names(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)), package)
        # Importing lib.vot.metrics runs lib and lib.vot first
        queue.append(name.rpartition(".")[0])
    return found


def _names(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names that may be modules of lib/; `_module_file` tells which are."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join(
                    [*parents[: len(parents) - node.level + 1], *([base] if base else [])]
                )
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.startswith(PACKAGE + ".")
        ):
            yield node.value


def _module_file(name: str, root: Path) -> Path | None:
    parts = name.split(".")
    if parts[0] != PACKAGE or not all(part.isidentifier() for part in parts):
        return None
    base = root.joinpath(*parts)
    return next(
        (path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None
    )


def notebook_code(notebook: dict[str, Any]) -> str:
    """The notebook's code as one module: magics (`%`, `!`, `?`) become blank lines."""
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    lines = "\n".join(cells).splitlines()
    return "\n".join("pass" if re.match(r"\s*[%!?]", line) else line for line in lines)


# -- Parameters ------------------------------------------------------------------------------------


def parameters_cell(notebook: dict[str, Any]) -> int | None:
    """Position of the cell tagged `parameters`, papermill's convention."""
    tagged = (
        i
        for i, cell in enumerate(notebook["cells"])
        if "parameters" in cell["metadata"].get("tags", [])
    )
    return next(tagged, None)


def default_parameters(notebook: dict[str, Any]) -> dict[str, Any]:
    """The literal assignments of the parameters cell: {"profile": "demo", ...}."""
    position = parameters_cell(notebook)
    if position is None:
        return {}
    defaults = {}
    for node in ast.parse("".join(notebook["cells"][position]["source"])).body:
        targets = (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign)
            else []
        )
        value = getattr(node, "value", None)
        if value is not None:
            defaults.update(
                {
                    target.id: ast.literal_eval(value)
                    for target in targets
                    if isinstance(target, ast.Name)
                }
            )
    return defaults


def chosen_parameters(root: Path, environ: dict[str, str]) -> dict[str, Any]:
    """The profile that SIAMBOOK_PROFILE names (relative to the repository, or absolute), with
    SIAMBOOK_RUN as its `run`."""
    path = root / (environ.get("SIAMBOOK_PROFILE") or DEFAULT_PROFILE)
    if not path.is_file():
        there = ", ".join(sorted(p.name for p in root.glob("profiles/*.yaml")))
        raise InputError(f"{path}: no such profile (profiles/ has {there})")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        json.dumps(values)  # plain values only: they are written into a cell
    except (yaml.YAMLError, TypeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not a YAML file of plain values ({' '.join(str(error).split())})"
        ) from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: a profile is a list of `name: value` lines")
    if environ.get("SIAMBOOK_RUN"):
        values["run"] = environ["SIAMBOOK_RUN"]
    return values


def refuse_unknown(
    values: dict[str, Any], notebooks: Iterable[dict[str, Any]], profile: str
) -> None:
    """A key that no notebook of the book has as a parameter is a slip of the pen, not a setting."""
    known = {name for notebook in notebooks for name in default_parameters(notebook)}
    unknown = sorted(set(values) - known)
    if known and unknown:
        raise InputError(
            f"{profile}: no notebook has a parameter {', '.join(unknown)} (they have {', '.join(sorted(known))})"
        )


# -- Fingerprint -----------------------------------------------------------------------------------


def fingerprint(notebook: dict[str, Any], root: Path, values: dict[str, Any]) -> dict[str, str]:
    """All that decides the notebook's outputs, part by part, so that a build can say what changed.

    Returns e.g. {"lib/vot/metrics.py": "sha...", "data/thesis/table_4_1.csv": "sha...", "parameter
    run": "'local'", ...}.
    """
    parts = dict(_environment())
    for path in lib_modules(notebook_code(notebook), root).values():
        parts[str(path.relative_to(root))] = _digest(path.read_bytes())
    for pattern in notebook["metadata"].get("siambook", {}).get("depends", []):
        files = [path for path in sorted(root.glob(pattern)) if path.is_file()]
        if not files:
            parts[pattern] = "missing"
        parts.update({str(path.relative_to(root)): _digest(path.read_bytes()) for path in files})
    for name, default in default_parameters(notebook).items():
        value = values.get(name, default)
        parts[f"parameter {name}"] = repr(value)
        if isinstance(value, str) and value and (root / value).exists():
            parts[f"contents of {value}"] = _contents(root / value)
    parts.update(_runs(root, str(values.get("run", "")), SIDE_BY_SIDE in parts))
    cells = [cell["metadata"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    parts["captions and tags"] = _digest(json.dumps(cells, sort_keys=True).encode())
    return parts


def _runs(root: Path, run: str, side_by_side: bool) -> dict[str, str]:
    """Digests of what a page shows of runs that no notebook writes here."""
    parts, folder = {}, Path(os.environ.get("SIAMBOOK_RUNS") or root / "data" / "runs")
    for file in sorted(folder.glob("*/*")) if side_by_side else ():
        if file.parent.name not in (run, "local") and (
            file.suffix == ".csv" or file.name == "environment.json"
        ):
            parts[f"data/runs/{file.relative_to(folder)}"] = _digest(file.read_bytes())
    try:
        machine = json.loads((folder / run / "environment.json").read_text(encoding="utf-8"))[
            "hardware"
        ]
    # A run that nothing is known of is this machine's own (lib/measure/runs.py)
    except (OSError, ValueError, KeyError, TypeError):
        return parts
    if run != "local" and (machine.get("processor"), machine.get("cores")) != (
        processor(),
        cores(),
    ):
        parts[f"contents of run {run}"] = _contents(folder / run)
    return parts


def _contents(path: Path) -> str:
    """Digest of a file or folder outside the repository's care, too large to read at every build:
    names, sizes, times."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return _digest(
        "\n".join(f"{p} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in files).encode()
    )


@lru_cache(maxsize=1)
def _environment() -> tuple[tuple[str, str], ...]:
    parts = [
        ("Python", platform.python_version()),
        ("processor", f"{os.cpu_count()} x {processor()}"),
        ("GPU", ", ".join(gpus())),
    ]
    required = [
        re.match(r"([\w.-]+)(.*)", requirement).groups()  # type: ignore[union-attr]
        for requirement in metadata.requires(DISTRIBUTION) or []
    ]
    for name in (*(name for name, marker in required if "extra ==" not in marker), *DISTRIBUTIONS):
        # A requirement of another Python version, an engine that is not there
        with suppress(metadata.PackageNotFoundError):
            parts.append((name, metadata.version(name)))
    return tuple(parts)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def with_parameters(
    notebook: dict[str, Any], values: dict[str, Any], parts: dict[str, str], profile: str
) -> dict[str, Any]:
    """The notebook with one cell more: the digest of `parts` and the parameters that differ from
    the notebook's own.

    The page shows the cell only when it sets something.
    """
    defaults = default_parameters(notebook)
    differing = {
        name: values[name] for name in defaults if name in values and values[name] != defaults[name]
    }
    digest = _digest(json.dumps(parts, sort_keys=True).encode())
    cell: dict[str, Any] = {
        "cell_type": "code",
        "id": "injected-parameters",
        "execution_count": None,
        "metadata": {
            "tags": ["injected-parameters"] if differing else ["injected-parameters", "remove-cell"]
        },
        "outputs": [],
        "source": "\n".join(
            [
                f"# {profile} ({digest})",
                *(f"{name} = {value!r}" for name, value in differing.items()),
            ]
        ),
    }
    if (notebook["nbformat"], notebook["nbformat_minor"]) < (4, 5):
        del cell["id"]
    position = parameters_cell(notebook)
    at = len(notebook["cells"]) if position is None else position + 1
    return {**notebook, "cells": [*notebook["cells"][:at], cell, *notebook["cells"][at:]]}


# -- Sphinx ----------------------------------------------------------------------------------------


class Book:
    """The state of one build: which notebooks there are and what decides each."""

    def __init__(self, app: Sphinx) -> None:
        self.root = Path(app.srcdir).resolve().parent
        self.profile = os.environ.get("SIAMBOOK_PROFILE") or DEFAULT_PROFILE
        self.values: dict[str, Any] = {}
        self.parts: dict[str, dict[str, str]] = {}

    def outdated(
        self,
        app: Sphinx,
        env: BuildEnvironment,
        added: set[str],
        changed: set[str],
        removed: set[str],
    ) -> list[str]:
        """env-get-outdated: compute every notebook's fingerprint; pages whose fingerprint changed
        are read again."""
        from sphinx.errors import ExtensionError
        from sphinx.util import logging

        files = {name: Path(env.doc2path(name)) for name in env.found_docs}
        notebooks = {
            name: json.loads(path.read_text(encoding="utf-8"))
            for name, path in sorted(files.items())
            if path.suffix == ".ipynb"
        }
        try:
            self.values = chosen_parameters(self.root, dict(os.environ))
            refuse_unknown(self.values, notebooks.values(), self.profile)
        except InputError as error:
            raise ExtensionError(str(error)) from None  # one sentence, not two
        self.parts = {
            name: fingerprint(notebook, self.root, self.values)
            for name, notebook in notebooks.items()
        }
        pages = {files[name]: self.page(name, notebook) for name, notebook in notebooks.items()}
        cache = env.mystnb_config.execution_cache_path  # type: ignore[attr-defined]
        fill_cache(Path(cache), pages, self.root, int(app.config.nb_execution_timeout))
        known = _fingerprints(env)
        stale = [
            name for name, parts in self.parts.items() if name in known and known[name] != parts
        ]
        for name in stale:
            then, now = known[name], self.parts[name]
            differing = sorted(key for key in {*then, *now} if then.get(key) != now.get(key))
            logging.getLogger(__name__).info(
                "%s runs again: %s changed", name, ", ".join(differing)
            )
        return stale

    def read(self, app: Sphinx, docname: str, content: list[str]) -> None:
        """source-read: add the cell, and remember what the page is made from."""
        if docname in self.parts:
            content[0] = json.dumps(self.page(docname, json.loads(content[0])))
            _fingerprints(app.env)[docname] = self.parts[docname]

    def page(self, name: str, notebook: dict[str, Any]) -> dict[str, Any]:
        """The notebook as it is executed."""
        return with_parameters(notebook, self.values, self.parts[name], self.profile)

    def finished(self, app: Sphinx, exception: Exception | None) -> None:
        """build-finished: a build with warnings fails, and so does the next one until they are
        mended.

        Sphinx warns about a page as it reads it and then keeps it, so a second build would be
        silent; without its record of the pages it reads them again. The executed notebooks stay in
        the cache.
        """
        if app._warncount:
            app.statuscode = 1
            (Path(app.doctreedir) / "environment.pickle").unlink(missing_ok=True)


def _fingerprints(env: BuildEnvironment) -> dict[str, dict[str, str]]:
    """The parts that each page was made from, kept with Sphinx's own record of the pages."""
    if not hasattr(env, "siambook_fingerprints"):
        env.siambook_fingerprints = {}  # type: ignore[attr-defined]
    return env.siambook_fingerprints  # type: ignore[attr-defined]


def launch_buttons(repository: str) -> dict[str, Any]:
    """Options of the theme for a book whose repository is public: buttons that open a page's
    notebook on Binder or Colab, and one that leads to the repository. repository: its address."""
    return {
        "repository_url": repository.rstrip("/"),
        "repository_branch": "main",
        "use_repository_button": True,
        "path_to_docs": "book",
        "launch_buttons": {
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
            "notebook_interface": "jupyterlab",
        },
    }


def _configured(app: Sphinx, config: Any) -> None:
    """config-inited: captions name the thesis's figures, so Sphinx numbers none; with
    SIAMBOOK_REPOSITORY set, pages get `launch_buttons`."""
    config.numfig = False
    if os.environ.get("SIAMBOOK_REPOSITORY"):
        config.html_theme_options = {
            **config.html_theme_options,
            **launch_buttons(os.environ["SIAMBOOK_REPOSITORY"]),
        }


def _label_by_author_and_year() -> None:
    """Make "authoryear" a style of bibliography: sorted, and labelled as the text cites
    (`bibtex_reference_style`)."""
    from pybtex.plugin import register_plugin
    from pybtex.style.formatting.unsrt import Style
    from pybtex.style.labels import BaseLabelStyle

    class Labels(BaseLabelStyle):
        def format_labels(self, sorted_entries: Iterable[Any]) -> Iterator[str]:
            for entry in sorted_entries:
                names = [
                    " ".join(map(str, (*person.rich_prelast_names, *person.rich_last_names)))
                    for person in entry.persons["author"]
                ]
                who = (
                    names[0]
                    if len(names) == 1
                    else " and ".join(names)
                    if len(names) == 2
                    else f"{names[0]} et al."
                )
                yield f"{who}, {entry.fields['year']}"

    class AuthorYear(Style):
        default_label_style = Labels
        default_sorting_style = "author_year_title"

    register_plugin("pybtex.style.formatting", "authoryear", AuthorYear)


def setup(app: Sphinx) -> dict[str, Any]:
    _label_by_author_and_year()
    book = Book(app)
    # Behind the LaTeX extension, which has figures numbered
    app.connect("config-inited", _configured, priority=900)
    app.connect("env-get-outdated", book.outdated)
    app.connect("source-read", book.read)
    app.connect("build-finished", book.finished)
    return {"version": "1", "parallel_read_safe": False}
