"""CURL: parameter counts, scores against whole forward passes, choice, and the network without the
channels that go."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lib import cli, pruning
from lib.engines.zoo import DEMO_WEIGHTS
from lib.errors import InputError
from lib.measure import pruned
from lib.pruning.scores import run_and_count
from lib.siamrpn.checkpoint import load_network, save_weights
from lib.siamrpn.network import NetworkConfig, SiamRPN, parameter_count
from lib.training.classify import Classifier, ClassifyConfig, load_classifier

pytestmark = pytest.mark.usefixtures("one_thread")
FULL, TINY = NetworkConfig.resnet50(), NetworkConfig.resnet50(1 / 8)


def random_scores(config: NetworkConfig) -> pruning.Scores:
    random = np.random.RandomState(0)
    return {
        name: random.exponential(size=count) for name, count in pruning.mask_layers(config).items()
    }


def awake(network: torch.nn.Module) -> torch.nn.Module:
    """Batch normalisation as after training: no two channels alike, no residual branch silent."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            lows = (
                (module.weight, 0.5),
                (module.bias, -0.3),
                (module.running_mean, -0.2),
                (module.running_var, 0.5),
            )
            for tensor, low in lows:
                tensor.data.copy_(low + torch.rand(tensor.shape, generator=generator))
    return network.eval()


@torch.inference_mode()
def largest_difference(network: Any, small: Any, keep: dict, *inputs: torch.Tensor) -> float:
    """Between the masked and the cut network's outputs, as a share of each output's range."""
    theirs, ours = pruning.masked(network, keep).eval()(*inputs), small.eval()(*inputs)
    pairs = [(theirs, ours)] if isinstance(ours, torch.Tensor) else zip(theirs, ours)
    return max(float((a - b).abs().max() / (a.max() - a.min())) for a, b in pairs)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    return awake(Classifier(TINY, 10))


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.rand(4, 3, 71, 71, generator=torch.Generator().manual_seed(1)) * 255


def test_the_full_backbone_is_the_thesiss():
    assert pruning.backbone_parameters(FULL) == 45_528_128
    assert sum(pruning.mask_layers(FULL).values()) == 11_392
    crop = torch.zeros(1, 3, 255, 255, device="meta")
    features, flop = run_and_count(SiamRPN(FULL).backbone.to("meta"), crop)
    assert features[2].shape == (1, 2048, 31, 31) and flop == pytest.approx(89.2e9, rel=1e-3)


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        NetworkConfig.resnet50(0.25),
        pruning.cut_config(
            TINY, {name: 3 + index % 4 for index, name in enumerate(pruning.mask_layers(TINY))}
        ),
    ],
)
def test_parameters_from_channel_counts_are_the_networks(config):
    assert pruning.backbone_parameters(config) == parameter_count(SiamRPN(config).backbone)


@pytest.mark.parametrize(
    "layer",
    [
        "layer1.0.conv1",
        "layer2.0.conv2",
        "layer2.sum",
        "layer3.4.conv1",
        "layer4.2.conv2",
        "layer4.sum",
    ],
)
def test_a_score_is_the_divergence_of_whole_forward_passes(classifier, pictures, layer):
    found = pruning.Scorer(classifier, pictures).score(layer)
    assert len(found) == pruning.mask_layers(TINY)[layer]
    for channel in (0, len(found) - 1):
        keep = {name: np.ones(count, bool) for name, count in pruning.mask_layers(TINY).items()}
        keep[layer][channel] = False
        with torch.inference_mode():
            networks = (classifier, pruning.masked(classifier, keep))
            p, q = (torch.softmax(network(pictures).double(), 1) for network in networks)
        divergence = float((p * (p / q).log()).sum(1).mean())
        assert found[channel] == pytest.approx(divergence, abs=1e-6, rel=1e-3)
    assert found.max() > 0


def test_first_order_estimates_rank_as_exact_scores_do():
    demo = load_classifier(DEMO_WEIGHTS, 64)
    with torch.no_grad():
        demo.fc.weight.mul_(10)  # an untrained layer is sure of nothing
    pictures = torch.rand(2, 3, 63, 63, generator=torch.Generator().manual_seed(0)) * 255
    layers = ["layer3.5.conv2", "layer4.1.conv1", "layer4.2.conv2"]
    scorer = pruning.Scorer(demo, pictures)
    quick = pruning.fisher_scores(demo, pictures.repeat(8, 1, 1, 1))
    exact = {name: scorer.score(name) for name in layers}
    assert pruning.rank_correlation(exact, {name: quick[name] for name in layers}) > 0.5


