"""What decides a notebook's outputs, and so whether it runs again; its parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from book.helpers import markdown, notebook
from lib.book import notebook as book
from lib.errors import InputError

CODE = {
    "lib/__init__.py": "",
    "lib/errors.py": "",
    "lib/metrics.py": "from lib.errors import InputError\ndef eao():\n    from lib.vot import protocol\n",
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
USED = (
    "lib/metrics.py",
    "lib/errors.py",
    "lib/vot/protocol.py",
    "lib/vot/__init__.py",
    "data/thesis/table.csv",
)
NOT_USED = (
    "lib/training.py",
    "lib/vot/unused.py",
    "data/other.csv",
    "data/weights.pth",
    "profiles/other.yaml",
)
BASELINE = notebook(
    markdown("# Baseline"),
    "%matplotlib inline\nfrom lib import metrics\nimport time\nprint('made', time.time(), run)",
    parameters='profile = "demo"\nweights = "demo"\nrun = "local"',
    depends=["data/thesis/*.csv"],
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small repository with one notebook that imports lib.metrics, which imports lib.vot.protocol
    inside a function."""
    for name, text in CODE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def parts(project: Path, **chosen: str) -> dict[str, str]:
    return book.fingerprint(BASELINE, project, book.open_profile(project, **chosen).values)


@pytest.mark.parametrize("name", USED)
def test_a_change_in_what_a_notebook_uses_changes_its_fingerprint(project: Path, name: str) -> None:
    before = parts(project)
    (project / name).write_text("CHANGED = 1\n" if name.endswith(".py") else "2\n")
    assert parts(project)[name] != before[name]


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
    chosen = parts(project, profile="profiles/other.yaml")
    assert chosen["parameter weights"] == "'data/weights.pth'"
    (project / "data/weights.pth").write_text("longer\n")
    assert parts(project, profile="profiles/other.yaml") != chosen


def test_a_run_counts_with_its_name_but_not_with_what_is_measured_into_it(project: Path) -> None:
    own = project / "run"
    before = parts(project, run=str(own))
    own.mkdir()
    (own / "table.csv").write_text("a\n1\n")
    assert parts(project, run=str(own)) == before != parts(project, run=str(project / "other"))


def test_modules_named_in_strings_are_followed(project: Path) -> None:
    (project / "lib/training.py").write_text("from lib import errors\nfrom lib.vot.unused import *")
    found = book.lib_modules("import importlib\nimportlib.import_module('lib.training')", project)
    assert {path.relative_to(project).as_posix() for path in found} == {
        "lib/__init__.py",
        "lib/training.py",
        "lib/errors.py",
        "lib/vot/__init__.py",
        "lib/vot/unused.py",
    }


def test_parameters_are_added_where_papermill_adds_them(project: Path) -> None:
    profile = book.open_profile(project, run="tonight")
    added = book.prepared(BASELINE, profile, {})["cells"]
    assert len(added) == len(BASELINE["cells"]) + 1
    assert added[0] == BASELINE["cells"][0]
    assert added[1]["source"].splitlines()[1:] == ["run = 'tonight'"]
    assert "remove-cell" not in added[1]["metadata"]["tags"], "a reader sees what differs"
    plain = book.prepared(BASELINE, book.open_profile(project), {})["cells"][1]
    assert "remove-cell" in plain["metadata"]["tags"]


def test_variables_name_profile_and_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIAMBOOK_PROFILE", "profiles/other.yaml")
    monkeypatch.setenv("SIAMBOOK_RUN", "tonight")
    found = book.open_profile(project)
    assert (found.file, found.values["run"]) == ("profiles/other.yaml", "tonight")
    assert book.open_profile(project, run="mine").values["run"] == "mine"


@pytest.mark.parametrize("text", ["run: [", "- run", "run: 2023-06-01", None])
def test_a_faulty_profile_is_refused_in_one_sentence(project: Path, text: str | None) -> None:
    if text is not None:
        (project / "profiles/bad.yaml").write_text(text)
    with pytest.raises(InputError, match=r"bad\.yaml") as caught:
        book.open_profile(project, "profiles/bad.yaml")
    assert "\n" not in str(caught.value)


def test_a_key_that_no_notebook_knows_is_refused() -> None:
    values: dict[str, Any] = {"wieghts": "x", "run": "y"}
    with pytest.raises(InputError, match=r"bad\.yaml: no notebook has a parameter wieghts"):
        book.refuse_unknown(book.Profile("profiles/bad.yaml", values), [BASELINE])
