"""Ray: a detached actor runs one cell or a few, wherever the cluster has room; it lives on where its scheduler dies."""

import dataclasses
import functools
import logging
import os
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.pools.parts import engine_pool
from experiments.pools.parts.agent import Agent
from experiments.pools.parts.arrangement import Arrangement, PoolConfig
from experiments.pools.parts.engine import EngineAwayError, study_name


@dataclasses.dataclass
class Config(PoolConfig):
    """A Ray cluster.

    Args:
        address: of the cluster, or `auto` for the one of this machine; none starts one here, which ends with the
            scheduler.
        gpus: `auto` or `none`.
        slots: how many cells are with Ray at once; none is as many as the cluster has room for.
        cells_per_job: how many cells an actor runs, one after the other.
    """

    address: typing.Optional[str] = None  # noqa: UP045
    gpus: str = "auto"
    slots: typing.Optional[int] = None  # noqa: UP045
    cells_per_job: int = 1


def arrange(asked: Config, replicas: int) -> Arrangement:
    """See `experiments.pools.arrange`."""
    if asked.gpus not in ("auto", "none"):
        raise ValueError(f"pool.gpus={asked.gpus}: with pool=ray give auto or none; the cluster knows its GPUs")
    at_once, cells = asked.count("slots_per_gpu", 1), asked.count("cells_per_job", 1)
    nodes = connect(asked.address)
    on_gpu = asked.gpus == "auto" and any(node.get("GPU") for node in nodes)
    if on_gpu and replicas > 1 and at_once > 1:
        raise ValueError(f"pool.slots_per_gpu={at_once}: on Ray a run of {replicas} GPUs shares none; leave it out")
    cpus, gpus = (1, replicas / at_once) if on_gpu else (asked.threads * replicas, 0)
    rooms = [int(node.get("CPU", 0)) // cpus for node in nodes]
    if on_gpu:
        on_gpus = [int(node.get("GPU", 0)) * at_once // replicas for node in nodes]
        rooms = list(map(min, rooms, on_gpus))
    if not any(rooms) and asked.slots is None:
        there = ", ".join(f"{node.get('CPU', 0):g} and {node.get('GPU', 0):g}" for node in nodes)
        raise ValueError(
            f"no node of the Ray cluster has room for a run of {cpus} CPU(s) and {gpus:g} GPU(s); they have {there}: "
            "give less as pool.gpus_per_run or pool.threads"
        )
    count = sum(rooms) * cells if asked.slots is None else asked.count("slots", 1)
    share = {"num_cpus": cpus, "num_gpus": gpus}
    engine = functools.partial(Ray, share=share)
    return engine_pool.arrangement(asked, count, engine, on_gpu=on_gpu, jobs_per_program=cells)


def connect(address: str | None) -> list[Mapping[str, float]]:
    """Join a cluster, or start one here; returns what each of its nodes has, by resource.

    Args:
        address: `auto` for the one that this machine is a node of, or `ray://...`, `HOST:PORT`; none starts one.

    Raises:
        ValueError: Ray is not installed, or there is no such cluster.
    """
    ray = _ray()
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    # Without an address Ray would join, or look for minutes for, whatever cluster was last started on this machine.
    options |= {"address": "local", "include_dashboard": False} if address is None else {"address": address}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if not ray.is_initialized():
            ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(
            f"pool.address={address}: no Ray cluster answers there ({first}); start one with 'ray start --head', or "
            "leave pool.address out to have one on this machine"
        ) from error
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _ray() -> Any:
    try:
        import ray  # noqa: PLC0415
    except ImportError as error:
        raise ValueError("pool=ray needs Ray: pip install 'dhm-ablation[ray]'") from error
    return ray


class Ray:
    """The engine of a study, on the cluster that was joined by `connect`.

    Args:
        study: its name.
        folder: that tells studies of the same name apart.
        share: of a node that a program takes, in the words of Ray's actors.
    """

    requeue: Sequence[str] = ()

    def __init__(self, study: str, folder: Path, share: Mapping[str, float]) -> None:
        self._ray = _ray()
        self._study, self._share = study_name(study, folder), share
        self._over: dict[str, Any] = {}  # by name of an actor: a call that lasts as long as it
        self._endings: dict[str, str] = {}

    def submit(self, programs: Sequence[Agent]) -> list[str]:
        """See `Engine.submit`."""
        remote = self._ray.remote(_Host)
        named = {f"{self._study}-{program.names[0][:12]}": program for program in programs}
        for name, program in named.items():
            options = {"name": name, "namespace": self._study, "lifetime": "detached", "max_restarts": 0}
            actor = remote.options(**options, **self._share).remote()
            actor.run.remote(program)
            self._over[name] = actor.over.remote()
        return list(named)

    def look(self, numbers: Collection[str]) -> Mapping[str, bool]:
        """See `Engine.look`."""
        calls = {name: self._call(name) for name in numbers}
        return {name: False for name, call in calls.items() if call is not None and not self._has_left(name, call)}

    def _call(self, name: str) -> Any:
        if name in self._endings:
            return None
        if name not in self._over:
            try:
                self._over[name] = self._ray.get_actor(name, namespace=self._study).over.remote()
            except ValueError:  # there is no such actor
                self._endings[name] = "it is gone"
                return None
        return self._over[name]

    def _has_left(self, name: str, call: Any) -> bool:
        if not self._ray.wait([call], timeout=0)[0]:
            return False
        del self._over[name]
        try:
            self._ray.get(call)
        except self._ray.exceptions.ActorUnavailableError:
            # It may only be out of reach: asked anew, which is answered in the end by its death or its leaving.
            return False
        except self._ray.exceptions.RayError as error:
            self._endings[name] = _words(error)
        return True

    def title(self, number: str) -> str:
        """See `Engine.title`."""
        return "ray"

    def ending(self, number: str) -> str:
        """See `Engine.ending`."""
        return self._endings.get(number, "it is gone")

    def strays(self) -> Collection[str]:
        """See `Engine.strays`."""
        listed = self._ray.util.list_named_actors(all_namespaces=True)
        return [actor["name"] for actor in listed if actor["namespace"] == self._study]

    def cancel(self, numbers: Collection[str]) -> None:
        """See `Engine.cancel`."""
        for name in numbers:
            self._endings.setdefault(name, "it was cancelled")
            self._over.pop(name, None)
            try:
                self._ray.kill(self._ray.get_actor(name, namespace=self._study))
            except ValueError:  # there is no such actor
                continue
            except self._ray.exceptions.RayError as error:
                raise EngineAwayError(_words(error)) from error

    def close(self) -> None:
        """See `Engine.close`."""
        self._ray.shutdown()


class _Host:
    """An actor: calls are answered one after the other. It leaves when its program is through."""

    def run(self, program: Agent) -> None:
        program()
        _ray().actor.exit_actor()

    def over(self) -> None:
        """Refused when what was asked before is through, since then the actor has left."""


def _words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if "node" in line.lower() or "died" in line.lower()), lines[0] if lines else "")
    return f"its actor was lost: {told}"[:200] if told else "its actor was lost"
