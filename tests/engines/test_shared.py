"""A search engine that several variants share: the same answers, and a clock that is charged for what another one computed."""
from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.engines.shared import SharedEngine

SECONDS = 0.03


class Slow:
    """An engine that takes its time and reuses its output's memory, as OpenVINO does."""

    precision = "fp32"

    def __init__(self) -> None:
        self.calls, self.output = 0, np.zeros(3, np.float32)

    def __call__(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.calls += 1
        time.sleep(SECONDS)
        self.output[:] = feeds["search"].sum()
        return {"map": self.output}

    def keep(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: tensor.copy() for name, tensor in tensors.items()}


def crop(value: float) -> dict[str, np.ndarray]:
    found = np.zeros((1, 3, 32, 32), np.float32)
    found[0, 1, 5, 7] = value  # none of the pixels that a crop is found by
    return {"search": found}


def timed(engine: SharedEngine, feeds: dict[str, np.ndarray]) -> tuple[float, float]:
    begin = engine.clock()
    answer = engine(feeds)
    return float(answer["map"][0]), engine.clock() - begin


def test_the_same_crop_is_computed_once_and_charged_every_time() -> None:
    slow = Slow()
    engine = SharedEngine(slow)  # type: ignore[arg-type]
    first, second = timed(engine, crop(1)), timed(engine, crop(2))
    begin = time.perf_counter()
    again = timed(engine, crop(1))
    assert time.perf_counter() - begin < SECONDS / 2, "answered from memory"
    assert (first[0], second[0], again[0]) == (1, 2, 1), "crops that differ in one pixel are two"
    assert slow.calls == 2 and engine.hits == 1 and engine.precision == "fp32"
    assert again[1] == pytest.approx(first[1], abs=0.005) and first[1] >= SECONDS


def test_what_is_forgotten_is_computed_again_and_memory_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()
    engine = SharedEngine(slow)  # type: ignore[arg-type]
    engine(crop(1))
    engine.forget()
    engine(crop(1))
    assert slow.calls == 2
    monkeypatch.setattr("lib.engines.shared.MOST_BYTES", 1)
    engine(crop(2)), engine(crop(2))
    assert slow.calls == 4 and engine.hits == 0


def test_variants_measured_together_have_the_results_that_they_have_alone(small: Path, tmp_path: Path) -> None:
    experiments: Any = pytest.importorskip("lib.experiments", reason="PyTorch is missing")
    pytest.importorskip("openvino")
    from lib.chapters import ch04_engines
    from lib.vot.dataset import load_dataset

    dataset = load_dataset(small)
    precisions = [("fp32", "fp32", "fp32"), ("fp32", "fp32", "fp16"), ("fp16", "fp32", "fp32")]
    variants = [experiments.mixture("demo", "openvino", *each) for each in precisions]
    together = experiments.measure(variants, dataset, str(tmp_path / "together"), progress=False)
    assert together[0].shared == 0 and together[1].shared > 0
    assert f"{together[1].shared + together[2].shared:,} (" in ch04_engines.sharing(together)
    assert ch04_engines.sharing(together[:1]) == "Every variant searched every frame itself."
    for variant, one in zip(variants, together):
        [alone] = experiments.measure([variant], dataset, str(tmp_path / "alone"), progress=False)
        assert alone.shared == 0
        for ours, theirs in zip(one.trajectories.values(), alone.trajectories.values()):
            assert len(ours) == len(theirs)
            assert all(np.array_equal(a, b) for a, b in zip(ours.entries, theirs.entries)), variant.name
            times = [np.median(each.seconds[1:]) for each in (ours, theirs)]
            assert 0.4 < times[0] / times[1] < 2.5, "shared work counts"
