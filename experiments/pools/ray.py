"""Ray: a detached actor runs one cell or a few, wherever the cluster has room; it lives on where its scheduler dies.

Without an address Ray is started on this machine, and ends with the scheduler.
"""

import dataclasses
import hashlib
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.pools.agent import Agent
from experiments.pools.engine import EngineAwayError

INSTALL = "pool=ray needs Ray: pip install 'dhm-ablation[ray]'"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """What a program takes of a node.

    Args:
        gpus: may be a fraction, where programs share a GPU.
    """

    cpus: float = 1
    gpus: float = 0


def connect(address: str | None, cpus: int | None = None) -> Mapping[str, float]:
    """Join a cluster, or start one here; returns what it has, by resource.

    Args:
        address: `auto` for the one that this machine is a node of, or `ray://...`, `HOST:PORT`; none starts one.
        cpus: of one that is started here.

    Raises:
        ValueError: Ray is not installed, or there is no such cluster.
    """
    ray = _ray()
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False}
    if address is not None:
        options = {"logging_level": logging.ERROR, "log_to_driver": False, "address": address}
    elif cpus is not None:
        options["num_cpus"] = cpus
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
    return dict(ray.cluster_resources())


def _ray() -> Any:
    try:
        import ray  # noqa: PLC0415
    except ImportError as error:
        raise ValueError(INSTALL) from error
    return ray


class Ray:
    """The engine of a study, on the cluster that was joined by `connect`.

    Args:
        study: its name.
        folder: that tells studies of the same name apart.
    """

    requeue: Sequence[str] = ()

    def __init__(self, study: str, folder: Path, share: Share) -> None:
        self._ray = _ray()
        self._study = f"dhm-{study}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
        self._share, self._count = share, 0
        self._over: dict[str, Any] = {}  # by name of an actor: a call that lasts as long as it
        self._endings: dict[str, str] = {}

    def submit(self, programs: Sequence[Agent]) -> list[str]:
        """See `Engine.submit`."""
        remote = self._ray.remote(_Host)
        names = []
        for program in programs:
            name = f"{self._study}-{program.names[0][:12]}"
            actor = remote.options(
                name=name,
                namespace=self._study,
                lifetime="detached",
                num_cpus=self._share.cpus,
                num_gpus=self._share.gpus,
                max_restarts=0,
            ).remote()
            actor.run.remote(program)
            self._over[name] = actor.over.remote()
            names.append(name)
        return names

    def look(self, numbers: Collection[str]) -> Mapping[str, bool]:
        """See `Engine.look`."""
        there: dict[str, bool] = {}
        for name in numbers:
            call = self._call(name)
            if call is None:
                continue
            if not self._ray.wait([call], timeout=0)[0]:
                there[name] = False
                continue
            try:
                self._ray.get(call)
            except self._ray.exceptions.ActorUnavailableError:
                # It may only be out of reach: asked anew, which is answered in the end by its death or its leaving.
                del self._over[name]
                there[name] = False
                continue
            except self._ray.exceptions.RayError as error:
                self._endings[name] = _words(error)
            del self._over[name]
        return there

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
            self._remove(name)

    def _remove(self, name: str) -> None:
        self._over.pop(name, None)
        try:
            self._ray.kill(self._ray.get_actor(name, namespace=self._study))
        except ValueError:
            return
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
