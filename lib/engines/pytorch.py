"""The baseline of thesis section 4.1: PyTorch in eager mode, FP32."""
from __future__ import annotations

from pathlib import Path
from typing import List, Tuple, Union

import numpy as np
import torch
from torch import Tensor

from lib.errors import InputError
from lib.siamrpn.checkpoint import load_network
from lib.siamrpn.network import SiamRPN


def usable_device(name: str) -> torch.device:
    """A device by name ("cpu", "cuda", "cuda:1"); one that is not here raises InputError."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None


class TorchNetwork:
    """A SiamRPN++ on the CPU or a CUDA device (the `TrackerNetwork` contract)."""

    def __init__(self, network: SiamRPN, device: str = "cpu") -> None:
        self.device = torch.device(device)
        torch.backends.cudnn.allow_tf32 = False  # FP32 means FP32: newer GPUs would round convolutions to TF32
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
