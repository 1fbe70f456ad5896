"""The command `siambook`. Each command parses, calls the library and prints; heavy packages are imported where they are used."""
from __future__ import annotations

import argparse
import json
import sys
import time
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, List, Optional

from lib.errors import InputError

if TYPE_CHECKING:
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
        bar = tqdm(total=options.frames or len(source) or None, initial=1, unit="frame", disable=None)
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
    """Accuracy, robustness and expected average overlap, of raw results or of a tracker that is run now."""
    from lib.vot.dataset import load_dataset
    from lib.vot.metrics import evaluate as measure
    from lib.vot.protocol import PROTOCOLS
    from lib.vot.results import read_results

    protocol = PROTOCOLS[options.protocol]
    if options.one_pass and (options.results is not None or options.intervals):
        raise InputError("--one-pass runs a tracker and gives its average overlap alone: no RESULTS and no --intervals with it")
    if options.results is not None:
        dataset = load_dataset(options.dataset)
        _show(options, options.results, measure(dataset, read_results(options.results, dataset), protocol))
        return 0
    from lib import experiments

    name = options.dataset if options.dataset == experiments.DEMO else str(Path(options.dataset).resolve())
    weights = options.weights if options.weights == experiments.DEMO else str(Path(options.weights).resolve())
    dataset = experiments.open_dataset(name)
    if options.one_pass:
        _one_pass(options, dataset)
        return 0
    measured = experiments.measure(experiments.baseline(weights), dataset, options.run, protocol)[0]
    _show(options, str(measured.results), measured.evaluation)
    return 0


def _one_pass(options: argparse.Namespace, dataset: Dataset) -> None:
    """Average overlap (AO) per sequence and over sequences, without resets."""
    from tqdm import tqdm

    from lib.vot.metrics import average_overlap
    from lib.vot.protocol import run_one_pass
    from lib.zoo import open_tracker

    tracker = open_tracker(options.weights, options.device)
    overlaps = {sequence.name: average_overlap(sequence, run_one_pass(tracker, sequence))
                for sequence in tqdm(dataset, unit="sequence", disable=None)}
    mean = sum(overlaps.values()) / len(overlaps)
    if options.json:
        print(json.dumps({"dataset": dataset.name, "average_overlap": mean, "per_sequence": overlaps}, indent=1))
        return
    for name, overlap in overlaps.items():
        print(f"  {name:<20}{overlap:.4f}")
    print(f"average overlap, one pass, mean of {len(overlaps)} sequences: {mean:.4f}")


def _show(options: argparse.Namespace, title: str, evaluation: Evaluation) -> None:
    """Print an evaluation as text or JSON."""
    from lib.vot.metrics import bootstrap

    result = evaluation.as_dict()
    if options.intervals:
        result["intervals"] = {key: [bound if isfinite(bound) else None for bound in bounds]
                               for key, bounds in bootstrap(evaluation).items()}
    if options.json:
        print(json.dumps(result, indent=1))
        return
    low, high = result["eao_interval"]
    print(f"{title} on {result['dataset']}: {result['sequences']} sequences, {result['frames']} frames, "
          f"{result['repetitions']} repetition(s), protocol {result['protocol']}")
    units = {"accuracy": "", "robustness": "failures per 100 frames", "failures": "", "eao": f"over {low}..{high} frames"}
    for key, unit in units.items():
        bounds = "  [{}, {}]".format(*map(_number, result["intervals"][key])) if options.intervals else ""
        print(f"  {key:<12}{_number(result[key]):>9}{bounds}  {unit}".rstrip())
    print("  EAO by attribute: " + ", ".join(f"{name} {_number(values['eao'])}" for name, values in result["attributes"].items()))


def _number(value: Optional[float]) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def train(options: argparse.Namespace) -> int:
    """Train a network as a configuration file says, or go on where a stopped run was."""
    from lib.training.loop import load_config
    from lib.training.loop import train as run

    given = {"data": options.data, "initial": options.initial, "backbone": options.backbone}
    overrides = {key: value for key, value in given.items() if value}
    weights = run(load_config(options.config, overrides), options.out, options.device, stop_after=options.stop_after)
    print(weights)
    return 0


def tune(options: argparse.Namespace) -> int:
    """Choose the tracker's settings for trained weights on the sequences that a configuration holds out."""
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
    best, overlap = search(network, videos, report=lambda trial, value: print(f"{value:.4f}  {trial}", file=sys.stderr))
    head = (f"# siambook tune {options.config} --weights {options.weights}\n"
            f"# average overlap {overlap:.3f} on {len(videos)} held-out sequences\n")
    write_text(Path(options.out), head + yaml.safe_dump({key: getattr(best, key) for key in ("penalty", "window", "rate")}))
    print(f"{options.out}: {best}, average overlap {overlap:.4f}")
    return 0


