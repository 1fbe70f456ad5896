"""Sequences on real Dask schedulers and workers: the serial run's raw files byte for byte, whatever happens to workers."""
from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Dict, Iterator, List

import pytest
import torch

from lib import cluster, digests, experiments, files
from lib.cli import main
from lib.deploy import missing_frameworks
from lib.errors import InputError
from lib.experiments import baseline, mixture
from lib.siamrpn.checkpoint import save_weights
from lib.siamrpn.network import NetworkConfig, SiamRPN
from lib.vot.dataset import Dataset, load_dataset
from lib.vot.protocol import PYSOT
from lib.zoo import DEMO_WEIGHTS

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.usefixtures("one_thread")
DEMO = str(DEMO_WEIGHTS)  # where a worker of another checkout finds it, too


class Processes:
    """A scheduler and its workers, each a process of the command `dask`, on one thread."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.folder, self.environ, self.file = folder, environ, folder / "scheduler.json"
        self.workers: Dict[str, subprocess.Popen] = {}
        folder.mkdir(parents=True)
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(self.file),
                                     "--dashboard-address", "127.0.0.1:0")
        end = time.monotonic() + 30
        while not self.file.is_file() or not self.file.read_text():
            assert time.monotonic() < end and self.scheduler.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        self.address = json.loads(self.file.read_text())["address"]

    def _start(self, *arguments: str, **environ: str) -> subprocess.Popen:
        with open(self.folder / "log", "a") as log:
            return subprocess.Popen([sys.executable, "-m", "dask", *arguments, "--no-dashboard"], cwd=self.folder,
                                    stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1", **self.environ, **environ})

    def add(self, name: str, threads: int = 1, **environ: str) -> None:
        self.workers[name] = self._start("worker", self.address, "--name", name, "--nthreads", str(threads), "--no-nanny",
                                         "--local-directory", str(self.folder / name), **environ)

    def wait_for(self, *names: str) -> None:
        """Return when the scheduler knows these workers and none else."""
        end = time.monotonic() + 60
        with distributed.Client(self.address) as client:
            while {str(worker["name"]) for worker in client.scheduler_info(n_workers=-1)["workers"].values()} != set(names):
                assert time.monotonic() < end, (self.folder / "log").read_text()
                time.sleep(0.1)

    def close(self) -> None:
        for process in (*self.workers.values(), self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of a network that knows nothing and so loses its target again and again."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.manual_seed(0)
    save_weights(path, SiamRPN(NetworkConfig.resnet50(1 / 32)).state_dict())
    return str(path)


@pytest.fixture(scope="module")
def dataset(small: Path) -> Dataset:
    return load_dataset(small)


@pytest.fixture(scope="module")
def variants(tiny: str) -> List[experiments.Variant]:
    compiled = [] if missing_frameworks(["openvino"]) else [mixture(DEMO, "openvino", "int8", "int8", "int8")]
    return [replace(baseline(tiny)[0], name="tiny"), *baseline(DEMO), *compiled]


@pytest.fixture(scope="module")
def serial(variants: List[experiments.Variant], dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dict[str, bytes]:
    """Raw files of the run in one process."""
    run = tmp_path_factory.mktemp("serial")
    measured = experiments.measure(variants, dataset, str(run), progress=False)
    assert any(2 in trajectory.codes for trajectory in measured[0].trajectories.values())  # there are failures to agree on
    return raw_files(run / dataset.name)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Two workers. PyTorch would use two threads in the first, and the second could do two tasks at a time."""
    started = Processes(tmp_path_factory.mktemp("dask") / "cluster")
    try:
        started.add("one", OMP_NUM_THREADS="2")
        started.add("two", threads=2)
        started.wait_for("one", "two")
        yield started
    finally:
        started.close()


def of(files: Dict[str, bytes], variant: str) -> Dict[str, bytes]:
    found = {name: data for name, data in files.items() if name.startswith(f"{variant}/")}
    assert len(found) == 2
    return found


