"""Fixtures for all tests, which see no run but their own."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, List, Tuple

import pytest

# Before anything of lib is imported; processes that tests start inherit it.
os.environ["SIAMBOOK_RUNS"] = tempfile.mkdtemp(prefix="siambook-runs-")
atexit.register(shutil.rmtree, os.environ["SIAMBOOK_RUNS"], ignore_errors=True)
for name in ("SIAMBOOK_PROFILE", "SIAMBOOK_RUN"):
    os.environ.pop(name, None)

FRAMES = 10  # of a sequence, where a test only wants some to track
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    """Files with slow tests come first, so that no worker is left alone with them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference data beside the repository (PySOT's numbers, VOT2018 annotations,
    real sequences)."""
    if not SHARED.is_dir():
        pytest.skip(f"reference data is not on this machine: {SHARED} does not exist")
    return SHARED


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: its pool and another framework's, taking turns on two cores, wait for
    each other."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def names() -> Tuple[str, str]:
    """The sequences of `small`: the demo benchmark's first two."""
    from lib.demo import list_specs

    first, second = (spec.name for spec in list_specs()[:2])
    return first, second


@pytest.fixture(scope="session")
def first_frames(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Path, Iterable[str], int], Path]:
    """Makes a copy of some sequences of a dataset in VOT's layout: their first frames."""

    def copied(whole: Path, names: Iterable[str], count: int) -> Path:
        folder = tmp_path_factory.mktemp("few") / whole.name
        for name in names:
            (folder / name / "color").mkdir(parents=True)
            for file in sorted((whole / name / "color").iterdir())[:count]:
                shutil.copy(file, folder / name / "color")
            for file in (whole / name).glob("*.t*"):
                lines = file.read_text().splitlines()[:count]
                (folder / name / file.name).write_text("\n".join(lines) + "\n")
        (folder / "list.txt").write_text("".join(f"{name}\n" for name in names))
        return folder

    return copied


@pytest.fixture(scope="session")
def small(
    names: Tuple[str, str], first_frames: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Two sequences of the demo benchmark, their first frames."""
    from lib.demo import make_benchmark

    return first_frames(
        make_benchmark(tmp_path_factory.mktemp("demo") / "small", names), names, FRAMES
    )
