"""What is measured: datasets by name, and variants of the tracker (chapter 4).

A variant is one tracker to measure: weights, framework, and a precision for each of its three
networks. A table of chapter 4 is a list of variants; adding a row is adding a variant.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Optional, Sequence, cast

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
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise InputError(
                f"Variant '{self.name}': a name is made of letters, digits, dots, dashes and underscores."
            )
        framework_module(self.framework)
        unknown = [each for each in self.precisions.values() if each not in PRECISIONS]
        if unknown:
            raise InputError(
                f"Variant '{self.name}': unknown precision '{unknown[0]}' (there are {', '.join(PRECISIONS)})."
            )

    @property
    def precisions(self) -> dict[str, str]:
        """Precision by network."""
        return {"target": self.target, "search": self.search, "xcorr": self.xcorr}

    @property
    def precision(self) -> str:
        """ "FP32", or "FP16/FP32/INT8" (target, search, xcorr) where precisions are mixed."""
        names = list(self.precisions.values())
        return "/".join(names if len(set(names)) > 1 else names[:1]).upper()

    @property
    def title(self) -> str:
        """For rows and legends: "OpenVINO INT8"."""
        return f"{FRAMEWORKS[self.framework].title} {self.precision}"


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
    """One mixture of precisions (target, search, xcorr), named after them: "openvino-int8",
    "openvino-fp16-fp32-int8".

    What differs from the usual quantisation is appended to the name.
    """
    names = precisions if len(set(precisions)) > 1 else precisions[:1]
    parts = ("calibration", "method", "recipe") if "int8" in precisions else ()
    given = [getattr(quantisation, part) for part in parts]
    usual = [getattr(USUAL, part) for part in parts]
    unusual = [value for value, other in zip(given, usual) if value != other]
    target, search, xcorr = precisions
    name = "-".join((framework, *names, *unusual))
    return Variant(name, weights, framework, target, search, xcorr, quantisation)


def engines(weights: str, framework: str) -> list[Variant]:
    """Section 4.2, table 4.2: the compiled tracker with all three networks at FP32, FP16 and
    INT8."""
    return [mixture(weights, framework, [precision] * 3) for precision in PRECISIONS]


def mixtures(weights: str, framework: str) -> list[Variant]:
    """Section 4.2.1, table 4.3: all 27 mixtures, those of table 4.2 among them, by search network
    as in the thesis."""
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
    recipes = [
        Quantisation("benchmark", method, recipe)
        for recipe in RECIPES
        for method in (
            ("minmax", "entropy") if recipe in ("standard", "everything") else ("entropy",)
        )
    ]
    plain = mixture(weights, framework, ["fp16"] * 3)
    return [plain, *(mixture(weights, framework, ("fp16", "fp16", "int8"), r) for r in recipes)]


# -- Names to things -------------------------------------------------------------------------------


def open_dataset(name: str, run: Optional[str] = None, progress: bool = True) -> Dataset:
    """The dataset of a profile: "demo" is generated where it is not there yet, anything else is a
    path.

    run: for a recorded one, the dataset as the run has it (`runs.annotated`); then it need not be
    on this machine.
    """
    path = DEMO_DATASET if name == DEMO else ROOT / name  # an absolute path stays what it is
    recorded = run is not None and runs.is_recorded(run, device())
    if name == DEMO:
        make_benchmark(path, progress=progress)
    local = None if recorded and not path.exists() else load_dataset(path)
    if run is None or not recorded:
        return cast(Dataset, local)
    return runs.annotated(run, local.name if local else path.stem, local)


def compiled_framework(framework: str, run: str) -> str:
    """`deploy.choose_framework` for a run of this machine; of a recorded run "auto" is the
    framework that it has measured."""
    if framework != "auto" or not runs.is_recorded(run, device()):
        return choose_framework(framework)
    folder = runs.run_folder(run)
    records = map(runs.read_json, sorted(folder.glob(f"*/*/{MEASURED}")))
    found = Counter(
        str(one["decided_by"]["framework"]).split()[0] for one in records if "decided_by" in one
    )
    found.update(path.stem.partition("-")[0] for path in folder.glob("speed/*.json"))
    del found["pytorch"]
    return found.most_common(1)[0][0] if found else choose_framework(framework)
