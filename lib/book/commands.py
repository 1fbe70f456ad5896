"""The commands on runs and notebooks: `siambook measure`, `run`, `doctor` and `choose`."""

from __future__ import annotations

import argparse
import json
import sys

from lib.errors import InputError
from lib.files import ROOT
from lib.options import above_0, command, option


@command(
    "--profile profiles/workstation.yaml --run my-run",
    "--profile",
    "--run",
    "--scheduler",
    "--workers",
)
@option(
    "--only",
    nargs="+",
    choices=("quality", "speed", "start", "power"),
    help="these steps; quality alone needs the dataset and the weights",
)
def measure(options: argparse.Namespace) -> None:
    """Fill a run: quality on all cores, then speed alone; goes on where it was stopped."""
    from lib.book import batch, notebook
    from lib.measure import everything

    batch.stop_at_ctrl_c()
    profile = notebook.open_profile(ROOT, options.profile, options.run)
    lacking = sorted({"dataset", "weights"} - set(profile.values))
    if lacking:
        raise InputError(f"{profile.file}: does not say {' and '.join(lacking)}")
    everything.measure(
        profile.values,
        scheduler=options.scheduler or "",
        workers=options.workers or 0,
        only=options.only or everything.STEPS,
    )
    if "speed" in (options.only or ()):
        print(*everything.speeds(profile.values), sep="\n")


@command("--profile profiles/xavier.yaml --only 04", "--profile", "--run")
@option("--only", nargs="+", default=[], metavar="PREFIX", help="of notebooks, e.g. 04_2 05")
def run(options: argparse.Namespace) -> int:
    """Execute the notebooks in the book's order, or go on where a killed batch was."""
    from lib.book import batch

    batch.stop_at_ctrl_c()
    failed = batch.run_notebooks(profile=options.profile, only=options.only, name=options.run)
    for line in failed:
        print(f"siambook: {line}", file=sys.stderr)
    return 1 if failed else 0


@command("--profile profiles/xavier.yaml", "--profile", "--run", "--json")
def doctor(options: argparse.Namespace) -> int:
    """What this machine has for a profile, what it lacks, and what supplies it."""
    from lib import doctor as examining
    from lib.book import notebook

    values = notebook.open_profile(ROOT, options.profile, options.run).values
    findings = examining.examine(values)
    if options.json:
        print(json.dumps([{**each._asdict(), "state": each.state} for each in findings], indent=1))
    else:
        print(examining.report(findings))
    return int(any(each.state == "missing" for each in findings))


@command("--fps 30", "--profile", "--run")
@option("--fps", type=above_0, help="at least so many frames per second")
@option("--latency", type=above_0, metavar="MS", help="of 99 %% of the frames, at most")
@option("--memory", type=above_0, metavar="MB", help="at its peak, at most")
@option("--smallest", action="store_true", help="of equal quality the smallest, not the fastest")
def choose(options: argparse.Namespace) -> None:
    """Which tracker to deploy for a budget, by what a run has measured and by the thesis."""
    from lib.book import notebook
    from lib.report import deploy

    values = notebook.open_profile(ROOT, options.profile, options.run).values
    budget = deploy.Budget(options.fps or 0.0, options.latency, options.memory, options.smallest)
    print(*deploy.advise(values, budget), sep="\n")
