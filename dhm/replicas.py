"""Replicas: one run on several devices, each of them with a process that sees its share of every batch.

torch's DistributedDataParallel averages their gradients. The first replica is the run itself: it alone evaluates,
records and saves (`dhm.processes`).
"""

import dataclasses
import threading

import torch
from torch import Tensor, distributed, nn

from dhm.recipe import Recipe


@dataclasses.dataclass(frozen=True, slots=True)
class Replica:
    """One process of a run.

    Args:
        index: 0 is the run itself.
        count: how many there are.
        gone: set where another replica's process has ended; of the first alone.
    """

    index: int = 0
    count: int = 1
    gone: threading.Event | None = dataclasses.field(default=None, compare=False)

    def share(self, batch: Tensor) -> Tensor:
        """Its part of a batch (B, ...). Shares are as equal as can be: the first ones may be larger by one."""
        return batch if self.count == 1 else batch.tensor_split(self.count)[self.index]

    def weight(self, share: int, batch: int) -> float:
        """Factor on a mean over its share, so that the average over replicas is the mean over the batch."""
        return self.count * share / batch

    def device(self, first: str) -> str:
        """Its device, where the first replica has `first`: the GPU so many places further; `cpu` serves them all."""
        device = torch.device(first)
        if self.count == 1 or device.type == "cpu":
            return first
        return f"{device.type}:{(device.index or 0) + self.index}"

    def parallel(self, network: nn.Module, recipe: Recipe) -> nn.Module:
        """The network for a training step, its gradients averaged over the replicas and its weights those of the first.

        Every replica normalises by its own share; with `sync_batch_norm` all by the batch.
        """
        if self.count == 1:
            return network
        if recipe.sync_batch_norm:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        # `find_unused_parameters`, because branches may not fork; and because without it DDP makes its buckets anew
        # after its first step, in the order in which gradients came. A resumed run would take a step with the first
        # buckets, where the gradients of three replicas or more add up in another order.
        # The running statistics of the first replica are those that count; it alone evaluates.
        return nn.parallel.DistributedDataParallel(network, find_unused_parameters=True, broadcast_buffers=False)

    def require_all(self) -> None:
        """A RuntimeError where another replica is gone: on a GPU the collectives that it has left end without one, and
        leave gradients that are of this replica alone."""
        if self.gone is not None and self.gone.is_set():
            raise RuntimeError("another replica is gone")

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over the replicas, in place."""
        if self.count > 1:
            distributed.all_reduce(value)
        return value


ALONE = Replica()


def check(recipe: Recipe, device: str) -> None:
    """A ValueError where a recipe's replicas cannot be on a kind of device."""
    if recipe.sync_batch_norm and recipe.replicas == 1:
        raise ValueError("sync_batch_norm=true normalises over replicas, and there is one: give replicas=2, or more")
    if recipe.sync_batch_norm and torch.device(device).type == "cpu":
        raise ValueError("sync_batch_norm=true needs GPUs, torch has it for no CPU: leave it out")


def check_batches(recipe: Recipe, images: int) -> None:
    """A ValueError where some batch has nothing to see for one of the replicas.

    Args:
        images: that a run trains on.
    """
    size, count = recipe.optim.batch_size, recipe.replicas
    last = images % size or size
    if last < count:
        raise ValueError(
            f"the last batch of {images} images by optim.batch_size={size} has {last}, fewer than replicas={count}, "
            "and one would have nothing to see: choose another optim.batch_size"
        )
