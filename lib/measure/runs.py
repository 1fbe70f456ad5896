"""Runs: what was measured, on this machine or another one (chapter 4).

A run is a folder data/runs/<name>, complete in itself: tables, raw results, annotations in PySOT's
format, and the machine, but no frames. It can be copied to another machine, or committed; a book
built there with `run=<name>` shows it. There are two kinds:

- *own*: measured again where something that affects its results has changed (code, weights,
  versions, ...);
- *recorded*: measured on another processor, number of cores, GPU or device, as its environment.json
  says. It is only read: it is shown with its hardware and date, and what it lacks is shown as
  missing.

The run `local` is always this machine's own: git ignores it, and the default profile measures into
it. Copy it to another name to show it elsewhere.
"""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping, Sequence

import pandas as pd

from lib import environment
from lib.environment import device
from lib.errors import InputError
from lib.files import ROOT, locked, write_text
from lib.progress import progress
from lib.vot.dataset import TAG_FILES, Dataset, load_dataset

# The variable is for tests: they see no run but their own
RUNS = Path(os.environ.get("SIAMBOOK_RUNS") or ROOT / "data" / "runs")
LOCAL = "local"
ENVIRONMENT = "environment.json"
LOCK = ".lock"  # of the process that measures into a run
# What `siambook run` writes: notebook, status, seconds, started, message
NOTEBOOKS = "notebooks.csv"
NAMED = 3  # of many things that a recorded run lacks
MACHINE = ("processor", "cores", "gpu", "device")  # of environment.hardware


def run_folder(run: str) -> Path:
    """data/runs/<run>; an absolute path is taken as it is."""
    return RUNS / run


def is_recorded(run: str, device: str) -> bool:
    """Whether the run was recorded on another machine (see above). device: "cpu" or "cuda"."""
    if run_folder(run) == RUNS / LOCAL:
        return False
    there = read_json(run_folder(run) / ENVIRONMENT).get("hardware")
    here = environment.hardware(device)
    return there is not None and any(there.get(part) != here[part] for part in MACHINE)


def write_environment(run: str, record: Mapping[str, Any]) -> None:
    """Keep the `environment.record` of the run's last measurement."""
    write_text(run_folder(run) / ENVIRONMENT, to_json(record))


# -- Annotations -----------------------------------------------------------------------------------


def keep_annotations(run: str, dataset: Dataset) -> None:
    """Write the dataset's annotations to the run, unless they are there."""
    videos = {
        sequence.name: {
            "video_dir": sequence.name,
            "img_names": [f"{sequence.name}/{frame.name}" for frame in sequence.frames],
            "gt_rect": [region.tolist() for region in sequence.regions],
            "width": sequence.width,
            "height": sequence.height,
            **{
                TAG_FILES[tag]: flags.astype(int).tolist() if flags.any() else []
                for tag, flags in sequence.tags.items()
            },
        }
        for sequence in dataset
    }
    path = _annotations(run, dataset.name)
    text = json.dumps(videos, separators=(",", ":")).replace(".0,", ",") + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def dataset_of(run: str, name: str, local: Dataset | None) -> Dataset:
    """The dataset as the run has it: its annotations, with the frames of `local` where there are as
    many. Raises InputError where neither is there."""
    path = _annotations(run, name)
    if not path.is_file():
        if local is None:
            raise InputError(
                f"run {run} has no annotations of {name} ({path} is missing) and the dataset is not "
                "on this machine"
            )
        return local
    kept = load_dataset(path)
    frames = {sequence.name: sequence.frames for sequence in local or ()}
    sequences = [
        replace(sequence, frames=frames[sequence.name])
        if len(frames.get(sequence.name, ())) == len(sequence)
        else sequence
        for sequence in kept
    ]
    return Dataset(kept.name, local.path if local else path, tuple(sequences))


def _annotations(run: str, dataset: str) -> Path:
    return run_folder(run) / dataset / f"{dataset}.json"


# -- All runs --------------------------------------------------------------------------------------


def names() -> list[str]:
    """The runs under data/runs that have measured something, `local` first."""
    found = [path.parent.name for path in sorted(RUNS.glob(f"*/{ENVIRONMENT}"))]
    return sorted(found, key=lambda name: (name != LOCAL, name))


def section_table(run: str, section: str) -> pd.DataFrame:
    """A section's table as the run keeps it, e.g. "04_1_baseline"; empty where it has none."""
    path = run_folder(run) / f"{section}.csv"
    if not path.is_file():
        return pd.DataFrame()
    try:
        return pd.read_csv(path)
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        raise InputError(f"{path}: not a table ({' '.join(str(error).split())})") from None


def recorded(section: str, besides: str = "") -> dict[str, pd.DataFrame]:
    """A section's table from every other run than `besides`, by the run's name."""
    tables = {name: section_table(name, section) for name in names() if name != Path(besides).name}
    return {name: table for name, table in tables.items() if len(table)}


def with_power(run: str, device: str) -> pd.DataFrame:
    """All rows of the run's section tables that have a column of power; column `row` says "recorded"
    for a run of another machine."""
    tables = [section_table(run, path.stem) for path in sorted(run_folder(run).glob("0*.csv"))]
    rows = [table for table in tables if "power_w" in table]
    if not rows:
        return pd.DataFrame()
    whose = {"row": "recorded"} if is_recorded(run, device) else {}
    return pd.concat(rows, ignore_index=True).assign(run=Path(run).name, **whose)


