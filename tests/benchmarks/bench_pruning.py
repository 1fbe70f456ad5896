"""Exact channel scores against the plain method, a whole forward pass for every mask, on the same
masks in one run.

    python tests/benchmarks/bench_pruning.py [--pictures 32] [--masks 4]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from lib import pruning
from lib.engines.zoo import DEMO_WEIGHTS, FOLDER
from lib.training.classify import load_classifier, load_classify_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default=str(DEMO_WEIGHTS))
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--masks", type=int, default=4, help="of every layer, evenly spaced")
    options = parser.parse_args()
    config = load_classify_config(FOLDER / "pruning" / "head.yaml")
    classifier = load_classifier(options.weights, 64)
    pictures = pruning.sample(config, options.pictures)
    layers = pruning.mask_layers(classifier.config)
    scorers = {
        precision: pruning.Scorer(classifier, pictures, precision) for precision in ("fp32", "bf16")
    }
    with torch.inference_mode():
        p = torch.log_softmax(classifier(pictures).double(), 1)
    seconds = dict.fromkeys(("plain", *scorers), 0.0)
    scores: dict[str, list[float]] = {name: [] for name in seconds}
    for layer, count in layers.items():
        channels = np.unique(np.linspace(0, count - 1, options.masks).astype(int)).tolist()
        weight = count / len(channels)  # of this layer among all masks
        for precision, scorer in scorers.items():
            begin = time.perf_counter()
            scores[precision] += scorer.score(layer, channels).tolist()
            seconds[precision] += weight * (time.perf_counter() - begin)
        for channel in channels:
            keep = {name: np.ones(size, bool) for name, size in layers.items()}
            keep[layer][channel] = False
            network = pruning.masked(classifier, keep)
            with torch.inference_mode():
                begin = time.perf_counter()
                q = torch.log_softmax(network(pictures).double(), 1)
                seconds["plain"] += weight * (time.perf_counter() - begin)
            scores["plain"].append(float((p.exp() * (p - q)).sum(1).mean()))
    plain = np.array(scores["plain"])
    print(
        f"{len(plain)} of {sum(layers.values())} masks, {options.pictures} pictures, {torch.get_num_threads()} threads; "
        "all masks would take:"
    )
    for name, total in seconds.items():
        own = np.array(scores[name])
        rank = pruning.rank_correlation({"": own}, {"": plain})
        print(
            f"{name:>6} {total / 60:6.1f} min {seconds['plain'] / total:6.2f}x   largest difference "
            f"{np.abs(own - plain).max():.1e}, rank correlation {rank:.5f}"
        )


if __name__ == "__main__":
    main()
