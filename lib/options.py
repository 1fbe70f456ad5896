"""The options of the command `siambook`: what may be typed, and what it means."""

from __future__ import annotations

import argparse
import re
from importlib import metadata
from typing import Any, Callable, Dict, NoReturn, Optional, Sequence

from lib.values import PRECISIONS, above_0, box, milliseconds, of_networks, positive, precisions

FRAMEWORKS = ("pytorch", "openvino", "tensorrt")
NEGATIVE = re.compile(r"-[.\d]")  # how a value begins that is no option

# Makes a command of its name, a summary, an example and the names of shared options; returns the
# function that adds options of its own.
Command = Callable[..., Callable[..., Any]]


OF_NETWORKS: Dict[str, Any] = {
    "type": of_networks,
    "default": "fp32",
    "metavar": "P[,P,P]",
    "help": "fp32, fp16 or int8, for all networks or for target,search,xcorr",
}
SHARED: Dict[str, Dict[str, Any]] = {
    "--weights": {"default": "demo", "help": "`demo`, or a checkpoint of a SiamRPN++ (ResNet-50)"},
    "--device": {"default": "cpu", "help": "cpu or cuda"},
    "--threads": {
        "type": positive,
        "metavar": "N",
        "help": "of every framework alike (default: PyTorch's choice, OMP_NUM_THREADS)",
    },
    "--json": {"action": "store_true", "help": "print everything as JSON"},
    "--stop-after": {
        "type": positive,
        "metavar": "N",
        "help": "stop with a checkpoint after this many pairs, or pictures of classes",
    },
    "--profile": {
        "metavar": "YAML",
        "help": "parameters (default: SIAMBOOK_PROFILE, or profiles/demo.yaml)",
    },
    "--run": {"metavar": "NAME", "help": "the run (data/runs/NAME) in place of the profile's"},
    "--scheduler": {
        "metavar": "ADDRESS",
        "help": "track on a Dask cluster, tcp://HOST:PORT, or in processes of this machine, `local` "
        "(the default on a CPU)",
    },
    "--workers": {
        "type": positive,
        "metavar": "N",
        "help": "processes of this machine (default: one per core)",
    },
}


# -- Commands --------------------------------------------------------------------------------------


def _track(command: Command) -> None:
    add = command(
        "track",
        "follow one target through a video, a folder of images or a camera",
        "clip.mp4 --init 120,80,64,48 --out clip-tracked",
        "--weights",
        "--threads",
    )
    add("source", metavar="SOURCE", help="a video, a folder, an address, or a camera's number")
    add("--init", type=box, metavar="x,y,w,h", help="first box, in pixels (default: draw it)")
    add("--out", default="tracked", metavar="FOLDER", help="gets boxes.csv and tracked.mp4")
    add("--no-video", action="store_true", help="write boxes.csv alone")
    add("--show", action="store_true", help="also show the frames in a window; closing it ends")
    add("--engine", default="auto", choices=("auto", *FRAMEWORKS), help="what runs the networks")
    add("--precision", **OF_NETWORKS)
    add("--device", help="cpu or cuda (default: the engine's)")
    add("--settings", metavar="YAML", help="of the tracker (default: the demo model's, or PySOT's)")
    add("--frames", type=positive, metavar="N", help="stop after N frames (a camera has no end)")


def _evaluate(command: Command) -> None:
    add = command(
        "evaluate",
        "accuracy, robustness and expected average overlap, of results or of a tracker",
        "results/SiamRPNpp_R50 --dataset VOT2018.json --json",
        "--weights",
        "--json",
        "--scheduler",
        "--workers",
    )
    add("results", nargs="*", metavar="RESULTS", help="raw results; without, a tracker is run")
    add("--dataset", required=True, help="VOT or OTB folder, PySOT json, or `demo` for a tracker")
    add("--protocol", default="pysot", choices=("pysot", "toolkit"), help="whose numbers")
    add("--one-pass", action="store_true", help="no resets: mean overlap, success AUC, precision")
    add("--intervals", action="store_true", help="add 95 %% bootstrap intervals over sequences")
    add("--run", default="local", help="the run (data/runs/NAME) that keeps the tracker's results")
    add("--engine", default="pytorch", choices=FRAMEWORKS, help="what runs the networks")
    add("--precision", **OF_NETWORKS)


