"""Weights on disk: PySOT's `.pth` files in all their wrappings, and this project's own (the same
keys, in half precision)."""

from __future__ import annotations

import pickle
import re
import struct
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Dict, Mapping, Union

import numpy as np
import torch
from torch import Tensor, nn

from lib.errors import InputError
from lib.files import whole_file
from lib.reading import read_bytes
from lib.siamrpn.anchors import RATIOS
from lib.siamrpn.network import NetworkConfig, SiamRPN, backbone_config

MARK = "siambook"  # in weights that are made here, which may be replaced (`files.refuse_others`)
WRAPPINGS = ("state_dict", "model_state_dict", "model", "net")  # keys around a state dict
LARGEST = 1e9  # a weight that is larger makes a network's answer overflow
# What PyTorch raises for a damaged file
DAMAGED = (OSError, RuntimeError, LookupError, EOFError, ValueError, TypeError, struct.error)
# What other files begin with that are named .pth
OTHER_FILES = {
    b"version https://git-lfs": "a pointer of Git LFS (`git lfs pull` brings the file)",
    b"<": "a page in HTML or XML",
    b"\x08": "perhaps an ONNX model",
    b"\x1f\x8b": "packed by gzip",
}
OLD = " (NumPy's numbers, as in PySOT's training checkpoints, need PyTorch 2.5 or newer)"
# NumPy's numbers are plain data: PySOT's optimiser has its learning rate as one
NUMBERS = [
    np.dtype,
    *(type(np.dtype(code)) for code in ("f8", "f4", "i8", "i4", "?")),
    *(
        (np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar")
        for core in ("core", "_core")
    ),
]


def read_state(path: Union[str, Path]) -> Dict[str, Tensor]:
    """Read a checkpoint's tensors as {key: tensor on the CPU}, without `WRAPPINGS` and the `module.`
    that DataParallel puts in front.

    Only tensors and plain data are unpickled (`weights_only`): a file that would run code is
    refused. Raises InputError.
    """
    content = read_plain(path)
    for _ in range(8):  # not for ever: a file may contain itself
        inside = content if isinstance(content, Mapping) else {}
        wrapped = [inside[key] for key in WRAPPINGS if isinstance(inside.get(key), Mapping)]
        content = wrapped[0] if wrapped else content
    values = list(content.values()) if isinstance(content, Mapping) else []
    if not values or not all(isinstance(value, Tensor) for value in values):
        raise InputError(f"{path}: a PyTorch file, but not a state dict of tensors")
    return {re.sub(r"^(module\.)+", "", str(key)): value for key, value in content.items()}


def read_plain(path: Union[str, Path]) -> Any:
    """Tensors and plain data of a PyTorch file, on the CPU. Anything else, also what would run
    code, raises InputError."""
    allowed = getattr(torch.serialization, "safe_globals", nullcontext)  # PyTorch 2.5 or newer
    try:
        with allowed(NUMBERS):
            return torch.load(str(path), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such weights file") from None
    except PermissionError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except pickle.UnpicklingError:
        beginning = read_bytes(path)[:40].lstrip()
        for mark, kind in OTHER_FILES.items():
            if beginning.startswith(mark):
                raise InputError(f"{path}: {kind}, no PyTorch checkpoint") from None
        old = "" if hasattr(torch.serialization, "safe_globals") else OLD
        raise InputError(
            f"{path}: not a PyTorch checkpoint of tensors and plain data alone; loading anything else could run code{old}"
        ) from None
    except DAMAGED as error:
        raise InputError(
            f"{path}: not a readable PyTorch checkpoint ({type(error).__name__})"
        ) from None


def load_network(path: Union[str, Path]) -> SiamRPN:
    """Build the network a checkpoint belongs to, at its own channel counts, and load it. In
    evaluation mode, FP32, on the CPU.

    Raises InputError that says which keys are missing, unexpected or of another shape.
    """
    state = read_state(path)
    try:
        anchors_twice, rpn = state["rpn_head.rpn2.cls.head.3.weight"].shape[:2]
        config = NetworkConfig(*backbone_config(state), rpn, anchors_twice // 2)
        network = SiamRPN(config)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path}: not the weights of a SiamRPN++ with ResNet-50 (cannot tell its channels: {error})"
        ) from None
    load_state(network, state, path)
    if config.anchors != len(RATIOS):
        raise InputError(
            f"{path}: a network with {config.anchors} anchors a position, the tracker has {len(RATIOS)}"
        )
    return network.eval()


def read_backbone(path: Union[str, Path]) -> Dict[str, Tensor]:
    """The tensors of a backbone alone, keys without `backbone.`: of a tracker's checkpoint, or of
    PySOT's ImageNet ResNet-50, without its classification layer (`fc.`)."""
    state, prefix = read_state(path), "backbone."
    inside = {key[len(prefix) :]: state[key] for key in state if key.startswith(prefix)}
    return inside or {key: value for key, value in state.items() if not key.startswith("fc.")}


def load_state(network: nn.Module, state: Mapping[str, Tensor], source: Union[str, Path]) -> None:
    """Load a state dict into a network of the same shapes; a difference raises InputError naming
    the keys."""
    own = network.state_dict()
    # Counters, absent from some of PySOT's files
    optional = {key for key in own if key.endswith("num_batches_tracked")}
    faults = {
        "missing": set(own) - set(state) - optional,
        "unexpected": set(state) - set(own),
        "of another shape": {
            f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
            for key in set(own) & set(state)
            if own[key].shape != state[key].shape
        },
        "with NaN, infinity or no real numbers": {
            key
            for key, value in state.items()
            if key in set(own) - optional and not _is_usable(value, own[key])
        },
    }
    found = [
        f"{len(keys)} {kind} ({', '.join(sorted(keys)[:3])}{', ...' if len(keys) > 3 else ''})"
        for kind, keys in faults.items()
        if keys
    ]
    if found:
        raise InputError(f"{source}: keys do not match this network: {'; '.join(found)}")
    network.load_state_dict({**state, **{key: own[key] for key in optional}})


def _is_usable(value: Tensor, own: Tensor) -> bool:
    """Whether a tensor has numbers of the network's kind (real, or whole), none of them wild."""
    if value.is_floating_point() != own.is_floating_point() or value.is_complex() or value.is_meta:
        return False
    return value.layout == torch.strided and bool((value.abs() <= LARGEST).all())


def save_weights(path: Union[str, Path], state: Mapping[str, Tensor]) -> None:
    """Write a state dict in half precision, whole or not at all, with `MARK` as its maker."""
    tensors = {key: value.detach().cpu() for key, value in state.items()}
    half = {key: value.half() if _fits_half(value) else value for key, value in tensors.items()}
    save_whole(path, {"made_by": MARK, "state_dict": half})


def _fits_half(value: Tensor) -> bool:
    """Floating point without a value that half precision has no number for."""
    return value.is_floating_point() and bool((value.abs() <= torch.finfo(torch.float16).max).all())


def save_whole(path: Union[str, Path], content: object) -> None:
    """torch.save, whole or not at all; a place that cannot be written raises InputError."""
    with whole_file(path) as temporary:
        try:
            torch.save(content, str(temporary))
        except RuntimeError as error:  # PyTorch's word for a full disk
            raise InputError(f"{path}: cannot be written ({str(error).splitlines()[0]})") from None
