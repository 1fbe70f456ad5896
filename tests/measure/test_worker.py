"""Workers that end, fail or are not there: a sentence, and nothing that was finished is lost."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Iterator, List

import pytest

from lib.cli import main
from lib.errors import InputError
from lib.files import ROOT
from lib.measure import keys, quality, worker
from lib.measure.variants import Variant, baseline
from lib.measure.worker import Pool, Serial, open_executor
from lib.vot.dataset import load_dataset

from .helpers import Dask, alive, children, raw_files, start, state, wait_for, workers_of

ENDLESS = """
import sys, time
from lib.measure.worker import open_executor
if __name__ == "__main__":
    with open_executor(workers=2) as pool:
        print("started", flush=True)
        list(pool.answers([(time.sleep, 600)] * 3))
"""


# -- Processes of this machine ---------------------------------------------------------------------


def test_what_runs_here_runs_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [(pow, 2, power) for power in range(4)]
    assert list(Serial().answers(tasks)) == [(task, 2 ** task[2]) for task in tasks]
    monkeypatch.setattr(worker, "device", lambda: "cuda")
    with open_executor() as pool:
        assert isinstance(pool, Serial), "on a GPU a pass is timed, and so alone"


def test_what_was_finished_comes_before_the_failure_of_another() -> None:
    def fail() -> None:
        raise ValueError("no\n number")

    with ThreadPoolExecutor(1) as threads:
        pool = Pool(threads)
        answers = pool.answers([(abs, -1), *[(fail,)] * 3, *[(abs, -2)] * 5])
        found: List[Any] = [next(answers)]
        threads.shutdown(wait=True)  # while the first answer was written, all others came
        with pytest.raises(
            InputError, match=r"^a worker failed \(ValueError\) no number; what was"
        ):
            found.extend(answers)
    assert [answer for _, answer in found] == [1] + [2] * 5


@pytest.mark.slow
def test_a_worker_that_dies_is_said_in_a_sentence() -> None:
    sentence = r"^a worker process ended \(often for lack of memory\); what was finished is kept"
    before = workers_of(os.getpid())
    with pytest.raises(InputError, match=sentence), open_executor(workers=1) as pool:
        list(pool.answers([(os._exit, 1), (abs, -1)]))
    wait_for(lambda: not workers_of(os.getpid()) - before)


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them() -> None:
    process = start(ENDLESS)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    wait_for(lambda: len(workers_of(process.pid)) == 2, process)
    below = children(process.pid)
    process.kill()
    process.communicate()
    wait_for(lambda: not any(map(alive, below)), seconds=20)


# -- A scheduler that is not there -----------------------------------------------------------------


@pytest.mark.parametrize("listens", [False, True], ids=["nobody", "somebody else"])
def test_an_address_without_a_scheduler_is_said(
    listens: bool, weights: Path, patches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(worker, "CONNECT_SECONDS", 1.0)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        if listens:
            bound.listen()
        address = f"tcp://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(InputError, match=f"no Dask scheduler answers at '{address}' \\("):
            measure(tmp_path / "run", weights, patches, address)
    assert not list((tmp_path / "run").rglob("*.json"))


def test_what_is_no_address_is_said(weights: Path, patches: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(InputError, match=r"answers at 'nowhere' .* tcp://HOST:PORT"):
        measure(tmp_path / "run", weights, patches, "nowhere")


@pytest.mark.parametrize("other", ["RESULTS"])
def test_a_scheduler_is_for_trackers_with_resets(
    other: str, patches: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--dataset", str(patches), "--run", str(tmp_path), other]
    assert main([*command, "--scheduler", "local"]) == 2
    assert "--scheduler says where a tracker runs" in capsys.readouterr().err


def test_without_the_package_the_command_to_install_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[cluster\]'"), open_executor(
        "tcp://127.0.0.1:1"
    ):
        pass


def measure(run: Path, weights: Path, patches: Path, scheduler: str) -> quality.Measurement:
    variant = Variant("tiny", str(weights))
    data = load_dataset(patches)
    return quality.measure([variant], data, str(run), shown=False, scheduler=scheduler)[0]


# -- A real cluster --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    pytest.importorskip("distributed")
    started = Dask(tmp_path_factory.mktemp("dask") / "cluster")
    try:
        yield started
    finally:
        started.close()


def other_lib(folder: Path, edit: bool = False, empty: bool = False) -> str:
    """A checkout of its own: edited, of something else, or without data."""
    folder.mkdir()
    if empty:
        (folder / "lib.py").write_text("")  # a lib that is not ours
        return str(folder)
    shutil.copytree(ROOT / "lib", folder / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    if edit:
        (folder / "data").symlink_to(ROOT / "data")
        crop = folder / "lib" / "siamrpn" / "crop.py"
        crop.write_text(crop.read_text() + "\nOTHER = True\n")
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault, sentence",
    [
        ("code", r"the worker on .* could differ, .*code \(\w{16} there, \w{16} here\)"),
        ("weights", r"siamrpn_r50_quarter\.pth: no such weights file"),
        ("lib", "cannot run this repository's code .*start it in"),
    ],
)
def test_a_worker_that_would_do_something_else_is_refused(
    fault: str, sentence: str, cluster: Dask, patches: Path, tmp_path: Path
) -> None:
    cluster.add("other", PYTHONPATH=other_lib(tmp_path / "other", fault == "code", fault == "lib"))
    try:
        cluster.wait_for("other")
        run = str(tmp_path / "run")
        with pytest.raises(InputError, match=sentence):
            quality.measure(
                baseline("demo"),
                load_dataset(patches),
                run,
                shown=False,
                scheduler=cluster.address,
            )
        assert not list((tmp_path / "run").rglob("*.json"))
    finally:
        cluster.remove("other")
        cluster.wait_for()


def test_a_task_looks_itself_whether_its_worker_would_do_the_same(
    weights: Path, patches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_dataset(patches)
    order = ordered(weights, patches, tmp_path)
    video = data.sequences[0]
    contents = keys.sequence_digest(video)
    [tracked] = worker.track(order, video, contents, order.variants).values()
    assert len(tracked.trajectory) == len(video)
    monkeypatch.setattr("lib.measure.keys.CODE", "before")
    worker._trackers.cache_clear()
    for task in (
        lambda: worker.track(order, video, contents, order.variants),
        lambda: worker.calibrate(order, data),
    ):
        with pytest.raises(InputError, match=r"code \(before there, \w{16} here\)"):
            task()
    with pytest.raises(InputError, match="the frames or boxes of 'first' are others on the worker"):
        worker.track(order, video, "of other frames", order.variants)


def test_a_worker_with_several_threads_follows_one_target_at_a_time(
    weights: Path, patches: Path, tmp_path: Path
) -> None:
    data = load_dataset(patches)
    order = ordered(weights, patches, tmp_path)
    tasks = [(order, one, keys.sequence_digest(one)) for one in data]

    def boxes(task: Any) -> List[Any]:
        [tracked] = worker.track(*task, order.variants).values()
        return [entry.tolist() for entry in tracked.trajectory.entries]

    alone = [boxes(task) for task in tasks]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(boxes, tasks)) == alone


def ordered(weights: Path, patches: Path, run: Path) -> worker.Order:
    """What a worker is told of the tiny tracker."""
    data, variant = load_dataset(patches), Variant("tiny", str(weights))
    _, tasks = quality._plan([variant], data, str(run), quality.PYSOT, "local")
    return tasks[0][0]


@pytest.mark.slow
def test_no_worker_and_a_scheduler_that_goes_away_are_said_and_what_was_finished_is_kept(
    weights: Path, patches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(worker, "WORKER_SECONDS", 1.0)
    processes, run = Dask(tmp_path / "cluster"), tmp_path / "run"
    try:
        with pytest.raises(InputError, match="has had no worker for 1 s; `dask worker ADDRESS"):
            measure(run, weights, patches, processes.address)
        monkeypatch.setattr(worker, "WORKER_SECONDS", 20.0)
        processes.add("one")
        processes.wait_for("one")
        write = quality.write_trajectory

        def and_then_away(path: Path, trajectory: Any) -> None:
            write(path, trajectory)
            processes.workers["one"].kill()
            processes.scheduler.kill()
            time.sleep(0.5)

        monkeypatch.setattr(quality, "write_trajectory", and_then_away)
        slow = Variant("demo")
        data = load_dataset(patches)
        with pytest.raises(InputError, match="what was finished is kept, and the same command"):
            quality.measure([slow], data, str(run), shown=False, scheduler=processes.address)
    finally:
        processes.close()
    kept = raw_files(run)
    assert 0 < len(kept) < len(data)


@pytest.mark.slow
def test_what_a_lost_worker_had_runs_on_another_one(patches: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    processes, run = Dask(tmp_path / "cluster"), tmp_path / "run"
    try:
        processes.add("one")
        processes.wait_for("one")
        data = load_dataset(patches)

        def lose() -> None:
            import distributed

            with distributed.Client(processes.address) as client:
                wait_for(lambda: any(client.processing().values()), processes.scheduler)
            processes.workers["one"].kill()
            processes.add("two")

        loser = threading.Thread(target=lose, daemon=True)
        loser.start()
        found = quality.measure(
            baseline("demo"), data, str(run), shown=False, scheduler=processes.address
        )
        loser.join(30)
        assert processes.workers["one"].poll() is not None
        assert len(raw_files(run)) == len(data) == len(found[0].trajectories)
        before = state(run)
        again = quality.measure(
            baseline("demo"), data, str(run), shown=False, scheduler="tcp://127.0.0.1:1"
        )
        assert str(again[0].row()) == str(found[0].row()), "nothing is left to do"
        assert {path: told for path, told in state(run).items() if ".lock" not in path} == {
            path: told for path, told in before.items() if ".lock" not in path
        }
    finally:
        processes.close()
