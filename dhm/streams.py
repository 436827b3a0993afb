"""Random streams: every purpose has its own, derived from the seed.

Plain training, DSL and DHM at one seed start from the same main branch and see the same batches, because no stream is
shared: a branch draws from its own. A stream that is used in training is named by its epoch too, so that a run which is
resumed at an epoch's start needs no saved state: the seed and the epoch are all the random state there is.
"""

import hashlib

import torch


def stream_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for a purpose, such as `("order", epoch)` or `("init", "side1")`.

    torch's generator on a CPU keeps 32 bits of it: of a thousand streams two are the same about once in 10,000 runs.
    """
    name = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 1


def own_stream(replica: int) -> tuple[str, ...]:
    """What names a stream of which every replica of a run has its own; the first one's is that of a run without."""
    return (f"replica{replica}",) if replica else ()


def stream(seed: int, *purpose: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for a purpose."""
    return torch.Generator(device).manual_seed(stream_seed(seed, *purpose))
