"""`siambook run`: real kernels on small notebooks, in a copy of lib/ whose runs are its own."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping

import pandas as pd
import pytest
import yaml

from book.helpers import markdown, notebook
from lib.book import batch
from lib.errors import InputError

pytest.importorskip("nbclient", reason="nbclient is missing: install the `test` extra")
pytest.importorskip("torch")

from measure.helpers import alive, wait_for

ROOT = Path(__file__).parents[2]
SECONDS = 300  # of a busy machine
COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal, also where the tests are a job in the background
sys.modules["sphinx"] = sys.modules["jupyter_book"] = None  # not needed, so not to be had
from lib.cli import main
sys.exit(main(["run", *sys.argv[1:]]))
"""
NOTE = "import sys; open('../executed.txt', 'a').write('{name} ' + str({parameter}) + ' ' + sys.executable + '\\n')"


def words(line: str) -> list[str]:
    """The first two words that NOTE wrote; the last one, Python's path, may have spaces."""
    return [word for word in line.split(" ", 2) if word][:2]


OPEN = "from lib.measure import runs\nfrom lib.measure import quality, variants\ndata = variants.open_dataset({}, run)"
# One worker, so that a kill comes between two sequences.
MEASURE = (
    OPEN.format("dataset"),
    "chosen = [*variants.baseline(weights), *variants.engines(weights, 'openvino')[:1]]",
    "measured = quality.measure(chosen, data, run, workers=1)",
    "runs.write_section(run, '04_2_engines', [one.row() for one in measured]);",
)
# Columns that differ from one run to the next
TIMING = re.compile(r"fps.*|build_s|date|.*power.*|run")


# -- A small book ----------------------------------------------------------------------------------


def note(name: str, parameter: str = "''", parameters: str = "") -> dict[str, Any]:
    """A notebook that writes down that it was executed, by what, and a parameter."""
    return notebook(NOTE.format(name=name, parameter=parameter), parameters=parameters)


class Book:
    """A book with the given notebooks, and what `siambook run` does with it."""

    def __init__(
        self,
        folder: Path,
        notebooks: Mapping[str, Any],
        profile: Mapping[str, Any],
        lib: bool = True,
    ) -> None:
        self.root, self.profile = folder, folder / "profiles" / "test.yaml"
        for name in ("notebooks", "profiles", "data", "kernels/python3"):
            (folder / name).mkdir(parents=True)
        if lib:
            shutil.copytree(
                ROOT / "lib", folder / "lib", ignore=shutil.ignore_patterns("__pycache__")
            )
            (folder / "data" / "demo").symlink_to(ROOT / "data" / "demo")
        for name, content in notebooks.items():
            self.write(name, content)
        chapters = [{"file": f"notebooks/{name}"} for name in notebooks]
        (folder / "_toc.yml").write_text(
            yaml.safe_dump({"root": "intro", "parts": [{"chapters": chapters}]})
        )
        self.profile.write_text(yaml.safe_dump(dict(profile)))
        # What Jupyter would take for the name that the book's notebooks give: the kernel
        # of another environment.
        (folder / "kernels/python3/kernel.json").write_text(
            '{"argv": ["false"], "display_name": "", "language": "python"}'
        )

    def write(self, name: str, content: Any) -> None:
        (self.root / "notebooks" / f"{name}.ipynb").write_text(json.dumps(content))

    def start(self, *options: str, **how: Any) -> subprocess.Popen[str]:
        # The threads of several processes on few cores wait for each other.
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith("SIAMBOOK_")
        }
        environ.update(PYTHONPATH=str(self.root), OMP_NUM_THREADS="1", JUPYTER_PATH=str(self.root))
        # Where files are limited in size, compiled modules would be cut off, and stay so
        environ.update(PYTHONDONTWRITEBYTECODE="1")
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, "--profile", str(self.profile), *options],
            cwd=self.root,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **how,
        )

    def do(self, status: int, *options: str, **how: Any) -> str:
        """Run to the end; returns standard error."""
        process = self.start(*options, **how)
        error = process.communicate(timeout=600)[1]
        assert process.returncode == status, error
        return error

    def kill_when(self, ready: Callable[[], Any], *options: str) -> None:
        process = self.start(*options)
        wait_for(ready, process, SECONDS)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the batch ended before it was killed"
        wait_for(lambda: not self.left(), seconds=SECONDS)

    def left(self) -> list[int]:
        """Processes that work in the book: kernels, and who measures for them."""
        found = []
        for link in Path("/proc").glob("[0-9]*/cwd"):
            with suppress(OSError):
                if self.root in Path(os.readlink(link)).parents and alive(int(link.parent.name)):
                    found.append(int(link.parent.name))
        return found

    def run(self, name: str) -> Path:
        return self.root / "data" / "runs" / name

    def rows(self, name: str) -> dict[str, dict[str, Any]]:
        table = pd.read_csv(self.run(name) / "notebooks.csv", keep_default_na=False)
        assert list(table) == ["notebook", "status", "seconds", "started", "message"]
        return {row["notebook"]: row for row in table.to_dict("records")}

    @property
    def executed(self) -> list[str]:
        """What the notes wrote: a line an execution."""
        path = self.root / "executed.txt"
        return path.read_text().splitlines() if path.is_file() else []