def raw_files(folder: Path) -> Dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*_001.txt")}


@pytest.mark.slow
def test_raw_files_are_those_of_the_serial_run_byte_for_byte(processes, variants, dataset, serial, tmp_path):
    chosen = [variants[0], *variants[2:]]  # PyTorch, and OpenVINO in INT8 where it is there
    answers = cluster.measure(chosen, dataset, str(tmp_path), processes.address, progress=False)
    expected = {name: data for variant in chosen for name, data in of(serial, variant.name).items()}
    assert raw_files(tmp_path / "quality" / dataset.name) == expected
    assert [folder.name for folder, _ in answers] == [variant.name for variant in chosen]
    assert not list(tmp_path.rglob("*_time.value"))  # the times of a cluster say nothing
    with distributed.Client(processes.address) as client:
        assert all(client.run(lambda: sys.modules["lib.cluster"]._tracker.cache_info().currsize).values())  # both took part
        assert client.submit(torch.get_num_threads, workers=["one"], pure=False).result() == 1  # as many as here


@pytest.mark.slow
def test_an_evaluation_goes_on_with_what_is_missing(processes, variants, dataset, serial, tmp_path):
    folder, whole = cluster.measure(variants[:1], dataset, str(tmp_path), processes.address, progress=False)[0]
    kept, lost = (folder / "baseline" / name / f"{name}_001.txt" for name in ("face", "cup"))
    lost.unlink()
    before = kept.stat().st_mtime_ns
    _, again = cluster.measure(variants[:1], dataset, str(tmp_path), processes.address, progress=False)[0]
    assert again.as_dict() == whole.as_dict()
    assert kept.stat().st_mtime_ns == before and lost.read_bytes() == serial["tiny/baseline/cup/cup_001.txt"]
    lost.write_text("1\n" * 24)
    record = folder / experiments.MEASURED
    record.write_text(record.read_text().replace('"precision": "FP32"', '"precision": "FP16"'))
    cluster.measure(variants[:1], dataset, str(tmp_path), processes.address, progress=False)
    assert lost.read_bytes() == serial["tiny/baseline/cup/cup_001.txt"]  # what other things decided is measured again
    assert cluster.measure(variants[:1], dataset, str(tmp_path), "tcp://127.0.0.1:1", progress=False)  # nothing is left to do


@pytest.mark.slow
def test_the_command_starts_a_cluster_of_its_own(small, tiny, serial, tmp_path, capsys):
    assert main(["evaluate", "--dataset", str(small), "--weights", tiny, "--run", str(tmp_path), "--scheduler", "local"]) == 0
    assert "2 sequences, 48 frames" in capsys.readouterr().out
    found = raw_files(tmp_path / "quality" / "small" / "pytorch-fp32")
    assert {f"tiny/{name}": data for name, data in found.items()} == of(serial, "tiny")


class Killer(threading.Thread):
    """Kills the first worker that has a task, and keeps what it had."""

    def __init__(self, processes: Processes) -> None:
        super().__init__(daemon=True)
        self.processes, self.had = processes, ()

    def run(self) -> None:
        with distributed.Client(self.processes.address) as client:
            while not self.had:
                workers = client.scheduler_info(n_workers=-1)["workers"]
                for address, keys in client.processing().items():
                    if address in workers and any("_track" in key for key in keys):
                        self.had = tuple(keys)
                        self.processes.workers[workers[address]["name"]].send_signal(signal.SIGKILL)
                        break


