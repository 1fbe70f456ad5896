"""SiamRPN++ in one place (thesis section 3.1, figure 3.2; Li et al. 2019): backbone, neck, heads,
the networks of figure 3.9.

Channel counts are data (`NetworkConfig`), so the full network, the quarter-width demo network and
pruned networks are the same code. Module names follow PySOT, so that its checkpoints load key by
key. Shapes in comments are those of the full network on a search crop.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import List, Mapping, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

EXEMPLAR_FEATURE = 7  # side of the exemplar's feature after the neck's centre crop


@dataclass(frozen=True)
class StageConfig:
    """One stage of the backbone: channels of its residual sum, and (conv1, conv2) output channels
    of every bottleneck."""

    channels: int
    blocks: Tuple[Tuple[int, int], ...]


@dataclass(frozen=True)
class NetworkConfig:
    """Channel counts that decide a network: stem, four stages, RPN channels (neck and heads),
    anchors per position."""

    stem: int
    stages: Tuple[StageConfig, ...]
    rpn: int
    anchors: int = 5

    @staticmethod
    def resnet50(width: float = 1.0) -> NetworkConfig:
        """SiamRPN++ with ResNet-50 at a fraction of its width: 1.0 is the thesis's network, 0.25
        the demo network."""

        def scaled(channels: int) -> int:
            return max(8, int(round(channels * width)))

        depth_and_planes = ((3, 64), (4, 128), (6, 256), (3, 512))
        stages = tuple(
            StageConfig(scaled(planes * 4), ((scaled(planes), scaled(planes)),) * depth)
            for depth, planes in depth_and_planes
        )
        return NetworkConfig(stem=scaled(64), stages=stages, rpn=scaled(256))


def backbone_config(
    state: Mapping[str, Tensor], prefix: str = "backbone."
) -> Tuple[int, Tuple[StageConfig, ...]]:
    """Channels of the stem and the stages of the backbone in a state dict. Raises KeyError where
    there is none."""
    state = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    stages: List[StageConfig] = []
    for stage in (1, 2, 3, 4):
        blocks: List[Tuple[int, int]] = []
        while f"layer{stage}.{len(blocks)}.conv1.weight" in state:
            prefix = f"layer{stage}.{len(blocks)}"
            blocks.append(
                (state[f"{prefix}.conv1.weight"].shape[0], state[f"{prefix}.conv2.weight"].shape[0])
            )
        stages.append(StageConfig(state[f"layer{stage}.0.conv3.weight"].shape[0], tuple(blocks)))
    return state["conv1.weight"].shape[0], tuple(stages)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut (thesis figure 2.9)."""

    def __init__(
        self,
        inputs: int,
        mid: Tuple[int, int],
        outputs: int,
        stride: int,
        dilation: int,
        downsample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, mid[0], 1, bias=False)
        self.bn1 = nn.BatchNorm2d(mid[0])
        padding = dilation if stride == 1 else 0
        self.conv2 = nn.Conv2d(mid[0], mid[1], 3, stride, padding, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(mid[1])
        self.conv3 = nn.Conv2d(mid[1], outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + shortcut)


def make_stage(inputs: int, config: StageConfig, stride: int, dilation: int) -> nn.Sequential:
    """A stage whose first block changes channels (and stride). Dilation replaces the stride in the
    last two stages.

    PySOT's oddities, kept because its weights depend on them: outside the first stage the
    shortcut's downsampling is a 3x3 convolution; a strided block does not pad; the first block of a
    dilated stage has half the stage's dilation.
    """
    channels, first = config.channels, max(1, dilation // 2)
    kernel = 1 if stride == dilation == 1 else 3
    padding = first if dilation > 1 else 0
    shortcut = nn.Conv2d(inputs, channels, kernel, stride, padding, first, bias=False)
    downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels))
    blocks = [Bottleneck(inputs, config.blocks[0], channels, stride, first, downsample)]
    for mid in config.blocks[1:]:
        blocks.append(Bottleneck(channels, mid, channels, stride=1, dilation=dilation))
    return nn.Sequential(*blocks)