def test_rank_correlation_is_spearmans():
    one = {"a": np.array([1.0, 2, 3]), "b": np.array([10.0])}
    reverse = {"a": np.array([9.0, 8, 7]), "b": np.array([1.0])}
    assert pruning.rank_correlation(one, one) == pytest.approx(1)
    assert pruning.rank_correlation(one, reverse) == pytest.approx(-1)


def test_the_best_k_stay_and_the_minimum_of_every_layer():
    scores = {"a": np.array([5.0, 1, 2, 3]), "b": np.array([0.1, 0.2, 0.3, 0.4])}
    keep = pruning.keep_best(scores, 2)
    assert keep["a"].tolist() == [True, False, False, True]
    assert keep["b"].tolist() == [False, False, True, True]  # two of four: 0.3 rounds up
    assert pruning.counts(pruning.keep_best(scores, 8)) == {"a": 4, "b": 4}


@pytest.mark.parametrize("target", [30e6, 22.5e6, 12e6])
def test_bisection_reaches_the_thesiss_sizes_within_one_percent(target):
    choice = pruning.choose(FULL, random_scores(FULL), int(target))
    assert choice.size == pytest.approx(target, rel=0.01)
    small = pruning.cut_config(FULL, pruning.counts(choice.keep))
    assert choice.size == pruning.backbone_parameters(small)
    assert min(stays.mean() for stays in choice.keep.values()) >= 0.3


def test_channels_in_multiples_are_the_best_of_every_layer():
    scores = random_scores(FULL)
    plain = pruning.choose(FULL, scores, 12_000_000)
    filled = pruning.choose(FULL, scores, 12_000_000, multiple=32)
    assert any(stays.sum() % 32 for stays in plain.keep.values())
    assert filled.size == pytest.approx(12e6, rel=0.02)
    for name, stays in filled.keep.items():
        assert stays.sum() % 32 == 0 and stays.sum() >= 0.3 * len(stays)
        assert scores[name][stays].min() >= scores[name][~stays].max(initial=-np.inf), name


def test_an_impossible_target_names_the_smallest_network():
    said = r"1,000 parameters cannot be reached.*has ([\d,]+) to 45,528,128"
    with pytest.raises(InputError, match=said):
        pruning.choose(FULL, random_scores(FULL), 1000)


def test_the_cut_tracker_computes_what_the_masked_one_computes():
    torch.manual_seed(0)
    tracker = awake(SiamRPN(TINY))
    size = round(0.4 * pruning.backbone_parameters(TINY))
    keep = pruning.choose(TINY, random_scores(TINY), size).keep
    small = pruning.cut_network(tracker, keep)
    crops = torch.rand(1, 3, 127, 127) * 255, torch.rand(1, 3, 255, 255) * 255
    assert largest_difference(tracker, small, keep, *crops) < 1e-5
    assert parameter_count(small.backbone) < 0.42 * parameter_count(tracker.backbone)
    other = {name: stays.copy() for name, stays in keep.items()}
    other["layer3.sum"] = ~other["layer3.sum"]
    # The comparison can fail
    assert largest_difference(tracker, small, other, *crops) > 1e-2


def test_the_cut_demo_tracker_and_classifier_compute_what_the_masked_ones_compute():
    tracker, classifier = load_network(DEMO_WEIGHTS), load_classifier(DEMO_WEIGHTS, 64)
    keep = pruned.choices()[0.26].keep
    crops = torch.rand(1, 3, 127, 127) * 255, torch.rand(1, 3, 255, 255) * 255
    for network, inputs in ((tracker, crops), (classifier, crops[:1])):
        small = pruning.cut_network(network, keep)
        assert largest_difference(network, small, keep, *inputs) < 1e-5


def test_scores_go_on_where_they_stopped(tmp_path):
    torch.manual_seed(0)
    weights, path = tmp_path / "classifier.pth", tmp_path / "scores.csv"
    save_weights(weights, awake(Classifier(NetworkConfig.resnet50(1 / 16), 64)).state_dict())
    config = ClassifyConfig(size=63)
    whole = pruning.score_file(weights, config, 2, path)
    head, titles, first, *rest = path.read_text().splitlines()
    layer, channel, _ = first.split(",")
    kept = [head, titles, f"{layer},{channel},7", *rest]
    path.write_text("\n".join(kept[: 2 + len(whole[layer])]) + "\n")
    again = pruning.score_file(weights, config, 2, path)
    assert again[layer][int(channel)] == 7  # not scored again
    again[layer][int(channel)] = whole[layer][int(channel)]
    for name, scores in whole.items():
        np.testing.assert_allclose(again[name], scores, rtol=1e-5)
    assert pruning.read_scores(path, NetworkConfig.resnet50(1 / 16)).keys() == whole.keys()
    with pytest.raises(InputError, match="scored with other weights or pictures"):
        pruning.score_file(weights, config, 3, path)


