"""The set-up: layers of the library, one list of dependencies, clean notebooks, the commands that
README.md names."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lib import cli
from lib.book import notebook as book

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
README = (ROOT / "README.md").read_text()
MANUAL = (ROOT / "book" / "manual.md").read_text()
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
    "PIL": "matplotlib",
    "bs4": "jupyter-book",
    "sphinx": "jupyter-book",
    "docutils": "jupyter-book",
    "pybtex": "jupyter-book",
    "jupyter_cache": "jupyter-book",
    "jupyter_client": "ipykernel",
    "typing_extensions": "torch",
    "google": "onnx",
    "packaging": "matplotlib",
}
# Not packages: this project, and modules beside the PySOT fixtures that the parity tests find by
# path (or skip).
LOCAL = {"lib", "book", "measure", "report", "rules", "synth_video"}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in requirements}


def makefile_value(name: str) -> str:
    match = re.search(rf"^{name}\s*=\s*(.*)$", MAKEFILE, re.MULTILINE)
    assert match, f"the Makefile does not set {name}"
    return match[1].strip()


# -- Architecture ----------------------------------------------------------------------------------


def order_of_imports() -> list[str]:
    """Modules and packages of lib/ from the top downwards, as lib/__init__.py says."""
    text = ast.get_docstring(ast.parse((ROOT / "lib/__init__.py").read_text())) or ""
    rows = re.findall(r"^    ([a-z_]+(?:, [a-z_]+)*)(?:  |$)", text, re.MULTILINE)
    return [name for row in rows for name in row.split(", ")]


def test_imports_of_the_library_point_downwards() -> None:
    """So that what measures can be used, and understood, without what shows it."""
    order = order_of_imports()
    files = [path for path in (ROOT / "lib").rglob("*.py") if path != ROOT / "lib/__init__.py"]
    places = {path: path.relative_to(ROOT / "lib").with_suffix("").parts[0] for path in files}
    assert set(places.values()) == set(order), "every module has its place in the list"
    upwards = set()
    for path, place in places.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and re.match(r"lib\b", node.module or ""):
                names = [f"{node.module}.{alias.name}".split(".")[1] for alias in node.names]
                upwards.update(
                    f"{path.relative_to(ROOT)} imports {name}"
                    for name in names
                    if order.index(name) < order.index(place)
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
    assert pip == ["-c requirements.lock", f"-e .[{makefile_value('EXTRAS')}]"]
    assert set(makefile_value("EXTRAS").split(",")) <= set(EXTRAS)


@pytest.mark.skipif(sys.version_info < (3, 10), reason="older Pythons cannot list their modules")
@pytest.mark.parametrize("folder", ["lib", "tests", "notebooks"])
def test_every_import_is_declared(folder: str) -> None:
    extras = [requirement for extra in EXTRAS.values() for requirement in extra]
    declared = names(PROJECT["dependencies"] + extras)
    sources = {path: path.read_text() for path in (ROOT / folder).rglob("*.py")}
    for path in (ROOT / folder).rglob("*.ipynb"):
        sources[path] = book.notebook_code(json.loads(path.read_text()))
    known = {*LOCAL, *sys.stdlib_module_names, "tomllib"}
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path, source in sources.items()
        for name in imported(source) - known
        if IMPORTED_AS.get(name, COMES_WITH.get(name, name)).replace("_", "-") not in declared
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


def test_jupyter_book_stays_below_2() -> None:
    assert any(each.startswith("jupyter-book>=1.0.4,<2;") for each in EXTRAS["book"])


# -- Locks -----------------------------------------------------------------------------------------


def machine(python: str, system: str, processor: str) -> dict[str, str]:
    """What requirements' markers ask of a machine."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": system,
        "platform_machine": processor,
    }


def pins(lock: str, environment: dict[str, str]) -> dict[str, str]:
    """The versions that a lock has for a machine, by normalised name. Fails where a package has
    two."""
    requirements = pytest.importorskip("packaging.requirements")
    lines = (ROOT / lock).read_text().splitlines()
    parsed = [requirements.Requirement(line) for line in lines if not line.startswith("#")]
    here = [each for each in parsed if not each.marker or each.marker.evaluate(environment)]
    found = {normalised(each.name): str(each.specifier).replace("==", "", 1) for each in here}
    assert len(found) == len(here)
    return found


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def unmet(required: list[str], pinned: dict[str, str], environment: dict[str, str]) -> list[str]:
    """The requirements that a lock does not meet on a machine."""
    requirements = pytest.importorskip("packaging.requirements")
    faults = []
    for requirement in map(requirements.Requirement, required):
        if requirement.marker and not requirement.marker.evaluate(environment):
            continue
        version = pinned.get(normalised(requirement.name), "")
        if not version or not requirement.specifier.contains(version, prereleases=True):
            faults.append(f"{requirement} (locked: {version or 'nothing'})")
    return faults


def board_requirements() -> list[str]:
    """PyTorch is the board's own, and in no lock."""
    required = PROJECT["dependencies"] + EXTRAS["board"] + EXTRAS["engines"] + EXTRAS["fetch"]
    return [each for each in required if not re.match(r"torch\b|siambook\b", each)]


