"""The Xavier, as far as it can be tested without one: commands of its page, its image, its profile,
its packages, Python 3.8."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lib import cli
from lib.book import batch
from lib.book import notebook as book
from lib.report import thesis

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "book" / "xavier.md").read_text(encoding="utf-8")
PAGES = PAGE + (ROOT / "book" / "own.md").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "docker" / "Dockerfile.xavier").read_text(encoding="utf-8")
PROFILE = ROOT / "profiles" / "xavier.yaml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
MINE = "profiles/mine.yaml"  # which the page tells a reader to write
LEFT_OUT = ROOT / ".ci" / "python38.left-out"


def commands(text: str) -> list[list[str]]:
    """The command lines of a page's shell blocks, in words, without comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def begin_with(program: str, text: str = PAGES) -> list[list[str]]:
    inline = [
        words for words in map(shlex.split, re.findall(rf"`({program} [^`\n]+)`", text)) if words
    ]
    return [
        words[1:]
        for words in commands(text) + inline
        if words[0] == program and "COMMAND" not in words
    ]


def instructions(name: str) -> list[str]:
    """What follows an instruction of the Dockerfile, continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    return re.findall(rf"^{name} (.*)$", text, re.MULTILINE)


def packages(extra: str) -> set[str]:
    """An extra's packages by name; siambook[a,b] stands for those of a and b."""
    found: set[str] = set()
    for requirement in EXTRAS[extra]:
        inner = re.fullmatch(r"siambook\[(.*)\]", requirement)
        found |= (
            set().union(*map(packages, inner[1].split(",")))
            if inner
            else {re.split(r"[^\w.-]", requirement)[0].lower()}
        )
    return found


# -- The page --------------------------------------------------------------------------------------


def test_the_page_is_in_the_book_and_says_what_was_never_tried() -> None:
    contents = (ROOT / "_toc.yml").read_text()
    assert "file: xavier" in contents and "file: own" in contents
    assert "None of it has been tried on a board yet" in PAGE


@pytest.mark.parametrize("words", begin_with("siambook"), ids=" ".join)
def test_the_command_line_takes_every_command_of_the_pages(words: list[str]) -> None:
    given = cli.PARSER.parse_args(words)
    profile = getattr(given, "profile", None)
    assert profile is None or (ROOT / profile).is_file() or profile == MINE
    names = [path.stem for path in (ROOT / "notebooks").glob("*.ipynb")]
    if given.command == "run":
        batch.selected(names, given.only)  # raises where a prefix is of no notebook


def test_the_page_fetches_calibrates_and_runs() -> None:
    told = [words[0] for words in begin_with("siambook", PAGE)]
    assert told[:6] == ["doctor", "measure", "fetch", "fetch", "calibrate", "run"]


