"""Time of the tracker's loop: `python tests/benchmarks/bench_tracker.py [--frames 20]`.

The full-size network in PyTorch FP32, and what the tracker does outside the network (crop, decode,
penalties), on 480x360 frames. PySOT's own loop took 582 to 597 ms a frame on two cores of an EPYC
(Zen 4), of which 0.9 to 1.6 ms outside the network; that is another machine than this one, so the
network's own forward pass in the same run is printed as well, as the fair base of a ratio.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from lib.engines.pytorch import torch_network
from lib.siamrpn.network import NetworkConfig, SiamRPN
from lib.siamrpn.tracker import SiamRPNTracker

PYSOT_MS = 582.0
ALLOWED = 1.05
OUTSIDE_MS = 0.9


class Timed:
    """A tracker network that keeps the time spent inside it."""

    def __init__(self, network):
        self.network, self.name, self.seconds = network, network.name, []

    def template(self, exemplar):
        return self.network.template(exemplar)

    def track(self, kernels, search):
        begin = time.perf_counter()
        outputs = self.network.track(kernels, search)
        self.seconds.append(time.perf_counter() - begin)
        return outputs


class Replay:
    """Answers at once with one real output, so that only the tracker's own work is timed."""

    name = "replay"

    def __init__(self, outputs):
        self.outputs = outputs

    def template(self, exemplar):
        return "kernels"

    def track(self, kernels, search):
        return self.outputs


def milliseconds(seconds):
    low, middle, high = np.percentile(1000 * np.array(seconds), [25, 50, 75])
    return f"{middle:.2f} ms (quartiles {low:.2f} to {high:.2f})", middle


def follow(tracker, frames):
    seconds = []
    for frame in frames:
        begin = time.perf_counter()
        tracker.track(frame)
        seconds.append(time.perf_counter() - begin)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    random = np.random.RandomState(0)
    frames = [random.randint(0, 256, (360, 480, 3), np.uint8) for _ in range(8)]
    network = torch_network(SiamRPN(NetworkConfig.resnet50()))
    timed = Timed(network)
    tracker = SiamRPNTracker(timed)
    tracker.init(frames[0], [200, 150, 60, 50])
    follow(tracker, frames[:2])
    timed.seconds.clear()
    whole, total = milliseconds(follow(tracker, [frames[i % 8] for i in range(options.frames)]))
    inside, base = milliseconds(timed.seconds)
    crop = np.zeros((1, 3, 255, 255), np.float32)
    replay = SiamRPNTracker(Replay(network.track(tracker.kernels, crop)))
    replay.init(frames[0], [200, 150, 60, 50])
    follow(replay, frames)
    outside, own = milliseconds(follow(replay, frames * 50))
    print(
        f"full-size network, PyTorch {torch.__version__}, {options.threads} threads, {options.frames} frames of 480x360"
    )
    print(
        f"  whole frame              {whole}; to PySOT's {PYSOT_MS:.0f} ms {total / PYSOT_MS:.2f} (at most {ALLOWED})"
    )
    print(f"  inside the network       {inside}; loop / network {total / base:.3f}")
    print(f"  outside the network      {outside} (at most {OUTSIDE_MS})")
    return 0 if total <= ALLOWED * PYSOT_MS and own <= OUTSIDE_MS else 1


if __name__ == "__main__":
    raise SystemExit(main())
