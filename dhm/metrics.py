"""Top-k errors and running means, kept on the device until somebody reads them."""

import torch
from torch import Tensor


def top_k_wrong(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """Which images of a batch are wrong: their class is not among the k largest logits.

    Args:
        logits: (..., B, C).
        labels: (B,).

    Returns:
        booleans (..., B). Where k reaches the number of classes nothing is wrong.
    """
    nearest = logits.topk(min(k, logits.shape[-1]), dim=-1).indices
    return (nearest != labels.unsqueeze(-1)).all(-1)


class RunningMean:
    """A weighted mean of tensors of one shape, accumulated in float64 where they lie."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._weight = 0

    def add(self, value: Tensor, weight: int) -> None:
        """Add the mean of `weight` images."""
        weighted = value.detach().to(torch.float64) * weight
        self._sum = weighted if self._sum is None else self._sum + weighted
        self._weight += weight

    def read(self) -> list[float]:
        """The mean as plain numbers; the one place where the host waits for the device."""
        assert self._sum is not None, "nothing was added"
        return [float(value) for value in (self._sum / self._weight).flatten().tolist()]
