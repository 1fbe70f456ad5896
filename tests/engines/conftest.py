"""Fixtures for the tests of engines."""

from __future__ import annotations

from typing import Any, Dict

import pytest


@pytest.fixture(scope="module")
def network() -> Any:
    """A network with all its layers and an eighth of their channels."""
    pytest.importorskip("torch")
    from lib.measure.speed import full_size_network

    return full_size_network(0.125)


@pytest.fixture(scope="module")
def models(network: Any) -> Dict[str, Any]:
    """Its three networks in FP32."""
    pytest.importorskip("onnx")
    from lib.engines.export import export_network

    return export_network(network)
