"""The published tracker, for table 4.1: PySOT's raw results on VOT2018, evaluated by the code that
evaluates this machine's."""

from __future__ import annotations

from typing import Mapping

import pandas as pd

from lib.files import ROOT
from lib.vot.dataset import load_dataset
from lib.vot.metrics import Evaluation, columns, evaluate
from lib.vot.results import read_results

PUBLISHED = "SiamRPNpp_R50"  # PySOT's siamrpn_r50_l234_dwxcorr, as its raw results' folder is named


def evaluations(folder: str | None, tracker: str = PUBLISHED) -> dict[str, Evaluation]:
    """Published raw results evaluated here, by label; `folder` has VOT2018.json and
    results/<tracker>, or is None: empty."""
    if not folder:
        return {}
    dataset = load_dataset(ROOT / folder / "VOT2018.json")
    return {
        "published raw results": evaluate(
            dataset, read_results(ROOT / folder / "results" / tracker, dataset)
        )
    }


def rows(evaluations: Mapping[str, Evaluation]) -> pd.DataFrame:
    """Lines for table 4.1 from `evaluations`."""
    return pd.DataFrame(
        [
            {
                "row": "published",
                "framework": "PyTorch",
                "hardware": f"{label}, evaluated now",
                "dataset": evaluation.dataset,
                **columns(evaluation),
            }
            for label, evaluation in evaluations.items()
        ]
    )


def about(folder: str | None, tracker: str = PUBLISHED) -> str:
    """Where the published row was computed from, or how to have it computed."""
    if folder:
        return (
            f"The row of published raw results is computed from `results/{tracker}` in `{folder}`, PySOT's answers with "
            "`siamrpn_r50_l234_dwxcorr` on VOT2018, by the same code as the measured row."
        )
    return (
        "No raw results of VOT2018 were given, so the published row is the paper's. Given a folder with `VOT2018.json` "
        "(annotations in PySOT's format, as in github.com/MegviiDetection/video_analyst) and "
        f"`results/{tracker}/baseline/<sequence>/<sequence>_001.txt` (raw results of PySOT's `siamrpn_r50_l234_dwxcorr`, "
        "as in github.com/whjzsy/SiamTrackers), the row is computed with its intervals: "
        "`papermill notebooks/04_1_baseline.ipynb out.ipynb --cwd notebooks -p vot2018_results FOLDER`."
    )
