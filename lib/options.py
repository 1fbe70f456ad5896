"""The options of the command `siambook`: what may be typed, and what it means."""

from __future__ import annotations

import argparse
from math import isfinite
from typing import Callable, List, Optional

NETWORKS = ("target", "search", "xcorr")
PRECISIONS = ("fp32", "fp16", "int8")
ENGINE_NAMES = ("pytorch", "openvino", "tensorrt")

Command = Callable[[str, str, str], argparse.ArgumentParser]  # name, summary, example


# -- Values ----------------------------------------------------------------------------------------


def _box(text: str) -> List[float]:
    """x,y,w,h for argparse."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 4:
        raise argparse.ArgumentTypeError(f"{text!r} is not x,y,w,h")
    return values


def _share_or_count(text: str) -> float:
    """A positive number for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a share (0.26) nor a number of parameters (12e6)"
        )
    return value


def _precisions(text: str) -> List[str]:
    """One precision, or three for target, search and xcorr network."""
    names = text.lower().split(",")
    if len(names) not in (1, 3) or not set(names) <= set(PRECISIONS):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not one of {', '.join(PRECISIONS)}, or three with commas between"
        )
    return names


def _precision_list(text: str) -> List[str]:
    names = text.lower().split(",")
    if not set(names) <= set(PRECISIONS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of {', '.join(PRECISIONS)}")
    return names


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults where there are any."""

    def _get_help_string(self, action: argparse.Action) -> Optional[str]:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


# -- Commands --------------------------------------------------------------------------------------


def _track(command: Command) -> None:
    sub = command(
        "track",
        "follow one target through a video, a folder of images or a camera",
        "siambook track clip.mp4 --init 120,80,64,48 --out clip-tracked",
    )
    sub.add_argument(
        "source",
        metavar="VIDEO|FOLDER|CAMERA",
        help="a video file, a folder of images, or a camera's number",
    )
    sub.add_argument(
        "--init",
        type=_box,
        metavar="x,y,w,h",
        help="target in the first frame, in pixels (default: drawn with the mouse)",
    )
    sub.add_argument(
        "--out", default="tracked", metavar="FOLDER", help="gets boxes.csv and tracked.mp4"
    )
    sub.add_argument(
        "--weights", default="demo", help="`demo` or a checkpoint of a SiamRPN++ with ResNet-50"
    )
    sub.add_argument(
        "--settings",
        metavar="YAML",
        help="tracker settings (default: the demo model's, or PySOT's)",
    )
    sub.add_argument("--device", default="cpu", help="cpu or cuda")
    sub.add_argument(
        "--frames", type=_positive, metavar="N", help="stop after N frames (a camera has no end)"
    )


def _evaluate(command: Command) -> None:
    sub = command(
        "evaluate",
        "accuracy, robustness and expected average overlap, of results or of a tracker",
        "siambook evaluate results/SiamRPNpp_R50 --dataset VOT2018.json --json",
    )
    sub.add_argument(
        "results",
        nargs="?",
        metavar="RESULTS",
        help="a tracker's folder of raw results (VOT layout or PySOT's); without it a tracker is run",
    )
    sub.add_argument(
        "--dataset",
        required=True,
        metavar="PATH",
        help="VOT or OTB folder, PySOT json, or `demo` for a tracker",
    )
    sub.add_argument(
        "--protocol", default="pysot", choices=("pysot", "toolkit"), help="whose numbers"
    )
    sub.add_argument(
        "--intervals", action="store_true", help="add 95 %% bootstrap intervals over sequences"
    )
    sub.add_argument("--json", action="store_true", help="print everything as JSON")
    sub.add_argument(
        "--weights", default="demo", help="of the tracker to run: `demo` or a checkpoint"
    )
    sub.add_argument("--device", default="cpu", help="for --one-pass: cpu or cuda")
    sub.add_argument(
        "--run", default="local", help="the run (data/runs/NAME) that keeps the tracker's results"
    )
    sub.add_argument(
        "--one-pass", action="store_true", help="run without resets and print the average overlap"
    )
    sub.add_argument(
        "--engine", default="pytorch", choices=ENGINE_NAMES, help="what runs the networks"
    )
    sub.add_argument(
        "--precision",
        type=_precisions,
        default="fp32",
        metavar="P[,P,P]",
        help="fp32, fp16 or int8, for all networks or for target,search,xcorr",
    )
    sub.add_argument(
        "--calibration",
        default="training",
        choices=("training", "benchmark"),
        help="INT8 ranges: those beside the weights, or from the frames that are tested, as in the thesis",
    )
    sub.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="where the tracker runs: a Dask cluster's tcp://HOST:PORT, or `local` for processes of this machine "
        "(the default on a CPU)",
    )
    sub.add_argument(
        "--workers",
        type=_positive,
        metavar="N",
        help="processes of this machine (default: one per core)",
    )


def _export(command: Command) -> None:
    sub = command(
        "export",
        "write the target, search and xcorr networks as ONNX files",
        "siambook export --out onnx --precision fp32,fp16,int8",
    )
    sub.add_argument(
        "--weights", default="demo", help="`demo` or a checkpoint of a SiamRPN++ with ResNet-50"
    )
    sub.add_argument(
        "--out", required=True, metavar="FOLDER", help="gets target-fp32.onnx and so on"
    )
    sub.add_argument(
        "--precision", type=_precision_list, default="fp32", metavar="P,..", help="fp32, fp16, int8"
    )


def _engine(command: Command) -> None:
    sub = command(
        "engine",
        "build an engine of an ONNX file, or look into it",
        "siambook engine inspect onnx/search-int8.onnx",
    )
    sub.add_argument(
        "action",
        choices=("build", "inspect"),
        help="build and keep the plan, or also show layers and times",
    )
    sub.add_argument("onnx", metavar="ONNX", help="a file that `siambook export` wrote")
    sub.add_argument("--engine", default="auto", choices=("auto", *ENGINE_NAMES), help="framework")
    sub.add_argument(
        "--cache", metavar="FOLDER", help="where plans are kept (default: data/cache/plans)"
    )
    sub.add_argument("--calls", type=_positive, default=10, help="inspect: calls that are timed")
    sub.add_argument(
        "--layers",
        type=_positive,
        default=10,
        help="inspect: how many of the slowest layers to show",
    )


def _calibrate(command: Command) -> None:
    sub = command(
        "calibrate",
        "ranges of activations for INT8, kept as CSV beside the weights",
        "siambook calibrate data/demo/train.yaml --weights demo",
    )
    sub.add_argument(
        "data",
        metavar="YAML|DATASET",
        help="a training configuration (its data), or a VOT or OTB folder",
    )
    sub.add_argument("--weights", default="demo", help="`demo` or a checkpoint")
    sub.add_argument(
        "--pairs",
        type=_positive,
        default=192,
        help="training pairs; of a dataset: frames to ask for, as in section 4.2",
    )
    sub.add_argument("--out", metavar="FILE", help="default: beside the weights")


def _bench(command: Command) -> None:
    sub = command(
        "bench",
        "speed of every framework, precision and network, as ratios to PyTorch FP32",
        "siambook bench --scale thesis --json",
    )
    sub.add_argument(
        "--scale",
        default="demo",
        choices=("demo", "thesis"),
        help="the demo model, or the full-size network with random weights",
    )
    sub.add_argument("--weights", default="demo", help="at demo scale: `demo` or a checkpoint")
    sub.add_argument(
        "--rounds", type=_positive, default=5, help="how often two variants take turns"
    )
    sub.add_argument("--device", default="cpu", help="of PyTorch: cpu or cuda")
    sub.add_argument("--json", action="store_true", help="print everything as JSON")


def _train(command: Command) -> None:
    sub = command(
        "train",
        "train a network, or go on where a stopped run was",
        "siambook train data/demo/train.yaml --out train/demo",
    )
    sub.add_argument(
        "config", metavar="YAML", help="training configuration, see data/demo/train.yaml"
    )
    sub.add_argument(
        "--out", required=True, metavar="FOLDER", help="gets checkpoint.pt, log.csv and weights.pth"
    )
    sub.add_argument(
        "--data", metavar="PATH", help="manifest or folder in place of the configuration's"
    )
    sub.add_argument(
        "--initial", metavar="WEIGHTS", help="weights to start from in place of the configuration's"
    )
    sub.add_argument(
        "--backbone", metavar="WEIGHTS", help="weights of a backbone alone to start from"
    )
    sub.add_argument(
        "--shift",
        type=float,
        metavar="PX",
        help="largest shift of the target in search crops, see figure 3.1",
    )
    sub.add_argument("--device", default="cpu", help="cpu or cuda")
    sub.add_argument(
        "--stop-after",
        type=_positive,
        metavar="PAIRS",
        help="stop with a checkpoint after this many pairs",
    )


def _prune(command: Command) -> None:
    sub = command(
        "prune",
        "CURL: a classification layer, scores of channels, the network without the worst, fine-tuning",
        "siambook prune cut --weights train/head/weights.pth --scores scores.csv --parameters 0.26 --out cut.pth",
    )
    sub.add_argument(
        "action",
        choices=("head", "score", "cut", "recalibrate", "finetune"),
        help="head, finetune: train as the configuration says; score: rate every channel; cut: take the worst out; "
        "recalibrate: a tracker's batch normalisation on training pairs",
    )
    sub.add_argument(
        "config",
        nargs="?",
        metavar="YAML",
        help="classification training, whose pictures `score` uses as well (default: data/demo/pruning has them)",
    )
    sub.add_argument(
        "--weights",
        required=True,
        metavar="WEIGHTS",
        help="`demo`, a tracker's, a backbone's or a classifier's",
    )
    sub.add_argument(
        "--out",
        required=True,
        metavar="PATH",
        help="folder of a training, CSV of scores, or weights",
    )
    sub.add_argument("--scores", metavar="CSV", help="cut: what `score` wrote")
    sub.add_argument(
        "--parameters",
        type=_share_or_count,
        metavar="N",
        help="cut: of the backbone that stays, a share (0.26) or a number (12e6)",
    )
    sub.add_argument(
        "--minimum",
        type=float,
        default=0.3,
        help="cut: share of every layer's channels that stays in any case",
    )
    sub.add_argument(
        "--multiple",
        type=_positive,
        default=1,
        metavar="N",
        help="cut: every layer keeps a multiple of N channels",
    )
    sub.add_argument("--pictures", type=_positive, default=32, help="score: how many")
    sub.add_argument("--pairs", type=_positive, default=480, help="recalibrate: how many")
    sub.add_argument(
        "--precision", default="fp32", choices=("fp32", "bf16"), help="score: of the convolutions"
    )
    sub.add_argument(
        "--quick", action="store_true", help="score: first-order estimates, in seconds"
    )
    sub.add_argument("--device", default="cpu", help="cpu or cuda")
    sub.add_argument(
        "--stop-after",
        type=_positive,
        metavar="N",
        help="train: stop with a checkpoint after this many pictures",
    )


def _tune(command: Command) -> None:
    sub = command(
        "tune",
        "choose the tracker's settings for trained weights, on held-out sequences",
        "siambook tune data/demo/train.yaml --weights train/demo/weights.pth --out tracker.yaml",
    )
    sub.add_argument(
        "config",
        metavar="YAML",
        help="the training configuration; its `holdout` names the sequences",
    )
    sub.add_argument("--weights", required=True, metavar="WEIGHTS", help="what the training made")
    sub.add_argument("--out", required=True, metavar="FILE", help="gets the settings as YAML")
    sub.add_argument("--device", default="cpu", help="cpu or cuda")


def _fetch(command: Command) -> None:
    sub = command(
        "fetch",
        "VOT2018 or PySOT's weights, resumable and checked",
        "siambook fetch vot2018 data/cache/VOT2018 --source https://mirror.example/vot2018",
    )
    sub.add_argument(
        "what", choices=("vot2018", "weights"), help="the benchmark, or siamrpn_r50_l234_dwxcorr"
    )
    sub.add_argument(
        "to",
        nargs="?",
        metavar="PATH",
        help="folder, or file (default: where profiles/workstation.yaml looks)",
    )
    sub.add_argument(
        "--source",
        metavar="URL|PATH",
        help="a mirror, or a local copy, in place of the original place",
    )
    sub.add_argument("--quiet", action="store_true", help="no progress bars")


def _measure(command: Command) -> None:
    sub = command(
        "measure",
        "fill a run: quality on all cores, then speed alone; goes on where it was stopped",
        "siambook measure --profile profiles/workstation.yaml --run my-run",
    )
    sub.add_argument(
        "--profile",
        metavar="YAML",
        help="parameters (default: SIAMBOOK_PROFILE, or profiles/demo.yaml)",
    )
    sub.add_argument(
        "--run", metavar="NAME", help="the run (data/runs/NAME) in place of the profile's"
    )
    sub.add_argument(
        "--scheduler", metavar="ADDRESS", help="quality on a Dask cluster, tcp://HOST:PORT"
    )
    sub.add_argument(
        "--workers", type=_positive, metavar="N", help="quality: processes (default: one per core)"
    )


def _run(command: Command) -> None:
    sub = command(
        "run",
        "execute the notebooks in the book's order, or go on where a killed batch was",
        "siambook run --profile profiles/xavier.yaml --only 04",
    )
    sub.add_argument(
        "--profile",
        metavar="YAML",
        help="parameters (default: SIAMBOOK_PROFILE, or profiles/demo.yaml)",
    )
    sub.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="PREFIX",
        help="notebooks whose names begin so, e.g. 04_2 05",
    )
    sub.add_argument(
        "--run", metavar="NAME", help="the run (data/runs/NAME) in place of the profile's"
    )


def _demo_data(command: Command) -> None:
    sub = command(
        "demo-data",
        "generate the demo benchmark in VOT layout",
        "siambook demo-data data/cache/demo-benchmark",
    )
    sub.add_argument(
        "folder", nargs="?", default="data/cache/demo-benchmark", help="where to put it"
    )
    sub.add_argument(
        "--list", action="store_true", help="only list the sequences and what makes them difficult"
    )


ALL = (
    _track,
    _evaluate,
    _export,
    _engine,
    _calibrate,
    _bench,
    _train,
    _prune,
    _tune,
    _fetch,
    _measure,
    _run,
    _demo_data,
)


def parser() -> argparse.ArgumentParser:
    """All commands and their options; `.command` is the name of the one that was typed."""
    main_parser = argparse.ArgumentParser(
        prog="siambook", description="Siamese tracking, measured as the thesis measures it."
    )
    commands = main_parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, example: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"Example: {example}",
            formatter_class=_Help,
        )

    for add in ALL:
        add(command)
    return main_parser
