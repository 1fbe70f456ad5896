"""The command `siambook`: each command with its options, which calls the library and prints; those on
runs and notebooks are in lib/book/commands.py. Heavy packages are imported where they are used."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from lib import guard
from lib.book import commands  # noqa: F401 those on runs and notebooks
from lib.errors import InputError
from lib.options import (
    COMPILED,
    FRAMEWORKS,
    PARSER,
    PRECISIONS,
    above_0,
    box,
    command,
    milliseconds,
    option,
    positive,
    precisions,
)

if TYPE_CHECKING:
    from lib.vot.metrics import Evaluation
    from lib.vot.one_pass import OnePass
    from lib.vot.protocol import Protocol


def _say(text: str) -> None:
    print(text, file=sys.stderr)


@command("clip.mp4 --init 120,80,64,48 --out clip-tracked", "--weights", "--precision", "--threads")
@option("source", metavar="SOURCE", help="a video, a folder, an address, or a camera's number")
@option("--init", type=box, metavar="x,y,w,h", help="first box, in pixels (default: draw it)")
@option("--out", default="tracked", metavar="FOLDER", help="gets boxes.csv and tracked.mp4")
@option("--no-video", action="store_true", help="write boxes.csv alone")
@option("--show", action="store_true", help="also show the frames in a window; closing it ends")
@option("--engine", default="auto", choices=("auto", *FRAMEWORKS), help="what runs the networks")
@option("--device", help="cpu or cuda (default: the engine's)")
@option("--settings", metavar="YAML", help="of the tracker (default: the demo model's, or PySOT's)")
@option("--frames", type=positive, metavar="N", help="stop after N frames (a camera has no end)")
def track(options: argparse.Namespace) -> None:
    """Follow one target through a video, a folder of images or a camera."""
    from lib.track import track as follow

    follow(options, _say)


@command(
    "results/SiamRPNpp_R50 --dataset VOT2018.json --json",
    "--weights",
    "--precision",
    "--json",
    "--scheduler",
    "--workers",
)
@option("results", nargs="*", metavar="RESULTS", help="raw results; without, a tracker is run")
@option("--dataset", required=True, help="VOT or OTB folder, PySOT json, or `demo` for a tracker")
@option("--protocol", default="pysot", choices=("pysot", "toolkit"), help="whose numbers")
@option("--one-pass", action="store_true", help="no resets: mean overlap, success AUC, precision")
@option("--intervals", action="store_true", help="add 95 %% bootstrap intervals over sequences")
@option("--run", default="local", help="the run (data/runs/NAME) that keeps the tracker's results")
@option("--engine", default="pytorch", choices=FRAMEWORKS, help="what runs the networks")
def evaluate(options: argparse.Namespace) -> None:
    """Accuracy, robustness and expected average overlap, of results or of a tracker."""
    from lib.vot import metrics, one_pass, printed
    from lib.vot.dataset import load_dataset
    from lib.vot.protocol import PROTOCOLS
    from lib.vot.results import read_results

    protocol = PROTOCOLS[options.protocol]
    if options.scheduler and (options.results or options.one_pass):
        raise InputError("--scheduler says where a tracker runs with resets: no RESULTS with it")
    if not options.results:
        evaluated = _tracked_once(options) if options.one_pass else _measured(options, protocol)
        printed.show(options, *evaluated)
        return
    dataset = load_dataset(options.dataset, leave_out=True)
    for note in dataset.notes:
        _say(note)
    evaluations: Dict[str, Any] = {}
    for folder in options.results:
        results = read_results(folder, dataset)
        evaluations[folder] = (
            one_pass.evaluate_one_pass(dataset, results)
            if options.one_pass
            else metrics.evaluate(dataset, results, protocol)
        )
    if len(evaluations) == 1:
        printed.show(options, *evaluations.popitem())
    else:
        printed.compare(options, evaluations)


def _place(name: str) -> str:
    return name if name == "demo" else str(Path(name).resolve())


def _tracked_once(options: argparse.Namespace) -> Tuple[str, OnePass]:
    """One pass of the tracker that the options name."""
    from lib.engines.zoo import open_tracker
    from lib.measure.variants import open_dataset
    from lib.progress import progress
    from lib.vot.one_pass import evaluate_one_pass, track_all

    tracker = open_tracker(options.weights, options.engine, options.precision)
    dataset = open_dataset(_place(options.dataset), leave_out=True)
    with progress(len(dataset), "one pass", True) as bar:
        results, dataset = track_all(tracker, dataset, lambda: bar.update(1))
    for note in dataset.notes:
        _say(note)
    return options.weights, evaluate_one_pass(dataset, results)


def _measured(options: argparse.Namespace, protocol: Protocol) -> Tuple[str, Evaluation]:
    """Quality of the variant that the options name, and where its results are."""
    from lib.engines import zoo
    from lib.measure import quality, variants
    from lib.siamrpn.checkpoint import load_network

    load_network(zoo.weights_path(options.weights))  # its faults, before anything is shown
    weights, framework = _place(options.weights), options.engine
    if framework == "pytorch" and set(options.precision) == {"fp32"}:
        variant = variants.baseline(weights)[0]
    else:
        variant = variants.mixture(weights, framework, options.precision)
    dataset = variants.open_dataset(_place(options.dataset), options.run, leave_out=True)
    for note in dataset.notes:
        _say(note)
    [measured] = quality.measure(
        [variant],
        dataset,
        options.run,
        protocol,
        scheduler=options.scheduler or "",
        workers=options.workers or 0,
    )
    found = str(measured.results), measured.evaluation
    if zoo.settings_note(weights):
        _say(zoo.settings_note(weights))
    return found


@command("--out onnx --precision fp32,fp16,int8", "--weights")
@option("--out", required=True, metavar="FOLDER", help="gets target-fp32.onnx and so on")
@option("--precision", type=precisions, default="fp32", metavar="P,..", help="of fp32, fp16, int8")
def export(options: argparse.Namespace) -> None:
    """Write the target, search and xcorr networks as ONNX files."""
    from lib.engines.calibration import training_ranges
    from lib.engines.deploy import Deployment
    from lib.engines.export import check_agreement, describe, save_model
    from lib.engines.zoo import weights_path
    from lib.siamrpn.checkpoint import load_network
    from lib.siamrpn.parts import NETWORKS

    weights = weights_path(options.weights)
    network = load_network(weights)
    deployment = Deployment(network, "openvino", ranges=lambda _: training_ranges(weights))
    for precision in options.precision:
        for name in NETWORKS:
            model = deployment.model(name, precision)
            path = save_model(model, Path(options.out) / f"{name}-{precision}.onnx")
            about = describe(model)
            text = (
                f"{path}: {sum(about['operators'].values())} nodes, {about['megabytes']:.1f} MB, "
                f"{about['gflop']:.2f} GFLOP"
            )
            if precision == "fp32":
                text += f", {check_agreement(model, network):.1e} of the range from PyTorch"
            print(text)


@command("data/demo/train.yaml --weights demo", "--weights", "--threads")
@option("data", metavar="YAML|DATASET", help="a training configuration, or a VOT or OTB folder")
@option("--pairs", type=positive, default=192, help="training pairs, or frames of a dataset")
@option("--out", metavar="FILE", help="default: beside the weights")
def calibrate(options: argparse.Namespace) -> None:
    """Ranges of activations for INT8, kept as CSV beside the weights."""
    from lib.engines import calibration
    from lib.engines.export import export_network
    from lib.engines.zoo import weights_path
    from lib.files import digest
    from lib.siamrpn.checkpoint import load_network
    from lib.training.pairs import training_pairs
    from lib.training.tracker import load_config
    from lib.vot.dataset import load_dataset

    weights = weights_path(options.weights)
    source = f"siambook calibrate {options.data} --pairs {options.pairs}: "
    if Path(options.data).suffix in (".yaml", ".yml"):
        pairs = training_pairs(load_config(options.data), options.pairs)
        source += "pairs as training draws them, held-out sequences left out"
    else:
        pairs = calibration.dataset_pairs(load_dataset(options.data), options.pairs)
        source += f"{len(pairs)} frames of these sequences"
    out = Path(options.out) if options.out else calibration.calibration_path(weights)
    models = export_network(load_network(weights))
    ranges = calibration.calibrate_ways(models, pairs, ["own"])["own"]
    calibration.write_ranges(out, ranges, source, digest(weights.read_bytes()))
    print(f"{out}: ranges from {len(pairs)} pairs")


@command("data/demo/train.yaml --out train/demo", "--device", "--threads", "--stop-after")
@option("config", metavar="YAML", help="training configuration, see data/demo/train.yaml")
@option("--out", required=True, metavar="FOLDER", help="gets checkpoint.pt, log.csv, weights.pth")
@option("--data", metavar="PATH", help="manifest or folder in place of the configuration's")
@option("--initial", metavar="WEIGHTS", help="to start from in place of the configuration's")
@option("--backbone", metavar="WEIGHTS", help="of a backbone alone to start from")
@option("--shift", type=float, metavar="PX", help="largest shift in search crops (figure 3.1)")
def train(options: argparse.Namespace) -> None:
    """Train a network, or go on where a stopped run was."""
    from lib.reading import read_mapping
    from lib.training import tracker

    given = {"data": options.data, "initial": options.initial, "backbone": options.backbone}
    overrides: Dict[str, Any] = {key: value for key, value in given.items() if value}
    if options.shift is not None:
        pairs = read_mapping(options.config).get("pairs") or {}
        overrides["pairs"] = {**pairs, "shift": options.shift}
    config = tracker.load_config(options.config, overrides)
    print(tracker.train(config, options.out, options.device, stop_after=options.stop_after))


@command(
    "cut --weights train/head/weights.pth --scores scores.csv --parameters 0.26 --out cut.pth",
    "--device",
    "--threads",
    "--stop-after",
)
@option(
    "action",
    choices=("head", "score", "cut", "recalibrate", "finetune"),
    help="head, finetune: train as the configuration says; score: rate every channel; cut: take "
    "the worst out; recalibrate: a tracker's batch normalisation on training pairs",
)
@option("config", nargs="?", metavar="YAML", help="of a training (default: in data/demo/pruning)")
@option("--weights", required=True, help="`demo`, a tracker's, a backbone's or a classifier's")
@option("--out", required=True, metavar="PATH", help="folder of a training, CSV, or weights")
@option("--scores", metavar="CSV", help="cut: what `score` wrote")
@option("--parameters", type=above_0, help="cut: that stay, a share (0.26) or a number (12e6)")
@option(
    "--latency",
    type=milliseconds,
    metavar="MS",
    help="cut: of a frame of the full-size network with such channels, e.g. 40ms",
)
@option("--engine", default="auto", choices=COMPILED, help="cut: whose latency")
@option("--grid", metavar="JSON", help="cut: what `latency` wrote, in place of measuring layers")
@option("--multiple", type=positive, default=1, help="cut: of channels that every layer keeps")
@option("--pictures", type=positive, default=32, help="score: how many")
@option("--pairs", type=positive, default=480, help="recalibrate: how many")
@option(
    "--precision",
    default="fp32",
    choices=("bf16", *PRECISIONS),
    help="score: of the convolutions, fp32 or bf16; cut: of the engine",
)
@option("--quick", action="store_true", help="score: first-order estimates, in seconds")
def prune(options: argparse.Namespace) -> None:
    """CURL: a classification layer, scores of channels, a network without the worst, fine-tuning."""
    from lib.measure import latency
    from lib.pruning import steps

    print(latency.cut(options) if options.latency is not None else steps.take_step(options))


@command("--out layers.csv", "--weights", "--workers")
@option("--engine", default="auto", choices=COMPILED, help="what runs INT8")
@option("--sequences", type=positive, default=120, metavar="N", help="generated ones to track")
@option("--out", required=True, metavar="CSV", help="gets a row per group")
def layers(options: argparse.Namespace) -> None:
    """Which groups of layers need 16 bits: overlap lost in INT8 and FP16, milliseconds gained."""
    from lib.engines import deploy
    from lib.measure import layers as searching

    engine = deploy.usable_framework(options.engine)
    asked = _place(options.weights), engine, options.sequences
    found = searching.sensitivity(*asked, options.workers or 0)
    searching.write(Path(options.out), found, *asked)
    print(found.to_string(index=False, float_format="{:.4f}".format))


@command("--precision int8 --out latency.json")
@option("--engine", default="auto", choices=COMPILED, help="what runs networks")
@option("--precision", default="int8", choices=PRECISIONS, help="of all three networks")
@option("--out", required=True, metavar="JSON", help="gets the grid of layers and the networks")
def latency(options: argparse.Namespace) -> None:
    """Channels by the millisecond: predicted and measured time of pruned networks."""
    from lib.engines import deploy
    from lib.measure import latency as timing

    engine = deploy.usable_framework(options.engine)
    for row in timing.record(engine, options.precision, Path(options.out)):
        print("{by} {target}: predicted {predicted_ms:.1f} ms, measured {ms:.1f}".format(**row))


@command(
    "data/demo/train.yaml --weights train/demo/weights.pth --out tracker.yaml",
    "--device",
    "--threads",
)
@option("config", metavar="YAML", help="the training configuration; `holdout` names the sequences")
@option("--weights", required=True, help="what the training made")
@option("--out", required=True, metavar="FILE", help="gets the settings as YAML")
def tune(options: argparse.Namespace) -> None:
    """Choose the tracker's settings for trained weights, on held-out sequences."""
    import yaml

    from lib.engines.pytorch import torch_network
    from lib.files import write_text
    from lib.siamrpn.checkpoint import load_network
    from lib.training import tune as tuning
    from lib.training.pairs import held_out
    from lib.training.tracker import load_config

    config = load_config(options.config)
    videos = [tuning.as_video(clip) for clip in held_out(Path(config.data), config.pairs.holdout)]
    if not videos:
        raise InputError(f"{options.config}: holds out no sequence to tune on")
    network = torch_network(load_network(options.weights), options.device)
    best, overlap = tuning.tune(
        network, videos, report=lambda trial, value: _say(f"{value:.4f}  {trial}")
    )
    settings = {key: getattr(best, key) for key in ("penalty", "window", "rate")}
    write_text(
        options.out,
        f"# siambook tune {options.config} --weights {options.weights}\n"
        f"# average overlap {overlap:.3f} on {len(videos)} held-out sequences\n"
        f"{yaml.safe_dump(settings)}",
    )
    print(f"{options.out}: {best}, average overlap {overlap:.4f}")