def _export(command: Command) -> None:
    add = command(
        "export",
        "write the target, search and xcorr networks as ONNX files",
        "--out onnx --precision fp32,fp16,int8",
        "--weights",
    )
    add("--out", required=True, metavar="FOLDER", help="gets target-fp32.onnx and so on")
    add("--precision", type=precisions, default="fp32", metavar="P,..", help="of fp32, fp16, int8")


def _calibrate(command: Command) -> None:
    add = command(
        "calibrate",
        "ranges of activations for INT8, kept as CSV beside the weights",
        "data/demo/train.yaml --weights demo",
        "--weights",
        "--threads",
    )
    add("data", metavar="YAML|DATASET", help="a training configuration, or a VOT or OTB folder")
    add("--pairs", type=positive, default=192, help="training pairs, or frames of a dataset")
    add("--out", metavar="FILE", help="default: beside the weights")


def _train(command: Command) -> None:
    add = command(
        "train",
        "train a network, or go on where a stopped run was",
        "data/demo/train.yaml --out train/demo",
        "--device",
        "--threads",
        "--stop-after",
    )
    add("config", metavar="YAML", help="training configuration, see data/demo/train.yaml")
    add("--out", required=True, metavar="FOLDER", help="gets checkpoint.pt, log.csv, weights.pth")
    add("--data", metavar="PATH", help="manifest or folder in place of the configuration's")
    add("--initial", metavar="WEIGHTS", help="to start from in place of the configuration's")
    add("--backbone", metavar="WEIGHTS", help="of a backbone alone to start from")
    add("--shift", type=float, metavar="PX", help="largest shift in search crops (figure 3.1)")


def _prune(command: Command) -> None:
    add = command(
        "prune",
        "CURL: a classification layer, scores of channels, a network without the worst, fine-tuning",
        "cut --weights train/head/weights.pth --scores scores.csv --parameters 0.26 --out cut.pth",
        "--device",
        "--threads",
        "--stop-after",
    )
    add(
        "action",
        choices=("head", "score", "cut", "recalibrate", "finetune"),
        help="head, finetune: train as the configuration says; score: rate every channel; cut: take "
        "the worst out; recalibrate: a tracker's batch normalisation on training pairs",
    )
    add("config", nargs="?", metavar="YAML", help="of a training (default: in data/demo/pruning)")
    add("--weights", required=True, help="`demo`, a tracker's, a backbone's or a classifier's")
    add("--out", required=True, metavar="PATH", help="folder of a training, CSV, or weights")
    add("--scores", metavar="CSV", help="cut: what `score` wrote")
    add("--parameters", type=above_0, help="cut: that stay, a share (0.26) or a number (12e6)")
    add(
        "--latency",
        type=milliseconds,
        metavar="MS",
        help="cut: of a frame of the full-size network with such channels, e.g. 40ms",
    )
    add("--engine", default="auto", choices=("auto", *FRAMEWORKS[1:]), help="cut: whose latency")
    add("--grid", metavar="JSON", help="cut: what `latency` wrote, in place of measuring layers")
    add("--multiple", type=positive, default=1, help="cut: of channels that every layer keeps")
    add("--pictures", type=positive, default=32, help="score: how many")
    add("--pairs", type=positive, default=480, help="recalibrate: how many")
    add(
        "--precision",
        default="fp32",
        choices=("bf16", *PRECISIONS),
        help="score: of the convolutions, fp32 or bf16; cut: of the engine",
    )
    add("--quick", action="store_true", help="score: first-order estimates, in seconds")


def _layers(command: Command) -> None:
    add = command(
        "layers",
        "which groups of layers need 16 bits: overlap lost in INT8 and FP16, milliseconds gained",
        "--out layers.csv",
        "--weights",
        "--workers",
    )
    add("--engine", default="auto", choices=("auto", *FRAMEWORKS[1:]), help="what runs INT8")
    add("--sequences", type=positive, default=120, metavar="N", help="generated ones to track")
    add("--out", required=True, metavar="CSV", help="gets a row per group")


def _latency(command: Command) -> None:
    add = command(
        "latency",
        "channels by the millisecond: predicted and measured time of pruned networks",
        "--precision int8 --out latency.json",
    )
    add("--engine", default="auto", choices=("auto", *FRAMEWORKS[1:]), help="what runs networks")
    add("--precision", default="int8", choices=PRECISIONS, help="of all three networks")
    add("--out", required=True, metavar="JSON", help="gets the grid of layers and the networks")


