"""Which layers need 16 bits: losses and costs of groups, and the order that the search takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib import cli
from lib.engines.quantize import GROUPS
from lib.errors import InputError
from lib.measure import layers, speed

pytest.importorskip("openvino")


def test_a_change_is_a_mean_with_the_interval_of_its_sequences() -> None:
    random = np.random.RandomState(1)
    one, other = random.uniform(size=(2, 200))
    value, low, high = layers.gain(one, other)
    error = (one - other).std() / np.sqrt(200)
    assert value == pytest.approx((one - other).mean())
    assert (low, high) == pytest.approx((value - 1.96 * error, value + 1.96 * error), abs=0.006)
    assert layers.gain(one, one) == (0, 0, 0)


def test_groups_that_lose_most_for_a_millisecond_go_first() -> None:
    found = pd.DataFrame(
        {
            "int8": [-0.01, -0.01, 0.02, -0.001],
            "fp16_ms": [5.0, 3.0, 9.0, 1.0],
            "int8_ms": [3.0, 2.0, 1.0, 1.0],
        }
    )
    # 0.005 and 0.01 a millisecond, a gain, and one that costs nothing
    assert layers.rank(found).tolist() == [3, 2, 4, 1]


SOME = ("stem", "stage 4", "heads")


def test_the_command_measures_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(layers, "full_size_network", lambda: speed.full_size_network(1 / 8))
    monkeypatch.setattr(
        layers, "GROUPS", {name: GROUPS[name] for name in SOME}
    )  # all take a minute
    out = tmp_path / "layers.csv"
    assert cli.main(["layers", "--sequences", "2", "--workers", "2", "--out", str(out)]) == 0
    found, where = layers.read(out)
    assert found["group"].tolist() == [*SOME] and "OpenVINO" in where
    assert sorted(found["order"]) == [1, 2, 3]
    changes = found[["int8_low", "int8", "int8_high"]].to_numpy()
    assert (np.diff(changes) >= 0).all() and (np.abs(changes) < 1).all()
    assert (found["int8"] != 0).any() and (found["fp16"].abs() < 0.05).all()
    assert (found["int8_ms"] > 0).all()
    assert capsys.readouterr().out.count("stage 4") == 1


def test_the_book_measures_steps_of_the_search() -> None:
    order = layers.read()[0].sort_values("order")["group"].tolist()
    found = layers.steps("demo", "openvino")
    assert [layers.kept(one) for one in found] == [order[:count] for count in layers.STEPS]
    assert len({one.name for one in found}) == len(layers.STEPS)


def test_a_table_that_is_not_there_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="siambook layers"):
        layers.read(tmp_path / "none.csv")
