"""The two losses of the region proposal network, as PySOT computes them."""

from __future__ import annotations

from typing import Dict

from torch import Tensor
from torch.nn import functional


def classification_loss(cls: Tensor, label: Tensor) -> Tensor:
    """Cross entropy of scores (B, 2A, S, S) and labels (B, A, S, S), half from positives and half
    from negatives; labels of -1 do not count.

    A half with a single member in the whole batch is 0: PySOT squeezes its index to zero dimensions
    and drops it.
    """
    batch, _, rows, cols = cls.shape
    by_anchor = cls.view(batch, 2, -1, rows, cols).permute(0, 2, 3, 4, 1)  # (B, A, S, S, 2)
    log_probability = functional.log_softmax(by_anchor, dim=4).reshape(-1, 2)
    flat = label.reshape(-1)
    loss = cls.sum() * 0.0  # a batch without any labelled anchor still has a gradient, of zeros
    for value in (0, 1):
        index = (flat == value).nonzero()[:, 0]
        if len(index) > 1:
            loss = loss + 0.5 * functional.nll_loss(log_probability[index], flat[index])
    return loss


def regression_loss(loc: Tensor, delta: Tensor, weight: Tensor) -> Tensor:
    """Weighted L1 of the offsets: loc (B, 4A, S, S), delta (B, 4, A, S, S), weight (B, A, S, S);
    summed, over the batch size."""
    batch, _, rows, cols = loc.shape
    difference = (loc.view(batch, 4, -1, rows, cols) - delta).abs().sum(dim=1)
    return (difference * weight).sum() / batch


def tracking_loss(
    cls: Tensor, loc: Tensor, label: Tensor, delta: Tensor, weight: Tensor
) -> Dict[str, Tensor]:
    """Both losses and their weighted sum: 1.0 times the class loss plus 1.2 times the box loss."""
    class_part = classification_loss(cls.float(), label)
    box_part = regression_loss(loc.float(), delta, weight)
    return {"cls": class_part, "loc": box_part, "total": class_part + 1.2 * box_part}
