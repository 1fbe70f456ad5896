"""The set-up: one list of dependencies, clean notebooks, the two commands, and a build that knows
what to run again."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lib.book import extension as book
from lib.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()

# Packages whose import name is not their name on PyPI.
IMPORTED_AS = {
    "yaml": "pyyaml",
    "skimage": "scikit-image",
    "cv2": "opencv-python-headless",
    "jupyter_book": "jupyter-book",
    "pynvml": "nvidia-ml-py",
}
# Come with a declared package.
COMES_WITH = {
    "sphinx": "jupyter-book",
    "pybtex": "jupyter-book",
    "jupyter_cache": "jupyter-book",
    "nbclient": "papermill",
    "jupyter_client": "ipykernel",
    "typing_extensions": "torch",
    "google": "onnx",
    "urllib3": "requests",
}
# Not packages: this project, and modules beside the PySOT fixtures that the parity tests find by
# path (or skip).
LOCAL = {"lib", "report", "rules", "synth_video"}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in requirements}


def makefile_value(name: str) -> str:
    match = re.search(rf"^{name}\s*=\s*(.*)$", MAKEFILE, re.MULTILINE)
    assert match, f"the Makefile does not set {name}"
    return match[1].strip()


# -- Architecture ----------------------------------------------------------------------------------


def order_of_imports() -> list[str]:
    """Modules and packages of lib/ from the top downwards, as lib/__init__.py says."""
    text = (
        ast.get_docstring(ast.parse((ROOT / "lib" / "__init__.py").read_text(encoding="utf-8")))
        or ""
    )
    rows = [re.match(r"    ([a-z_.]+(?:, [a-z_.]+)*)(?:  |$)", line) for line in text.splitlines()]
    return [name for row in rows if row for name in row[1].split(", ")]


def test_imports_of_the_library_point_downwards() -> None:
    """So that what measures can be used, and understood, without what shows it."""
    order = order_of_imports()
    modules = {
        ".".join(path.relative_to(ROOT / "lib").with_suffix("").parts).replace(
            ".__init__", ""
        ): path
        for path in (ROOT / "lib").rglob("*.py")
        if path.parent != ROOT / "lib" or path.name != "__init__.py"
    }

    def place(module: str) -> str:
        """The line's entry: "engines.base" for `engines.base.Engine`, "engines" for `engines.ov`.
        Raises where there is none."""
        parts = module.split(".")
        return next(name for name in (".".join(parts[:2]), parts[0]) if name in order)

    assert all(name in modules for name in order), "no place without a module"
    upwards = set()
    for module, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            inside = isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lib"
            names = [f"{node.module}.{alias.name}"[4:] for alias in node.names] if inside else []
            upwards.update(
                f"{module} imports {name}"
                for name in names
                if order.index(place(name)) < order.index(place(module))
            )
    assert not upwards


# -- One list of dependencies ----------------------------------------------------------------------


def test_conda_installs_what_make_installs() -> None:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    plain = {re.split(r"[=<>]", entry)[0] for entry in conda if isinstance(entry, str)}
    assert plain == {"python", "pip"}, (
        "a package named here is missing from pyproject.toml, the one list"
    )
    [pip] = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    [extras] = re.findall(r"^-e \.\[(.*)\]$", "\n".join(pip), re.MULTILINE)
    assert len(pip) == 1
    assert set(extras.split(",")) == {*makefile_value("EXTRAS").split(","), "opencv"}
    assert set(extras.split(",")) <= set(EXTRAS)


@pytest.mark.skipif(
    sys.version_info < (3, 10), reason="older Pythons cannot list their own modules"
)
@pytest.mark.parametrize("folder", ["lib", "tests", "notebooks"])
def test_every_import_is_declared(folder: str) -> None:
    declared = names(
        PROJECT["dependencies"]
        + [requirement for extra in EXTRAS.values() for requirement in extra]
    )
    sources = {path: path.read_text() for path in (ROOT / folder).rglob("*.py")}
    sources.update(
        {
            path: book.notebook_code(json.loads(path.read_text()))
            for path in (ROOT / folder).rglob("*.ipynb")
        }
    )
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path, source in sources.items()
        for name in imported(source) - LOCAL
        if IMPORTED_AS.get(name, COMES_WITH.get(name, name)).replace("_", "-") not in declared
        and not standard(name)
    }
    assert not missing, "imported, but not in pyproject.toml"


def imported(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
    return found


def standard(name: str) -> bool:
    return name in sys.stdlib_module_names or name == "tomllib"


def test_jupyter_book_stays_below_2() -> None:
    [pin] = [
        requirement for requirement in EXTRAS["book"] if requirement.startswith("jupyter-book")
    ]
    assert pin.startswith("jupyter-book>=1.0.4,<2")


# -- Whichever cv2 is already there ----------------------------------------------------------------


def test_no_dependency_brings_a_second_opencv() -> None:
    others = PROJECT["dependencies"] + [
        requirement for extra in EXTRAS if extra != "opencv" for requirement in EXTRAS[extra]
    ]
    assert not {name for name in names(others) if name.startswith("opencv")}
    assert names(EXTRAS["opencv"]) == {"opencv-python-headless"}


@pytest.mark.parametrize("there", [True, False], ids=["cv2 is there", "no cv2"])
def test_opencv_is_installed_only_where_there_is_none(tmp_path: Path, there: bool) -> None:
    """The Makefile's own recipe, with an interpreter in place of .venv's that notes what it is
    asked."""
    log = tmp_path / "log"
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f'#!/bin/sh\necho "$@" >> {log}\n[ "$2" != "import cv2" ] || exit {0 if there else 1}\n'
    )
    python.chmod(0o755)
    subprocess.run(
        ["make", "-s", "install", f"VENV={tmp_path / 'venv'}", f"PYTHON={sys.executable}"],
        cwd=ROOT,
        check=True,
    )
    asked = log.read_text()
    assert f".[{makefile_value('EXTRAS')}]" in asked
    assert (".[opencv]" in asked) is not there


# -- Notebooks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_committed_without_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None, (
            f"{path.name} has outputs: strip them"
        )
        assert "execution" not in cell["metadata"], (
            f"{path.name} has the times of a run: strip them"
        )
    assert "widgets" not in notebook["metadata"] and "papermill" not in notebook["metadata"]
    assert notebook["metadata"]["kernelspec"]["name"] == "python3", "the kernel of whoever opens it"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_the_boards_python_reads_a_notebook_and_folded_cells_are_folded_everywhere(
    path: Path,
) -> None:
    notebook = json.loads(path.read_text())
    ast.parse(book.notebook_code(notebook), feature_version=(3, 8))
    for cell in notebook["cells"]:
        in_the_book = "hide-input" in cell["metadata"].get("tags", [])
        assert in_the_book == cell["metadata"].get("jupyter", {}).get("source_hidden", False)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebooks_own_parameters_are_those_of_the_demo_profile(path: Path) -> None:
    demo = yaml.safe_load((ROOT / "profiles" / "demo.yaml").read_text())
    defaults = book.default_parameters(json.loads(path.read_text()))
    assert {name: demo.get(name) for name in defaults} == defaults


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_what_a_notebook_declares_as_its_data_exists(path: Path) -> None:
    for pattern in json.loads(path.read_text())["metadata"].get("siambook", {}).get("depends", []):
        to_come = pattern.startswith(("train/", "data/runs/"))  # what training and measuring leave
        assert to_come or list(ROOT.glob(pattern)), (
            f"{path.name} depends on {pattern}, which names nothing"
        )


@pytest.mark.parametrize(
    "path", sorted((ROOT / "profiles").glob("*.yaml")), ids=lambda path: path.name
)
def test_every_profile_sets_the_same_parameters(path: Path) -> None:
    default = book.chosen_parameters(ROOT, {})
    assert {"profile", "dataset", "weights", "run"} <= set(default)
    assert set(book.chosen_parameters(ROOT, {"SIAMBOOK_PROFILE": str(path)})) == set(default)


def test_every_notebook_is_in_the_table_of_contents() -> None:
    listed = set(re.findall(r"(?:file|root): (notebooks/\w+)", (ROOT / "_toc.yml").read_text()))
    assert listed == {f"notebooks/{path.stem}" for path in NOTEBOOKS}


# -- README ----------------------------------------------------------------------------------------


def readme_commands(start: str) -> list[str]:
    """The commands in the README's code: indented or fenced lines, and `spans`."""
    code = re.findall(r"^    (.*)$", README, re.MULTILINE) + re.findall(r"`([^`\n]+)`", README)
    return [line.split(" #")[0].strip() for line in code if line.startswith(start + " ")]