@pytest.mark.parametrize("python", ["3.9", "3.10", "3.11", "3.12", "3.13"])
@pytest.mark.parametrize(
    "platform", [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")], ids=" ".join
)
def test_the_lock_has_all_that_pyproject_asks_for(python: str, platform: tuple[str, str]) -> None:
    environment = machine(python, *platform)
    required = PROJECT["dependencies"] + [each for extra in EXTRAS.values() for each in extra]
    required = [each for each in required if not each.startswith("siambook[")]
    assert not unmet(required, pins("requirements.lock", environment), environment), "make lock"


def test_the_boards_lock_has_all_that_its_extra_asks_for() -> None:
    environment = machine("3.8", "linux", "aarch64")
    found = pins("requirements-board.lock", environment)
    assert not unmet(board_requirements(), found, environment), "make lock"
    assert not {name for name in found if name.startswith(("torch", "opencv", "nvidia"))}


def test_a_lock_names_no_index_and_no_hash() -> None:
    for path in ROOT.glob("*.lock"):
        assert not re.search(r"://|--hash|^-", path.read_text(), re.MULTILINE), path.name


@pytest.fixture
def noting(tmp_path: Path) -> Path:
    """An environment whose interpreter notes in `log` what it is asked, and does nothing."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/log"\n[ "$2" != uv ] || exit $NO_UV\n')
    python.chmod(0o755)
    (tmp_path / "venv" / "pyvenv.cfg").write_text("include-system-site-packages = false\n")
    return tmp_path


@pytest.mark.parametrize("no_uv", [0, 1], ids=["uv", "plain pip"])
@pytest.mark.parametrize("lock", [None, ""], ids=["locked", "newest"])
def test_make_installs_what_the_lock_says(noting: Path, no_uv: int, lock: str | None) -> None:
    command = ["make", "-s", "install", f"VENV={noting / 'venv'}"]
    subprocess.run(
        command + ([] if lock is None else [f"LOCK={lock}"]),
        cwd=ROOT,
        env={**os.environ, "NO_UV": str(no_uv), "XDG_CACHE_HOME": str(noting)},
        check=True,
    )
    installs = [line for line in (noting / "log").read_text().splitlines() if " -e " in line]
    versions = "-c requirements.lock" if lock is None else "--upgrade"
    assert len(installs) == 1 + no_uv
    for line in installs:
        assert line.endswith(f"-e .[{makefile_value('EXTRAS')}] {versions}")
    assert installs[-1].startswith("-m pip" if no_uv else "-m uv")


def test_a_jetsons_own_packages_are_seen_by_what_installs(noting: Path) -> None:
    (noting / "venv" / "pyvenv.cfg").write_text("include-system-site-packages = true\n")
    command = ["make", "-s", "install", f"VENV={noting / 'venv'}", "EXTRAS=board"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "NO_UV": "0"}, check=True)
    asked = (noting / "log").read_text()
    assert "-m uv" not in asked
    assert "-m pip install --quiet -e .[board] -c requirements-board.lock" in asked


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


@pytest.mark.parametrize("path", sorted(ROOT.glob("profiles/*.yaml")), ids=lambda path: path.name)
def test_every_profile_sets_the_same_parameters(path: Path) -> None:
    default = set(book.open_profile(ROOT).values)
    assert {"dataset", "weights", "run"} <= default
    assert set(book.open_profile(ROOT, str(path)).values) == default


@pytest.mark.parametrize(
    "path",
    [path for path in NOTEBOOKS if path.name[:2] in ("02", "03", "04")],
    ids=lambda path: path.name,
)
def test_a_page_begins_with_its_result_and_ends_with_a_summary(path: Path) -> None:
    first, *_, last = json.loads(path.read_text())["cells"]
    assert "> **In short.** " in "".join(first["source"])
    assert "".join(last["source"]).startswith("## Summary\n")


# -- Workflows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/workflows/*.yml")), ids=lambda p: p.name)
def test_every_command_of_a_workflow_is_one_that_a_person_can_run(path: Path) -> None:
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    commands = [step["run"].split() for job in jobs for step in job["steps"] if "run" in step]
    assert commands
    for make, target, *_ in commands:
        assert make == "make" and re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


# -- README ----------------------------------------------------------------------------------------


def readme_commands(start: str) -> list[str]:
    """The commands in the code of README and manual: indented or fenced lines, and `spans`."""
    text = f"{README}\n{MANUAL}"
    code = re.findall(r"^    (.*)$", text, re.MULTILINE) + re.findall(r"`([^`\n]+)`", text)
    return [line.split(" #")[0].strip() for line in code if line.startswith(start + " ")]


def test_the_targets_that_the_readme_names_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))
    words = [command.split()[1] for command in readme_commands("make")]
    assert {"book", "test", "lab"} <= {word for word in words if "=" not in word} <= targets


def test_the_book_is_built_of_what_was_measured_before() -> None:
    command = ["make", "-n", "book"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert 0 < made.index("siambook measure\n") < made.index("jupyter-book build")


def test_the_readme_names_every_subcommand_and_no_other() -> None:
    there = cli.PARSER._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    assert {command.split()[1] for command in readme_commands("siambook")} == set(there)


def test_the_files_that_the_readme_names_exist() -> None:
    named = re.findall(r"\b((?:profiles|notebooks|book|lib|data)/[\w./-]*\w)", README + MANUAL)
    generated = ("data/cache", "data/runs", "book/_build")
    committed = [name for name in named if not name.startswith(generated)]
    assert committed and all((ROOT / name).exists() for name in committed)