class Backbone(nn.Module):
    """ResNet-50 with an effective stride of 8 (thesis figure 3.11): stages 3 and 4 are dilated by 2
    and 4 instead of strided."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, config.stem, 7, stride=2, padding=0, bias=False)
        self.bn1 = nn.BatchNorm2d(config.stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        one, two, three, four = config.stages
        self.layer1 = make_stage(config.stem, one, stride=1, dilation=1)
        self.layer2 = make_stage(one.channels, two, stride=2, dilation=1)
        self.layer3 = make_stage(two.channels, three, stride=1, dilation=2)
        self.layer4 = make_stage(three.channels, four, stride=1, dilation=4)

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        x = self.relu(self.bn1(self.conv1(x)))  # (B, 64, 125, 125)
        x = self.layer1(self.maxpool(x))  # (B, 256, 63, 63)
        two = self.layer2(x)  # (B, 512, 31, 31)
        three = self.layer3(two)  # (B, 1024, 31, 31)
        four = self.layer4(three)  # (B, 2048, 31, 31)
        return two, three, four


class AdjustLayer(nn.Module):
    """1x1 convolution to the RPN's channels; an exemplar's feature is cropped to its central
    7x7."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.downsample = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        )

    def forward(self, x: Tensor, crop: bool) -> Tensor:
        x = self.downsample(x)  # (B, 256, 31, 31), exemplar (B, 256, 15, 15)
        if crop:
            start = (x.shape[3] - EXEMPLAR_FEATURE) // 2
            # (B, 256, 7, 7)
            x = x[:, :, start : start + EXEMPLAR_FEATURE, start : start + EXEMPLAR_FEATURE]
        return x


class Neck(nn.Module):
    """One AdjustLayer for each of the three backbone features."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        for level, stage in zip((2, 3, 4), config.stages[1:]):
            self.add_module(f"downsample{level}", AdjustLayer(stage.channels, config.rpn))

    def forward(self, features: Tuple[Tensor, ...], crop: bool) -> List[Tensor]:
        return [
            getattr(self, f"downsample{level}")(feature, crop)
            for level, feature in zip((2, 3, 4), features)
        ]


def depthwise_correlation(maps: Tensor, kernels: Tensor) -> Tensor:
    """Correlate every channel of `maps` (B, C, H, W) with its own kernel (B, C, h, w): (B, C,
    H-h+1, W-w+1).

    Equation 2.6 per channel. Every image has its own kernels, so the batch moves into the groups of
    one convolution. Kept out of autocast: in bf16 its backward pass is several times slower on a
    CPU, and 25 products a value lose digits for nothing.
    """
    batch, channels = maps.shape[:2]
    with torch.autocast(maps.device.type, enabled=False):
        out = functional.conv2d(
            maps.float().reshape(1, batch * channels, *maps.shape[2:]),
            kernels.float().reshape(batch * channels, 1, *kernels.shape[2:]),
            groups=batch * channels,
        )
    return out.reshape(batch, channels, *out.shape[2:])


class DepthwiseXCorr(nn.Module):
    """One branch of an RPN: its kernel and search convolutions, the depthwise correlation and the
    1x1 head."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.conv_kernel = self._conv(channels, 3)
        self.conv_search = self._conv(channels, 3)
        self.head = nn.Sequential(*self._conv(channels, 1), nn.Conv2d(channels, outputs, 1))

    @staticmethod
    def _conv(channels: int, size: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, channels, size, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, kernel: Tensor, feature: Tensor) -> Tensor:
        return self.head(depthwise_correlation(feature, kernel))  # (B, 10 or 20, 25, 25)


class DepthwiseRPN(nn.Module):
    """Classification (2 scores per anchor) and box regression (4 numbers per anchor) at one
    level."""

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.cls = DepthwiseXCorr(channels, 2 * anchors)
        self.loc = DepthwiseXCorr(channels, 4 * anchors)


