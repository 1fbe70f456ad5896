"""The three networks as ONNX files: PyTorch's numbers, PySOT's at full size, one sentence for a
file that is no such network."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from lib.engines import ov  # noqa: E402
from lib.engines.export import (  # noqa: E402
    check_agreement,
    describe,
    export_network,
    properties,
    random_feeds,
    run_onnx,
    save_model,
    shapes,
    to_fp16,
    with_constant_kernels,
)
from lib.engines.quantize import quantisable, to_int8  # noqa: E402
from lib.engines.zoo import DEMO_WEIGHTS  # noqa: E402
from lib.errors import InputError  # noqa: E402
from lib.siamrpn.checkpoint import load_network  # noqa: E402
from lib.siamrpn.network import NetworkConfig, SiamRPN  # noqa: E402
from lib.siamrpn.parts import KERNELS, MAPS, NETWORKS, OUTPUTS, three_networks  # noqa: E402

from .helpers import of_the_range  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BRANCHES = ("cls2", "cls3", "cls4", "loc2", "loc3", "loc4")
KERNEL_SHAPES = {f"kernel_{branch}": (32, 1, 5, 5) for branch in BRANCHES}
MAP_SHAPES = {f"map_{branch}": (1, 32, 29, 29) for branch in BRANCHES}
CONVOLUTIONS = {"target": 62, "search": 62, "xcorr": 12}  # of constant weights

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def network():
    """A small network whose normalisations and shares are those of no fresh one, so that folding
    and fusing can go wrong."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = SiamRPN(NetworkConfig.resnet50(0.125))
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.4, 1.2)
                torch.nn.init.uniform_(module.bias, -0.3, 0.3)
                torch.nn.init.uniform_(module.running_mean, -0.3, 0.3)
                torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    net.rpn_head.cls_weight.data = torch.tensor([0.2, 1.3, -0.5])
    net.rpn_head.loc_weight.data = torch.tensor([1.5, -0.3, 0.2])
    return net.eval()


@pytest.fixture(scope="module")
def models(network):
    return export_network(network)


@pytest.fixture(scope="module")
def demo():
    return load_network(DEMO_WEIGHTS)


def onnx_runtime(model, feeds):
    """Outputs by name, from a session of the test's own."""
    runtime = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(
        zip([value.name for value in runtime.get_outputs()], runtime.run(None, dict(feeds)))
    )


def with_weights(model, name, values):
    """A copy with other values of a weight."""
    copied = copy.deepcopy(model)
    [weight] = [one for one in copied.graph.initializer if one.name == name]
    weight.CopyFrom(onnx.numpy_helper.from_array(values, name))
    return copied