def tables(run: Path) -> dict[str, pd.DataFrame]:
    """All tables of a run, without what no two runs have the same."""
    found = {path.name: pd.read_csv(path) for path in sorted(run.glob("*.csv"))}
    found["notebooks.csv"] = found["notebooks.csv"].drop(columns=["seconds", "started"])
    return {
        name: table[[column for column in table if not TIMING.fullmatch(column)]]
        for name, table in found.items()
    }


# -- Killed and gone on ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Book:
    """Two runs: `killed`, killed between the two sequences of one variant and then of another, and
    `whole`."""
    measuring = notebook(*MEASURE, parameters="dataset = 'demo'\nweights = 'demo'\nrun = 'local'")
    notebooks = {
        "02_note": note("02_note", "run", "run = 'local'"),
        "04_2_engines": measuring,
        "05_note": note("05_note"),
    }
    weights = ROOT / "data" / "demo" / "distilled_26.pth"  # the smallest one
    profile = {"dataset": str(small), "weights": str(weights), "run": "killed"}
    book = Book(tmp_path_factory.mktemp("killed") / "book", notebooks, profile)
    first = (small / "list.txt").read_text().split()[0]
    raw = str(book.run("killed")) + f"/small/{{}}/baseline/{first}/{first}_001.txt"
    book.kill_when(Path(raw.format("pytorch-fp32")).is_file)
    book.first = {path: path.stat().st_mtime_ns for path in book.run("killed").rglob("*_001.txt")}
    book.kill_when(Path(raw.format("openvino-fp32")).is_file)
    book.between = book.rows("killed")
    book.do(0)
    book.do(0, "--run", "whole")
    return book


@pytest.mark.slow
def test_killed_twice_it_goes_on_to_the_same_tables(killed: Book) -> None:
    assert list(tables(killed.run("whole"))) == ["04_2_engines.csv", "notebooks.csv"]
    for name, table in tables(killed.run("whole")).items():
        pd.testing.assert_frame_equal(tables(killed.run("killed"))[name], table)
    engines = pd.read_csv(killed.run("killed") / "04_2_engines.csv")
    assert list(engines["precision"]) == ["FP32", "FP32"]


@pytest.mark.slow
def test_what_was_finished_or_measured_before_a_kill_is_not_done_again(killed: Book) -> None:
    lines = [words(line) for line in killed.executed]
    assert lines == [
        ["02_note", "killed"],
        ["05_note", sys.executable],
        ["02_note", "whole"],
        ["05_note", sys.executable],
    ]
    assert len(killed.first) == 1
    assert all(path.stat().st_mtime_ns == then for path, then in killed.first.items())
    between = killed.between
    assert list(between) == ["02_note"]
    assert killed.rows("killed")["02_note"] == between["02_note"], (
        "the row of what is finished stays as it was"
    )


