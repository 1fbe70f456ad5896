"""SiamRPN++ as the thesis's three networks (figure 3.9): what PyTorch runs, what is exported, and
how their tensors are called.

    target   exemplar (1, 3, 127, 127)    -> kernel_cls2 .. kernel_loc4, six of (C, 1, 5, 5)
    search   search (1, 3, 255, 255)      -> map_cls2 .. map_loc4, six of (1, C, 29, 29)
    xcorr    all kernels and maps         -> cls (1, 10, 25, 25), loc (1, 20, 25, 25)

C is 256 in the full network. The kernels have the shape of a depthwise convolution's weights,
because in the xcorr network they are just that. The weighted sum over the three levels is inside
the xcorr network, with the trained weights.
"""

from __future__ import annotations

from typing import Dict, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.siamrpn.crop import EXEMPLAR_SIZE, SEARCH_SIZE
from lib.siamrpn.network import SiamRPN

BRANCHES = ("cls2", "cls3", "cls4", "loc2", "loc3", "loc4")  # in the order of `MultiRPN.branches`
KERNELS = tuple(f"kernel_{branch}" for branch in BRANCHES)
MAPS = tuple(f"map_{branch}" for branch in BRANCHES)
NETWORKS = ("target", "search", "xcorr")
INPUTS: Dict[str, Tuple[str, ...]] = {
    "target": ("exemplar",),
    "search": ("search",),
    "xcorr": KERNELS + MAPS,
}
OUTPUTS: Dict[str, Tuple[str, ...]] = {"target": KERNELS, "search": MAPS, "xcorr": ("cls", "loc")}
KERNEL_SIDE, MAP_SIDE = 5, 29  # spatial sizes that follow from the crops' 127 and 255 pixels


class TargetNetwork(nn.Module):
    """Exemplar crop to six correlation kernels. Runs once for every initialisation."""

    def __init__(self, network: SiamRPN) -> None:
        super().__init__()
        self.backbone, self.neck = network.backbone, network.neck
        self.conv_kernel = nn.ModuleList(
            branch.conv_kernel for branch in network.rpn_head.branches()
        )

    def forward(self, exemplar: Tensor) -> Tuple[Tensor, ...]:
        # features: three of (1, C, 7, 7); kernels: six of (1, C, 5, 5)
        features = self.neck(self.backbone(exemplar), crop=True)
        kernels = (conv(feature) for conv, feature in zip(self.conv_kernel, features * 2))
        return tuple(kernel.transpose(0, 1) for kernel in kernels)  # six of (C, 1, 5, 5)


class SearchNetwork(nn.Module):
    """Search crop to six feature maps. Runs for every frame and takes nearly all of its time."""

    def __init__(self, network: SiamRPN) -> None:
        super().__init__()
        self.backbone, self.neck = network.backbone, network.neck
        self.conv_search = nn.ModuleList(
            branch.conv_search for branch in network.rpn_head.branches()
        )

    def forward(self, search: Tensor) -> Tuple[Tensor, ...]:
        # features: three of (1, C, 31, 31); maps: six of (1, C, 29, 29)
        features = self.neck(self.backbone(search), crop=False)
        return tuple(conv(feature) for conv, feature in zip(self.conv_search, features * 2))


class XcorrNetwork(nn.Module):
    """Six kernels and six maps to scores and box offsets: depthwise correlation, heads, weighted
    sum. Runs for every frame."""

    def __init__(self, network: SiamRPN) -> None:
        super().__init__()
        self.head = nn.ModuleList(branch.head for branch in network.rpn_head.branches())
        # Constants, to the last digit of FP32
        self.cls_share, self.loc_share = (
            torch.softmax(weight.detach(), 0).tolist()
            for weight in (network.rpn_head.cls_weight, network.rpn_head.loc_weight)
        )

    def forward(self, *tensors: Tensor) -> Tuple[Tensor, Tensor]:
        kernels, maps = tensors[:6], tensors[6:]
        # (1, C, 25, 25), then (1, 10 or 20, 25, 25)
        outputs = [
            head(functional.conv2d(feature, kernel, groups=kernel.shape[0]))
            for head, kernel, feature in zip(self.head, kernels, maps)
        ]
        cls, loc = (
            [output * share for output, share in zip(outputs[start : start + 3], shares)]
            for start, shares in ((0, self.cls_share), (3, self.loc_share))
        )
        return cls[0] + cls[1] + cls[2], loc[0] + loc[1] + loc[2]


def three_networks(network: SiamRPN) -> Dict[str, nn.Module]:
    """The three networks by name, sharing the tracker's weights, in evaluation mode."""
    parts = {"target": TargetNetwork, "search": SearchNetwork, "xcorr": XcorrNetwork}
    return {name: part(network).eval() for name, part in parts.items()}


def example_inputs(name: str, channels: int) -> Dict[str, Tensor]:
    """Zeros of the right shapes for one of the three networks, by input name; channels: of the RPN
    (`NetworkConfig.rpn`)."""
    shapes: Dict[str, Tuple[int, ...]] = {
        "exemplar": (1, 3, EXEMPLAR_SIZE, EXEMPLAR_SIZE),
        "search": (1, 3, SEARCH_SIZE, SEARCH_SIZE),
        **dict.fromkeys(KERNELS, (channels, 1, KERNEL_SIDE, KERNEL_SIDE)),
        **dict.fromkeys(MAPS, (1, channels, MAP_SIDE, MAP_SIDE)),
    }
    return {tensor: torch.zeros(shapes[tensor]) for tensor in INPUTS[name]}
