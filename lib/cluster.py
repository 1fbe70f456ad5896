"""Variants and sequences on a Dask cluster, where one machine is too slow (section 3.3.3's protocol, quality only).

A task is one sequence with one variant. Workers track and answer with boxes; this process alone writes, the same raw files as
`experiments.measure` byte for byte, but no times, which are taken on one device, alone. They are kept apart from what is timed:

    data/runs/<run>/quality/<dataset>/<variant>/measured.json                         all that decided the results below
    data/runs/<run>/quality/<dataset>/<variant>/baseline/<sequence>/<sequence>_001.txt

A stopped evaluation goes on with the sequences that are missing. A task whose worker is lost runs on another one, as often as
the scheduler's `distributed.scheduler.allowed-failures` says. Workers need the repository, weights and frames under the same
paths, the same versions and processor as this process, and they compute with as many threads: all of these decide digits.
"""
from __future__ import annotations

import json
import re
import shutil
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Iterator
from typing import Sequence as Seq

import numpy as np
import torch
from tqdm import tqdm

from lib import environment
from lib.deploy import FRAMEWORKS
from lib.digests import code_digest, dataset_digest
from lib.environment import device
from lib.errors import InputError
from lib.experiments import MEASURED, Deployments, Variant, decided_by
from lib.files import ROOT, locked, write_text
from lib.runs import LOCK, is_recorded, read_json, run_folder, to_json
from lib.siamrpn.tracker import SiamRPNTracker, TrackerConfig
from lib.vot.dataset import Dataset, load_dataset
from lib.vot.metrics import Evaluation, evaluate
from lib.vot.protocol import PYSOT, Protocol, Trajectory, run_reset_based
from lib.vot.results import read_results, result_path, write_trajectory

LOCAL = "local"  # as a scheduler: a cluster of this machine's cores, for as long as the evaluation takes
CONNECT_SECONDS = 5.0
WORKER_SECONDS = 30.0  # without any worker
# Read when the module is: a worker that was started before an edit runs the code from before it.
CODE = {framework: code_digest(framework) for framework in FRAMEWORKS}
_ALONE = threading.Lock()  # a tracker follows one target at a time, however many threads a worker has


@dataclass(frozen=True)
class Order:
    """A variant on a dataset, as workers are told. contents: `dataset_digest` of all of it. threads: PyTorch's. decided: all that
    decides the results, as pairs of name and value (`_here`)."""

    variant: Variant
    dataset: Path
    contents: str
    protocol: Protocol
    threads: int
    decided: tuple[tuple[str, str], ...]


def measure(variants: Seq[Variant], dataset: Dataset, run: str, scheduler: str, protocol: Protocol = PYSOT, progress: bool = True
            ) -> list[tuple[Path, Evaluation]]:
    """Raw results' folder and evaluation of every variant, in the order given; only what is missing is tracked.

    scheduler: "local" or tcp://HOST:PORT. Raises InputError where nobody listens there, no worker is left, a worker differs from
    this process or lacks something, or a sequence fails; what was finished until then is kept.
    """
    _package()
    if is_recorded(run, device()):
        raise InputError(f"run {Path(run).name} was recorded on another machine, and nothing is measured into it")
    contents, folder = dataset_digest(dataset), run_folder(run) / "quality"
    with locked(run_folder(run) / LOCK):
        deployments, waiting = Deployments(dataset, contents), []
        for variant in variants:
            results, parts = folder / dataset.name / variant.name, decided_by(variant, contents, protocol, device())
            fresh = read_json(results / MEASURED).get("decided_by") == parts
            missing = [s for s in dataset if not fresh or not result_path(results, s.name).is_file()]
            if missing:
                deployments.network(variant)  # faults come out here, and plans and calibrations are made once, not by each worker
                decided = tuple(_here(variant, contents, protocol).items())
                order = Order(variant, dataset.path.resolve(), contents, protocol, torch.get_num_threads(), decided)
                waiting.append((order, results, None if fresh else parts, missing))
        if waiting:
            with _connected(scheduler) as client:
                _check_workers(client, [order for order, *_ in waiting])
                for _, results, new, _ in waiting:
                    if new is not None:
                        shutil.rmtree(results, ignore_errors=True)
                        write_text(results / MEASURED, to_json({"decided_by": new}))
                tasks = [(order, result_path(results, sequence.name), sequence)
                         for order, results, _, missing in waiting for sequence in missing]
                _run(client, tasks, progress)
        folders = [folder / dataset.name / variant.name for variant in variants]
        return [(results, evaluate(dataset, read_results(results, dataset), protocol)) for results in folders]


