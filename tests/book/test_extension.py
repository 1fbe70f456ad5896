"""`jupyter-book build` itself, on a book of two notebooks: what runs again, and what fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import pytest

from book.helpers import markdown, notebook
from lib.book import extension

pytest.importorskip("jupyter_book", reason="jupyter-book needs Python 3.9")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PRINT = "import time\nprint('made', time.time(), {})"
PARAMETERS = 'profile = "demo"\nrun = "local"'
BASELINE = notebook(
    markdown("# Baseline"),
    "%matplotlib inline\nfrom lib.vot import protocol",
    PRINT.format("run"),
    parameters=PARAMETERS,
)
OTHER = notebook(
    markdown("# Other"),
    PRINT.format("''"),
    "with open('../ran.txt', 'a') as file:\n    print('once', file=file)",
)
Build = Callable[..., str]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Writes notebooks into a copy of this repository's own set-up, and builds the book of the two
    pages; returns the pages' text, or what the build says where it fails."""
    shutil.copy(ROOT / "_config.yml", tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lib", tmp_path / "lib", ignore=ignored)
    for folder in ("book", "notebooks", "profiles"):
        (tmp_path / folder).mkdir()
    for link in ("_config.yml", "_toc.yml", "notebooks"):
        (tmp_path / "book" / link).symlink_to(f"../{link}")
    shutil.copytree(ROOT / "book/_static", tmp_path / "book/_static")
    (tmp_path / "book/references.bib").write_text("")
    (tmp_path / "book/intro.md").write_text("# Book\n")
    (tmp_path / "profiles/demo.yaml").write_text("profile: demo\nrun: local\n")

    def made(fails: bool = False, notebooks: Any = (), **environ: str) -> str:
        for name, content in dict(notebooks).items():
            (tmp_path / "notebooks" / f"{name}.ipynb").write_text(json.dumps(content))
        names = sorted(path.stem for path in (tmp_path / "notebooks").iterdir())
        chapters = "".join(f"  - file: notebooks/{name}\n" for name in names)
        (tmp_path / "_toc.yml").write_text(f"format: jb-book\nroot: intro\nchapters:\n{chapters}")
        clean = {key: value for key, value in os.environ.items() if not key.startswith("SIAMBOOK_")}
        run = subprocess.run(
            [str(Path(sys.executable).with_name("jupyter-book")), "build", "book/"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**clean, "PYTHONPATH": str(tmp_path), **environ},
        )
        assert (run.returncode != 0) is fails, run.stdout[-2000:] + run.stderr[-2000:]
        pages = [tmp_path / f"book/_build/html/notebooks/{name}.html" for name in names]
        return run.stdout + run.stderr if fails else "\n".join(page.read_text() for page in pages)

    return made


def times(pages: str) -> list[str]:
    """What each notebook printed: when it ran."""
    return re.findall(r">(made [\d.]+(?: \w+)?)", pages)


def test_jupyter_book_runs_again_what_changed_and_nothing_else(
    build: Build, tmp_path: Path
) -> None:
    """Outputs (times of execution) change only where they must."""
    first, other = times(build(notebooks={"baseline": BASELINE, "other": OTHER}))
    assert (tmp_path / "ran.txt").read_text() == "once\n", "executed before, and found by the build"

    with open(tmp_path / "lib/demo.py", "a") as module:
        module.write("X = 1\n")
    assert times(build()) == [first, other], "a module that neither notebook imports"

    protocol = tmp_path / "lib/vot/protocol.py"
    before = protocol.read_text()
    protocol.write_text(f"{before}X = 1\n")
    second, same = times(build())
    assert second != first and same == other, "a module that one of them imports"

    protocol.write_text(before)
    assert times(build()) == [first, other], "the change taken back: the former run is still known"

    pages = build(SIAMBOOK_RUN="tonight", SIAMBOOK_REPOSITORY="https://github.com/owner/thesis")
    third, same = times(pages)
    assert third != first and third.endswith("tonight") and same == other, "one has this parameter"
    binder = "https://mybinder.org/v2/gh/owner/thesis/main?urlpath=lab/tree/book/notebooks/"
    assert f"{binder}other.ipynb" in pages


def test_warnings_and_failing_cells_fail_the_build_every_time(build: Build) -> None:
    nowhere = {"baseline": notebook(markdown("# Baseline\n\n[nowhere](nowhere.md)"), "1")}
    failing = {"baseline": notebook(markdown("# Baseline"), "1 / 0")}
    for _ in range(2):  # Sphinx alone is silent the second time
        assert "cross-reference target not found" in build(fails=True, notebooks=nowhere)
    for _ in range(2):
        assert "ZeroDivisionError" in build(fails=True, notebooks=failing)
    build(notebooks={"baseline": notebook(markdown("# Baseline"), "1")})


def test_plotlys_script_comes_from_the_package_and_is_not_missed_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, out = tmp_path / "plotly", tmp_path / "html"
    for folder in (package / "package_data", out / "_static"):
        folder.mkdir(parents=True)
    (package / "package_data" / "plotly.min.js").write_text("the script")
    app: Any = SimpleNamespace(outdir=str(out), builder=SimpleNamespace(format="html"))
    found = {"plotly": None}
    monkeypatch.setattr(extension, "find_spec", found.get)
    extension._ship_plotly(app, None)
    assert not list((out / "_static").iterdir())
    found["plotly"] = SimpleNamespace(origin=str(package / "__init__.py"))
    extension._ship_plotly(app, None)
    assert (out / "_static" / "plotly.min.js").read_text() == "the script"


def test_drawings_are_told_from_photographs(tmp_path: Path) -> None:
    nodes = pytest.importorskip("docutils.nodes")
    drawing, photograph = "<svg><path/></svg>", "<svg><image/></svg>"
    for name, text in {"a.svg": drawing, "b.svg": photograph, "c.png": "<path/>"}.items():
        (tmp_path / name).write_text(text)
    tree = nodes.paragraph(
        "", "", *(nodes.image(uri=f"/{name}") for name in ("a.svg", "b.svg", "c.png"))
    )
    extension._tell_drawings(SimpleNamespace(srcdir=tmp_path), tree, "page")
    assert [image["classes"] for image in tree.findall(nodes.image)] == [["drawn"], [], []]
