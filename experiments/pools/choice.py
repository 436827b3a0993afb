"""The pool that the settings ask for."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.config import at_least, plain
from experiments.pool import Pool, Slot, Target
from experiments.pools.engine import EnginePool, user_folder
from experiments.pools.gpus import choose_gpus, slots
from experiments.pools.local import LocalPool
from experiments.pools.server import PRELOAD

AUTO = "auto"
GPU_WORKERS = 4  # processes that decode images beside a GPU of an engine, whose cores are not known here


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


def arrange(pool: DictConfig, replicas: int) -> Arrangement:
    """What the settings of a pool ask for.

    Args:
        replicas: of every run.

    Raises:
        ValueError: something that is not there, or does not fit.
    """
    at_least(pool.threads, 1, "pool.threads")
    for name, least in (("slots_per_gpu", 1), ("cpu_slots", 0)):
        if name in pool:
            _check_count(pool, name, least)
    if pool.workers is not None:
        at_least(pool.workers, 0, "pool.workers")
    return ARRANGEMENTS[pool.kind](pool, replicas)


def _local(pool: DictConfig, replicas: int) -> Arrangement:
    gpus, room = choose_gpus(plain(pool.gpus)), max(1, _cores() // (pool.threads * replicas))
    name = "slots_per_gpu" if gpus else "cpu_slots"

    def arranged(count: int) -> Arrangement:
        places = slots(gpus, count, count, replicas)
        # Beside a GPU its share of the cores; on a CPU, which trains, none.
        workers = 0 if places[0].device == "cpu" else max(1, _cores() // len(places))
        workers = workers if pool.workers is None else pool.workers
        return Arrangement(places, workers, lambda store, target: LocalPool(places, target))

    if pool[name] != AUTO:
        return arranged(pool[name] or room)
    # A run on a GPU wants a core of its own, too.
    most = room if not gpus else max(1, _cores() * replicas // len(gpus))
    first = arranged(1 if gpus else room)
    return dataclasses.replace(first, automatic=Automatic(f"pool.{name}", most, arranged))


def _check_count(pool: DictConfig, name: str, least: int) -> None:
    """Raise a ValueError unless a setting is a number of runs at once, or `auto` on this machine."""
    said = pool[name]
    if said == AUTO and pool.kind != "local":
        raise ValueError(f"pool.{name}=auto measures on this machine, and this is pool={pool.kind}: give a number")
    if said != AUTO and (not isinstance(said, int) or isinstance(said, bool)):
        raise ValueError(f"pool.{name} wants a whole number or auto, such as pool.{name}=2; it got {said!r}")
    if said != AUTO:
        at_least(said, least, f"pool.{name}")


def _slurm(pool: DictConfig, replicas: int) -> Arrangement:
    from experiments.pools.slurm import Slurm, Terms, minutes  # noqa: PLC0415

    on_gpu = pool.gpus_per_run is not None
    at_once = pool.slots_per_gpu
    cells = at_least(pool.cells_per_job or at_once, 1, "pool.cells_per_job")
    if cells < at_once:
        raise ValueError(f"pool.cells_per_job={cells} is less than pool.slots_per_gpu={at_once}, which run at a time")
    places = _places("slurm", at_least(pool.slots, 1, "pool.slots"), on_gpu)
    workers = (GPU_WORKERS if on_gpu else 0) if pool.workers is None else pool.workers
    terms = Terms(
        partition=pool.partition,
        account=pool.account,
        qos=pool.qos,
        minutes=minutes(pool.time),
        memory=None if pool.memory is None else str(pool.memory),
        gpus=replicas if on_gpu else 0,
        cpus=(pool.threads * replicas + workers) * at_once,
        extra={str(name): value for name, value in plain(pool.sbatch).items()},
    )

    def connect(study: str, folder: Path) -> Slurm:
        return Slurm(study, folder, terms)

    return Arrangement(places, workers, _engine(places, connect, cells, at_once))


def _ray(pool: DictConfig, replicas: int) -> Arrangement:
    from experiments.pools.ray import Ray, Share, connect  # noqa: PLC0415

    if pool.gpus not in ("auto", "none"):
        raise ValueError(f"pool.gpus={pool.gpus}: with pool=ray give auto or none; the cluster knows its GPUs")
    cells = at_least(pool.cells_per_job, 1, "pool.cells_per_job")
    has = connect(pool.address)
    on_gpu = pool.gpus == "auto" and has.get("GPU", 0) > 0
    workers = (GPU_WORKERS if on_gpu else 0) if pool.workers is None else pool.workers
    share = Share(
        cpus=pool.threads * replicas if not on_gpu else 1, gpus=replicas / pool.slots_per_gpu if on_gpu else 0
    )
    room = int(has["GPU"] // share.gpus) if on_gpu else int(has.get("CPU", 1) // share.cpus)
    if room < 1 and pool.slots is None:
        raise ValueError(
            f"the Ray cluster has no room for a run: it has {has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs, "
            f"and a run takes {share.cpus:g} and {share.gpus:g}"
        )
    count = room * cells if pool.slots is None else at_least(pool.slots, 1, "pool.slots")
    places = _places("ray", count, on_gpu)
    return Arrangement(places, workers, _engine(places, lambda study, folder: Ray(study, folder, share), cells, 1))


def _places(engine: str, count: int, on_gpu: bool) -> list[Slot]:
    device = "cuda" if on_gpu else "cpu"
    return [Slot(index=index, device=device, visible="", engine=engine) for index in range(count)]


def _engine(places: Sequence[Slot], connect: Any, cells: int, at_once: int) -> Callable[[Path, Target], Pool]:
    preload = PRELOAD if cells > 1 else ()
    return lambda store, target: EnginePool(
        places, user_folder(store), target, connect, jobs_per_program=cells, at_once=at_once, preload=preload
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


ARRANGEMENTS = {"local": _local, "slurm": _slurm, "ray": _ray}
