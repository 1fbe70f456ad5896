"""The baseline of thesis section 4.1: PyTorch in eager mode, FP32."""
from __future__ import annotations

from pathlib import Path
from typing import List, Tuple, Union

import numpy as np
import torch
from torch import Tensor

from lib.siamrpn.checkpoint import load_network
from lib.siamrpn.network import SiamRPN


class TorchNetwork:
    """A SiamRPN++ on the CPU or a CUDA device (the `TrackerNetwork` contract)."""

    def __init__(self, network: SiamRPN, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.network = network.eval().to(self.device)
        self.name = f"PyTorch FP32 ({self.device})"

    @staticmethod
    def load(weights: Union[str, Path], device: str = "cpu") -> TorchNetwork:
        """Load a checkpoint (`checkpoint.load_network`)."""
        return TorchNetwork(load_network(weights), device)

    @torch.inference_mode()
    def template(self, exemplar: np.ndarray) -> List[Tensor]:
        return self.network.template(torch.from_numpy(exemplar).to(self.device))

    @torch.inference_mode()
    def track(self, kernels: List[Tensor], search: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        cls, loc = self.network.correlate(kernels, self.network.search(torch.from_numpy(search).to(self.device)))
        return cls.cpu().numpy(), loc.cpu().numpy()
