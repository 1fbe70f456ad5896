"""`siambook track`: one target through a video, with any engine."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Callable

from tqdm import tqdm

from lib.engines.zoo import open_tracker
from lib.environment import memory_gb, threads
from lib.errors import InputError
from lib.progress import progress
from lib.siamrpn.contract import describe_executed
from lib.siamrpn.tracker import TrackResult, check_box
from lib.video import FrameSource, Window, ask_box, write_track


def track(options: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Follow one target through a source, write boxes and video, print what ran and how fast.

    options: those of `siambook track` (lib/cli.py). say: takes remarks.
    """
    source, film = FrameSource(options.source, say), Path(options.out) / "tracked.mp4"
    if film.exists() and os.path.exists(options.source) and film.samefile(options.source):
        raise InputError(f"{film}: is the source; name another --out")
    frames = islice(source, options.frames)
    first = next(frames)
    box = check_box(options.init if options.init is not None else ask_box(first), first)
    window = Window("siambook track") if options.show else None
    total, times, lost = options.frames or len(source) or None, [], False
    with write_track(Path(options.out), source.rate, not options.no_video) as writer:
        begin = time.perf_counter()
        tracker = open_tracker(
            options.weights, options.engine, options.precision, options.device, options.settings
        )
        loaded = time.perf_counter() - begin
        tracker.init(first, box)
        writer.add(first, TrackResult(box, 1.0, 0, 1.0), 0.0)
        try:
            with progress(total, "frames", done=1, late=True) as bar:
                for frame in frames:
                    begin = time.perf_counter()
                    result = tracker.track(frame)
                    times.append(time.perf_counter() - begin)
                    image = writer.add(frame, result, times[-1], source.seconds)
                    bar.update(1)
                    if result.lost != lost:
                        lost = result.lost
                        what = "lost" if lost else "found again"
                        tqdm.write(f"frame {writer.number}: target {what}", file=sys.stderr)
                    if window and not window.show(image):
                        break
        except KeyboardInterrupt:
            say("stopped: the frames so far are written")
    if writer.fault and not options.no_video:
        say(f"{writer.video}: no video ({writer.fault}); the boxes are complete")
    files = f"{writer.boxes}" if writer.fault else f"{writer.boxes} and {writer.video}"
    print(f"{files}: {writer.number} frames, lost in {writer.lost}")
    _tell_speed(tracker.network, loaded, times)


def _tell_speed(network: Any, loaded: float, times: list[float]) -> None:
    """What ran, and how fast."""
    executed: Counter[str] = Counter()
    for engine in network.engines.values():
        executed.update(engine.executed())
    print(f"{network.name}, convolutions in {describe_executed(executed)}; {threads()} thread(s)")
    if times:
        middle, slow = median(times), sorted(times)[int(0.99 * len(times))]
        print(
            f"{1 / middle:.1f} frames a second (median {1e3 * middle:.1f} ms a frame, 99th "
            f"percentile {1e3 * slow:.1f} ms); loaded in {loaded:.1f} s; at most "
            f"{memory_gb() or 0:.2f} GB of memory"
        )