# -- PyTorch to ONNX -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, inputs, outputs",
    [
        ("target", {"exemplar": (1, 3, 127, 127)}, KERNEL_SHAPES),
        ("search", {"search": (1, 3, 255, 255)}, MAP_SHAPES),
        (
            "xcorr",
            {**KERNEL_SHAPES, **MAP_SHAPES},
            {"cls": (1, 10, 25, 25), "loc": (1, 20, 25, 25)},
        ),
    ],
)
def test_the_networks_have_the_names_and_shapes_of_figure_3_9(models, name, inputs, outputs):
    runtime = ort.InferenceSession(
        models[name].SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for expected, found in ((inputs, runtime.get_inputs()), (outputs, runtime.get_outputs())):
        assert [(value.name, tuple(value.shape)) for value in found] == list(expected.items())
        assert {value.type for value in found} == {"tensor(float)"}
    answers = runtime.run(None, random_feeds(name, 32))
    assert {tensor: answer.shape for tensor, answer in zip(outputs, answers)} == outputs
    told = properties(models[name])
    assert (told["network"], told["precision"]) == (name, "fp32")
    assert told["config"] == json.dumps(asdict(NetworkConfig.resnet50(0.125)))


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_runtime_agrees_with_pytorch_within_a_ten_thousandth_of_the_range(
    network, models, demo, name
):
    for net, model, channels in (
        (network, models[name], 32),
        (demo, export_network(demo, [name])[name], 64),
    ):
        feeds = random_feeds(name, channels, seed=5)
        with torch.inference_mode():
            answers = three_networks(net)[name](*map(torch.from_numpy, feeds.values()))
        expected = {tensor: answer.numpy() for tensor, answer in zip(OUTPUTS[name], answers)}
        worst = max(
            of_the_range(own, expected[tensor])
            for tensor, own in onnx_runtime(model, feeds).items()
        )
        assert worst < 1e-4
        assert check_agreement(model, net) < 1e-4


def test_the_three_exported_networks_in_a_row_are_the_whole_network(network, models):
    feeds = {**random_feeds("target", 32), **random_feeds("search", 32)}
    kernels = onnx_runtime(models["target"], {"exemplar": feeds["exemplar"]})
    maps = onnx_runtime(models["search"], {"search": feeds["search"]})
    own = onnx_runtime(models["xcorr"], {**kernels, **maps})
    with torch.inference_mode():
        cls, loc = network(torch.from_numpy(feeds["exemplar"]), torch.from_numpy(feeds["search"]))
    assert of_the_range(own["cls"], cls.numpy()) < 1e-4
    assert of_the_range(own["loc"], loc.numpy()) < 1e-4


@pytest.mark.parametrize("factor", [1.01, np.nan])
def test_a_model_of_other_weights_does_not_pass_for_this_network(network, models, factor):
    weight = max(models["search"].graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    values = onnx.numpy_helper.to_array(weight) * np.float32(factor)
    other = with_weights(models["search"], weight.name, values)
    with pytest.raises(InputError, match="the exported search network differs from PyTorch"):
        check_agreement(other, network)


def test_batch_normalisation_is_part_of_the_convolutions(models):
    for name, model in models.items():
        weights = {weight.name for weight in model.graph.initializer}
        assert not {"BatchNormalization", "Identity"} & {node.op_type for node in model.graph.node}
        constant = [
            node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in weights
        ]
        assert all(node.input[2] in weights for node in constant)
        assert len(constant) == CONVOLUTIONS[name]
        assert set(shapes(model.graph.input)) & weights == set()


def test_the_weighted_sum_inside_xcorr_has_the_trained_weights(network, models):
    feeds = random_feeds("xcorr", 32, seed=2)
    own = onnx_runtime(models["xcorr"], feeds)
    given = {name: torch.from_numpy(value) for name, value in feeds.items()}
    heads = [branch.head for branch in network.rpn_head.branches()]
    with torch.inference_mode():
        levels = [
            head(
                torch.nn.functional.conv2d(
                    given[f"map_{branch}"], given[f"kernel_{branch}"], groups=32
                )
            )
            for head, branch in zip(heads, BRANCHES)
        ]
    for output, first, raw in (("cls", 0, [0.2, 1.3, -0.5]), ("loc", 3, [1.5, -0.3, 0.2])):
        shares = np.exp(raw) / np.exp(raw).sum()
        expected = sum(
            share * level.numpy() for share, level in zip(shares, levels[first : first + 3])
        )
        assert of_the_range(own[output], expected) < 1e-5
        equal_shares = sum(level.numpy() for level in levels[first : first + 3]) / 3
        assert of_the_range(own[output], equal_shares) > 1e-2


def test_operations_and_parameters_are_those_that_pytorch_counts(network, models):
    counter = pytest.importorskip("torch.utils.flop_counter")
    for name, module in three_networks(network).items():
        with counter.FlopCounterMode(display=False) as counted, torch.no_grad():
            module(*map(torch.from_numpy, random_feeds(name, 32).values()))
        integer = to_int8(models[name], dict.fromkeys(quantisable(models[name]), 1.0), ())
        convolutions = [part for part in module.modules() if isinstance(part, torch.nn.Conv2d)]
        parameters = sum(part.weight.numel() + part.out_channels for part in convolutions)
        for model, precision in (
            (models[name], "fp32"),
            (to_fp16(models[name]), "fp16"),
            (integer, "int8"),
        ):
            told = describe(model)
            assert told["gflop"] * 1e9 == pytest.approx(counted.get_total_flops(), rel=1e-9)
            assert told["parameters"] == parameters
            assert (told["network"], told["precision"]) == (name, precision)
            assert told["megabytes"] == model.ByteSize() / 1e6
        correlations = 6 if name == "xcorr" else 0
        assert describe(models[name])["operators"]["Conv"] == CONVOLUTIONS[name] + correlations


# -- Other forms of a model ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_fp16_weights_are_numpys_float16_and_the_computation_is_typed(models, name):
    half = to_fp16(models[name])
    converted = {
        weight.name: onnx.numpy_helper.to_array(weight) for weight in half.graph.initializer
    }
    assert converted
    for weight in models[name].graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        expected = values.astype(np.float16) if values.dtype == np.float32 else values
        assert np.array_equal(converted[weight.name], expected)
        assert converted[weight.name].dtype == expected.dtype
    inferred = onnx.shape_inference.infer_shapes(half, strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    outside = {value.name for value in half.graph.output}
    for node in half.graph.node:
        if node.op_type in ("Conv", "Add", "Relu", "Mul"):
            assert types[node.output[0]] == onnx.TensorProto.FLOAT16
            assert node.output[0] not in outside
    assert shapes(half.graph.input) == shapes(models[name].graph.input)
    assert {
        value.type.tensor_type.elem_type for value in (*half.graph.input, *half.graph.output)
    } == {onnx.TensorProto.FLOAT}


def test_fp16_answers_are_close_to_fp32_and_the_fp32_model_stays_as_it_was(demo):
    model = export_network(demo, ["search"])["search"]
    before = model.SerializeToString(deterministic=True)
    half = to_fp16(model)
    assert model.SerializeToString(deterministic=True) == before
    feeds = random_feeds("search", 64)
    exact, own = onnx_runtime(model, feeds), onnx_runtime(half, feeds)
    differences = [of_the_range(own[tensor], exact[tensor]) for tensor in OUTPUTS["search"]]
    assert 0 < max(differences) < 0.02
    assert half.ByteSize() < 0.55 * model.ByteSize()


@pytest.mark.parametrize("value", [7e4, -7e4, np.inf, np.nan])
def test_a_weight_that_fp16_has_no_number_for_is_named(models, value):
    weight = models["xcorr"].graph.initializer[3]
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] = value
    with pytest.raises(InputError, match=f"FP16: the weights '{weight.name}'"):
        to_fp16(with_weights(models["xcorr"], weight.name, values))


def test_kernels_as_weights_answer_as_kernels_as_inputs_also_for_a_second_target(models):
    first, second = random_feeds("xcorr", 32, seed=1), random_feeds("xcorr", 32, seed=2)
    kernels = [{name: feeds[name] for name in KERNELS} for feeds in (first, second)]
    maps = {name: first[name] for name in MAPS}
    fitted = with_constant_kernels(models["xcorr"], kernels[0])
    assert list(shapes(fitted.graph.input)) == list(MAPS)
    for inside in kernels:
        own = onnx_runtime(with_constant_kernels(fitted, inside), maps)
        theirs = onnx_runtime(models["xcorr"], {**inside, **maps})
        assert all(of_the_range(own[name], theirs[name]) < 1e-6 for name in ("cls", "loc"))
    assert set(KERNELS) <= set(shapes(models["xcorr"].graph.input))


# -- Files -----------------------------------------------------------------------------------------


def test_a_saved_model_is_read_back_as_it_was_at_every_precision(models, tmp_path):
    kernels = {name: np.ones((32, 1, 5, 5), np.float32) for name in KERNELS}
    saved = [
        *models.values(),
        to_fp16(models["search"]),
        with_constant_kernels(models["xcorr"], kernels),
        to_int8(models["xcorr"], dict.fromkeys(quantisable(models["xcorr"]), 1.0)),
    ]
    paths = [tmp_path / "new" / f"{index}.onnx" for index in range(len(saved))]
    for model, path in zip(saved, paths):
        assert onnx.load(str(save_model(model, path))) == model
    assert sorted((tmp_path / "new").iterdir()) == paths


def test_a_file_of_others_is_not_replaced(models, tmp_path):
    path = save_model(models["xcorr"], save_model(models["xcorr"], tmp_path / "xcorr.onnx"))
    path.write_text("notes")
    with pytest.raises(InputError, match="was not made by this command"):
        save_model(models["xcorr"], path)
    assert path.read_text() == "notes"


def test_where_a_model_cannot_be_written_nothing_is_left(models, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        save_model(models["xcorr"], tmp_path / "file" / "xcorr.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_one_sentence_with_the_command(network, models, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{package}: pip install -e '\.\[engines\]'"):
        export_network(network, ["xcorr"]) if package == "onnx" else run_onnx(
            models["xcorr"], random_feeds("xcorr", 32)
        )


# -- Full size -------------------------------------------------------------------------------------

EXPORT = """
import json, resource, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
import rules
from lib.engines.export import export_network, save_model
from lib.siamrpn.network import NetworkConfig, SiamRPN
entries = json.loads((Path(sys.argv[1]) / "state_dict.json").read_text())["entries"]
network = SiamRPN(NetworkConfig.resnet50())
network.load_state_dict({name: torch.from_numpy(rules.weight(name, shape)) for name, shape, _ in entries})
for name, model in export_network(network).items():
    save_model(model, Path(sys.argv[2]) / f"{name}.onnx")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.fixture(scope="module")
def full_size(shared, tmp_path_factory):
    """The full network with the weights of PySOT's fixtures, exported in its own process: folder,
    bytes of memory."""
    folder = tmp_path_factory.mktemp("full")
    done = subprocess.run(
        [sys.executable, "-c", EXPORT, str(shared / "pysot_parity"), str(folder)],
        cwd=str(ROOT),
        check=True,
        capture_output=True,
        text=True,
    )
    return folder, int(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="ru_maxrss is in kilobytes on Linux only")
def test_the_full_model_exports_in_under_four_gigabytes(full_size):
    folder, memory = full_size
    assert 4e8 < memory < 4e9  # more than the weights themselves, which says that it was measured
    described = {name: describe(onnx.load(str(folder / f"{name}.onnx"))) for name in NETWORKS}
    assert described["search"]["outputs"] == {
        f"map_{branch}": (1, 256, 29, 29) for branch in BRANCHES
    }
    # ../shared/pysot_parity/README.md: 97.6 GFLOP a search frame, 21.3 GFLOP a template
    assert described["search"]["gflop"] + described["xcorr"]["gflop"] == pytest.approx(
        97.6, rel=0.01
    )
    assert described["target"]["gflop"] == pytest.approx(21.3, rel=0.01)


@pytest.mark.slow
def test_the_exported_full_network_gives_pysots_numbers_in_onnx_runtime_and_openvino(
    full_size, shared, monkeypatch
):
    monkeypatch.syspath_prepend(str(shared / "pysot_parity"))
    import rules

    reference = np.load(shared / "pysot_parity" / "forward.npz")
    exemplar, search = rules.inputs()
    folder = full_size[0]

    def in_runtime(name, feeds):
        return onnx_runtime(onnx.load(str(folder / f"{name}.onnx")), feeds)

    def in_openvino(name, feeds):
        engine = ov.build((folder / f"{name}.onnx").read_bytes(), name, "fp32")
        return engine.keep(engine(feeds))

    for run in (in_runtime, in_openvino):
        own = run(
            "xcorr", {**run("target", {"exemplar": exemplar}), **run("search", {"search": search})}
        )
        assert of_the_range(own["cls"], reference["cls"]) < 1e-4
        assert of_the_range(own["loc"], reference["loc"]) < 1e-4
