"""Top-k errors and running means, kept on the device until somebody reads them."""

import math
from collections.abc import Callable

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


ENSEMBLES = ("ensemble", "ensemble_softmax")


def with_ensembles(logits: Tensor) -> Tensor:
    """The logits of heads, and those of their ensembles below them, in the order of ENSEMBLES.

    `ensemble` has the mean of the heads' logits; `ensemble_softmax` the logarithm of the mean of their softmax, by
    which no head counts for more because its logits are large.

    Args:
        logits: (H, B, C).

    Returns:
        (H + 2, B, C); where there is one head, its logits alone.
    """
    if len(logits) == 1:
        return logits
    of_softmax = torch.log_softmax(logits, -1).logsumexp(0) - math.log(len(logits))
    return torch.cat((logits, torch.stack((logits.mean(0), of_softmax))))


class RunningMean:
    """A weighted mean of tensors of one shape, accumulated in float64 where they lie."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self.weight = 0

    def add(self, value: Tensor, weight: int) -> None:
        """Add the mean of `weight` images."""
        weighted = value.detach().to(torch.float64) * weight
        self._sum = weighted if self._sum is None else self._sum + weighted
        self.weight += weight

    def add_up(self, total: Callable[[Tensor], Tensor]) -> None:
        """Make it the mean over all processes that added values of their own; `total` sums a tensor over them."""
        assert self._sum is not None, "nothing was added"
        everything = total(torch.cat((self._sum.flatten(), self._sum.new_tensor([self.weight]))))
        self._sum, self.weight = everything[:-1].view_as(self._sum), int(everything[-1])

    def read(self) -> list[float]:
        """The mean as plain numbers; the one place where the host waits for the device."""
        assert self._sum is not None, "nothing was added"
        return [float(value) for value in (self._sum / self.weight).flatten().tolist()]


class TermMeans:
    """Means of named terms. Not every step has every term: each is averaged over the images that saw it."""

    def __init__(self) -> None:
        # The terms of a step come as one tensor, and few sets of them occur.
        self._means: dict[tuple[str, ...], RunningMean] = {}

    def add(self, names: tuple[str, ...], values: Tensor, weight: int) -> None:
        """Add the terms (n,) of a batch of `weight` images."""
        self._means.setdefault(names, RunningMean()).add(values, weight)

    def add_up(self, total: Callable[[Tensor], Tensor]) -> None:
        """See `RunningMean.add_up`; all processes must have seen the same terms at the same steps."""
        for mean in self._means.values():
            mean.add_up(total)

    def read(self) -> dict[str, float]:
        """The means by name; the host waits for the device."""
        sums: dict[str, float] = {}
        seen: dict[str, int] = {}
        for names, mean in self._means.items():
            for name, value in zip(names, mean.read(), strict=True):
                sums[name] = sums.get(name, 0.0) + value * mean.weight
                seen[name] = seen.get(name, 0) + mean.weight
        return {name: sums[name] / seen[name] for name in sums}
