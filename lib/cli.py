"""The command `siambook`. Each command parses, calls the library and prints; heavy packages are
imported where they are used."""

from __future__ import annotations

import argparse
import json
import sys
import time
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, Optional

from lib.errors import InputError

NETWORKS = ("target", "search", "xcorr")
PRECISIONS = ("fp32", "fp16", "int8")
ENGINE_NAMES = ("pytorch", "openvino", "tensorrt")

if TYPE_CHECKING:
    from lib.measure.variants import Variant
    from lib.vot.dataset import Dataset
    from lib.vot.metrics import Evaluation


def track(options: argparse.Namespace) -> int:
    """Follow one target through a video, a folder of images or a camera."""
    from tqdm import tqdm

    from lib.video import FrameSource, TrackWriter, draw_box
    from lib.zoo import open_tracker

    source = FrameSource(options.source)
    tracker = open_tracker(options.weights, options.device, options.settings)
    frames = iter(source)
    first = next(frames)
    box = options.init if options.init is not None else draw_box(first)
    limit = options.frames or sys.maxsize
    with TrackWriter(Path(options.out), source.rate) as writer:
        tracker.init(first, box)
        writer.add(1, first, box, 1.0, 0.0)
        bar = tqdm(
            total=options.frames or len(source) or None, initial=1, unit="frame", disable=None
        )
        try:
            number = 1
            while number < limit:
                frame = next(frames, None)
                if frame is None:
                    break
                number += 1
                begin = time.perf_counter()
                result = tracker.track(frame)
                writer.add(number, frame, result.box, result.score, time.perf_counter() - begin)
                bar.update()
        except KeyboardInterrupt:
            print("stopped: the frames so far are written", file=sys.stderr)
        finally:
            bar.close()
    print(f"{writer.boxes} and {writer.video}: {number} frames")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Accuracy, robustness and expected average overlap, of raw results or of a tracker that is run
    now."""
    from lib.vot.dataset import load_dataset
    from lib.vot.metrics import evaluate as measure
    from lib.vot.protocol import PROTOCOLS
    from lib.vot.results import read_results

    protocol = PROTOCOLS[options.protocol]
    if options.one_pass and (options.results is not None or options.intervals):
        raise InputError(
            "--one-pass runs a tracker and gives its average overlap alone: no RESULTS and no --intervals with it"
        )
    if options.scheduler and (options.results is not None or options.one_pass):
        raise InputError(
            "--scheduler says where a tracker runs, with resets: no RESULTS and no --one-pass with it"
        )
    if options.results is not None:
        dataset = load_dataset(options.dataset)
        _show(
            options,
            options.results,
            measure(dataset, read_results(options.results, dataset), protocol),
        )
        return 0
    from lib import zoo
    from lib.absent import Absent
    from lib.measure import quality, variants

    name = options.dataset if options.dataset == zoo.DEMO else str(Path(options.dataset).resolve())
    weights = (
        options.weights if options.weights == zoo.DEMO else str(Path(options.weights).resolve())
    )
    variant = _variant(options, weights)
    dataset = variants.open_dataset(name, None if options.one_pass else options.run)
    if options.one_pass:
        _one_pass(options, dataset)
        return 0
    measured = quality.measure(
        [variant],
        dataset,
        options.run,
        protocol,
        scheduler=options.scheduler or "",
        workers=options.workers or 0,
    )[0]
    if isinstance(measured, Absent):
        raise InputError(str(measured))
    _show(options, str(measured.results), measured.evaluation)
    return 0


def _variant(options: argparse.Namespace, weights: str) -> Variant:
    """The variant that --engine, --precision and --calibration name."""
    from lib.deploy import Quantisation, choose_framework
    from lib.measure import variants

    framework = choose_framework(options.engine)
    precisions = options.precision if len(options.precision) == 3 else options.precision * 3
    if framework == "pytorch" and set(precisions) == {"fp32"}:
        return variants.baseline(weights)[0]
    return variants.mixture(weights, framework, precisions, Quantisation(options.calibration))


def _one_pass(options: argparse.Namespace, dataset: Dataset) -> None:
    """Average overlap (AO) per sequence and over sequences, without resets."""
    from tqdm import tqdm

    from lib.vot.metrics import average_overlap
    from lib.vot.protocol import run_one_pass
    from lib.zoo import open_tracker

    if options.engine != "pytorch" or set(options.precision) != {"fp32"}:
        raise InputError("--one-pass runs PyTorch in FP32: no --engine and no --precision with it")
    tracker = open_tracker(options.weights, options.device)
    overlaps = {
        sequence.name: average_overlap(sequence, run_one_pass(tracker, sequence))
        for sequence in tqdm(dataset, unit="sequence", disable=None)
    }
    mean = sum(overlaps.values()) / len(overlaps)
    if options.json:
        print(
            json.dumps(
                {"dataset": dataset.name, "average_overlap": mean, "per_sequence": overlaps},
                indent=1,
            )
        )
        return
    for name, overlap in overlaps.items():
        print(f"  {name:<20}{overlap:.4f}")
    print(f"average overlap, one pass, mean of {len(overlaps)} sequences: {mean:.4f}")


def _show(options: argparse.Namespace, title: str, evaluation: Evaluation) -> None:
    """Print an evaluation as text or JSON."""
    from lib.vot.metrics import bootstrap

    result = evaluation.as_dict()
    if options.intervals:
        result["intervals"] = {
            key: [bound if isfinite(bound) else None for bound in bounds]
            for key, bounds in bootstrap(evaluation).items()
        }
    if options.json:
        print(json.dumps(result, indent=1))
        return
    low, high = result["eao_interval"]
    print(
        f"{title} on {result['dataset']}: {result['sequences']} sequences, {result['frames']} frames, "
        f"{result['repetitions']} repetition(s), protocol {result['protocol']}"
    )
    units = {
        "accuracy": "",
        "robustness": "failures per 100 frames",
        "failures": "",
        "eao": f"over {low}..{high} frames",
    }
    for key, unit in units.items():
        bounds = (
            "  [{}, {}]".format(*map(_number, result["intervals"][key]))
            if options.intervals
            else ""
        )
        print(f"  {key:<12}{_number(result[key]):>9}{bounds}  {unit}".rstrip())
    print(
        "  EAO by attribute: "
        + ", ".join(
            f"{name} {_number(values['eao'])}" for name, values in result["attributes"].items()
        )
    )


def _number(value: Optional[float]) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def export(options: argparse.Namespace) -> int:
    """The target, search and xcorr networks as ONNX files, checked against PyTorch."""
    from lib.calibration import training_ranges
    from lib.deploy import Deployment
    from lib.export import check_agreement, describe, save_model
    from lib.siamrpn.checkpoint import load_network
    from lib.zoo import weights_of

    weights = weights_of(options.weights)
    deployment = Deployment(
        load_network(weights), "openvino", ranges=lambda _: training_ranges(weights)
    )
    for precision in options.precision:
        for name in NETWORKS:
            model = deployment.model(name, precision)
            about = describe(model)
            agreement = ""
            if precision == "fp32":
                agreement = (
                    f", {check_agreement(model, deployment.weights):.1e} of the range from PyTorch"
                )
            path = save_model(model, Path(options.out) / f"{name}-{precision}.onnx")
            nodes = sum(about["operators"].values())
            print(
                f"{path}: {nodes} nodes, {about['megabytes']:.1f} MB, {about['gflop']:.2f} GFLOP{agreement}"
            )
    return 0


def engine(options: argparse.Namespace) -> int:
    """Build an engine of an ONNX file and keep its plan, or show what runs in it."""
    import numpy as np

    from lib.deploy import CACHE, choose_framework, framework_module
    from lib.engines.base import by_type, describe_executed
    from lib.export import load_model, properties

    model = properties(load_model(options.onnx))
    framework = choose_framework(options.engine)
    if framework == "pytorch":
        raise InputError(
            "PyTorch runs modules and builds no engines of ONNX files (openvino and tensorrt do)"
        )
    cache = Path(options.cache or CACHE)
    built = framework_module(framework).build(
        Path(options.onnx), model["network"], model["precision"], cache
    )
    print(
        f"{options.onnx}: {model['network']} network, {built.framework}, {built.device}, asked for {built.precision.upper()}, "
        f"convolutions run in {describe_executed(built.executed())}; built in {built.build_seconds:.2f} s, "
        f"plan of {built.plan_bytes / 1e6:.1f} MB"
    )
    if options.action == "inspect":
        random = np.random.RandomState(0)
        feeds = {
            name: random.uniform(0, 1, spec.shape).astype(np.float32)
            for name, spec in built.inputs.items()
        }
        for kind, specs in (("input", built.inputs), ("output", built.outputs)):
            for name, spec in specs.items():
                print(f"  {kind:<7}{name:<14}{' x '.join(map(str, spec.shape)):>20}  {spec.dtype}")
        layers = built.profile(feeds, options.calls)
        for kind, seconds in by_type(layers).items():
            print(f"  {kind:<14}{1000 * seconds:9.3f} ms")
        for layer in sorted(layers, key=lambda layer: -layer.seconds)[: options.layers]:
            print(
                f"    {1000 * layer.seconds:8.3f} ms  {layer.type:<12} {layer.precision or '-':<5} {layer.name}"
            )
    return 0


def calibrate(options: argparse.Namespace) -> int:
    """Ranges of activations for INT8, from training data or from the frames of a dataset."""
    from lib.calibration import calibrate as measure
    from lib.calibration import calibration_path, thesis_pairs, training_pairs, write_ranges
    from lib.export import export_network
    from lib.files import digest
    from lib.siamrpn.checkpoint import load_network
    from lib.training.loop import load_config
    from lib.vot.dataset import load_dataset
    from lib.zoo import weights_of

    weights = weights_of(options.weights)
    command = f"siambook calibrate {options.data} --pairs {options.pairs}"
    if Path(options.data).suffix in (".yaml", ".yml"):
        pairs = training_pairs(load_config(options.data), options.pairs)
        source = f"{command}: pairs as training draws them, held-out sequences left out"
    else:
        pairs = thesis_pairs(load_dataset(options.data), options.pairs)
        source = f"{command}: {len(pairs)} frames of these sequences"
    out = Path(options.out) if options.out else calibration_path(weights)
    write_ranges(
        out,
        measure(export_network(load_network(weights)), pairs),
        source,
        digest(weights.read_bytes()),
    )
    print(f"{out}: ranges from {len(pairs)} pairs")
    return 0


def bench(options: argparse.Namespace) -> int:
    """Speed of every framework, precision and network, as ratios to PyTorch FP32 in the same
    run."""
    from lib.deploy import FRAMEWORKS
    from lib.environment import label, peak_memory_gb, record
    from lib.measure.speed import bench as measure
    from lib.measure.speed import full_size_network, report
    from lib.siamrpn.checkpoint import load_network
    from lib.zoo import weights_of

    network = (
        full_size_network()
        if options.scale == "thesis"
        else load_network(weights_of(options.weights))
    )
    machine = record(options.device)
    rows = []

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    for timed in measure(network, tuple(FRAMEWORKS), options.device, options.rounds, say):
        rows.append(timed.row())
        say(f"{rows[-1]['framework']} {rows[-1]['precision']}: {rows[-1]['ratio']:.2f}x")
    about = {
        "scale": options.scale,
        "machine": label(machine),
        "in_use_before": machine["in_use"],
        "peak_memory_gb": peak_memory_gb(),
    }
    if options.json:
        print(json.dumps({**about, "rows": rows}, indent=1))
        return 0
    print(report(rows))
    memory = about["peak_memory_gb"]
    print(
        f"{options.scale} scale, {about['machine']}"
        + (f"; peak memory {memory:.2f} GB" if memory else "")
    )
    return 0


def train(options: argparse.Namespace) -> int:
    """Train a network as a configuration file says, or go on where a stopped run was."""
    from lib.training.config import read_yaml
    from lib.training.loop import load_config
    from lib.training.loop import train as run

    given = {"data": options.data, "initial": options.initial, "backbone": options.backbone}
    overrides: dict[str, Any] = {key: value for key, value in given.items() if value}
    if options.shift is not None:
        overrides["pairs"] = {
            **(read_yaml(options.config).get("pairs") or {}),
            "shift": options.shift,
        }
    weights = run(
        load_config(options.config, overrides),
        options.out,
        options.device,
        stop_after=options.stop_after,
    )
    print(weights)
    return 0


def prune(options: argparse.Namespace) -> int:
    """CURL's steps: a classification layer, scores of channels, the network without the worst,
    fine-tuning."""
    from lib import pruning
    from lib.training.classify import load_classifier, load_classify_config, train_classifier
    from lib.training.pictures import open_pictures
    from lib.zoo import FOLDER, weights_of

    weights = weights_of(options.weights)
    if options.action == "cut":
        print(
            pruning.cut_file(
                weights,
                options.scores,
                options.parameters,
                Path(options.out),
                options.minimum,
                options.multiple,
            )
        )
        return 0
    if options.action == "recalibrate":
        from lib.recalibrate import recalibrate_file

        config = Path(options.config or FOLDER / "pruning" / "distilled.yaml")
        print(recalibrate_file(weights, config, options.pairs, Path(options.out)))
        return 0
    usual = FOLDER / "pruning" / ("finetune.yaml" if options.action == "finetune" else "head.yaml")
    classes_of = load_classify_config(options.config or usual)
    if options.action == "score":
        scored = pruning.score_file(
            weights,
            classes_of,
            options.pictures,
            Path(options.out),
            options.precision,
            options.quick,
            options.device,
            say=lambda text: print(text, file=sys.stderr),
        )
        print(f"{options.out}: {sum(map(len, scored.values()))} scores")
        return 0
    classes = len(open_pictures(classes_of.data, classes_of.size, classes_of.seed).classes)
    classifier = load_classifier(weights, classes)
    print(
        train_classifier(
            classifier, classes_of, options.out, options.device, stop_after=options.stop_after
        )
    )
    return 0


def tune(options: argparse.Namespace) -> int:
    """Choose the tracker's settings for trained weights on the sequences that a configuration holds
    out."""
    import yaml

    from lib.engines import pytorch
    from lib.files import write_text
    from lib.training.loop import load_config
    from lib.training.pairs import held_out
    from lib.training.tune import as_video
    from lib.training.tune import tune as search

    config = load_config(options.config)
    videos = [as_video(clip) for clip in held_out(Path(config.data), config.pairs.holdout)]
    if not videos:
        raise InputError(f"{options.config}: holds out no sequence to tune on")
    network = pytorch.load(options.weights, options.device)
    best, overlap = search(
        network, videos, report=lambda trial, value: print(f"{value:.4f}  {trial}", file=sys.stderr)
    )
    head = (
        f"# siambook tune {options.config} --weights {options.weights}\n"
        f"# average overlap {overlap:.3f} on {len(videos)} held-out sequences\n"
    )
    write_text(
        Path(options.out),
        head + yaml.safe_dump({key: getattr(best, key) for key in ("penalty", "window", "rate")}),
    )
    print(f"{options.out}: {best}, average overlap {overlap:.4f}")
    return 0


def fetch(options: argparse.Namespace) -> int:
    """VOT2018 or PySOT's weights, resumed where a stopped download was."""
    from lib import fetch as fetching

    source = {"source": options.source} if options.source else {}
    if options.what == "vot2018":
        print(
            fetching.fetch_vot2018(
                options.to or "data/cache/VOT2018", progress=not options.quiet, **source
            )
        )
    else:
        path = options.to or "data/cache/siamrpn_r50_l234_dwxcorr.pth"
        print(fetching.fetch_weights(path, progress=not options.quiet, **source))
    return 0


