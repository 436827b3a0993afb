"""Slots of this machine: which GPUs a study may use, and how runs share them."""

import os
from collections.abc import Sequence

from experiments.pool import Slot


def slots(gpus: Sequence[str], slots_per_gpu: int, cpu_slots: int, gpus_per_run: int = 1) -> list[Slot]:
    """The slots of some GPUs, interleaved so that runs spread over them first; without GPUs those of the CPU.

    Raises:
        ValueError: the GPUs do not divide into slots of `gpus_per_run`.
    """
    if len(gpus) % gpus_per_run:
        raise ValueError(
            f"pool.gpus_per_run={gpus_per_run} does not divide the {len(gpus)} GPU(s) of pool.gpus: give pool.gpus "
            f"a multiple of it, or another pool.gpus_per_run"
        )
    groups = [",".join(gpus[first : first + gpus_per_run]) for first in range(0, len(gpus), gpus_per_run)]
    on_gpus = [("cuda", group) for _ in range(slots_per_gpu) for group in groups]
    places = on_gpus or [("cpu", "")] * cpu_slots
    return [Slot(index=index, device=device, visible=visible) for index, (device, visible) in enumerate(places)]


def choose_gpus(asked: str | int | Sequence[int | str]) -> list[str]:
    """The GPUs that `pool.gpus` asks for: `auto` (all there are), `all`, `none`, how many, or a list of their numbers.

    Raises:
        ValueError: it asks for what this machine does not have.
    """
    there = _visible_gpus()
    if asked == "auto":
        return there
    if asked in ("none", 0):
        return []
    if isinstance(asked, str) and asked != "all":
        raise ValueError(f"pool.gpus={asked}: give auto, all, none, how many, or a list such as [0,2]")
    if not there:
        raise ValueError(
            f"pool.gpus={asked} asks for a GPU, and torch sees none on this machine: leave pool.gpus out to use the CPU"
        )
    if asked == "all":
        return there
    if isinstance(asked, int):
        if not 0 < asked <= len(there):
            raise ValueError(f"pool.gpus={asked}: this machine has {len(there)}")
        return there[:asked]
    wanted = [str(gpu) for gpu in asked]
    missing = [gpu for gpu in wanted if gpu not in there]
    if missing or not wanted:
        raise ValueError(f"pool.gpus={wanted}: this machine has {', '.join(there)}")
    return wanted


def _visible_gpus() -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES: those that it holds now, else the numbers. Counting does not start CUDA."""
    import torch  # noqa: PLC0415  (seconds, for which a pool's settings and an engine's program need not wait)

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    named = [name.strip() for name in given.split(",")] if given else []
    return named[:count] if named else [str(index) for index in range(count)]
