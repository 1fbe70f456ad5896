"""Calibration sets and the ranges that come of them (thesis sections 3.5 and 4.2).

A set is a list of crop pairs: what the target network sees and what the search network sees. The
xcorr network has no images as inputs; its set is what the FP32 target and search networks make of
the pairs, bound by name. Two ways to a set:

- `thesis_pairs`: frames of the very sequences that are tested afterwards, as the thesis does, which
  biases the result by an amount that section 4.2 of the book measures;
- `lib.training.pairs.training_pairs`: pairs as they are drawn for training, of pictures that no test uses.

Ranges are numbers, a few kilobytes, and are kept as CSV beside the weights they belong to
(data/demo/siamrpn_r50_quarter.calibration.csv), so that a board needs neither the pictures nor the
hours.
"""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Collection, Dict, List, Mapping, NamedTuple, Sequence, Union

import numpy as np
import pandas as pd

from lib.engines.export import session
from lib.engines.quantize import METHODS, Bounds, activation_bounds, channel_bounds
from lib.errors import InputError
from lib.files import digest, write_text
from lib.reading import read_text
from lib.siamrpn.crop import EXEMPLAR_SIZE, SEARCH_SIZE, as_input, context_side, subwindow
from lib.siamrpn.parts import INPUTS, KERNELS, MAPS, NETWORKS
from lib.vot.dataset import Dataset, axis_aligned_box

if TYPE_CHECKING:
    import onnx

HEAD = "# Largest absolute values of activations"  # of a file of ranges
METHOD = "entropy"  # the method that engines are built with unless another is asked for
SEED = 0
WIDEST = 1e9  # no activation is as large

# How the xcorr network's inputs are put together for calibration: every pair's own kernels and
# maps; the first pair's kernels for all; kernels that no target has, as a network has them that
# is exported before it has seen one; maps bound to the wrong branches.
XCORR_FEEDS = ("own", "one-target", "stand-in", "misbound")

Ranges = Dict[str, Dict[str, Bounds]]  # network -> method -> tensor -> bound
Feeds = Dict[str, np.ndarray]


class CropPair(NamedTuple):
    """exemplar (127, 127, 3) and search (255, 255, 3), uint8 BGR, of one target."""

    exemplar: np.ndarray
    search: np.ndarray


# -- Sets ------------------------------------------------------------------------------------------


def thesis_pairs(dataset: Dataset, requested: int = 1000) -> List[CropPair]:
    """ceil(frames of all sequences / requested) random frames of every sequence, the thesis
    author's rule, or all of a shorter one; 22 for VOT2018's 21,356 and 1,000."""
    each = ceil(sum(map(len, dataset)) / requested)
    return _pairs(dataset, [each] * len(dataset))


def dataset_pairs(dataset: Dataset, total: int) -> List[CropPair]:
    """`total` random frames, or all where there are fewer; the same share of every sequence."""
    ends = np.cumsum([sequence.present.sum() for sequence in dataset])
    bounds = ends * min(total, ends[-1]) // ends[-1]
    return _pairs(dataset, np.diff(bounds, prepend=0).tolist())


def _pairs(dataset: Dataset, counts: Sequence[int]) -> List[CropPair]:
    """As many random frames of each sequence as `counts` says. The exemplar is cut around the
    annotation of one chosen frame, the search crop out of another one, around the annotation of the
    frame before it: a tracker that holds its target would look there."""
    random = np.random.RandomState(SEED)
    pairs = []
    for sequence, count in zip(dataset, counts):
        present = sequence.present
        chosen = random.permutation(np.flatnonzero(present))[:count].tolist()
        for here, there in zip(chosen, chosen[-1:] + chosen[:-1]):
            before = max(here - 1, 0)
            region = sequence.regions[before if present[before] else here]
            exemplar = _crop(sequence.frame(there), sequence.regions[there], EXEMPLAR_SIZE)
            pairs.append(CropPair(exemplar, _crop(sequence.frame(here), region, SEARCH_SIZE)))
    return pairs


def _crop(frame: np.ndarray, region: np.ndarray, size: int) -> np.ndarray:
    """The tracker's exemplar or search crop around an annotation."""
    box = axis_aligned_box(region)
    center, side = box[:2] + (box[2:] - 1) / 2, context_side(box[2], box[3])
    return subwindow(
        frame, center, round(side * (size / EXEMPLAR_SIZE)), size, frame.mean(axis=(0, 1))
    )


# -- Ranges ----------------------------------------------------------------------------------------


