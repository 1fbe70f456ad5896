"""The command `siambook`. Each command parses, calls the library and prints; heavy packages are
imported where they are used."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

from lib import guard
from lib.errors import InputError
from lib.options import parse

if TYPE_CHECKING:
    from lib.vot.metrics import Evaluation
    from lib.vot.one_pass import OnePass
    from lib.vot.protocol import Protocol


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def track(options: argparse.Namespace) -> None:
    """Follow one target through a video, a folder of pictures, a stream or a camera."""
    from lib.track import track as follow

    follow(options, _say)


def evaluate(options: argparse.Namespace) -> None:
    """Accuracy, robustness and expected average overlap (or, in one pass, mean overlap, AUC and
    precision), of raw results or of a tracker that is run now."""
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
    from lib.measure.absent import Absent
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
    if isinstance(measured, Absent):
        raise InputError(str(measured))
    if zoo.settings_note(weights):
        _say(zoo.settings_note(weights))
    return str(measured.results), measured.evaluation


def export(options: argparse.Namespace) -> None:
    """The target, search and xcorr networks as ONNX files, checked against PyTorch."""
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


def calibrate(options: argparse.Namespace) -> None:
    """Ranges of activations for INT8, from training data or from the frames of a dataset."""
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


def bench(options: argparse.Namespace) -> None:
    """Speed of every framework, precision and network, as ratios to PyTorch FP32 in the same
    run."""
    from lib.engines.deploy import FRAMEWORKS
    from lib.engines.zoo import weights_path
    from lib.environment import label, memory_gb, record
    from lib.measure import speed
    from lib.siamrpn.checkpoint import load_network

    if options.scale == "thesis":
        network = speed.full_size_network()
    else:
        network = load_network(weights_path(options.weights))
    machine, rows = record(options.device), []
    for timed in speed.bench(network, tuple(FRAMEWORKS), options.device, options.rounds, _say):
        rows.append(timed.row())
        _say("{framework} {precision}: {ratio:.2f}x".format(**rows[-1]))
    about = {
        "scale": options.scale,
        "machine": label(machine),
        "in_use_before": machine["in_use"],
        "peak_memory_gb": memory_gb(),
    }
    if options.json:
        print(json.dumps({**about, "rows": rows}, indent=1))
        return
    print(speed.report(rows))
    print(", ".join(f"{name}: {value}" for name, value in about.items()))


def train(options: argparse.Namespace) -> None:
    """Train a network as a configuration file says, or go on where a stopped run was."""
    from lib.reading import read_mapping
    from lib.training import tracker

    given = {"data": options.data, "initial": options.initial, "backbone": options.backbone}
    overrides: Dict[str, Any] = {key: value for key, value in given.items() if value}
    if options.shift is not None:
        pairs = read_mapping(options.config).get("pairs") or {}
        overrides["pairs"] = {**pairs, "shift": options.shift}
    config = tracker.load_config(options.config, overrides)
    print(tracker.train(config, options.out, options.device, stop_after=options.stop_after))


def prune(options: argparse.Namespace) -> None:
    """CURL's steps: a classification layer, scores of channels, the network without the worst,
    fine-tuning."""
    from lib.measure import latency
    from lib.pruning import steps

    print(latency.cut(options) if options.latency is not None else steps.run(options))


def layers(options: argparse.Namespace) -> None:
    """Which groups of layers need 16 bits."""
    from lib.engines import deploy
    from lib.measure import layers as searching

    engine = deploy.usable_framework(options.engine)
    asked = _place(options.weights), engine, options.sequences
    found = searching.sensitivity(*asked, options.workers or 0)
    searching.write(Path(options.out), found, *asked)
    print(found.to_string(index=False, float_format="{:.4f}".format))


def latency(options: argparse.Namespace) -> None:
    """Predicted and measured time of networks pruned by parameters and by milliseconds."""
    from lib.engines import deploy
    from lib.measure import latency as timing

    engine = deploy.usable_framework(options.engine)
    for row in timing.record(engine, options.precision, Path(options.out)):
        print("{by} {target}: predicted {predicted_ms:.1f} ms, measured {ms:.1f}".format(**row))


def tune(options: argparse.Namespace) -> None:
    """Choose the tracker's settings for trained weights on the sequences that a configuration holds
    out."""
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


def fetch(options: argparse.Namespace) -> None:
    """VOT2018 or PySOT's weights."""
    from lib import fetch as fetching
    from lib.files import ROOT

    cache = ROOT / "data" / "cache"  # where profiles/workstation.yaml looks
    source = {"source": options.source} if options.source else {}
    if options.what == "vot2018":
        print(fetching.fetch_vot2018(options.to or cache / "VOT2018", **source))
    else:
        path = options.to or cache / "siamrpn_r50_l234_dwxcorr.pth"
        print(fetching.fetch_weights(path, **source))


