"""Where the tasks of a quality measurement run: processes of this machine, a Dask cluster, or this
process (section 3.3).

All three have one method, `answers(tasks)`, and the same tasks give the same boxes in each. A task
computes on one thread, so its digits do not depend on how many cores there are; two processes of
one thread are also faster than one of two.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any, Callable, Iterator, Optional, Sequence, Tuple

from lib import environment
from lib.errors import InputError
from lib.files import ROOT

LOCAL = "local"  # as a scheduler: processes of this machine, also where there is a GPU
CONNECT_SECONDS = 5.0
WORKER_SECONDS = 30.0  # without any worker
KEPT = "what was finished is kept, and the same command goes on"

Task = Tuple[Any, ...]  # a function and its arguments
Answers = Iterator[Tuple[Task, Any]]


def one_thread() -> None:
    """Let PyTorch, the compiled engines (which use as many threads as PyTorch) and OpenCV compute
    on one thread each."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


class Serial:
    """This process, one task after the other, with all its threads: nothing else runs, so tasks may
    be timed."""

    workers = 1
    alone = True

    def answers(self, tasks: Sequence[Task]) -> Answers:
        for function, *arguments in tasks:
            yield (function, *arguments), function(*arguments)

    def check(self, function: Callable[..., None], *arguments: Any) -> None:
        """Nothing to check: the worker is this process."""


class Pool:
    """Workers behind an executor of `concurrent.futures`."""

    alone = False

    def __init__(self, executor: Executor, workers: int) -> None:
        self.executor, self.workers = executor, workers

    def answers(self, tasks: Sequence[Task]) -> Answers:
        """Every task's answer as it comes. Raises InputError where a task fails or its worker
        ends."""
        pending = {self.executor.submit(*task): task for task in tasks}
        while pending:
            done, _ = wait(pending, timeout=WORKER_SECONDS, return_when=FIRST_COMPLETED)
            if not done:
                self.still_there()
            # What was finished comes first, and so is kept, whatever else failed.
            for future in sorted(done, key=self._failed):
                task = pending.pop(future)
                yield task, self._answer(future)

    @staticmethod
    def _failed(future: Any) -> bool:
        return future.cancelled() or future.exception() is not None

    @staticmethod
    def _answer(future: Any) -> Any:
        try:
            return future.result()
        except BrokenProcessPool:
            raise InputError(f"a worker process ended (often for lack of memory); {KEPT}") from None
        except CancelledError:
            raise InputError(f"the scheduler went away; {KEPT}") from None
        except Exception as error:
            kind = (
                ""
                if isinstance(error, InputError)
                else f"a worker failed ({type(error).__name__}) "
            )
            raise InputError(f"{kind}{' '.join(str(error).split())}; {KEPT}") from error

    def still_there(self) -> None:
        """Called when nothing was answered for a while."""

    def check(self, function: Callable[..., None], *arguments: Any) -> None:
        """Processes of this machine run this very code; there is nothing to check."""


class Cluster(Pool):
    """A Dask cluster by its scheduler's address."""

    def __init__(self, client: Any) -> None:
        super().__init__(client.get_executor(pure=False), len(client.scheduler_info()["workers"]))
        self.client = client

    def still_there(self) -> None:
        try:
            self.client.wait_for_workers(1, timeout=WORKER_SECONDS)
        # distributed's TimeoutError has moved between versions, and a dead scheduler raises others.
        except Exception:
            raise InputError(
                f"the scheduler has had no worker for {WORKER_SECONDS:.0f} s; "
                f"`dask worker ADDRESS --nthreads 1` starts one; {KEPT}"
            ) from None

    def check(self, function: Callable[..., None], *arguments: Any) -> None:
        """Run a function on every worker. Raises InputError with the worker's address for what it
        raises there."""
        self.still_there()
        for worker, error in self.client.run(function, *arguments, on_error="return").items():
            if isinstance(error, InputError):
                raise InputError(f"worker {worker}: {error}")
            # An OSError is a worker that was just lost
            if error is not None and not isinstance(error, OSError):
                raise InputError(
                    f"worker {worker} cannot run this repository's code ({error}); "
                    f"start it in {ROOT} in the same environment"
                )


@contextmanager
def open_executor(scheduler: str = "", workers: int = 0, device: str = "cpu") -> Iterator[Any]:
    """Where tasks run. scheduler: "" (processes; on a GPU this process), "local" or
    tcp://HOST:PORT.

    workers: processes, one per core unless given. Raises InputError where no scheduler answers or
    the package is missing.
    """
    if scheduler not in ("", LOCAL):
        with _connected(scheduler) as client:
            yield Cluster(client)
    elif device != "cpu" and not scheduler:
        yield Serial()
    else:
        count = workers or environment.cores() or 1
        executor = ProcessPoolExecutor(count, get_context("spawn"), _start_worker, (os.getpid(),))
        try:
            yield Pool(executor, count)
            executor.shutdown()
        finally:  # after a fault nobody waits for tasks that are still running
            for process in list((getattr(executor, "_processes", None) or {}).values()):
                process.kill()
            executor.shutdown(wait=False)


def _start_worker(parent: int) -> None:
    """A worker ends with the process that started it, however that ends, and leaves Ctrl-C to
    it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    one_thread()


def _end_with(parent: int) -> None:
    process = parent_process()
    if process is not None and process.pid == parent:
        process.join()
    os._exit(1)


@contextmanager
def _connected(scheduler: str) -> Iterator[Any]:
    """A Dask client of the scheduler."""
    try:
        import distributed
    except ImportError:
        raise InputError(
            "a cluster needs the package distributed: pip install -e '.[cluster]'"
        ) from None
    found: Optional[re.Match[str]] = re.fullmatch(r"tcp://(.+):(\d+)", scheduler)
    if not found:
        raise InputError(
            f"'{scheduler}' is no address of a scheduler: tcp://HOST:PORT, or `{LOCAL}` for processes of this machine"
        )
    try:
        with socket.create_connection(
            (found[1].strip("[]"), int(found[2])), CONNECT_SECONDS
        ) as probe:
            # Schedulers speak first; a client would wait for ever for one that does not
            probe.recv(1)
        client = distributed.Client(scheduler, timeout=CONNECT_SECONDS)
    except Exception as error:  # what is no scheduler may answer anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"no Dask scheduler answers at {scheduler} ({reason}); `dask scheduler` starts one"
        ) from None
    with client:
        yield client