def demo_data(options: argparse.Namespace) -> int:
    """Generate the demo benchmark."""
    from lib.demo import list_specs, make_benchmark

    if options.list:
        for spec in list_specs():
            print(f"{spec.name:<24} {spec.frames:>4} frames  {spec.description}")
        return 0
    print(make_benchmark(options.folder, progress=True))
    return 0


def measure(options: argparse.Namespace) -> int:
    """Measure all that a profile's pages show, or go on where a stopped measurement was."""
    from lib import batch
    from lib.files import ROOT
    from lib.measure import everything

    with batch.stopped_by_ctrl_c():
        values = batch.parameters(ROOT, options.profile, options.run)
        everything.measure(values, scheduler=options.scheduler or "", workers=options.workers or 0)
    return 0


def run(options: argparse.Namespace) -> int:
    """Execute the notebooks, or go on where a killed batch was."""
    from lib import batch

    with batch.stopped_by_ctrl_c():
        failed = batch.run(profile=options.profile, only=options.only, name=options.run)
    for line in failed:
        print(f"siambook: {line}", file=sys.stderr)
    return 1 if failed else 0


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


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    main_parser = argparse.ArgumentParser(
        prog="siambook", description="Siamese tracking, measured as the thesis measures it."
    )
    commands = main_parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(function: object, name: str, summary: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"Example: {example}",
            formatter_class=_Help,
        )
        sub.set_defaults(function=function)
        return sub

    sub = command(
        track,
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

    sub = command(
        evaluate,
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

    sub = command(
        export,
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

    sub = command(
        engine,
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

    sub = command(
        calibrate,
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

    sub = command(
        bench,
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

    sub = command(
        train,
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

    sub = command(
        prune,
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

    sub = command(
        tune,
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

    sub = command(
        fetch,
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

    sub = command(
        measure,
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

    sub = command(
        run,
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

    sub = command(
        demo_data,
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
    return main_parser


def main(arguments: Optional[List[str]] = None) -> int:
    """Entry point: 0, or 2 with one sentence on standard error for a fault that the user can
    mend."""
    options = parser().parse_args(arguments)
    try:
        return int(options.function(options))
    except InputError as error:
        print(f"siambook: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        print("siambook: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