def test_the_targets_that_the_readme_names_exist() -> None:
    targets = set(re.findall(r"^(\w+):", MAKEFILE, re.MULTILINE))
    named = {
        word
        for command in readme_commands("make")
        for word in command.split()[1:2]
        if "=" not in word
    }
    assert {"book", "test", "lab"} <= named <= targets


def test_the_book_is_built_of_what_was_measured_before() -> None:
    made = subprocess.run(
        ["make", "-n", "book"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert 0 < made.index("siambook measure\n") < made.index("jupyter-book build")


@pytest.mark.parametrize(
    "subcommand", sorted({command.split()[1] for command in readme_commands("siambook")})
)
def test_the_subcommands_that_the_readme_names_exist(subcommand: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "lib.cli", subcommand, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


def test_the_files_that_the_readme_names_exist() -> None:
    named = re.findall(r"\b((?:profiles|notebooks|book|lib|data)/[\w./-]*\w)", README)
    generated = ("data/cache", "data/runs", "book/_build")
    assert named
    assert [
        name for name in named if not (ROOT / name).exists() and not name.startswith(generated)
    ] == []


# -- What runs again -------------------------------------------------------------------------------

CODE = {
    "lib/__init__.py": "",
    "lib/errors.py": "",
    "lib/metrics.py": "from lib.errors import InputError\ndef eao():\n    from .vot import protocol\n    return protocol.SKIP\n",
    "lib/vot/__init__.py": "",
    "lib/vot/protocol.py": "SKIP = 5\n",
    "lib/vot/unused.py": "",
    "lib/training.py": "",
    "data/thesis/table.csv": "1\n",
    "data/other.csv": "1\n",
    "profiles/demo.yaml": "profile: demo\nweights: demo\nrun: local\n",
    "profiles/other.yaml": "profile: other\nweights: data/weights.pth\nrun: local\n",
    "data/weights.pth": "1\n",
}


def cell(source: str, **metadata: Any) -> dict[str, Any]:
    name = str(abs(hash(source)))
    return {
        "cell_type": "code",
        "id": name,
        "execution_count": None,
        "metadata": metadata,
        "outputs": [],
        "source": source,
    }


def markdown(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": str(abs(hash(source))), "metadata": {}, "source": source}


def notebook(*cells: dict[str, Any], depends: tuple[str, ...] = ()) -> dict[str, Any]:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "siambook": {"depends": list(depends)}}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": list(cells)}


BASELINE = notebook(
    markdown("# Baseline"),
    cell('profile = "demo"\nweights = "demo"\nrun = "local"', tags=["parameters"]),
    cell(
        "%matplotlib inline\nfrom lib import metrics\nimport time\nprint('made', time.time(), run)"
    ),
    depends=("data/thesis/*.csv",),
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small repository with one notebook that imports lib.metrics, which imports lib.vot.protocol
    inside a function."""
    for name, text in CODE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def parts(project: Path, page: dict[str, Any] = BASELINE, **environ: str) -> dict[str, str]:
    return book.fingerprint(page, project, book.chosen_parameters(project, environ))


USED = [
    "lib/metrics.py",
    "lib/errors.py",
    "lib/vot/protocol.py",
    "lib/vot/__init__.py",
    "data/thesis/table.csv",
]
NOT_USED = [
    "lib/training.py",
    "lib/vot/unused.py",
    "data/other.csv",
    "data/weights.pth",
    "profiles/other.yaml",
]


@pytest.mark.parametrize("name", USED)
def test_a_change_in_what_a_notebook_uses_changes_its_fingerprint(project: Path, name: str) -> None:
    before = parts(project)
    (project / name).write_text("CHANGED = 1\n" if name.endswith(".py") else "2\n")
    after = parts(project)
    assert after[name] != before[name]


@pytest.mark.parametrize("name", NOT_USED)
def test_a_change_elsewhere_leaves_the_fingerprint_alone(project: Path, name: str) -> None:
    before = parts(project)
    (project / name).write_text("profile: changed\n")
    assert parts(project) == before


def test_a_new_file_that_a_notebooks_glob_covers_counts(project: Path) -> None:
    before = parts(project)
    (project / "data/thesis/table2.csv").write_text("1\n")
    assert parts(project) != before


def test_a_parameter_that_is_a_path_counts_with_its_contents(project: Path) -> None:
    chosen = parts(project, SIAMBOOK_PROFILE="profiles/other.yaml")
    assert chosen["parameter weights"] == "'data/weights.pth'"
    (project / "data/weights.pth").write_text("longer\n")
    assert parts(project, SIAMBOOK_PROFILE="profiles/other.yaml") != chosen


def test_modules_named_in_strings_and_relative_imports_are_followed(project: Path) -> None:
    (project / "lib/training.py").write_text("from . import errors\nfrom .vot.unused import *\n")
    found = book.lib_modules("import importlib\nimportlib.import_module('lib.training')", project)
    assert set(found) == {"lib", "lib.training", "lib.errors", "lib.vot", "lib.vot.unused"}


def test_parameters_are_added_where_papermill_adds_them(project: Path) -> None:
    values = book.chosen_parameters(project, {"SIAMBOOK_RUN": "tonight"})
    added = book.with_parameters(BASELINE, values, {}, "profiles/demo.yaml")["cells"]
    assert len(added) == len(BASELINE["cells"]) + 1
    assert added[1] == BASELINE["cells"][1]
    assert added[2]["source"].splitlines()[1:] == ["run = 'tonight'"]
    assert "remove-cell" not in added[2]["metadata"]["tags"], (
        "a reader sees what differs from the defaults"
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("run: [", "not a YAML file"),
        ("- run", "name: value"),
        ("run: 2023-06-01", "plain values"),
        (None, "no such profile"),
    ],
)
def test_a_faulty_profile_is_refused_in_one_sentence(
    project: Path, text: str | None, fault: str
) -> None:
    if text is not None:
        (project / "profiles/bad.yaml").write_text(text)
    with pytest.raises(InputError, match=fault) as caught:
        book.chosen_parameters(project, {"SIAMBOOK_PROFILE": "profiles/bad.yaml"})
    assert "bad.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_key_that_no_notebook_knows_is_refused() -> None:
    with pytest.raises(InputError, match="no notebook has a parameter wieghts"):
        book.refuse_unknown({"wieghts": "x", "run": "y"}, [BASELINE], "profiles/bad.yaml")


@pytest.mark.slow
def test_jupyter_book_runs_again_what_changed_and_nothing_else(project: Path) -> None:
    """`jupyter-book build` itself, on a book of two notebooks: outputs (times of execution) change
    only where they must."""
    pytest.importorskip("jupyter_book", reason="jupyter-book needs Python 3.9")
    clock = notebook(
        markdown("# Other"),
        cell("import time\nprint('made', time.time())"),
        cell("with open('../ran.txt', 'a') as file:\n    print('once', file=file)"),
    )
    build = lay_out(project, {"baseline": BASELINE, "other": clock})
    first, other = made(build())

    (project / "lib/training.py").write_text("X = 1\n")
    assert made(build()) == (first, other), (
        "nothing changed but a module that neither notebook imports"
    )
    assert (project / "ran.txt").read_text() == "once\n", (
        "executed beforehand, and found by the build"
    )

    (project / "lib/vot/protocol.py").write_text("SKIP = 6\n")
    second, same = made(build())
    assert second != first and same == other, "a module that one of them imports"

    (project / "lib/vot/protocol.py").write_text(CODE["lib/vot/protocol.py"])
    assert made(build()) == (first, other), "the change taken back: the former run is still known"

    pages = build(SIAMBOOK_RUN="tonight", SIAMBOOK_REPOSITORY="https://github.com/owner/thesis")
    third, same = made(pages)
    assert third != first and third.endswith("tonight") and same == other, (
        "a parameter that one of them has"
    )
    assert (
        "https://mybinder.org/v2/gh/owner/thesis/main?urlpath=lab/tree/book/notebooks/other.ipynb"
        in pages
    )


@pytest.mark.slow
def test_warnings_and_failing_cells_fail_the_build_every_time(project: Path) -> None:
    pytest.importorskip("jupyter_book", reason="jupyter-book needs Python 3.9")
    build = lay_out(
        project, {"baseline": notebook(markdown("# Baseline\n\n[nowhere](nowhere.md)"), cell("1"))}
    )
    for _ in range(2):  # Sphinx alone is silent the second time
        assert "cross-reference target not found" in build(fails=True)
    (project / "notebooks/baseline.ipynb").write_text(
        json.dumps(notebook(markdown("# Baseline"), cell("1 / 0")))
    )
    for _ in range(2):
        assert "ZeroDivisionError" in build(fails=True)
    (project / "notebooks/baseline.ipynb").write_text(
        json.dumps(notebook(markdown("# Baseline"), cell("1")))
    )
    build()


def lay_out(project: Path, notebooks: dict[str, dict[str, Any]]) -> Any:
    """The project's own configuration around the given notebooks; returns a function that builds
    the book."""
    shutil.copy(ROOT / "_config.yml", project)
    (project / "book").mkdir()
    for link in ("_config.yml", "_toc.yml", "notebooks"):
        (project / "book" / link).symlink_to(f"../{link}")
    shutil.copytree(ROOT / "book/_static", project / "book/_static")
    (project / "book/references.bib").write_text("")
    (project / "book/intro.md").write_text("# Book\n")
    (project / "notebooks").mkdir()
    for name, content in notebooks.items():
        (project / "notebooks" / f"{name}.ipynb").write_text(json.dumps(content))
    chapters = "".join(f"  - file: notebooks/{name}\n" for name in notebooks)
    (project / "_toc.yml").write_text(f"format: jb-book\nroot: intro\nchapters:\n{chapters}")
    shutil.copytree(ROOT / "lib/book", project / "lib/book")
    (project / "lib/errors.py").write_text((ROOT / "lib/errors.py").read_text())

    def build(fails: bool = False, **environ: str) -> str:
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith("SIAMBOOK_")
        }
        run = subprocess.run(
            [str(Path(sys.executable).with_name("jupyter-book")), "build", "book/"],
            cwd=project,
            capture_output=True,
            text=True,
            env={**clean, "PYTHONPATH": str(project), **environ},
        )
        assert (run.returncode != 0) is fails, run.stdout[-2000:] + run.stderr[-2000:]
        pages = [project / f"book/_build/html/notebooks/{name}.html" for name in notebooks]
        return run.stdout + run.stderr if fails else "\n".join(page.read_text() for page in pages)

    return build


def made(pages: str) -> tuple[str, ...]:
    """What each notebook printed: when it ran."""
    return tuple(re.findall(r">(made [\d.]+(?: \w+)?)", pages))