@pytest.mark.slow
@pytest.mark.parametrize("failures", ["3", "0"])
def test_what_a_killed_worker_had_runs_on_another_one(failures, variants, dataset, serial, tmp_path):
    processes = Processes(tmp_path / "cluster", DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=failures)
    try:
        processes.add("one")
        processes.add("two")
        killer = Killer(processes)
        killer.start()
        if failures == "0":
            with pytest.raises(InputError, match=r"sequence '(face|cup)' with PyTorch FP32 failed on the cluster .KilledWorker"):
                cluster.measure(variants[1:2], dataset, str(tmp_path), processes.address, progress=False)
        else:
            cluster.measure(variants[1:2], dataset, str(tmp_path), processes.address, progress=False)
            assert raw_files(tmp_path / "quality" / dataset.name) == of(serial, "pytorch-fp32")
        killer.join(10)
        assert killer.had and sorted(process.poll() is None for process in processes.workers.values()) == [False, True]
    finally:
        processes.close()


@pytest.mark.slow
def test_no_worker_left_and_no_scheduler_left_are_said(variants, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "WORKER_SECONDS", 1.0)
    processes = Processes(tmp_path / "cluster")
    try:
        with pytest.raises(InputError, match="has had no worker for 1 s"):
            cluster.measure(variants[:1], dataset, str(tmp_path), processes.address, progress=False)
        monkeypatch.setattr(cluster, "WORKER_SECONDS", 20.0)
        processes.add("one")
        killer = Killer(processes)
        processes.workers["one"].send_signal = lambda _: processes.scheduler.kill()
        killer.start()
        with pytest.raises(InputError, match="went away"):
            cluster.measure(variants[1:2], dataset, str(tmp_path), processes.address, progress=False)
    finally:
        processes.close()


@pytest.mark.parametrize("listens", [False, True], ids=["nobody", "somebody else"])
def test_an_address_without_a_scheduler_is_said_soon(listens, small, tiny, tmp_path, capsys):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        if listens:
            bound.listen()
        begin = time.monotonic()
        address = f"tcp://127.0.0.1:{bound.getsockname()[1]}"
        assert main(["evaluate", "--dataset", str(small), "--weights", tiny, "--run", str(tmp_path), "--scheduler", address]) == 2
        assert time.monotonic() - begin < (20 if listens else 5)
    assert f"siambook: no Dask scheduler answers at {address} (" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.slow
@pytest.mark.parametrize("fault, sentence", [
    ("code", r"worker tcp://127.*: results could differ, as this does on .+: code \(\w{16} there, \w{16} here\)"),
    ("absent", "cannot run this repository's code .ModuleNotFoundError.*start it in"),
])
def test_a_worker_with_other_code_is_refused(fault, sentence, processes, variants, dataset, tmp_path):
    other = tmp_path / "other" / "lib"
    if fault == "code":
        shutil.copytree(files.ROOT / "lib", other, ignore=shutil.ignore_patterns("__pycache__"))
        crop = other / "siamrpn" / "crop.py"
        crop.write_text(crop.read_text() + "\nOTHER = True\n")
    else:
        other.parent.mkdir()
        other.with_suffix(".py").write_text("")  # a lib that is not ours
    processes.add("other", PYTHONPATH=str(other.parent))
    try:
        processes.wait_for("one", "two", "other")
        with pytest.raises(InputError, match=sentence):
            cluster.measure(variants[:1], dataset, str(tmp_path / "run"), processes.address, progress=False)
        assert not list((tmp_path / "run").rglob("*.json"))
    finally:
        processes.workers["other"].kill()
        processes.workers.pop("other").wait()
        processes.wait_for("one", "two")


def ordered(variant: experiments.Variant, path: Path, **changed: str) -> cluster.Order:
    decided = {**cluster._here(variant, "contents", PYSOT), **changed}
    return cluster.Order(variant, path, "contents", PYSOT, 1, tuple(decided.items()))


@pytest.mark.parametrize("decided, sentence", [
    ({"torch": "1.0"}, r"torch \(\S+ there, 1\.0 here\);"),
    ({"openvino": "1.0"}, r"openvino \(\S+ there, 1\.0 here\);"),
    ({"processor": "abacus"}, r"processor \(.+ there, abacus here\);"),
    ({"tensorrt": "1.0"}, r"tensorrt \(none there, 1\.0 here\);"),
    ({"weights": "others"}, r"weights \(\w+ there, others here\);"),
])
def test_whatever_decides_results_and_differs_is_named(decided, sentence, variants, dataset):
    cluster._check(ordered(variants[0], dataset.path))
    with pytest.raises(InputError, match="results could differ, as this does on .+: " + sentence):
        cluster._check(ordered(variants[0], dataset.path, **decided))


