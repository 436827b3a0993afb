"""Settings of the pools, on the command line `pool=NAME pool.SETTING=VALUE`."""

import dataclasses
import typing
from typing import Any

from omegaconf import MISSING


@dataclasses.dataclass
class PoolConfig:
    """Where cells run; `pool=NAME` chooses one of POOLS.

    Args:
        gpus_per_run: replicas of every run, each on a GPU of its own (without GPUs: each in a process of the same CPU
            slot). They are part of the recipe: this is its `replicas`.
        slots_per_gpu: runs at once on each GPU; `auto` measures, see `experiments.scheduling.packing`.
        channels_last, compile: quicker ways of the same mathematics, see `dhm.training.Runtime`.
        recompute: less memory for more time, see there.
    """

    kind: str = MISSING
    gpus_per_run: typing.Optional[int] = None  # noqa: UP045
    slots_per_gpu: Any = 1
    threads: int = 1
    workers: typing.Optional[int] = None  # noqa: UP045
    deterministic: bool = True
    channels_last: bool = False
    compile: bool = False
    recompute: bool = False


@dataclasses.dataclass
class LocalPoolConfig(PoolConfig):
    """This machine, see `experiments.pools.local`.

    Args:
        cpu_slots: runs at once without GPUs; 0 is as many as there are cores, `auto` measures.
    """

    kind: str = "local"
    gpus: Any = "auto"
    cpu_slots: Any = 0


@dataclasses.dataclass
class SlurmPoolConfig(PoolConfig):
    """Jobs of SLURM, see `experiments.pools.slurm.Terms`. A run has no GPU unless `gpus_per_run` asks for some.

    Args:
        slots: how many cells are with SLURM at once, waiting or running.
        cells_per_job: how many cells a job runs, one after the other (`slots_per_gpu` at a time).
        time: limit of a job: minutes, 'H:MM:SS' or 'D-HH:MM'; its cells go on in the next one.
        sbatch: further flags of sbatch, by name, such as `pool.sbatch.constraint=a100`.
    """

    kind: str = "slurm"
    slots: int = 32
    cells_per_job: typing.Optional[int] = None  # noqa: UP045
    partition: typing.Optional[str] = None  # noqa: UP045
    account: typing.Optional[str] = None  # noqa: UP045
    qos: typing.Optional[str] = None  # noqa: UP045
    time: Any = None
    memory: Any = None
    sbatch: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class RayPoolConfig(PoolConfig):
    """A Ray cluster, see `experiments.pools.ray`.

    Args:
        address: of the cluster, or `auto` for the one of this machine; none starts one here.
        gpus: `auto` or `none`.
        slots: how many cells are with Ray at once; none is as many as the cluster has room for.
        cells_per_job: how many cells an actor runs, one after the other.
    """

    kind: str = "ray"
    address: typing.Optional[str] = None  # noqa: UP045
    gpus: str = "auto"
    slots: typing.Optional[int] = None  # noqa: UP045
    cells_per_job: int = 1


POOLS: dict[str, type[PoolConfig]] = {"local": LocalPoolConfig, "slurm": SlurmPoolConfig, "ray": RayPoolConfig}
