"""Quality of weights: `python tests/benchmarks/bench_quality.py [NAME=WEIGHTS[:SETTINGS] ...]
[--csv FILE]`.

Average overlap in one pass on the four real sequences in ../shared/sequences and on the sequences
that data/demo/train.yaml holds out; for the last one named also accuracy, robustness and EAO with
95 % intervals on the demo benchmark and the two VOT sequences. NAME is a line of the table, WEIGHTS
`demo` or a path, SETTINGS a YAML file (default: the demo model's, or PySOT's).
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from lib.demo import make_benchmark
from lib.engines.zoo import open_tracker, weights_path
from lib.siamrpn.checkpoint import load_network
from lib.training.pairs import held_out
from lib.training.tracker import load_config
from lib.training.tune import as_video
from lib.vot.dataset import load_dataset
from lib.vot.metrics import bootstrap, evaluate
from lib.vot.one_pass import average_overlap
from lib.vot.protocol import run_one_pass, run_reset_based

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"


def average_overlaps(tracker, sequences):
    return {
        sequence.name: average_overlap(sequence, run_one_pass(tracker, sequence))
        for sequence in sequences
    }


def line(name, weights, settings, real, unseen):
    tracker = open_tracker(weights, "pytorch", settings=settings)
    overlaps = average_overlaps(tracker, real)
    config = tracker.config
    unseen_overlaps = average_overlaps(tracker, unseen)
    parameters = sum(value.numel() for value in load_network(weights_path(weights)).parameters())
    return {
        "step": name,
        "parameters": parameters,
        "penalty": config.penalty,
        "window": config.window,
        "rate": config.rate,
        "held_out": sum(unseen_overlaps.values()) / len(unseen),
        **overlaps,
        "mean": sum(overlaps.values()) / len(overlaps),
    }


def report(weights, settings, dataset):
    tracker = open_tracker(weights, "pytorch", settings=settings)
    evaluation = evaluate(
        dataset, {sequence.name: [run_reset_based(tracker, sequence)] for sequence in dataset}
    )
    intervals = bootstrap(evaluation)
    low, high = evaluation.eao_interval
    print(
        f"{dataset.name}: {len(dataset)} sequences, {evaluation.failures:g} failures, EAO over {low}..{high} frames"
    )
    for measure in ("accuracy", "robustness", "eao"):
        print(
            f"  {measure:<11}{getattr(evaluation, measure):.4f}  [{intervals[measure][0]:.4f}, {intervals[measure][1]:.4f}]"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "trackers", nargs="*", default=["demo=demo"], metavar="NAME=WEIGHTS[:SETTINGS]"
    )
    parser.add_argument("--csv", metavar="FILE")
    options = parser.parse_args()
    if not SHARED.is_dir():
        sys.exit(f"{SHARED} is missing: the real sequences are there")
    real = [
        sequence
        for name in ("VOT2018", "OTB")
        for sequence in load_dataset(SHARED / "sequences" / name)
    ]
    config = load_config(ROOT / "data" / "demo" / "train.yaml", {"data": str(SHARED / "train")})
    unseen = [as_video(clip) for clip in held_out(Path(config.data), config.pairs.holdout)]
    rows = []
    for tracker in options.trackers:
        name, _, rest = tracker.partition("=")
        weights, _, settings = rest.partition(":")
        rows.append(line(name, weights, settings or None, real, unseen))
        print(
            "  ".join(
                f"{key} {v:.3f}" if isinstance(v, float) else f"{key} {v}"
                for key, v in rows[-1].items()
            )
        )
    if options.csv:
        with open(options.csv, "w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(
                {key: f"{v:.4f}" if isinstance(v, float) else v for key, v in row.items()}
                for row in rows
            )
    for dataset in (
        load_dataset(make_benchmark(ROOT / "data/cache/demo-benchmark")),
        load_dataset(SHARED / "sequences" / "VOT2018"),
    ):
        report(weights, settings or None, dataset)


if __name__ == "__main__":
    main()
