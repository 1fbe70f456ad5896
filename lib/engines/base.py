"""The contract between the tracker and whatever executes its networks (thesis figure 3.9)."""
from __future__ import annotations

from typing import Any, Protocol, Tuple

import numpy as np


class TrackerNetwork(Protocol):
    """The target network, and the search and xcorr networks together, on NumPy arrays.

    What `template` returns is opaque to the tracker: kernels on whatever device the framework uses.
    """

    name: str

    def template(self, exemplar: np.ndarray) -> Any:
        """Exemplar crop (1, 3, 127, 127) float32, BGR 0..255, to the six correlation kernels."""

    def track(self, kernels: Any, search: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Search crop (1, 3, 255, 255) float32 to scores (1, 10, 25, 25) and box offsets (1, 20, 25, 25), both float32."""
