"""The steps of `siambook prune`, from its options to files."""

from __future__ import annotations

import argparse
from pathlib import Path

from lib import pruning
from lib.engines.pytorch import usable_device
from lib.engines.zoo import FOLDER, weights_path
from lib.errors import InputError
from lib.pruning.recalibrate import recalibrate
from lib.siamrpn.checkpoint import load_network, save_weights
from lib.siamrpn.network import NetworkConfig
from lib.training import classify, loop
from lib.training.pairs import training_pairs
from lib.training.pictures import open_pictures
from lib.training.tracker import load_config


def take_step(options: argparse.Namespace) -> str:
    """Do the step that `options.action` names; returns what was written (lib/cli.py)."""
    steps = {"score": _score, "cut": _cut, "recalibrate": _recalibrate}
    return steps.get(options.action, _train_classifier)(options, weights_path(options.weights))


def _config(options: argparse.Namespace, usual: str) -> Path:
    return Path(options.config or FOLDER / "pruning" / usual)


def _score(options: argparse.Namespace, weights: Path) -> str:
    scores = pruning.score_file(
        weights,
        classify.load_classify_config(_config(options, "head.yaml")),
        options.pictures,
        Path(options.out),
        options.precision,
        options.quick,
        options.device,
    )
    return f"{options.out}: {sum(map(len, scores.values()))} scores"


def _cut(options: argparse.Namespace, weights: Path) -> str:
    target = options.parameters
    if options.scores is None or target is None:
        raise InputError("cutting needs --scores, and --parameters or --latency")

    def choose(config: NetworkConfig, scores: pruning.Scores) -> pruning.Choice:
        whole = pruning.backbone_parameters(config)
        wanted = round(target * whole if target <= 1 else target)
        return pruning.choose(config, scores, wanted, multiple=options.multiple)

    return pruning.cut_file(weights, options.scores, choose, Path(options.out))


def _recalibrate(options: argparse.Namespace, weights: Path) -> str:
    pairs = training_pairs(load_config(_config(options, "distilled.yaml")), options.pairs)
    network = load_network(weights)
    recalibrate(network, pairs)
    save_weights(options.out, network.state_dict())
    return f"{options.out}: statistics of {len(pairs)} training pairs"


def _train_classifier(options: argparse.Namespace, weights: Path) -> str:
    config = classify.load_classify_config(_config(options, f"{options.action}.yaml"))
    classes = len(open_pictures(config.data, config.size, config.seed).classes)
    classifier = classify.load_classifier(weights, classes)
    device = usable_device(options.device)
    training = classify.ClassifierTraining(classifier, config, device)
    return str(loop.fit(training, Path(options.out), options.stop_after))