HEAD = "# x\nlayer,channel,score\n"


@pytest.mark.parametrize(
    "text, reason",
    [
        ("not a table", "not all of them"),
        (f"{HEAD}layer1.0.conv1,0,1\n", "another network, or not all"),
        (f"{HEAD}layer1.0.conv1,0,nan\n", "another network, or not all"),
        (f"{HEAD}layer1.0.conv1,0\n", "not a file of channel scores"),
    ],
)
def test_scores_that_are_none_are_refused(tmp_path, text, reason):
    path = tmp_path / "scores.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=reason):
        pruning.read_scores(path, TINY)


def test_scores_of_another_network_are_refused(tmp_path):
    pruning.write_scores(tmp_path / "scores.csv", random_scores(NetworkConfig.resnet50(0.25)), "x")
    with pytest.raises(InputError, match="another network"):
        pruning.read_scores(tmp_path / "scores.csv", TINY)


def test_the_full_size_networks_of_the_book_have_the_thesiss_sizes():
    for size, config in pruned.full_configs().items():
        assert pruning.backbone_parameters(config) == pytest.approx(size, rel=0.01)
        assert config.stem == 64 and config.rpn == 256
    smallest = pruned.FULL_SIZES[-1]
    filled = pruned.full_configs(pruned.VECTOR)[smallest]
    assert pruning.backbone_parameters(filled) == pytest.approx(smallest, rel=0.01)
    assert not any(count % pruned.VECTOR for count in pruning.mask_layers(filled).values())
    multiples = [multiple for multiple, _ in pruned.timed_configs()]
    assert multiples == [1, 1, 1, 1, pruned.VECTOR]


def test_the_command_cuts_a_tracker_and_says_what_is_left(tmp_path, capsys):
    out = tmp_path / "cut.pth"
    arguments = ["prune", "cut", "--weights", "demo", "--out", str(out)]
    assert cli.main([*arguments, "--scores", str(pruned.SCORES), "--parameters", "0.5"]) == 0
    assert "backbone of 1,4" in capsys.readouterr().out
    assert parameter_count(load_network(out).backbone) == pytest.approx(0.5 * 2_857_232, rel=0.01)
    assert cli.main(arguments) == 2
    assert "needs --scores, and --parameters or --latency" in capsys.readouterr().err
    assert cli.main([*arguments, "--scores", str(pruned.SCORES), "--parameters", "1000"]) == 2
    assert "cannot be reached" in capsys.readouterr().err


def test_the_command_scores_quickly(tmp_path, capsys):
    torch.manual_seed(0)
    weights, out = tmp_path / "classifier.pth", tmp_path / "scores.csv"
    save_weights(weights, awake(Classifier(TINY, 64)).state_dict())
    line = ["prune", "score", "--weights", str(weights), "--quick", "--pictures", "2"]
    assert cli.main([*line, "--out", str(out)]) == 0
    assert set(pruning.read_scores(out, TINY)) == set(pruning.mask_layers(TINY))
    assert "1424 scores" in capsys.readouterr().out


def test_a_pruned_network_is_calibrated_and_quantised_like_any_other():
    """Channel counts that are no multiple of a vector's length, which ONNX Runtime's layouts
    stumble over."""
    from lib.engines.export import export_network, random_feeds
    from lib.engines.quantize import activation_bounds, to_int8

    torch.manual_seed(0)
    tracker = awake(SiamRPN(NetworkConfig.resnet50(0.25)))
    keep = pruned.choices()[0.26].keep
    small = pruning.cut_network(tracker, keep)
    model = export_network(small, ["search"])["search"]
    bounds = activation_bounds(model, [random_feeds("search", small.config.rpn)])
    int8 = to_int8(model, bounds["minmax"])
    assert sum(node.op_type == "QuantizeLinear" for node in int8.graph.node) > 40
    assert int8.ByteSize() < 0.4 * model.ByteSize()
