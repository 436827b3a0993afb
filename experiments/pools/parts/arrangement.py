"""Settings that all pools have, and what a pool's settings come to."""

import dataclasses
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.pool import Pool, Slot, Target

AUTO = "auto"


@dataclasses.dataclass
class PoolConfig:
    """Settings of a pool, on the command line `pool=NAME pool.SETTING=VALUE`; a pool adds its own.

    Args:
        kind: name of the pool, filled in.
        gpus_per_run: replicas of every run, each on a GPU of its own (without GPUs: each in a process of the same CPU
            slot). They are part of the recipe: this is its `replicas`.
        slots_per_gpu: runs at once on each GPU; `auto` measures, see `experiments.scheduling.packing`.
        workers: processes of a run that decode images; none is what suits the slots.
        channels_last, compile: quicker ways of the same mathematics, see `dhm.training.Runtime`.
        recompute: less memory for more time, see there.
    """

    kind: str = ""
    gpus_per_run: typing.Optional[int] = None  # noqa: UP045
    slots_per_gpu: Any = 1
    threads: int = 1
    workers: typing.Optional[int] = None  # noqa: UP045
    deterministic: bool = True
    channels_last: bool = False
    compile: bool = False
    recompute: bool = False

    def count(self, name: str, least: int, wanted: str = "a whole number") -> int:
        """The value of a setting that says how many.

        Args:
            wanted: for messages.

        Raises:
            ValueError: it is no number, or too small.
        """
        said = getattr(self, name)
        if said == AUTO:
            raise ValueError(f"pool.{name}=auto measures on this machine, and this is pool={self.kind}: give a number")
        if not isinstance(said, int) or isinstance(said, bool):
            raise ValueError(f"pool.{name} wants {wanted}, such as pool.{name}=2; it got {said!r}")
        if said < least:
            raise ValueError(f"pool.{name}={said}: must be at least {least}")
        return said


@dataclasses.dataclass(frozen=True, slots=True)
class Arrangement:
    """Slots, and how to have them.

    Args:
        workers: processes of a run that decode images.
        open: makes the pool; `store` is a folder that all its machines see.
        automatic: where the number of runs at once is to be measured; `slots` are then a guess.
    """

    slots: Sequence[Slot]
    workers: int
    open: Callable[[Path, Target], Pool]
    automatic: "Automatic | None" = None


@dataclasses.dataclass(frozen=True, slots=True)
class Automatic:
    """A number of runs at once that is to be measured, see `experiments.scheduling.packing`.

    Args:
        setting: that asks for it.
        most: that may be.
        arranged: what the settings ask for, with so many.
    """

    setting: str
    most: int
    arranged: Callable[[int], Arrangement]
