"""TensorRT: the thesis's compiled engines on NVIDIA GPUs (section 4.2), from TensorRT 8.5 on the
Xavier to 11, and TensorRT-RTX.

`installed` finds the library and says what its version can do, `plan` builds a plan from an ONNX
model, `engine` runs it, `layers` names the layers of a plan.
"""

from lib.engines.trt.engine import build
from lib.engines.trt.installed import need, version

__all__ = ["build", "need", "version"]
