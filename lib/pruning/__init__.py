"""Pruning of the backbone with CURL (thesis sections 2.3.1 and 3.6.2; Luo & Wu 2020).

The steps are modules: `scores` of channels, the `choice` of those that stay, `surgery` on the
weights, and `recalibrate` for batch normalisation. A *layer* is what has one index mask: the
outputs of the first and second convolution of every bottleneck ("layer3.1.conv2") and, for every
stage, the channels of its residual sum, which the third convolutions of all its bottlenecks and the
shortcut share ("layer3.sum", figure 2.14).
"""

# ruff: noqa: F401 names of the package

from lib.pruning.choice import (
    Choice,
    Scores,
    choose,
    counts,
    cut_config,
    keep_best,
    mask_layers,
    wider,
)
from lib.pruning.scores import (
    Scorer,
    fisher_scores,
    rank_correlation,
    read_scores,
    sample,
    score_file,
    write_scores,
)
from lib.pruning.surgery import cut_file, cut_network, masked
from lib.siamrpn.network import backbone_parameters