@command("vot2018 data/cache/VOT2018 --source https://mirror.example/vot2018/main")
@option("what", choices=("vot2018", "weights"), help="the benchmark, or siamrpn_r50_l234_dwxcorr")
@option("to", nargs="?", metavar="PATH", help="default: where profiles/workstation.yaml looks")
@option("--source", metavar="URL|PATH", help="a mirror, or a local copy")
def fetch(options: argparse.Namespace) -> None:
    """VOT2018, sequence by sequence and checked, or PySOT's weights."""
    from lib import fetch as fetching
    from lib.files import ROOT

    cache = ROOT / "data" / "cache"  # where profiles/workstation.yaml looks
    source = {"source": options.source} if options.source else {}
    if options.what == "vot2018":
        print(fetching.fetch_vot2018(options.to or cache / "VOT2018", **source))
    else:
        path = options.to or cache / "siamrpn_r50_l234_dwxcorr.pth"
        print(fetching.fetch_weights(path, **source))


@command("data/cache/demo-benchmark")
@option("folder", nargs="?", help="where to put it (default: where the demo profile looks)")
def demo_data(options: argparse.Namespace) -> None:
    """Generate the demo benchmark in VOT layout."""
    from lib.demo import make_benchmark
    from lib.measure.variants import DEMO_DATASET

    print(make_benchmark(options.folder or DEMO_DATASET, progress=True))


def main(arguments: Optional[List[str]] = None) -> int:
    """Entry point: 0, or 2 with one sentence on standard error for a fault (`lib.guard`)."""
    options = PARSER.parse_args(sys.argv[1:] if arguments is None else arguments)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup asks for
                # As Ctrl-C: what was begun is ended or taken away
                signal.signal(number, signal.default_int_handler)
    if getattr(options, "threads", None):
        from lib.environment import use_threads

        use_threads(options.threads)
    return guard.run_guarded(options.function, options)


if __name__ == "__main__":
    sys.exit(main())
