"""Batch-norm recalibration: statistics of what runs through the network, and nothing else
changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib.engines.calibration import CropPair
from lib.errors import InputError
from lib.pruning.recalibrate import recalibrate
from lib.siamrpn.crop import as_input
from lib.siamrpn.network import NetworkConfig, SiamRPN

pytestmark = pytest.mark.usefixtures("one_thread")


def pairs(count: int) -> list:
    random = np.random.RandomState(0)
    return [
        CropPair(
            random.randint(0, 256, (127, 127, 3), np.uint8),
            random.randint(0, 256, (255, 255, 3), np.uint8),
        )
        for _ in range(count)
    ]


def test_statistics_become_those_of_the_pairs_and_weights_stay() -> None:
    torch.manual_seed(0)
    network = SiamRPN(NetworkConfig.resnet50(0.0625)).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    given = pairs(4)
    recalibrate(network, given, batch=4)
    after = network.state_dict()
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert changed and all("running_" in key or "num_batches" in key for key in changed)
    assert not any(module.training for module in network.modules())

    # The first layer's own inputs, one call for the exemplars and one for the search crops
    seen = []
    with torch.no_grad():
        for crops in zip(*given):
            batch = torch.from_numpy(np.concatenate([as_input(crop) for crop in crops]))
            seen.append(network.backbone.conv1(batch))
    mean = torch.stack([one.mean((0, 2, 3)) for one in seen]).mean(0)
    variance = torch.stack([one.var((0, 2, 3)) for one in seen]).mean(0)
    assert torch.allclose(network.backbone.bn1.running_mean, mean, rtol=1e-4, atol=1e-3)
    assert torch.allclose(network.backbone.bn1.running_var, variance, rtol=1e-4)
    assert network.backbone.bn1.momentum == 0.1


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(InputError, match="at least one pair"):
        recalibrate(SiamRPN(NetworkConfig.resnet50(0.0625)), [])