@pytest.mark.slow
def test_executed_notebooks_and_logs_are_kept_with_the_run_and_nothing_else(killed: Book) -> None:
    folder = killed.run("killed") / "notebooks"
    for kind in ("ipynb", "log"):
        names = [path.stem for path in sorted(folder.glob(f"*.{kind}"))]
        assert names == ["02_note", "04_2_engines", "05_note"]
    assert len(list(folder.iterdir())) == 6
    kept = json.loads((folder / "04_2_engines.ipynb").read_text())
    assert all(cell["execution_count"] for cell in kept["cells"])
    assert "quality: OpenVINO FP32" in (folder / "04_2_engines.log").read_text(), (
        "the notebook's own progress is in its log"
    )


@pytest.mark.slow
def test_plain_papermill_does_the_same_for_one_notebook(killed: Book) -> None:
    pytest.importorskip("papermill")
    command = "-m papermill notebooks/02_note.ipynb out.ipynb --cwd notebooks"
    before = killed.executed
    subprocess.run(
        [sys.executable, *command.split(), "-f", "profiles/test.yaml"],
        cwd=killed.root,
        check=True,
        capture_output=True,
    )
    assert killed.executed == [*before, before[0]], "the same parameters, in the same folder"


def test_only_what_changed_is_executed_again(tmp_path: Path) -> None:
    notebooks = {name: note(name, "seed", "seed = 1") for name in ("01", "02_1")}
    notebooks["02_2"] = note("02_2")
    notebooks["run"] = notebook("run", parameters="run = ''")  # whose parameter the profile's is
    book = Book(tmp_path / "book", notebooks, {"run": "r", "seed": 2})
    (book.root / "_toc.yml").write_text(
        "root: intro\nchapters:\n- file: notebooks/01\n  sections:\n  - file: notebooks/02_1\n"
        "  - file: notebooks/02_2\n- file: notebooks/run\n- file: glossary\n"
    )
    book.do(0, "--only", "01", "02")
    assert [words(line) for line in book.executed] == [
        ["01", "2"],
        ["02_1", "2"],
        ["02_2", sys.executable],
    ]
    book.do(0, "--only", "02", "01")
    assert len(book.executed) == 3, "nothing changed"
    book.profile.write_text("run: r\nseed: 3")
    book.do(0, "--only", "0")
    assert [words(line) for line in book.executed[3:]] == [["01", "3"], ["02_1", "3"]], (
        "02_2 has no such parameter"
    )
    assert list(book.rows("r")) == ["01", "02_1", "02_2"]
    with_prose = notebook(
        NOTE.format(name="01", parameter="seed"), markdown("Prose."), parameters="seed = 1"
    )
    book.write("01", with_prose)
    book.write("02_1", note("02_1 again", "seed", "seed = 1"))
    book.do(0, "--only", "0")
    assert [words(line) for line in book.executed[5:]] == [["02_1", "again"]]


# -- The end of a batch, and two of them -----------------------------------------------------------


@pytest.fixture
def holding(tmp_path: Path) -> Iterator[tuple[Book, subprocess.Popen[str], int]]:
    """A batch at work, and its kernel, which is in a call that lets no other Python thread of the
    kernel run."""
    there = "grep -sq 'State:.[^ZX]' /proc/$PPID/status"
    shell = f"echo $PPID > ../pid.part; mv ../pid.part ../pid; while {there}; do sleep 0.1; done"
    hold = f"import ctypes; ctypes.PyDLL(None).system({shell.encode()!r})"
    book = Book(tmp_path / "book", {"01_hold": notebook(hold, parameters="run = ''")}, {"run": "r"})
    process = book.start()
    wait_for((book.root / "pid").is_file, process, SECONDS)
    yield book, process, int((book.root / "pid").read_text())
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name
)
def test_a_kernel_ends_with_its_batch(
    holding: tuple[Book, subprocess.Popen[str], int], number: signal.Signals
) -> None:
    _, process, kernel = holding
    assert alive(kernel)
    process.send_signal(number)
    error = process.communicate(timeout=SECONDS)[1]
    wait_for(lambda: not alive(kernel), seconds=SECONDS)
    if number == signal.SIGINT:
        assert process.returncode == 130 and error.endswith("siambook: stopped\n")


