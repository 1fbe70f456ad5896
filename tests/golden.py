"""The golden master: what a change of the library must leave as it is, compared on one machine.

    python tests/golden.py write FILE [--sequences N] [--run NAME]
    python tests/golden.py compare FILE [--run NAME]

`write` keeps digests as JSON, `compare` computes them again and names what differs (exit status 1).
They are of
- raw files: every variant of chapters 3 and 4 on N sequences of the demo benchmark (2 unless given:
  some minutes),
- calibration: the ranges from the frames of these sequences, by every way and method,
- models: the ONNX files of the demo weights, three networks at three precisions,
- with --run, of a finished run and the book built on it: raw files, and the tables of sections and
  pages without their times.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import io
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterable

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "book" / "_build" / "html" / "notebooks"
# Pages about the machine, or that sort by what speeds are.
LEFT_OUT = ("03_2_hardware", "B_runs", "05_1_conclusion", "05_3_deploy")
# Heads of columns that no two measurements have the same.
TIMES = re.compile(
    r"fps|\bms\b|_ms|\bs\b|_s$|second|ratio|times|faster|power|\bW\b|\bJ\b|date|hardware|^run$|build|MB",
    re.I,
)
TABLE = re.compile(r'download="([^"]+)\.csv" href="data:text/csv;charset=utf-8;base64,([^"]+)"')


def digest(content: Any) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content, sort_keys=True).encode()
    return hashlib.sha256(raw).hexdigest()[:16]


def raw_files(folder: Path) -> Dict[str, str]:
    return {
        str(path.relative_to(folder)): digest(path.read_bytes())
        for path in sorted(folder.rglob("*_001.txt"))
    }


def measured(folder: Path, dataset: Any) -> Dict[str, str]:
    """Raw files of every variant."""
    from lib.engines.deploy import choose_framework
    from lib.measure import everything, quality

    quality.measure(
        everything.every_variant("demo", choose_framework()),
        dataset,
        str(folder),
        shown=sys.stderr.isatty(),
    )
    return raw_files(folder)


def calibrated(dataset: Any) -> Dict[str, str]:
    from lib.engines.calibration import XCORR_FEEDS, calibrate_ways, thesis_pairs
    from lib.engines.deploy import Deployment
    from lib.engines.zoo import DEMO_WEIGHTS
    from lib.siamrpn.checkpoint import load_network
    from lib.siamrpn.parts import NETWORKS

    deployment = Deployment(load_network(DEMO_WEIGHTS), "openvino", cache=None)
    models = {name: deployment.model(name, "fp32") for name in NETWORKS}
    ways = calibrate_ways(models, thesis_pairs(dataset, 8), XCORR_FEEDS)
    return {
        f"{way} {network}": digest(bounds)
        for way, ranges in ways.items()
        for network, bounds in ranges.items()
    }


def exported() -> Dict[str, str]:
    from lib.engines.calibration import training_ranges
    from lib.engines.deploy import Deployment
    from lib.engines.zoo import DEMO_WEIGHTS
    from lib.siamrpn.checkpoint import load_network
    from lib.siamrpn.parts import NETWORKS

    ranges = training_ranges(DEMO_WEIGHTS)
    deployment = Deployment(
        load_network(DEMO_WEIGHTS), "openvino", cache=None, ranges=lambda _: ranges
    )
    return {
        f"{name} {precision}": digest(deployment.model(name, precision).SerializeToString())
        for name in NETWORKS
        for precision in ("fp32", "fp16", "int8")
    }


def without_times(text: str) -> str:
    rows = list(csv.reader(io.StringIO(text)))
    kept = [place for place, head in enumerate(rows[0]) if not TIMES.search(head)] if rows else []
    return digest([[row[place] for place in kept if place < len(row)] for row in rows])


def tables(texts: Iterable[Any]) -> Dict[str, str]:
    return {name: without_times(text) for name, text in texts}


def master(sequences: int, run: str) -> Dict[str, Dict[str, str]]:
    from lib.demo import list_specs, make_benchmark
    from lib.measure import runs
    from lib.vot.dataset import load_dataset

    with tempfile.TemporaryDirectory() as folder:
        names = [spec.name for spec in list_specs()]
        chosen = names[:: max(1, len(names) // sequences)][:sequences]
        dataset = load_dataset(make_benchmark(Path(folder) / "golden", chosen))
        found = {
            "raw": measured(Path(folder) / "run", dataset),
            "calibration": calibrated(dataset),
            "models": exported(),
        }
    if run:
        kept = runs.run_folder(run)
        found["run"] = raw_files(kept)
        found["sections"] = tables(
            (path.name, path.read_text()) for path in sorted(kept.glob("*.csv"))
        )
        found["pages"] = tables(
            (f"{page.stem}: {name}", base64.b64decode(text).decode())
            for page in sorted(HTML.glob("*.html"))
            if page.stem not in LEFT_OUT
            for name, text in TABLE.findall(page.read_text(encoding="utf-8"))
        )
    return found


def compare(before: Dict[str, Dict[str, str]], after: Dict[str, Dict[str, str]]) -> int:
    """Print what differs, part by part; returns how much that is."""
    differing = 0
    for part in sorted(before.keys() | after.keys()):
        one, other = before.get(part, {}), after.get(part, {})
        changed = sorted(
            name for name in one.keys() | other.keys() if one.get(name) != other.get(name)
        )
        print(
            f"{part}: {len(one)} before, {len(other)} now, {len(changed)} differ",
            *changed[:20],
            sep="\n    ",
        )
        differing += len(changed)
    return differing


def main() -> int:
    parser = argparse.ArgumentParser(description="Golden master")
    parser.add_argument("what", choices=["write", "compare"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--sequences", type=int, default=2)
    parser.add_argument("--run", default="")
    asked = parser.parse_args()
    if asked.what == "write":
        found = {"sequences": asked.sequences, **master(asked.sequences, asked.run)}
        asked.file.write_text(json.dumps(found, indent=1), encoding="utf-8")
        return 0
    before = json.loads(asked.file.read_text(encoding="utf-8"))
    return int(compare(before, master(before.pop("sequences"), asked.run)) > 0)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
