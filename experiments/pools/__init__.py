"""The pools: `pool=NAME` is the file NAME.py of this folder, found by its name. What they share is in `parts/`.

A file has the pool's settings (`Config`), what they come to (`arrange`), and what runs jobs. It is imported when it is
asked for, and light: an engine's library comes with the first call that needs it.
"""

import importlib
import pkgutil
from typing import Any, cast

from experiments.pools.parts.arrangement import Arrangement, PoolConfig


def names() -> list[str]:
    """The pools that there are; reads none of them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def config_of(name: str) -> type[PoolConfig]:
    """The settings of a pool that there is."""
    return cast(type[PoolConfig], _file(name).Config)


def arrange(asked: PoolConfig, replicas: int) -> Arrangement:
    """What the settings of a pool come to.

    Args:
        replicas: of every run.

    Raises:
        ValueError: something that is not there, or does not fit.
    """
    asked.count("threads", 1)
    if asked.workers is not None:
        asked.count("workers", 0)
    return cast(Arrangement, _file(asked.kind).arrange(asked, replicas))


def _file(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")