def measure(options: argparse.Namespace) -> None:
    """Measure all that a profile's pages show, or go on where a stopped measurement was."""
    from lib.book import batch, notebook
    from lib.files import ROOT
    from lib.measure import everything

    batch.stop_at_ctrl_c()
    profile = notebook.open_profile(ROOT, options.profile, options.run)
    lacking = sorted({"dataset", "weights"} - set(profile.values))
    if lacking:
        raise InputError(f"{profile.file}: does not say {' and '.join(lacking)}")
    everything.measure(
        profile.values, scheduler=options.scheduler or "", workers=options.workers or 0
    )


def run(options: argparse.Namespace) -> int:
    """Execute the notebooks, or go on where a killed batch was."""
    from lib.book import batch

    batch.stop_at_ctrl_c()
    failed = batch.run(profile=options.profile, only=options.only, name=options.run)
    for line in failed:
        _say(f"siambook: {line}")
    return 1 if failed else 0


def doctor(options: argparse.Namespace) -> int:
    """What this machine has for a profile, and what it lacks."""
    from lib import doctor as examining
    from lib.book import notebook
    from lib.files import ROOT

    values = notebook.open_profile(ROOT, options.profile, options.run).values
    findings = examining.examine(values)
    if options.json:
        print(json.dumps([{**each._asdict(), "state": each.state} for each in findings], indent=1))
    else:
        print(examining.report(findings))
    return int(any(each.state == "missing" for each in findings))


def choose(options: argparse.Namespace) -> None:
    """Which tracker to deploy for a budget, and the command that runs it."""
    from lib.book import notebook
    from lib.files import ROOT
    from lib.report import deploy

    values = notebook.open_profile(ROOT, options.profile, options.run).values
    budget = deploy.Budget(options.fps or 0.0, options.latency, options.memory, options.smallest)
    print(*deploy.choose(values, budget), sep="\n")


def demo_data(options: argparse.Namespace) -> None:
    """Generate the demo benchmark."""
    from lib.demo import make_benchmark
    from lib.measure.variants import DEMO_DATASET

    print(make_benchmark(options.folder or DEMO_DATASET, progress=True))


COMMANDS: Dict[str, Callable[[argparse.Namespace], Optional[int]]] = {
    "track": track,
    "evaluate": evaluate,
    "export": export,
    "calibrate": calibrate,
    "bench": bench,
    "train": train,
    "prune": prune,
    "layers": layers,
    "latency": latency,
    "tune": tune,
    "fetch": fetch,
    "measure": measure,
    "run": run,
    "doctor": doctor,
    "choose": choose,
    "demo-data": demo_data,
}


def _stop(*_: Any) -> None:
    raise KeyboardInterrupt


def main(arguments: Optional[List[str]] = None) -> int:
    """Entry point: 0, or 2 with one sentence on standard error for a fault (`lib.guard`)."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup asks for
                signal.signal(number, _stop)  # as Ctrl-C: what was begun is ended or taken away
    if getattr(options, "threads", None):
        from lib.environment import use_threads

        use_threads(options.threads)
    return guard.run(COMMANDS[options.command], options)


if __name__ == "__main__":
    sys.exit(main())
