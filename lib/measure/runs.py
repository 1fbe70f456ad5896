"""Runs on disk, this machine's own and those recorded on other machines (chapter 4; `lib.measure`
measures into them).

A run is a folder data/runs/<name>, complete in itself: it can be copied to another machine, or
committed, and a book built there with `run=<name>` shows it. Which of the two it is here decides
what may happen to it:

- *own*: measured again where something that decides its results has changed (code, weights,
  versions, threads, ...);
- *recorded*: read only. It is shown as it is, with its hardware and date; what it lacks is shown as
  missing.

A run is recorded where the hardware in its environment.json is not this machine's: another
processor, number of cores, GPU or device (`same_machine`; the number of threads is a setting and
does not count). The run `local` is always this machine's own: git ignores it, and it is what the
default profile measures into; copy it to another name to show it elsewhere.

A dataset's annotations lie in the run, too, in PySOT's format (<dataset>/<dataset>.json; 2 MB for
VOT2018), so that evaluating raw results needs nothing outside of it. Frames do not; pictures of a
dataset that is not on this machine are left out.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Mapping
from typing import Sequence as Seq

import pandas as pd

from lib import environment
from lib.environment import device
from lib.errors import InputError
from lib.files import ROOT, locked, write_text
from lib.measure.absent import Absent, sentences, there
from lib.vot.dataset import TAG_FILES, Dataset, load_dataset

# The variable is for tests: they see no run but their own
RUNS = Path(os.environ.get("SIAMBOOK_RUNS") or ROOT / "data" / "runs")
LOCAL = "local"
ENVIRONMENT = "environment.json"
LOCK = ".lock"  # of the process that measures into a run
# What `siambook run` writes: notebook, status, seconds, started, message
NOTEBOOKS = "notebooks.csv"
MACHINE = ("processor", "cores", "gpu", "device")  # of environment.hardware


def run_folder(run: str) -> Path:
    """data/runs/<run>; an absolute path is taken as it is."""
    return RUNS / run


def same_machine(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two records of `environment.hardware` are of the same machine and device."""
    return all(one.get(part) == other.get(part) for part in MACHINE)


def is_recorded(run: str, device: str) -> bool:
    """Whether the run was recorded on another machine, and so is only read here (see above).
    device: "cpu" or "cuda"."""
    if run_folder(run) == RUNS / LOCAL:
        return False
    machine = read_json(run_folder(run) / ENVIRONMENT).get("hardware")
    return isinstance(machine, dict) and not same_machine(machine, environment.hardware(device))


def write_environment(run: str, record: Mapping[str, Any]) -> None:
    """Keep the record of `environment.record` of the run's last measurement."""
    write_text(run_folder(run) / ENVIRONMENT, to_json(record))


# -- Annotations -----------------------------------------------------------------------------------


def keep_annotations(run: str, dataset: Dataset) -> None:
    """Write the dataset's annotations to the run, where they are not there or others."""
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
    path, text = (
        _annotations(run, dataset.name),
        json.dumps(videos, separators=(",", ":")).replace(".0,", ",") + "\n",
    )
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def annotated(run: str, name: str, local: Dataset | None) -> Dataset:
    """The dataset as the run has it: its annotations, with the frames of `local` where it has the
    same ones.

    Raises InputError where the run has none and `local` is None.
    """
    path = _annotations(run, name)
    if not path.is_file():
        if local is None:
            raise InputError(
                f"run {run} has no annotations of {name} ({path} is missing) and the dataset is not on this machine"
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
    """A section's table as the run keeps it, e.g. "04_1_baseline"; empty where it has none. Raises
    InputError for a bad file."""
    path = run_folder(run) / f"{section}.csv"
    if not path.is_file():
        return pd.DataFrame()
    try:
        return pd.read_csv(path)
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        raise InputError(f"{path}: not a table ({' '.join(str(error).split())})") from None


def recorded(section: str, besides: str = "") -> dict[str, pd.DataFrame]:
    """A section's table of every run that has one, by the run's name; the run `besides` is left
    out."""
    tables = {name: section_table(name, section) for name in names() if name != Path(besides).name}
    return {name: table for name, table in tables.items() if len(table)}


def with_power(run: str, device: str) -> pd.DataFrame:
    """All rows of the run's section tables that may have a power; a variant that stands in several,
    several times. Column `row` says "recorded" for a run of another machine."""
    tables = [section_table(run, path.stem) for path in sorted(run_folder(run).glob("0*.csv"))]
    rows = [table for table in tables if "power_w" in table]
    if not rows:
        return pd.DataFrame()
    whose = {"row": "recorded"} if is_recorded(run, device) else {}
    return pd.concat(rows, ignore_index=True).assign(run=Path(run).name, **whose)


def notebook_times(run: str) -> pd.DataFrame:
    """What `siambook run` did in this run: columns notebook, status, seconds, started, message;
    empty where it was not used."""
    return section_table(run, Path(NOTEBOOKS).stem)


# -- Writing ---------------------------------------------------------------------------------------


def absent(what: str, run: str, **known: Any) -> Any:
    """What a recorded run lacks, with what is known of it all the same."""
    machine = environment.label(read_json(run_folder(run) / ENVIRONMENT))
    where = f"run {Path(run).name}, recorded on another machine ({machine}),"
    return Absent(what, where, **known)


def write_section(run: str, section: str, rows: Seq[Mapping[str, Any]]) -> pd.DataFrame:
    """Write a section's table to the run as <section>.csv and return it, e.g.
    write_section("local", "04_1_baseline", rows).

    Of a recorded run nothing is written; rows that it lacks are left out, and named in
    `.attrs["absent"]`.
    """
    frame = pd.DataFrame(list(there(rows)))
    frame.attrs["absent"] = sentences(rows)
    if not is_recorded(run, device()):
        write_text(run_folder(run) / f"{section}.csv", frame.to_csv(index=False))
    return frame


def kept_record(
    run: str, name: str, parts: Mapping[str, str], measure: Callable[[], dict[str, Any]]
) -> dict[str, Any] | None:
    """A record of the run, with its environment; measured where the run has none that the same
    things decided. Of a recorded run whatever it has, or None."""
    if is_recorded(run, device()):
        return read_json(run_folder(run) / name) or None
    folder = run_folder(run)
    with locked(folder / LOCK):
        record = read_json(folder / name)
        if record.get("decided_by") != parts:
            record = {
                "decided_by": dict(parts),
                "environment": environment.record(device()),
                **measure(),
            }
            write_text(folder / name, to_json(record))
            write_environment(run, record["environment"])
    return record


def run_note(
    run: str, record: Mapping[str, Any], framework: str = "", recorded: bool = False
) -> str:
    busy = f"; the machine was {100 * record['in_use']:.0f} % busy with other work, so speeds are too low"
    where = environment.label(record, framework)
    what = "Recorded run" if recorded else "Run"
    return f"{what} {Path(run).name}, {record['date']}: {where}{busy if environment.was_busy(record) else ''}"


# -- Files -----------------------------------------------------------------------------------------


def to_json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """A record of the run; empty where there is none or it is damaged, which means: measure
    again."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
