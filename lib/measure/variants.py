"""What is measured: variants of the tracker, and datasets by name (chapter 4).

A table of chapter 4 is a list of variants; adding a row is adding a variant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

from lib.demo import make_benchmark
from lib.engines.deploy import (
    FRAMEWORKS,
    RECIPES,
    USUAL,
    Quantisation,
    choose_framework,
    framework_module,
)
from lib.engines.quantize import METHODS
from lib.engines.zoo import DEMO
from lib.environment import device
from lib.errors import InputError
from lib.files import ROOT
from lib.measure import runs
from lib.siamrpn.contract import PRECISIONS
from lib.vot.dataset import Dataset, load_dataset

DEMO_DATASET = ROOT / "data" / "cache" / "demo-benchmark"  # what `dataset: demo` means
MEASURED = "measured.json"  # of a variant: all that decided its results


@dataclass(frozen=True)
class Variant:
    """One tracker to measure. name: of its folder and row. weights: "demo" or a path, relative to
    the repository or absolute.

    framework: a key of deploy.FRAMEWORKS. target, search, xcorr: precision of the three networks of
    figure 3.9. quantisation: of those in INT8.
    """

    name: str
    weights: str = DEMO
    framework: str = "pytorch"
    target: str = "fp32"
    search: str = "fp32"
    xcorr: str = "fp32"
    quantisation: Quantisation = USUAL

    def __post_init__(self) -> None:
        framework_module(self.framework)
        for precision in self.precisions.values():
            if precision not in PRECISIONS:
                known = ", ".join(PRECISIONS)
                raise InputError(
                    f"Variant '{self.name}': unknown precision '{precision}' (there are {known})."
                )

    @property
    def precisions(self) -> dict[str, str]:
        return {"target": self.target, "search": self.search, "xcorr": self.xcorr}

    @property
    def precision(self) -> str:
        """ "FP32", or "FP16/FP32/INT8" (target, search, xcorr) where precisions are mixed."""
        return "/".join(_once(list(self.precisions.values()))).upper()

    @property
    def title(self) -> str:
        """For rows and legends: "OpenVINO INT8"."""
        return f"{FRAMEWORKS[self.framework].title} {self.precision}"


def _once(precisions: Sequence[str]) -> Sequence[str]:
    """One precision in place of three equal ones."""
    return precisions if len(set(precisions)) > 1 else precisions[:1]


# -- Lists of variants -----------------------------------------------------------------------------


def baseline(weights: str) -> list[Variant]:
    """Section 4.1: the tracker as PySOT runs it."""
    return [Variant("pytorch-fp32", weights)]


def mixture(
    weights: str,
    framework: str,
    precisions: Sequence[str],
    quantisation: Quantisation = USUAL,
) -> Variant:
    """One mixture of precisions (target, search, xcorr), named after them and what differs from the
    usual quantisation: "openvino-int8-benchmark", "openvino-fp16-fp32-int8"."""
    parts = ("calibration", "method", "recipe") if "int8" in precisions else ()
    unusual = [
        getattr(quantisation, part)
        for part in parts
        if getattr(quantisation, part) != getattr(USUAL, part)
    ]
    kept = ["keeps", *quantisation.kept] if quantisation.kept else []
    name = "-".join((framework, *_once(precisions), *unusual, *kept)).replace(" ", "")
    target, search, xcorr = precisions
    return Variant(name, weights, framework, target, search, xcorr, quantisation)


def engines(weights: str, framework: str) -> list[Variant]:
    """Table 4.2: the compiled tracker with all three networks at FP32, FP16 and INT8."""
    return [mixture(weights, framework, [precision] * 3) for precision in PRECISIONS]


def mixtures(weights: str, framework: str) -> list[Variant]:
    """Table 4.3: all 27 mixtures, those of table 4.2 among them, in the thesis's order."""
    return [
        mixture(weights, framework, (target, search, xcorr))
        for search in PRECISIONS
        for xcorr in PRECISIONS
        for target in PRECISIONS
    ]


def calibrations(weights: str, framework: str) -> list[Variant]:
    """Section 4.2: INT8 networks, calibrated by every method on training data and on the frames
    that are tested."""
    return [
        mixture(weights, framework, ["int8"] * 3, Quantisation(calibration, method))
        for calibration in ("training", "benchmark")
        for method in METHODS
    ]


def xcorr_recipes(weights: str, framework: str) -> list[Variant]:
    """Section 4.2.1: an INT8 xcorr network between FP16 ones, by every recipe, with ranges by
    entropy.

    Two recipes also have ranges by the largest value, which shows what clipping does: the one that
    this book uses, and the one that quantises everything.
    """
    both = ("standard", "everything")
    ways = [
        Quantisation("benchmark", method, recipe)
        for recipe in RECIPES
        for method in (("minmax", "entropy") if recipe in both else ("entropy",))
    ]
    plain = mixture(weights, framework, ["fp16"] * 3)
    return [plain, *(mixture(weights, framework, ("fp16", "fp16", "int8"), way) for way in ways)]


# -- Names to things -------------------------------------------------------------------------------


def open_dataset(name: str, run: str | None = None, leave_out: bool = False) -> Dataset:
    """The dataset of a profile: "demo" is generated where it is not there yet, anything else is a
    path.

    run: for a recorded one, the dataset as the run has it (`runs.dataset_of`); then it need not be
    on this machine. leave_out: of `load_dataset`.
    """
    path = DEMO_DATASET if name == DEMO else ROOT / name  # an absolute path stays what it is
    if name == DEMO:
        make_benchmark(path, progress=True)
    if run is None or not runs.is_recorded(run, device()):
        return load_dataset(path, leave_out)
    local = load_dataset(path, leave_out) if path.exists() else None
    return runs.dataset_of(run, local.name if local else path.stem, local)


def compiled_framework(framework: str, run: str) -> str:
    """`deploy.choose_framework` for a run of this machine; of a recorded run "auto" is the
    framework that it has measured."""
    if framework == "auto" and runs.is_recorded(run, device()):
        folder = runs.run_folder(run)
        for name in ("tensorrt", "openvino"):
            if [*folder.glob(f"*/{name}-*/{MEASURED}"), *folder.glob(f"speed/{name}-*.json")]:
                return name
    return choose_framework(framework)
