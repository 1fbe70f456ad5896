"""Pages executed before Sphinx reads them: beside each other, in turns, into the cache in which
Jupyter Book finds them."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any, Mapping

import pytest

from book.helpers import markdown, notebook
from lib.book import pages

nbformat = pytest.importorskip("nbformat")
jupyter_cache = pytest.importorskip("jupyter_cache", reason="jupyter-book needs Python 3.9")
pytest.importorskip("nbclient")

SECONDS = 120  # that a cell may take
# Both pages say that they are there and wait for the other one; one after the other, the first
# would wait until its time is over.
MEET = """
import time
from pathlib import Path
Path("{own}.here").touch()
while not Path("{other}.here").exists():
    time.sleep(0.01)
"""
NOTE = "with open('order.txt', 'a') as file:\n    file.write('{}\\n')"


class Book:
    """A repository with pages and a cache."""

    def __init__(self, root: Path, notebooks: Mapping[str, dict[str, Any]]) -> None:
        self.root, self.notebooks = root, dict(notebooks)
        (root / "notebooks").mkdir()

    def fill(self) -> list[str]:
        """What was executed to its end."""
        given = {
            self.root / "notebooks" / f"{name}.ipynb": page for name, page in self.notebooks.items()
        }
        before, known = copy.deepcopy(given), [name for name in self.notebooks if self.cached(name)]
        pages.fill_cache(self.root / "cache", given, self.root, SECONDS)
        assert given == before, "the pages themselves are left alone"
        return sorted(name for name in self.notebooks if self.cached(name) and name not in known)

    def cached(self, name: str) -> Any:
        """The page with its outputs, as Jupyter Book finds it; None where it does not."""
        # Which is how it reads a page
        page = nbformat.reads(json.dumps(self.notebooks[name]), as_version=4)
        try:
            _, found = jupyter_cache.get_cache(self.root / "cache").merge_match_into_notebook(page)
        except KeyError:
            return None
        return found

    def order(self) -> list[str]:
        path = self.root / "notebooks" / "order.txt"
        return path.read_text().split() if path.is_file() else []


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The repositories that were measured."""
    found: list[Path] = []
    monkeypatch.setattr(pages, "_measure", found.append)
    monkeypatch.setattr(pages, "cores", lambda: 2)
    return found


def test_pages_run_beside_each_other_and_are_found_in_the_cache(
    tmp_path: Path, measured: list[Path]
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").write_text("NAME = 'of this repository'\n")
    last = "import os, sys\nfrom lib import NAME\nprint(NAME, sys.executable, os.environ['OMP_NUM_THREADS'])"
    names = ("one", "two")
    book = Book(
        tmp_path,
        {
            name: notebook(MEET.format(own=name, other=other), last)
            for name, other in zip(names, names[::-1])
        },
    )
    assert [book.cached(name) for name in names] == [None, None]
    assert book.fill() == ["one", "two"]
    for name in names:
        page = book.cached(name)
        assert page.cells[1].outputs[0].text == f"of this repository {sys.executable} 1\n"
        assert [cell.execution_count for cell in page.cells[:2]] == [1, 2]
    assert book.fill() == [], "nothing is executed twice"
    assert not measured, "no page reads from a run"


def test_a_page_runs_after_all_of_an_earlier_turn(tmp_path: Path) -> None:
    """The turns are those of the metadata, and not the order of the names."""
    turns = {"a": 2, "b": 1, "c": 0, "d": 0}
    made = {
        name: notebook(
            "import time; time.sleep(0.1)" * (name == "c"),
            NOTE.format(name),
            **{"turn": turn} if turn else {},
        )
        for name, turn in turns.items()
    }
    book = Book(tmp_path, made)
    assert book.fill() == ["a", "b", "c", "d"]
    assert sorted(book.order()[:2]) == ["c", "d"] and book.order()[2:] == ["b", "a"]


def test_only_what_the_cache_lacks_is_executed(tmp_path: Path) -> None:
    book = Book(tmp_path, {name: notebook(NOTE.format(name)) for name in ("same", "changed")})
    book.fill()
    book.notebooks["changed"] = notebook(NOTE.format("changed again"))
    assert book.fill() == ["changed"]
    assert sorted(book.order()) == ["again", "changed", "changed", "same"]


def test_a_page_that_fails_is_left_to_the_build_and_the_others_are_done(tmp_path: Path) -> None:
    book = Book(
        tmp_path,
        {
            "error": notebook("1 / 0"),
            "dead": notebook("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"),
            "good": notebook(NOTE.format("good")),
            "later": notebook(NOTE.format("later"), turn=1),
        },
    )
    assert book.fill() == ["good", "later"]
    assert [name for name in book.notebooks if book.cached(name) is None] == ["error", "dead"]
    assert book.fill() == [], "the build says what is wrong with them"


def test_a_run_is_measured_once_before_the_pages_and_not_for_pages_that_are_known(
    tmp_path: Path, measured: list[Path]
) -> None:
    """`siambook measure` is asked; whatever it has measured already, it loads."""
    reading = "if False:\n    from lib.measure import quality"
    book = Book(tmp_path, {name: notebook(reading, NOTE.format(name)) for name in ("one", "two")})
    prose = markdown("With lib.measure in its text.")
    book.notebooks["three"] = notebook(NOTE.format("three"), prose)
    book.fill()
    assert measured == [tmp_path] and len(book.order()) == 3
    book.fill()
    book.notebooks["three"] = notebook(NOTE.format("three"), "changed = True", prose)
    assert book.fill() == ["three"]
    assert measured == [tmp_path], "a page that reads from no run"
    book.notebooks["two"] = notebook(reading, "changed = True")
    book.fill()
    assert measured == [tmp_path, tmp_path]


def test_a_book_without_stale_pages_starts_nothing(tmp_path: Path, measured: list[Path]) -> None:
    assert Book(tmp_path, {}).fill() == [] and not measured


def test_a_kernel_that_did_not_start_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that start at once may take the same port."""
    execute, faults = pages.execute, [RuntimeError("Kernel died before replying to kernel_info")]

    def first_fails(*arguments: Any, **variables: str) -> None:
        if faults:
            raise faults.pop()
        execute(*arguments, **variables)

    monkeypatch.setattr(pages, "execute", first_fails)
    book = Book(tmp_path, {"one": notebook(NOTE.format("one"))})
    assert book.fill() == ["one"] and book.order() == ["one"]