def network_feeds(
    models: Mapping[str, onnx.ModelProto], pairs: Sequence[CropPair]
) -> Dict[str, List[Feeds]]:
    """Inputs of the three networks for every pair; those of the xcorr network come from the FP32
    models of the other two."""
    exemplars = [{INPUTS["target"][0]: as_input(pair.exemplar)} for pair in pairs]
    searches = [{INPUTS["search"][0]: as_input(pair.search)} for pair in pairs]
    target, search = session(models["target"]), session(models["search"])
    xcorr = [
        {
            **dict(zip(KERNELS, target.run(list(KERNELS), exemplar))),
            **dict(zip(MAPS, search.run(list(MAPS), crop))),
        }
        for exemplar, crop in zip(exemplars, searches)
    ]
    return {"target": exemplars, "search": searches, "xcorr": xcorr}


def xcorr_feeds(own: Sequence[Feeds], how: str) -> List[Feeds]:
    """The xcorr network's calibration set changed in one of the ways of XCORR_FEEDS.

    "stand-in" draws kernels as PyTorch initialises a depthwise 5x5 convolution: uniform within
    +-1/sqrt(25).
    """
    if how == "misbound":
        other = dict(zip(MAPS, reversed(MAPS)))
        return [{name: feeds[other.get(name, name)] for name in feeds} for feeds in own]
    kernels: Feeds = {}
    if how != "own":
        kernels = {name: own[0][name] for name in KERNELS}
    if how == "stand-in":
        random = np.random.RandomState(SEED)
        for name, kernel in kernels.items():
            kernels[name] = random.uniform(-0.2, 0.2, kernel.shape).astype(np.float32)
    return [{**feeds, **kernels} for feeds in own]


def calibrate_ways(
    models: Mapping[str, onnx.ModelProto], pairs: Sequence[CropPair], ways: Collection[str]
) -> Dict[str, Ranges]:
    """Ranges of every activation of the three FP32 networks by every method, for each of some ways
    to put the xcorr network's set together (XCORR_FEEDS); what the networks before it put out is
    computed once.

    A way other than "own" comes with the bounds of its first feed's kernels channel by channel, for
    recipes that fix the kernels' scales. Raises InputError for an empty or unusable set.
    """
    feeds = network_feeds(models, pairs)
    both = {name: activation_bounds(models[name], feeds[name]) for name in ("target", "search")}
    found: Dict[str, Ranges] = {}
    for way in ways:
        given = xcorr_feeds(feeds["xcorr"], way)
        channels = channel_bounds(given[0]) if way != "own" else {}
        methods = activation_bounds(models["xcorr"], given)
        xcorr = {method: {**bounds, **channels} for method, bounds in methods.items()}
        found[way] = {**both, "xcorr": xcorr}
    return found


def calibration_path(weights: Path) -> Path:
    """Where the ranges that belong to weights are kept: beside them."""
    return weights.with_suffix(".calibration.csv")


def training_ranges(weights: Path) -> Ranges:
    """The ranges kept beside weights. Raises InputError where there are none, or those of other
    weights."""
    return read_ranges(calibration_path(weights), digest(weights.read_bytes()))


def write_ranges(path: Union[str, Path], ranges: Ranges, source: str, weights: str) -> None:
    """Write ranges as CSV. source: where the set came from, in words. weights: digest of the
    weights they belong to."""
    rows = [
        (network, tensor, *(bounds[method][tensor] for method in METHODS))
        for network, bounds in ranges.items()
        for tensor in bounds[METHODS[0]]
    ]
    frame = pd.DataFrame(rows, columns=["network", "tensor", *METHODS])
    head = f"{HEAD}\n# source: {source}\n# weights: {weights}\n"
    write_text(path, head + frame.to_csv(index=False, float_format="%.6g"))


def read_ranges(path: Union[str, Path], weights: str) -> Ranges:
    """Read `write_ranges`'s file. Raises InputError where it is missing, damaged, or of other
    weights."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such calibration file; `siambook calibrate` makes one")
    try:
        lines = read_text(path).splitlines()
        frame = pd.read_csv(path, comment="#")
        ranges = frame[list(METHODS)].to_numpy(float)
        # A channel may be dead, a whole tensor may not
        least = np.where(frame["tensor"].str.endswith("]"), 0, np.finfo(float).tiny)
        sound = lines[0] == HEAD and ((least <= ranges.T) & (ranges.T < WIDEST)).all()
        rows = {str(name): group for name, group in frame.groupby("network")}
    except (ValueError, KeyError, TypeError, IndexError):
        sound = False
    if not sound or set(rows) != set(NETWORKS):
        raise InputError(
            f"{path}: a damaged calibration file; `siambook calibrate` makes a whole one"
        )
    if lines[2] != f"# weights: {weights}":
        raise InputError(f"{path}: made for other weights; run `siambook calibrate` again")
    return {
        name: {method: dict(zip(group["tensor"], group[method])) for method in METHODS}
        for name, group in rows.items()
    }