@pytest.mark.parametrize("words", begin_with("make"), ids=" ".join)
def test_make_knows_every_target_of_the_page(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [word for word in words if "=" not in word]
    assert targets
    for target in targets:
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"no target {target}"
    given = dict(word.split("=", 1) for word in words if "=" in word)
    assert set(given) <= {"EXTRAS", "LOCK", "PROFILE", "RUN"}
    assert set(given.get("EXTRAS", "board").split(",")) <= set(EXTRAS)
    assert given.get("PROFILE") in (None, MINE) or (ROOT / given["PROFILE"]).is_file()


def test_files_that_the_page_names_are_where_it_says() -> None:
    named = set(
        re.findall(
            r"(?<![\w/.])(?:docker|profiles|lib|notebooks|\.ci)/[\w./-]+|pyproject\.toml", PAGE
        )
    )
    assert {"docker/Dockerfile.xavier", "profiles/xavier.yaml", "pyproject.toml"} <= named
    for name in named:
        assert (ROOT / name.rstrip(".")).exists(), name


def test_the_hours_are_those_of_the_thesiss_speeds() -> None:
    tables = map(thesis.table, ("table_4_1", "table_4_2", "table_4_3"))
    speeds = pd.concat([table["fps"][table["row"] == "thesis"] for table in tables])
    hours = (21356 / speeds).sum() / 3600
    assert (
        f"one pass of VOT2018 takes {hours:.0f} hours for all trackers of tables 4.1 to 4.3" in PAGE
    )


# -- The profile -----------------------------------------------------------------------------------


def test_every_parameter_of_the_profile_is_one_of_the_notebooks() -> None:
    notebooks = [json.loads(path.read_text()) for path in (ROOT / "notebooks").glob("*.ipynb")]
    profile = book.open_profile(ROOT, str(PROFILE))
    book.refuse_unknown(profile, notebooks)
    values = profile.values
    assert (values["run"], values["framework"]) == ("xavier", "tensorrt")


def test_the_profile_looks_where_fetch_puts_things(monkeypatch: pytest.MonkeyPatch) -> None:
    from lib import fetch

    fetched = []
    for name in ("fetch_vot2018", "fetch_weights"):
        monkeypatch.setattr(fetch, name, lambda path: fetched.append(str(path)))
    assert [cli.main(["fetch", what]) for what in ("vot2018", "weights")] == [0, 0]
    profile = yaml.safe_load(PROFILE.read_text())
    assert fetched == [str(ROOT / profile[name]) for name in ("dataset", "weights")]


# -- The image -------------------------------------------------------------------------------------


def test_the_base_image_is_given_and_no_host_is_named() -> None:
    assert instructions("ARG") == ["BASE"]
    assert instructions("FROM") == ["${BASE}"]
    hosts = re.findall(r"https?://\S+|\b(?:[a-z0-9-]+\.)+(?:io|com|org|net)\b", DOCKERFILE)
    assert not hosts


def test_what_the_image_copies_is_in_the_repository() -> None:
    copied = [source for line in instructions("COPY") for source in line.split()[:-1]]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
    assert {"pyproject.toml", PROJECT["readme"], "lib", "requirements-board.lock"} <= set(copied), (
        "pip needs these to install the repository"
    )


@pytest.mark.parametrize(
    ("lacks", "extras"), [("", ".[board]"), ("cv2", ".[board,opencv]"), ("tensorrt", None)]
)
def test_the_image_keeps_what_its_base_has(tmp_path: Path, lacks: str, extras: str | None) -> None:
    """The Dockerfile's own commands, with an interpreter that notes what pip is asked and lacks one
    of the packages."""
    python, log, pins = tmp_path / "python3", tmp_path / "log", tmp_path / "pins"
    lacking = f'find_spec("{lacks or "nothing"}")'
    python.write_text(
        f"#!/bin/sh\necho \"$@\" >> {log}\ncase $* in *'{lacking}'*) exit 1;; *version*) echo torch==2;; esac\n"
    )
    python.chmod(0o755)
    [script] = [line for line in instructions("RUN") if "board" in line]
    script = script.replace("/etc/siambook-constraints.txt", str(pins)).replace(
        "/usr/local/cuda/bin:", ""
    )
    made = subprocess.run(
        ["sh", "-c", script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=False,
    )
    asked = [line for line in log.read_text().splitlines() if "pip install" in line]
    assert (made.returncode == 0) is (extras is not None)
    assert pins.read_text() == "torch==2\n"
    if extras:
        assert f"-e {extras} -c requirements-board.lock -c {pins}" in asked[-1]
    assert not re.search(r"install.*(?<!\w)(torch|tensorrt|opencv-)", " ".join(asked))


def test_the_image_runs_the_batch_with_the_boards_profile() -> None:
    [command] = instructions("CMD")
    program, *words = json.loads(command)
    assert program in PROJECT["scripts"]
    assert cli.PARSER.parse_args(words).profile == "profiles/xavier.yaml"


# -- The packages ----------------------------------------------------------------------------------


def test_the_board_gets_what_a_batch_needs_and_nothing_that_jetpack_has() -> None:
    names = packages("board")
    assert {*batch.NEEDS, "onnx", "onnxruntime", "pooch", "gdown", "pycuda"} <= names
    assert not {
        name
        for name in names
        if name.startswith(("torch", "tensorrt", "opencv", "nvidia", "jupyter-book"))
    }
    assert any(requirement.startswith("numpy<1.24;") for requirement in EXTRAS["board"]), (
        "TensorRT 8.5 uses np.bool"
    )


@pytest.mark.parametrize(
    "version", ["1.13.0a0+d0d6b1f2.nv22.10", "2.0.0a0+ec3941ad.nv23.2", "2.0.0+nv23.5"]
)
def test_pip_leaves_nvidias_builds_of_pytorch_where_they_are(version: str) -> None:
    specifiers = importlib.import_module("packaging.specifiers")
    [pin] = [each for each in PROJECT["dependencies"] if re.match(r"torch\b", each)]
    # As pip asks of a package that is installed
    assert specifiers.SpecifierSet(pin[len("torch") :]).contains(version, prereleases=True)


# -- Python 3.8 ------------------------------------------------------------------------------------


def test_what_python_38_leaves_out_exists_and_has_a_reason() -> None:
    lines = [
        line for line in LEFT_OUT.read_text().splitlines() if line and not line.startswith("#")
    ]
    for line in lines:
        what, bar, why = line.partition(" | ")
        assert bar and len(why) > 10, line
        file, _, name = what.partition("::")
        functions = {
            node.name
            for node in ast.walk(ast.parse((ROOT / file).read_text()))
            if isinstance(node, ast.FunctionDef)
        }
        assert not name or name.split("[")[0] in functions, f"{what}: there is no such test"


def test_without_a_python_38_the_check_says_so(tmp_path: Path) -> None:
    environ = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PYTHON38": "",
        "PYENV_ROOT": str(tmp_path),
    }
    (tmp_path / "python3.8").write_text("#!/bin/sh\nexit 127\n")  # pyenv's, where no 3.8 is chosen
    (tmp_path / "python3.8").chmod(0o755)
    made = subprocess.run(
        [str(ROOT / ".ci" / "python38")], env=environ, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0
    assert made.stderr.startswith("SKIPPED: no Python 3.8 here")
    assert made.stdout == ""
