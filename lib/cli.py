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
from lib.options import NETWORKS, parser

if TYPE_CHECKING:
    from lib.measure.variants import Variant
    from lib.vot.dataset import Dataset
    from lib.vot.metrics import Evaluation


def track(options: argparse.Namespace) -> int:
    """Follow one target through a video, a folder of images or a camera."""
    from tqdm import tqdm

    from lib.engines.zoo import open_tracker
    from lib.video import FrameSource, draw_box, write_track

    source = FrameSource(options.source)
    tracker = open_tracker(options.weights, options.device, options.settings)
    frames = iter(source)
    first = next(frames)
    box = options.init if options.init is not None else draw_box(first)
    limit = options.frames or sys.maxsize
    with write_track(Path(options.out), source.rate) as writer:
        tracker.init(first, box)
        writer.add(first, box, 1.0, 0.0)
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
                writer.add(frame, result.box, result.score, time.perf_counter() - begin)
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
    from lib.engines import zoo
    from lib.measure import quality, variants
    from lib.measure.absent import Absent

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
    from lib.engines.deploy import Quantisation, choose_framework
    from lib.measure import variants

    framework = choose_framework(options.engine)
    precisions = options.precision if len(options.precision) == 3 else options.precision * 3
    if framework == "pytorch" and set(precisions) == {"fp32"}:
        return variants.baseline(weights)[0]
    return variants.mixture(weights, framework, precisions, Quantisation(options.calibration))


def _one_pass(options: argparse.Namespace, dataset: Dataset) -> None:
    """Average overlap (AO) per sequence and over sequences, without resets."""
    from tqdm import tqdm

    from lib.engines.zoo import open_tracker
    from lib.vot.metrics import average_overlap
    from lib.vot.protocol import run_one_pass

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
    from lib.engines.calibration import training_ranges
    from lib.engines.deploy import Deployment
    from lib.engines.export import check_agreement, describe, save_model
    from lib.engines.zoo import weights_path
    from lib.siamrpn.checkpoint import load_network

    weights = weights_path(options.weights)
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

    from lib.engines.deploy import CACHE, choose_framework, framework_module
    from lib.engines.export import load_model, properties
    from lib.siamrpn.contract import by_type, describe_executed

    model = properties(load_model(options.onnx))
    framework = choose_framework(options.engine)
    if framework == "pytorch":
        raise InputError(
            "PyTorch runs modules and builds no engines of ONNX files (openvino and tensorrt do)"
        )
    cache = Path(options.cache or CACHE)
    built = framework_module(framework).build(
        Path(options.onnx).read_bytes(), model["network"], model["precision"], cache
    )
    print(
        f"{options.onnx}: {model['network']} network, {built.framework}, {built.device}, asked for {built.precision.upper()}, "
        f"convolutions run in {describe_executed(built.executed())}; built in {built.build_seconds:.2f} s, "
        f"plan of {built.plan_bytes / 1e6:.1f} MB"
    )
    if options.action == "inspect":
        random = np.random.RandomState(0)
        feeds = {
            name: random.uniform(0, 1, shape).astype(np.float32)
            for name, shape in built.inputs.items()
        }
        for kind, shapes in (("input", built.inputs), ("output", built.outputs)):
            for name, shape in shapes.items():
                print(f"  {kind:<7}{name:<14}{' x '.join(map(str, shape)):>20}")
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
    from lib.engines.calibration import calibrate as measure
    from lib.engines.calibration import calibration_path, thesis_pairs, write_ranges
    from lib.engines.export import export_network
    from lib.engines.zoo import weights_path
    from lib.files import digest
    from lib.siamrpn.checkpoint import load_network
    from lib.training.pairs import training_pairs
    from lib.training.tracker import load_config
    from lib.vot.dataset import load_dataset

    weights = weights_path(options.weights)
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
    from lib.engines.deploy import FRAMEWORKS
    from lib.engines.zoo import weights_path
    from lib.environment import label, peak_memory_gb, record
    from lib.measure.speed import bench as measure
    from lib.measure.speed import full_size_network, report
    from lib.siamrpn.checkpoint import load_network

    network = (
        full_size_network()
        if options.scale == "thesis"
        else load_network(weights_path(options.weights))
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
    from lib.training.tracker import load_config
    from lib.training.tracker import train as run

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
    from lib.engines.zoo import FOLDER, weights_path
    from lib.training.classify import load_classifier, load_classify_config, train_classifier
    from lib.training.pictures import open_pictures

    weights = weights_path(options.weights)
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
        from lib.pruning.recalibrate import recalibrate_file

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
    from lib.training.pairs import held_out
    from lib.training.tracker import load_config
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
            print(f"{spec.name:<24} {spec.target.photo} in {spec.scene.photo}")
        return 0
    print(make_benchmark(options.folder, progress=True))
    return 0


def measure(options: argparse.Namespace) -> int:
    """Measure all that a profile's pages show, or go on where a stopped measurement was."""
    from lib.book import batch
    from lib.files import ROOT
    from lib.measure import everything

    with batch.stopped_by_ctrl_c():
        values = batch.parameters(ROOT, options.profile, options.run)
        everything.measure(values, scheduler=options.scheduler or "", workers=options.workers or 0)
    return 0


def run(options: argparse.Namespace) -> int:
    """Execute the notebooks, or go on where a killed batch was."""
    from lib.book import batch

    with batch.stopped_by_ctrl_c():
        failed = batch.run(profile=options.profile, only=options.only, name=options.run)
    for line in failed:
        print(f"siambook: {line}", file=sys.stderr)
    return 1 if failed else 0


COMMANDS = {
    "track": track,
    "evaluate": evaluate,
    "export": export,
    "engine": engine,
    "calibrate": calibrate,
    "bench": bench,
    "train": train,
    "prune": prune,
    "tune": tune,
    "fetch": fetch,
    "measure": measure,
    "run": run,
    "demo-data": demo_data,
}


def main(arguments: Optional[List[str]] = None) -> int:
    """Entry point: 0, or 2 with one sentence on standard error for a fault that the user can
    mend."""
    options = parser().parse_args(arguments)
    try:
        return int(COMMANDS[options.command](options))
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