def _run(client: Any, tasks: Seq[tuple[Order, Path, Any]], progress: bool) -> None:
    """Have every task done by some worker and write its answer as it comes."""
    from distributed import CancelledError, TimeoutError, wait

    contents = {s.name: dataset_digest(Dataset(s.name, order.dataset, (s,))) for order, _, s in tasks}
    pending = {client.submit(_track, order, sequence.name, contents[sequence.name], pure=False): (order, path, sequence)
               for order, path, sequence in tasks}
    total = sum(len(sequence) for _, _, sequence in tasks)
    with tqdm(total=total, desc=f"{len(tasks)} tasks", unit="frame", disable=not progress) as bar:
        while pending:
            try:
                done = wait(list(pending), timeout=WORKER_SECONDS, return_when="FIRST_COMPLETED").done
            except TimeoutError:  # is there anybody left, and fit for it, who came later?
                _check_workers(client, list({order: None for order, *_ in pending.values()}))
                continue
            except CancelledError:
                raise InputError("the scheduler went away; the same command goes on with what is missing") from None
            for future in done:
                order, path, sequence = pending.pop(future)
                error = future.exception()
                if error is not None:
                    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
                    where = f"sequence '{sequence.name}' with {order.variant.title} failed on the cluster"
                    raise InputError(f"{where} ({kind}{' '.join(str(error).split())})") from error
                write_trajectory(path, Trajectory(future.result(), np.full(len(sequence), np.nan)))
                bar.update(len(sequence))


# -- The cluster ---------------------------------------------------------------------------------------------------------------


def _package() -> Any:
    try:
        import distributed
    except ImportError:
        raise InputError("a cluster needs the package distributed: pip install -e '.[cluster]'") from None
    return distributed


@contextmanager
def _connected(scheduler: str) -> Iterator[Any]:
    """A client of the scheduler; "local" is started here, with a worker for every so many cores as PyTorch has threads."""
    distributed = _package()
    if scheduler == LOCAL:
        workers = max(1, (environment.cores() or 1) // torch.get_num_threads())
        with distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster, \
                distributed.Client(cluster) as client:
            yield client
        return
    found = re.fullmatch(r"tcp://(.+):(\d+)", scheduler)
    if not found:
        raise InputError(f"'{scheduler}' is no address of a scheduler: tcp://HOST:PORT, or `{LOCAL}` for a cluster started here")
    try:
        with socket.create_connection((found[1].strip("[]"), int(found[2])), CONNECT_SECONDS) as probe:
            probe.recv(1)  # schedulers speak first; a client would wait for one that does not for ever
        client = distributed.Client(scheduler, timeout=CONNECT_SECONDS)
    except Exception as error:  # what is no scheduler may answer anything
        raise InputError(f"no Dask scheduler answers at {scheduler} ({' '.join(str(error).split()) or type(error).__name__}); "
                         "`dask scheduler` starts one") from None
    with client:
        yield client


def _check_workers(client: Any, orders: Seq[Order]) -> None:
    """Raises InputError where no worker is or comes, or one could not do what is ordered or would do something else."""
    try:
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
    except _package().TimeoutError:
        raise InputError(f"the scheduler has had no worker for {WORKER_SECONDS:.0f} s; `dask worker ADDRESS --nthreads 1` starts "
                         "one, and the same command goes on with what is missing") from None
    for order in orders:
        for worker, error in client.run(_check, order, on_error="return").items():
            if isinstance(error, InputError):
                raise InputError(f"worker {worker}: {error}")
            if error is not None and not isinstance(error, OSError):  # which is a worker that was lost just now
                raise InputError(f"worker {worker} cannot run this repository's code ({error}); start it in {ROOT} in the same "
                                 "environment")


# -- What a worker does --------------------------------------------------------------------------------------------------------


def _here(variant: Variant, contents: str, protocol: Protocol) -> dict[str, str]:
    """All that decides raw results in this process, by name."""
    parts, record = decided_by(variant, contents, protocol, device()), environment.record(device())
    parts.update({name: str(record["hardware"][name]) for name in ("processor", "gpu", "device")}, code=CODE[variant.framework])
    parts.update({name: str(version) for name, version in record["versions"].items()})
    del parts["machine"]  # its cores and threads: the order says how many threads
    return parts


def _check(order: Order) -> None:
    """Raises InputError where this process differs from the one that ordered, or the dataset cannot be read."""
    own, theirs = _here(order.variant, order.contents, order.protocol), dict(order.decided)
    names = [name for name in sorted({*own, *theirs}) if own.get(name) != theirs.get(name)]
    if names:
        told = ", ".join(f"{name} ({own.get(name, 'none')} there, {theirs.get(name, 'none')} here)" for name in names)
        raise InputError(f"results could differ, as this does on {socket.gethostname()}: {' '.join(told.split())}; start it "
                         "where all is the same")
    _dataset(order.dataset, order.contents)


@lru_cache(maxsize=2)
def _dataset(path: Path, contents: str) -> Dataset:
    """The dataset as it is here; contents tells a changed one from what is kept."""
    return load_dataset(path)


@lru_cache(maxsize=2)
def _tracker(order: Order) -> SiamRPNTracker:
    """The variant's tracker, kept for the next sequences."""
    _check(order)
    network = Deployments(_dataset(order.dataset, order.contents), order.contents).network(order.variant)
    return SiamRPNTracker(network, TrackerConfig(**json.loads(dict(order.decided)["tracker"])))


def _track(order: Order, name: str, contents: str) -> tuple[np.ndarray, ...]:
    """The entries of a sequence's trajectory. contents: `dataset_digest` of the sequence alone."""
    with _ALONE:
        torch.set_num_threads(order.threads)
        tracker, sequence = _tracker(order), _dataset(order.dataset, order.contents)[name]
        if dataset_digest(Dataset(name, order.dataset, (sequence,))) != contents:
            raise InputError(f"{order.dataset}: the frames or boxes of '{name}' are others on the worker")
        return run_reset_based(tracker, sequence, order.protocol).entries