def test_a_worker_that_runs_the_code_from_before_an_edit_is_refused(variants, dataset, monkeypatch):
    order = ordered(variants[0], dataset.path)
    monkeypatch.setitem(cluster.CODE, "pytorch", "before")  # what the process read when it was started
    with pytest.raises(InputError, match=r"code \(before there, \w{16} here\)"):
        cluster._track(order, "cup", "")  # the task itself looks: its worker may have come late
    monkeypatch.undo()
    cup = digests.dataset_digest(Dataset("cup", dataset.path, (dataset["cup"],)))
    before = cluster._tracker.cache_info().misses
    assert len(cluster._track(order, "cup", cup)) == len(cluster._track(order, "cup", cup)) == len(dataset["cup"])
    assert cluster._tracker.cache_info().misses == before + 1  # one tracker for all sequences


def test_a_worker_with_several_threads_follows_one_target_at_a_time(variants, dataset):
    order = ordered(variants[0], dataset.path)
    jobs = [(name, digests.dataset_digest(Dataset(name, dataset.path, (dataset[name],)))) for name in ("face", "cup")]
    alone = [cluster._track(order, *job) for job in jobs]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda job: cluster._track(order, *job), jobs))
    assert [[entry.tolist() for entry in entries] for entries in together] == [
        [entry.tolist() for entry in entries] for entries in alone]


def test_a_worker_without_the_dataset_or_with_other_frames_is_refused(variants, dataset, tmp_path):
    with pytest.raises(InputError, match=r"Dataset .*nowhere does not exist"):
        cluster._check(ordered(variants[0], tmp_path / "nowhere"))
    with pytest.raises(InputError, match="the frames or boxes of 'cup' are others on the worker"):
        cluster._track(ordered(variants[0], dataset.path), "cup", "of other frames")


@pytest.mark.slow
def test_a_sequence_that_fails_is_named(processes, variants, small, tmp_path, monkeypatch):
    copy = tmp_path / "small"
    shutil.copytree(small, copy)
    frame = sorted((copy / "cup" / "color").iterdir())[5]
    frame.write_bytes(frame.read_bytes()[:200])
    with pytest.raises(InputError, match=r"sequence 'cup' with PyTorch FP32 failed on the cluster .Frame .* is "):
        cluster.measure(variants[:1], load_dataset(copy), str(tmp_path / "run"), processes.address, progress=False)


@pytest.mark.parametrize("arguments, sentence", [
    (["RESULTS", "--scheduler", "local"], "--scheduler says where a tracker runs"),
    (["--one-pass", "--scheduler", "local"], "--scheduler says where a tracker runs"),
    (["--scheduler", "nowhere"], "'nowhere' is no address of a scheduler: tcp://HOST:PORT, or `local`"),
])
def test_what_does_not_go_together_is_said(arguments, sentence, small, tiny, tmp_path, capsys):
    assert main(["evaluate", "--dataset", str(small), "--weights", tiny, "--run", str(tmp_path), *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_without_the_package_the_command_to_install_it_is_said(variants, dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[cluster\]'"):
        cluster.measure(variants[:1], dataset, str(tmp_path), "local", progress=False)


def test_into_a_recorded_run_nothing_is_measured(variants, dataset, tmp_path):
    (tmp_path / "environment.json").write_text(json.dumps({"hardware": {"processor": "of another machine"}}))
    with pytest.raises(InputError, match="recorded on another machine"):
        cluster.measure(variants[:1], dataset, str(tmp_path), "local", progress=False)
