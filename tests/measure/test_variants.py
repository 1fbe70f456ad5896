"""What can be measured: names that tell variants apart, and what cannot be said in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib.engines import zoo
from lib.engines.deploy import Quantisation
from lib.errors import InputError
from lib.measure import everything, keys, latency, layers, pruned, runs, variants
from lib.measure.variants import Variant
from lib.siamrpn.tracker import TrackerConfig


def test_variants_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="unknown framework 'tensorflow'"):
        Variant("x", framework="tensorflow")
    with pytest.raises(InputError, match=r"'x': unknown precision 'fp8' \(there are fp32"):
        Variant("x", search="fp8")
    assert Variant("x", target="fp16", search="int8").precision == "FP16/INT8/FP32"


def test_a_name_says_the_precisions_and_what_is_unusual() -> None:
    def named(*precisions: str, **how: str) -> str:
        return variants.mixture("demo", "openvino", precisions, Quantisation(**how)).name

    assert named("int8", "int8", "int8") == "openvino-int8"
    assert named("fp16", "fp32", "int8") == "openvino-fp16-fp32-int8"
    assert named("int8", "int8", "int8", calibration="benchmark", method="minmax") == (
        "openvino-int8-benchmark-minmax"
    )
    assert named("fp32", "fp32", "fp32", method="minmax") == "openvino-fp32", "only INT8 has ranges"


@pytest.mark.parametrize("framework", ["openvino", "tensorrt"])
def test_every_variant_of_the_book_is_there_once_under_a_name_of_its_own(framework: str) -> None:
    every = everything.every_variant("demo", framework)
    assert len({variant.name for variant in every}) == len(every)
    lists = [variants.baseline("demo"), variants.mixtures("demo", framework)]
    lists += [variants.engines("demo", framework), variants.calibrations("demo", framework)]
    lists += [variants.xcorr_recipes("demo", framework)]
    lists += [pruned.variants(tracker, framework) for tracker in pruned.trackers()]
    lists += [layers.steps("demo", framework), latency.trackers(framework)]
    assert {variant for part in lists for variant in part} == set(every)
    assert len(variants.mixtures("demo", framework)) == 27


def test_the_framework_of_a_recorded_run_is_what_it_measured() -> None:
    folder = runs.run_folder("recorded-variants")
    results = folder / "VOT2018" / "pytorch-fp32"
    results.mkdir(parents=True)
    (folder / "environment.json").write_text(json.dumps({"hardware": {"processor": "abacus"}}))
    record = {"decided_by": {"framework": "pytorch 2.1"}}
    (results / variants.MEASURED).write_text(json.dumps(record))
    here = variants.choose_framework("auto")
    assert variants.compiled_framework("auto", folder.name) == here, "PyTorch is in every run"
    (folder / "speed").mkdir()
    (folder / "speed" / "tensorrt-whole.json").write_text("{}")
    assert variants.compiled_framework("auto", folder.name) == "tensorrt"
    assert variants.compiled_framework("openvino", folder.name) == "openvino"


def test_a_dataset_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Dataset .*nowhere does not exist"):
        variants.open_dataset(str(tmp_path / "nowhere"), "local")


# -- Settings of the tracker -----------------------------------------------------------------------


@pytest.mark.parametrize("text", ["window: [1", "windw: 0.4", "window: wide", "- 0.4"])
def test_faulty_settings_of_the_tracker_are_named(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "DEMO_SETTINGS", tmp_path / "tracker.yaml")
    (tmp_path / "tracker.yaml").write_text(text)
    fault = r"tracker\.yaml: (not readable|unknown tracker setting|window should be)"
    with pytest.raises(InputError, match=fault):
        zoo.tracker_config("demo")


def test_settings_belong_to_the_weights_beside_them(tmp_path: Path) -> None:
    assert keys.settings(Variant("x", str(tmp_path / "any.pth"))) == TrackerConfig()
    (tmp_path / "tracker.yaml").write_text("penalty: 0.1\nwindow: 0.3\nrate: 0.5\n")
    assert keys.settings(Variant("x", str(tmp_path / "any.pth"))) == TrackerConfig(0.1, 0.3, 0.5)
    assert keys.settings(Variant("x")) == zoo.tracker_config("demo")