@pytest.mark.parametrize(
    "handler",
    [signal.SIG_IGN, lambda number, frame: None],
    ids=["background job", "somebody else's"],
)
def test_a_ctrl_c_that_is_not_the_batchs_stays_what_it_is(handler: Any) -> None:
    before = signal.signal(signal.SIGINT, handler)
    try:
        batch.stop_at_ctrl_c()
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_second_batch_in_the_same_run_refuses(
    holding: tuple[Book, subprocess.Popen[str], int],
) -> None:
    book, process, kernel = holding
    error = book.do(2)
    assert error == f"siambook: {book.run('r')}: another `siambook run` is working in this run\n"
    assert alive(kernel) and process.poll() is None, "the first one is left alone"
    process.kill()
    process.communicate()
    book.write("01_hold", notebook(parameters="run = ''"))
    book.do(0)
    assert book.rows("r")["01_hold"]["status"] == "done", "the lock went with the process"


# -- Faults ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faulty(small: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Book, str]:
    """A run whose every notebook but the first and the last fails, and what it said."""
    folder = tmp_path_factory.mktemp("faulty")
    shutil.copytree(small, folder / "gap")
    gone = (small / "list.txt").read_text().split()[1]
    shutil.rmtree(folder / "gap" / gone)
    shutil.copy(ROOT / "data" / "demo" / "siamrpn_r50_quarter.pth", folder / "own.pth")
    data, run, own = OPEN.format(repr(str(small))) + "\n", "run = ''", str(folder / "own.pth")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
    notebooks = {
        "01": note("01", "run", run),
        "02_error": notebook("raise ValueError('two\\n lines')"),
        "03_sequence": notebook(OPEN.format(repr(str(folder / "gap"))), parameters=run),
        "04_engine": notebook(
            data + f"chosen = variants.engines({own!r}, 'openvino')[2:]",
            "quality.measure(chosen, data, run, workers=1)",
            parameters=run,
        ),
        "05_disk": notebook(
            limit + data + "quality.measure(variants.baseline('demo'), data, run, workers=1)",
            parameters=run,
        ),
        "06_kernel": notebook(
            "import os; print('last words', flush=True)", "os.kill(os.getpid(), 9)"
        ),
        "07_syntax": notebook("this is no Python"),
        "08": note("08"),
    }
    book = Book(folder / "book", notebooks, {"run": "r"})
    return book, book.do(1)


def test_faults_are_named_and_the_rest_is_done(faulty: tuple[Book, str], small: Path) -> None:
    book, error = faulty
    assert [line.split()[0] for line in book.executed] == ["01", "08"]
    assert [row["status"] for row in book.rows("r").values()] == ["done", *["failed"] * 6, "done"]
    why = {name: row["message"] for name, row in book.rows("r").items() if row["message"]}
    assert why["02_error"] == "ValueError: two lines"
    [gone] = {path.name for path in small.iterdir()} - {
        path.name for path in (book.root.parent / "gap").iterdir()
    }
    assert re.fullmatch(rf".*gap.*{gone}.*", why["03_sequence"])
    assert re.fullmatch(r".*own\.calibration\.csv.*", why["04_engine"])
    assert "Error" not in why["03_sequence"] + why["04_engine"]
    assert re.fullmatch(
        r"\S*/data/runs/r/small/\S* cannot be written \(File too large\)", why["05_disk"]
    )
    assert why["06_kernel"].startswith("DeadKernelError")
    assert why["07_syntax"].startswith("SyntaxError")
    assert error.splitlines()[-6:] == [
        f"siambook: {name}: {message}" for name, message in why.items()
    ]


def test_failed_notebooks_are_kept_under_a_name_of_their_own(faulty: tuple[Book, str]) -> None:
    folder = faulty[0].run("r") / "notebooks"
    kept = {path.stem for path in folder.glob("*.ipynb") if ".failed" not in path.name}
    assert kept == {"01", "08"}
    failed = json.loads((folder / "02_error.failed.ipynb").read_text())
    outputs = [output for cell in failed["cells"] for output in cell.get("outputs", [])]
    assert "error" in [output["output_type"] for output in outputs]
    assert not (folder / "06_kernel.failed.ipynb").exists(), "its cell raised nothing"
    assert "last words" in (folder / "06_kernel.log").read_text()