def notebook_times(run: str) -> pd.DataFrame:
    """What `siambook run` did in this run: notebook, status, seconds, started, message."""
    return section_table(run, Path(NOTEBOOKS).stem)


# -- What a recorded run lacks -----------------------------------------------------------------------


class Missing(InputError):
    """A recorded run was asked for what it does not have, and it is not measured here. The sentence
    has no full stop."""

    def __init__(self, lacking: Sequence[Lacking]) -> None:
        whats = list(dict.fromkeys(each.what for each in lacking))
        more = f" and {len(whats) - NAMED} more" if len(whats) > NAMED else ""
        named = "; ".join(whats[:NAMED])
        super().__init__(f"{lacking[0].run} does not have {named}{more}, and is only read here")


class Lacking:
    """In the place of a measurement that a recorded run lacks: whoever uses it gets `Missing`.

    note, scale: the sentence, for captions. evaluation, trajectories, lost: the parts that pages
    hand on alone. known: attributes that are known all the same, e.g. `variant`.
    """

    def __init__(self, what: str, run: str, **known: Any) -> None:
        record = read_json(run_folder(run) / ENVIRONMENT)
        machine = f" ({environment.label(record)})" if record else ""
        self.what, self.run = what, f"run {Path(run).name}, recorded on another machine{machine},"
        self.note = self.scale = str(Missing([self]))
        self.evaluation = self.trajectories = self.lost = self
        self.__dict__.update(known)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # Jupyter asks for many such, and so do copy and pickle
            raise AttributeError(name)
        raise Missing([self])

    def __getitem__(self, key: Any) -> Any:
        raise Missing([self])


def lacking_in(*values: Any) -> list[Lacking]:
    """What is lacking of values, and of the lists and dicts among them."""
    found: list[Lacking] = []
    for value in values:
        inside = value.values() if isinstance(value, dict) else value
        every = inside if isinstance(value, (dict, list, tuple)) else [value]
        found += [one for one in every if isinstance(one, Lacking)]
    return found


def there(values: Iterable[Any]) -> list[Any]:
    """Values without what is lacking."""
    return [value for value in values if not isinstance(value, Lacking)]


# -- Writing ---------------------------------------------------------------------------------------


def write_section(run: str, section: str, rows: Sequence[Any]) -> pd.DataFrame:
    """Write a section's table to the run as <section>.csv, unless it is recorded, and return it.

    rows: mappings, or measurements with a method `row`. What a recorded run lacks of them is left
    out, and `.attrs["missing"]` is the sentence on it.
    """
    table = [row if isinstance(row, Mapping) else row.row() for row in there(rows)]
    frame, gone = pd.DataFrame(table), lacking_in(rows)
    frame.attrs["missing"] = str(Missing(gone)) if gone else ""
    if not is_recorded(run, device()):
        write_text(run_folder(run) / f"{section}.csv", frame.to_csv(index=False))
    return frame


@dataclass(frozen=True)
class Record:
    """A JSON file of a run that is measured alone on the machine, unless the run has it under the
    same key. A recorded run is only read, and asked for no key: its framework need not be here.

    key: gives all that decides the record (`lib.measure.keys`). cost: of measuring, in frames of
    the demo tracker in PyTorch FP32. measure: gets a progress bar that counts up to the cost.
    """

    run: str
    name: str
    key: Callable[[], Mapping[str, str]]
    cost: float
    measure: Callable[[Any], dict[str, Any]]

    @property
    def work(self) -> float:
        """How long `load` would take; 0 where the run has the record, or is only read."""
        known = is_recorded(self.run, device()) or self._kept().get("decided_by") == self.key()
        return 0.0 if known else self.cost

    def load(self, bar: Any = None) -> dict[str, Any] | None:
        """The record, with its environment; None where a recorded run lacks it. bar: a progress bar
        to count on."""
        if not self.work:
            return self._kept() or None
        with locked(run_folder(self.run) / LOCK):
            return self._measured(bar) if self.work else self._kept()

    def _measured(self, bar: Any) -> dict[str, Any]:
        key, threads, now = dict(self.key()), environment.threads(), environment.record(device())
        now["threads"] = environment.speed_threads()
        environment.use_threads(now["threads"])
        title = self.name.rpartition(".")[0].replace("/", ": ")
        try:
            with progress(self.cost, title) if bar is None else nullcontext(bar) as shown:
                record = {"decided_by": key, "environment": now, **self.measure(shown)}
        finally:
            environment.use_threads(threads)
        write_text(run_folder(self.run) / self.name, to_json(record))
        write_environment(self.run, now)
        return record

    def _kept(self) -> dict[str, Any]:
        return read_json(run_folder(self.run) / self.name)


def run_note(
    run: str, record: Mapping[str, Any], framework: str = "", recorded: bool = False
) -> str:
    """What a caption says: the run, the day, the machine, and whether it was busy."""
    note = f"{'Recorded run' if recorded else 'Run'} {Path(run).name}, {record['date']}: "
    note += environment.label(record, framework)
    if environment.was_busy(record):
        share = f"{100 * record['in_use']:.0f} %"
        note += f"; the machine was {share} busy with other work, so speeds are too low"
    return note


# -- Files -----------------------------------------------------------------------------------------


def to_json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """A record of the run; empty where it is missing or damaged, which means: measure again."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