def _tune(command: Command) -> None:
    add = command(
        "tune",
        "choose the tracker's settings for trained weights, on held-out sequences",
        "data/demo/train.yaml --weights train/demo/weights.pth --out tracker.yaml",
        "--device",
        "--threads",
    )
    add("config", metavar="YAML", help="the training configuration; `holdout` names the sequences")
    add("--weights", required=True, help="what the training made")
    add("--out", required=True, metavar="FILE", help="gets the settings as YAML")


def _fetch(command: Command) -> None:
    add = command(
        "fetch",
        "VOT2018, sequence by sequence and checked, or PySOT's weights",
        "vot2018 data/cache/VOT2018 --source https://mirror.example/vot2018/main",
    )
    add("what", choices=("vot2018", "weights"), help="the benchmark, or siamrpn_r50_l234_dwxcorr")
    add("to", nargs="?", metavar="PATH", help="default: where profiles/workstation.yaml looks")
    add("--source", metavar="URL|PATH", help="a mirror, or a local copy")


def _measure(command: Command) -> None:
    command(
        "measure",
        "fill a run: quality on all cores, then speed alone; goes on where it was stopped",
        "--profile profiles/workstation.yaml --run my-run",
        "--profile",
        "--run",
        "--scheduler",
        "--workers",
    )


def _run(command: Command) -> None:
    add = command(
        "run",
        "execute the notebooks in the book's order, or go on where a killed batch was",
        "--profile profiles/xavier.yaml --only 04",
        "--profile",
        "--run",
    )
    add("--only", nargs="+", default=[], metavar="PREFIX", help="of notebooks, e.g. 04_2 05")


def _doctor(command: Command) -> None:
    command(
        "doctor",
        "what this machine has for a profile, what it lacks, and what supplies it",
        "--profile profiles/xavier.yaml",
        "--profile",
        "--run",
        "--json",
    )


def _choose(command: Command) -> None:
    add = command(
        "choose",
        "which tracker to deploy for a budget, by what a run has measured and by the thesis",
        "--fps 30",
        "--profile",
        "--run",
    )
    add("--fps", type=above_0, help="at least so many frames per second")
    add("--latency", type=above_0, metavar="MS", help="of 99 %% of the frames, at most")
    add("--memory", type=above_0, metavar="MB", help="at its peak, at most")
    add("--smallest", action="store_true", help="of equal quality the smallest, not the fastest")


def _demo_data(command: Command) -> None:
    add = command(
        "demo-data", "generate the demo benchmark in VOT layout", "data/cache/demo-benchmark"
    )
    add("folder", nargs="?", help="where to put it (default: where the demo profile looks)")


COMMANDS = (
    _track,
    _evaluate,
    _export,
    _calibrate,
    _train,
    _prune,
    _layers,
    _latency,
    _tune,
    _fetch,
    _measure,
    _run,
    _doctor,
    _choose,
    _demo_data,
)


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults where there are any."""

    def _get_help_string(self, action: argparse.Action) -> Optional[str]:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def _version() -> str:
    try:
        return metadata.version("siambook")
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        return "(not installed)"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command line. An option that is given twice ends the program, as one that is
    unknown does."""
    known = parser()
    names = [each.partition("=")[0] for each in arguments if each.startswith("--")]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        known.error(f"argument {twice}: given twice, of which only one could count")
    return known.parse_args(arguments)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """All commands and their options; `.command` is the name of the one that was typed."""
    main_parser = _Parser(
        prog="siambook", description="Siamese tracking, measured as the thesis measures it."
    )
    main_parser.add_argument("--version", action="version", version=f"siambook {_version()}")
    commands = main_parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, example: str, *shared: str) -> Callable[..., Any]:
        added = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"Example: siambook {name} {example}",
            formatter_class=_Help,
            allow_abbrev=False,
        )
        added._negative_number_matcher = NEGATIVE  # or argparse takes -5,30,40,40 for an option
        added.add_argument("--debug", action="store_true", help="let a fault show where it is")
        for option in shared:
            added.add_argument(option, **SHARED[option])
        return added.add_argument

    for add in COMMANDS:
        add(command)
    return main_parser