class MultiRPN(nn.Module):
    """The three RPNs and the softmax weights that fuse their outputs."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        for level in (2, 3, 4):
            self.add_module(f"rpn{level}", DepthwiseRPN(config.rpn, config.anchors))
        self.cls_weight = nn.Parameter(torch.ones(3))
        self.loc_weight = nn.Parameter(torch.ones(3))

    def branches(self) -> List[DepthwiseXCorr]:
        """The six correlation branches in the order of kernels and maps: cls 2, 3, 4, then loc 2,
        3, 4."""
        rpns = [getattr(self, f"rpn{level}") for level in (2, 3, 4)]
        return [rpn.cls for rpn in rpns] + [rpn.loc for rpn in rpns]


class SiamRPN(nn.Module):
    """The tracker's network, callable as the thesis's three networks (figure 3.9): `template`,
    `search` and `correlate`."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.neck = Neck(config)
        self.rpn_head = MultiRPN(config)

    def template(self, exemplar: Tensor) -> List[Tensor]:
        """Target network: exemplar crop (B, 3, 127, 127), BGR 0..255, to six correlation kernels
        (B, 256, 5, 5)."""
        features = self.neck(self.backbone(exemplar), crop=True)
        return [
            branch.conv_kernel(feature)
            for branch, feature in zip(self.rpn_head.branches(), features * 2)
        ]

    def search(self, crop: Tensor) -> List[Tensor]:
        """Search network: search crop (B, 3, 255, 255), BGR 0..255, to six maps (B, 256, 29,
        29)."""
        return self.search_maps(self.backbone(crop))

    def search_maps(self, features: Tuple[Tensor, ...]) -> List[Tensor]:
        """The part of the search network behind the backbone."""
        adjusted = self.neck(features, crop=False)
        return [
            branch.conv_search(feature)
            for branch, feature in zip(self.rpn_head.branches(), adjusted * 2)
        ]

    def correlate(self, kernels: List[Tensor], maps: List[Tensor]) -> Tuple[Tensor, Tensor]:
        """Xcorr network: six kernels and six maps to scores (B, 10, 25, 25) and box offsets (B, 20,
        25, 25)."""
        outputs = [
            branch(kernel, feature)
            for branch, kernel, feature in zip(self.rpn_head.branches(), kernels, maps)
        ]
        return fuse(outputs[:3], self.rpn_head.cls_weight), fuse(
            outputs[3:], self.rpn_head.loc_weight
        )

    def forward(self, exemplar: Tensor, crop: Tensor) -> Tuple[Tensor, Tensor]:
        """Scores and box offsets of a search crop for an exemplar."""
        return self.correlate(self.template(exemplar), self.search(crop))


def fuse(outputs: List[Tensor], weight: Tensor) -> Tensor:
    """Weighted sum over the three levels; the trained weights go through a softmax."""
    share = torch.softmax(weight, 0)
    return outputs[0] * share[0] + outputs[1] * share[1] + outputs[2] * share[2]


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose batch normalisations are part of the convolutions before
    them."""
    network = copy.deepcopy(network).eval()
    for module in list(network.modules()):
        children = list(module.named_children())
        for (name, conv), (following, norm) in zip(children, children[1:]):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, following, nn.Identity())
    return network


def parameter_count(module: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def backbone_parameters(config: NetworkConfig) -> int:
    """Number of the backbone's parameters from its channel counts alone, without building it;
    45,528,128 for the full one."""
    total, inputs = 3 * config.stem * 49 + 2 * config.stem, config.stem
    for stage, part in enumerate(config.stages, 1):
        shortcut = inputs if stage == 1 else 9 * inputs  # a 1x1 convolution, or 3x3
        total += part.channels * (shortcut + 2)
        for first, second in part.blocks:
            total += first * (inputs + 2) + second * (9 * first + 2) + part.channels * (second + 2)
            inputs = part.channels
    return total