def demo_data(options: argparse.Namespace) -> int:
    """Generate the demo benchmark."""
    from lib.demo import list_specs, make_benchmark

    if options.list:
        for spec in list_specs():
            print(f"{spec.name:<12} {spec.frames:>4} frames  {spec.description}")
        return 0
    print(make_benchmark(options.folder, progress=True))
    return 0


def _box(text: str) -> List[float]:
    """x,y,w,h for argparse."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 4:
        raise argparse.ArgumentTypeError(f"{text!r} is not x,y,w,h")
    return values


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
    main_parser = argparse.ArgumentParser(prog="siambook", description="Siamese tracking, measured as the thesis measures it.")
    commands = main_parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(function: object, name: str, summary: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary, epilog=f"Example: {example}",
                                  formatter_class=_Help)
        sub.set_defaults(function=function)
        return sub

    sub = command(track, "track", "follow one target through a video, a folder of images or a camera",
                  "siambook track clip.mp4 --init 120,80,64,48 --out clip-tracked")
    sub.add_argument("source", metavar="VIDEO|FOLDER|CAMERA", help="a video file, a folder of images, or a camera's number")
    sub.add_argument("--init", type=_box, metavar="x,y,w,h",
                     help="target in the first frame, in pixels (default: drawn with the mouse)")
    sub.add_argument("--out", default="tracked", metavar="FOLDER", help="gets boxes.csv and tracked.mp4")
    sub.add_argument("--weights", default="demo", help="`demo` or a checkpoint of a SiamRPN++ with ResNet-50")
    sub.add_argument("--settings", metavar="YAML", help="tracker settings (default: the demo model's, or PySOT's)")
    sub.add_argument("--device", default="cpu", help="cpu or cuda")
    sub.add_argument("--frames", type=_positive, metavar="N", help="stop after N frames (a camera has no end)")

    sub = command(evaluate, "evaluate", "accuracy, robustness and expected average overlap, of results or of a tracker",
                  "siambook evaluate results/SiamRPNpp_R50 --dataset VOT2018.json --json")
    sub.add_argument("results", nargs="?", metavar="RESULTS",
                     help="a tracker's folder of raw results (VOT layout or PySOT's); without it a tracker is run")
    sub.add_argument("--dataset", required=True, metavar="PATH", help="VOT or OTB folder, PySOT json, or `demo` for a tracker")
    sub.add_argument("--protocol", default="pysot", choices=("pysot", "toolkit"), help="whose numbers")
    sub.add_argument("--intervals", action="store_true", help="add 95 %% bootstrap intervals over sequences")
    sub.add_argument("--json", action="store_true", help="print everything as JSON")
    sub.add_argument("--weights", default="demo", help="of the tracker to run: `demo` or a checkpoint")
    sub.add_argument("--device", default="cpu", help="for --one-pass: cpu or cuda")
    sub.add_argument("--run", default="local", help="the run (data/runs/NAME) that keeps the tracker's results")
    sub.add_argument("--one-pass", action="store_true", help="run without resets and print the average overlap")

    sub = command(train, "train", "train a network, or go on where a stopped run was",
                  "siambook train data/demo/train.yaml --out train/demo")
    sub.add_argument("config", metavar="YAML", help="training configuration, see data/demo/train.yaml")
    sub.add_argument("--out", required=True, metavar="FOLDER", help="gets checkpoint.pt, log.csv and weights.pth")
    sub.add_argument("--data", metavar="PATH", help="manifest or folder in place of the configuration's")
    sub.add_argument("--initial", metavar="WEIGHTS", help="weights to start from in place of the configuration's")
    sub.add_argument("--backbone", metavar="WEIGHTS", help="weights of a backbone alone to start from")
    sub.add_argument("--device", default="cpu", help="cpu or cuda")
    sub.add_argument("--stop-after", type=_positive, metavar="PAIRS", help="stop with a checkpoint after this many pairs")

    sub = command(tune, "tune", "choose the tracker's settings for trained weights, on held-out sequences",
                  "siambook tune data/demo/train.yaml --weights train/demo/weights.pth --out tracker.yaml")
    sub.add_argument("config", metavar="YAML", help="the training configuration; its `holdout` names the sequences")
    sub.add_argument("--weights", required=True, metavar="WEIGHTS", help="what the training made")
    sub.add_argument("--out", required=True, metavar="FILE", help="gets the settings as YAML")
    sub.add_argument("--device", default="cpu", help="cpu or cuda")

    sub = command(demo_data, "demo-data", "generate the demo benchmark in VOT layout",
                  "siambook demo-data data/cache/demo-benchmark")
    sub.add_argument("folder", nargs="?", default="data/cache/demo-benchmark", help="where to put it")
    sub.add_argument("--list", action="store_true", help="only list the sequences and what makes them difficult")
    return main_parser


def main(arguments: Optional[List[str]] = None) -> int:
    """Entry point: 0, or 2 with one sentence on standard error for a fault that the user can mend."""
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