def test_a_failed_notebook_is_executed_again_and_what_failed_is_forgotten(
    faulty: tuple[Book, str],
) -> None:
    book, _ = faulty
    book.write("07_syntax", note("07_syntax"))
    book.do(0, "--only", "01", "07", "08")
    assert [line.split()[0] for line in book.executed] == ["01", "08", "07_syntax"]
    rows = book.rows("r")
    assert (rows["07_syntax"]["status"], rows["07_syntax"]["message"]) == ("done", "")
    assert not (book.run("r") / "notebooks" / "07_syntax.failed.ipynb").exists()
    assert len(rows) == 8, "those that were not chosen keep their rows"


def test_a_disk_without_room_for_a_page_is_named_and_the_rest_is_done(tmp_path: Path) -> None:
    last = NOTE.format(name="01_big", parameter="run")
    notebooks = {
        "01_big": notebook("print('x' * 100_000)", last, parameters="run = ''"),
        "02_small": note("02_small"),
    }
    book = Book(tmp_path / "book", notebooks, {"run": "r"})
    limit = resource.RLIMIT_FSIZE, (30_000, 30_000)
    error = book.do(1, preexec_fn=lambda: resource.setrlimit(*limit))
    assert [row["status"] for row in book.rows("r").values()] == ["failed", "done"]
    assert error.splitlines()[-1].endswith("01_big.ipynb: cannot be written (File too large)")
    assert [line.split()[0] for line in book.executed] == ["01_big", "02_small"], (
        "what it measures is measured to the end"
    )
    names = sorted(path.name for path in (book.run("r") / "notebooks").iterdir())
    assert names == ["01_big.log", "02_small.ipynb", "02_small.log"], "no page that is cut off"


def test_a_table_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    book = Book(tmp_path / "book", {"01_a": note("01_a", "run", "run = ''")}, {"run": "r"})
    (book.run("r") / "notebooks.csv").mkdir(parents=True)
    told = book.do(2).splitlines()[-1]
    assert told.startswith(f"siambook: {book.run('r')}/notebooks.csv: cannot be written (")
    assert len(book.executed) == 1


# -- What is refused -------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Book:
    """A book for calls in this process."""
    notebooks = {"01_a": note("01_a"), "02_b": note("02_b", "run", "run = ''")}
    return Book(tmp_path / "book", notebooks, {"run": str(tmp_path / "run")}, lib=False)


def refused(own: Book, only: tuple[str, ...] = ()) -> str:
    with pytest.raises(InputError) as caught:
        batch.run_notebooks(own.root, str(own.profile), only)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_prefix_of_nothing_names_the_notebooks(own: Book) -> None:
    message = refused(own, ("01", "03"))
    assert message.startswith("--only 03: no notebook") and "01_a, 02_b" in message


def test_a_profile_with_an_unknown_key_is_refused(own: Book) -> None:
    own.profile.write_text("run: r\nwieghts: demo\n")
    assert "no notebook has a parameter wieghts" in refused(own)


@pytest.mark.parametrize("package", batch.NEEDS)
def test_a_missing_package_is_named(
    own: Book, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert refused(own).startswith(f"{package} not installed: pip install ")


def test_a_run_of_another_machine_is_left_alone(own: Book, tmp_path: Path) -> None:
    machine = {"processor": "another", "cores": 8, "gpu": None, "device": "cpu"}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "environment.json").write_text(json.dumps({"hardware": machine}))
    assert "was recorded on another machine" in refused(own)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["environment.json"]


def test_a_run_that_cannot_be_written_is_refused(own: Book, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    assert f"{tmp_path}/run: cannot be written" in refused(own)


def test_the_order_is_that_of_the_book() -> None:
    """The front page comes last: it shows what the others measure."""
    names = list(batch.notebooks(ROOT))
    assert names[:2] == ["01_introduction", "02_1_cnn"] and names[-1] == "front"
    assert names.index("04_2_engines") < names.index("04_2_1_mixed_precision")
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == set(names)


def test_an_emptied_page_is_not_a_finished_one(tmp_path: Path) -> None:
    book = Book(tmp_path / "book", {"01": note("01", "run", "run = ''")}, {"run": "r"})
    book.do(0)
    kept = book.run("r") / "notebooks" / "01.ipynb"
    kept.write_text("")
    book.do(0)
    assert len(book.executed) == 2 and json.loads(kept.read_text())["cells"]
